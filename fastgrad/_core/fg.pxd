"""What the C storey declares, for Cython: see src/fg.h, where the comments are."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "alloc.h" nogil:
    enum: FG_CHECKS
    bint fg_fails()
    void fg_fail_from(int64_t, int64_t)
    int64_t fg_asked()
    int64_t fg_blocks()
    void *fg_counts()
    void fg_counts_share(void *)
    void *fg_malloc(size_t)
    void *fg_calloc(size_t, size_t)
    void fg_free(void *)
    void *fg_grown(void *, int64_t *, size_t)
    void *fg_chunk(int64_t)
    void fg_chunk_free(void *)

cdef extern from "graph.h" nogil:
    const char FG_GRAPH_LAYOUT[]
    enum: FG_GRAPH_INPUT, FG_GRAPH_WEAK, FG_GRAPH_LITERAL, FG_GRAPH_MANY, FG_GRAPH_STOP
    enum: FG_INDEX_INT, FG_INDEX_SLICE, FG_INDEX_NEW, FG_INDEX_FIELDS
    enum: FG_GUARD_BOOL, FG_GUARD_INT, FG_GUARD_COUNT, FG_GUARD_FINITE
    ctypedef struct FgGraphNode:
        uint16_t op
        uint8_t dtype, rank
        uint32_t flags
        int32_t a, b, c
        uint32_t shape, attr, line
        double constant

cdef extern from "fg.h" nogil:
    enum: FG_NONE, FG_A, FG_B, FG_C, FG_Y
    enum: FG_SMOOTH, FG_ANALYTIC, FG_STEPS, FG_MASK, FG_INNER, FG_TAME, FG_BESIDE
    enum: FG_MOVES, FG_LINEAR, FG_BILINEAR, FG_REDUCES, FG_LISTED, FG_INDEXED
    enum: FG_COMPARE, FG_SHAPED
    enum: FG_ELEMENTWISE_END, FG_COMPARE_END, FG_OPS
    enum: FG_BLOCK, FG_SEGMENT_BITS, FG_SEGMENT, FG_SEGMENTS_MAX, FG_NO_ID, FG_RUN
    enum: FG_BOOL, FG_INT64, FG_FLOAT32, FG_FLOAT64
    int64_t item_size "fg_item"(int dtype)
    enum:
        FG_NEEDS_GRAD, FG_LEAF, FG_WEAK, FG_CONST_A, FG_CONST_B, FG_CONST_C, FG_LITERAL
        FG_CONSUMED, FG_WANTED, FG_ARGUMENT, FG_PENDING, FG_READS_SELF, FG_RETAINED
        FG_PURE, FG_COMPUTED, FG_PYTHON, FG_YIELDS
        FG_PROGRAM, FG_INSIDE, FG_OUTSIDE, FG_STEPPED, FG_NO_ZERO, FG_ROOTED, FG_CUBED
    # Operators that the core treats by name; all others it knows by their row alone.
    enum:
        FG_add, FG_subtract, FG_multiply, FG_divide, FG_power, FG_mod, FG_floor_divide
        FG_negative, FG_positive, FG_abs, FG_rint, FG_floor, FG_ceil, FG_trunc
        FG_less, FG_less_equal, FG_equal, FG_not_equal
        FG_greater, FG_greater_equal, FG_maximum, FG_minimum, FG_where, FG_exp, FG_square, FG_weigh
        FG_chain, FG_settle, FG_root_of, FG_as_written, FG_sqrt, FG_cbrt, FG_hypot
        FG_leaf, FG_reshape, FG_transpose, FG_broadcast, FG_flip, FG_item, FG_gather, FG_scatter
        FG_assign, FG_cast, FG_concatenate, FG_sum, FG_prod, FG_max, FG_min, FG_logsumexp
        FG_matmul, FG_place, FG_custom, FG_call, FG_result, FG_dual

    ctypedef struct FgOpInfo:
        const char *name
        int kind
        int arity
        unsigned int props
        unsigned int reads[3]
        double low, high
        const char *value
        const char *partial[3]
        const char *python
        const char *numpy
        const char *doc

    const FgOpInfo fg_op_info[]

    ctypedef void (*FgValueLoop)(const void *, const void *, const void *, void *,
                                 int64_t) noexcept nogil
    ctypedef void (*FgPartialLoop)(const void *, const void *, const void *, const void *,
                                   const void *, void *, int64_t, double) noexcept nogil
    ctypedef void (*FgCompareLoop)(const void *, const void *, uint8_t *, int64_t) noexcept nogil

    ctypedef struct FgLoops:
        FgValueLoop value[1]
        FgPartialLoop partial[1][3]
        FgCompareLoop compare[1]
        void (*fill)(void *, double, int64_t) noexcept nogil
        void (*accumulate)(void *, const void *, int64_t) noexcept nogil
        void (*scale)(void *, const void *, double, int64_t) noexcept nogil
        void (*mask)(void *, const uint8_t *, int64_t) noexcept nogil
        double (*sum)(const void *, int64_t) noexcept nogil
        double (*max)(const void *, int64_t) noexcept nogil
        double (*min)(const void *, int64_t) noexcept nogil
        bint (*finite)(const void *, int64_t) noexcept nogil
        bint (*zeros)(const void *, int64_t) noexcept nogil

    ctypedef int (*FgStridedLoop)(void *, char **, const int64_t *, const int64_t *, void *) noexcept nogil
    ctypedef struct FgCallInfo:
        FgStridedLoop loop
        void *context
        void *auxdata
        unsigned char requires_pyapi

    ctypedef void FgMatrixLoop(char **, const int64_t *, const int64_t *, void *) noexcept
    ctypedef struct FgKernels:
        const char *isa
        FgLoops f32, f64
        FgMatrixLoop *solve
        FgMatrixLoop *solve_again
        FgMatrixLoop *triangular
        FgMatrixLoop *cholesky

    const FgKernels *fg_kernels
    const FgCallInfo *fg_linalg_product
    int fg_dispatch(const char *name)
    int fg_isa_available(const char *name)
    const char *fg_vector_math()

    ctypedef struct FgShape:
        uint32_t refs
        int32_t rank
        int64_t size
        int64_t dims[1]

    ctypedef struct FgValue:
        uint32_t refs
        uint16_t size_class
        uint8_t contiguous
        uint8_t uniform
        char *data
        FgValue *base
        FgValue *next
        int64_t nbytes
        void *owner

    ctypedef union FgAdjoint:
        double number
        FgValue *value

    ctypedef struct FgNode:
        uint16_t op
        uint8_t dtype
        uint8_t rank
        uint16_t flags
        uint16_t index
        uint32_t refs
        uint32_t uses
        uint32_t a, b, c
        FgAdjoint tangent
        uint32_t attr
        double re, im
        FgShape *shape
        FgValue *value
        double constant
        uint32_t next_dead
        void *handle

    bint fg_plain_scalar(const FgNode *)
    FgNode *fg_dual_of(FgAdjoint *)
    enum: FG_REACH_ANY, FG_REACH_NONE
    uint32_t FG_REACH(uint32_t, uint32_t)
    uint32_t fg_reach_both(uint32_t, uint32_t)
    bint fg_reach_meets(uint32_t, uint32_t)
    bint fg_reach_within(uint32_t, uint32_t)

    ctypedef struct FgTape

    ctypedef struct FgSegment:
        FgTape *tape
        FgSegment *before
        FgSegment *after
        FgSegment *emptied
        FgNode *nodes
        FgAdjoint *adjoints
        uint64_t sequence
        uint32_t slot
        uint32_t used, live, listed, marked
        uint64_t marks[1]
        uint64_t feeds[1]

    ctypedef struct FgTape:
        FgSegment *first
        FgSegment *last
        FgSegment *emptied
        int64_t live
        uint64_t sequence
        uint32_t consumed
        uint32_t busy
        uint32_t waiting
        uint32_t run[1]
        uint32_t *queue
        uint32_t queued, queue_size
        uint64_t thread
        int orphan
        int stale
        uint32_t customs, rules, steps
        int streaming
        uint32_t held, stream
        uint64_t streamed
        int64_t stream_bytes
        uint32_t stream_reach, duals
        FgTape *spare


cdef extern from "walk.h" nogil:
    ctypedef struct FgWalk:
        pass
    void fg_strides_plain(int32_t, const int64_t *, int64_t, int64_t *)
    void fg_strides_broadcast(int32_t, int32_t, const int64_t *, const int64_t *, int64_t *)
    int64_t fg_index_apply(const int64_t *, int64_t, const int64_t *, int64_t *)
    FgWalk fg_walk_over(int32_t, const int64_t *, const int64_t *, int64_t *, int64_t *)
    FgWalk fg_walk_rows(int32_t, const int64_t *, const int64_t *, uint64_t, int64_t *, int64_t *,
                        int64_t *, int64_t *)
    void fg_walk_gather(const FgWalk *, char *, int64_t, int64_t, char *, int64_t)
    void fg_walk_sum(const FgWalk *, char *, int64_t, int64_t, const void *, int, const FgLoops *)
    void fg_walk_add(const FgWalk *, char *, int64_t, int64_t, const void *, int, const FgLoops *)

cdef extern from "reduce.h" nogil:
    ctypedef struct Total "FgPairs":
        int64_t count
    void total_add "fg_pairs_add"(Total *, double)
    double total_value "fg_pairs_value"(const Total *)
    int64_t fg_rows_together(int64_t)
    void entry_set "fg_entry_set"(char *, int64_t, double, bint)
    void fg_rows_reduce(int, const FgLoops *, char *, int64_t, int64_t, double *, char *, int64_t,
                        bint)
    void fg_rows_weigh(int, const FgLoops *, char *, int64_t, int64_t, double *, const char *,
                       int64_t, bint)

cdef extern from "scalar.h" nogil:
    double fg_value(int op, int dtype, double a, double b, double c)
    double fg_partial(int op, int which, int dtype, double a, double b, double c, double y,
                      double tie)
    int fg_compare(int op, int dtype, double a, double b)
