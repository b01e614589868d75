/* Every C type of fastgrad on one page.
 *
 * Reading order of the whole package: ops.def (what can be computed), this page (in what it is
 * held), then in fastgrad/_core tape/elementwise.pyx (how it is recorded) and sweeps/reverse.pyx (how
 * it is differentiated).
 */
#ifndef FG_H
#define FG_H

#include <stdint.h>
#include <stddef.h>

/* What gcc is told about a loop or a function, and clang has no word for: that elements do not
 * depend on each other, that a loop stays as it is, that callers know nothing of a function. */
#if defined(__GNUC__) && !defined(__clang__)
#  define FG_IVDEP _Pragma("GCC ivdep")
#  define FG_NO_UNROLL _Pragma("GCC unroll 1")
#  define FG_OPAQUE __attribute__((noipa))
#else
#  define FG_IVDEP
#  define FG_NO_UNROLL
#  define FG_OPAQUE __attribute__((noinline))
#endif

/* ---- operators ---------------------------------------------------------------------------- */

/* What a partial derivative looks at: its operands A, B, C and the result Y. Whatever no partial
 * reads is freed as soon as the user lets go of it. */
enum { FG_NONE = 0, FG_A = 1, FG_B = 2, FG_C = 4, FG_Y = 8 };

/* Properties of an operator (column `props`). */
enum {
    FG_SMOOTH   = 1,   /* differentiable inside its domain, no kinks                              */
    FG_ANALYTIC = 2,   /* holomorphic: the complex step applies, complex numbers need no more      */
    FG_STEPS    = 4,   /* piecewise constant: all partials are zero                                */
    FG_MASK     = 8,   /* the third operand is a boolean mask and has no derivative                */
    FG_INNER    = 16,  /* a partial of another row: recorded when a derivative is itself recorded; */
                       /* has no public name                                                       */
    FG_TAME     = 32,  /* partials are finite where what they read of operands and result is       */
    FG_BESIDE   = 64,  /* the operand whose partial is 0 is no path for a derivative               */
    /* of shaped operators: */
    FG_MOVES    = 128, /* entries are moved, and repeated or added up, as they are                 */
    FG_LINEAR   = 256, /* linear in all operands at once: the tangent is the operation itself      */
    FG_BILINEAR = 512, /* linear in each of two operands, the other held: it needs both factors    */
    FG_REDUCES  = 1024, /* along axes, which its attribute names                                   */
    FG_LISTED   = 2048, /* its operands stand in its attribute, any number of them                 */
    FG_INDEXED  = 4096  /* its attribute is an index, of which parts may be computed by the program */
};

typedef enum { FG_UNARY, FG_BINARY, FG_TERNARY, FG_COMPARE, FG_SHAPED } FgKind;

/* The flat operator enum: the rows of ops.def in their order, element-wise rows first, so that an
 * element-wise operator is one whose number is below FG_ELEMENTWISE_END. */
typedef enum {
#define ELEMENTWISE(name, ...) FG_##name,
#include "ops.def"
    FG_ELEMENTWISE_END,
    FG_BEFORE_COMPARE = FG_ELEMENTWISE_END - 1,
#define COMPARE(name, ...) FG_##name,
#include "ops.def"
    FG_COMPARE_END,
    FG_BEFORE_SHAPED = FG_COMPARE_END - 1,
#define SHAPED(name, ...) FG_##name,
#include "ops.def"
    FG_OPS
} FgOp;

typedef struct FgOpInfo {
    const char *name;
    FgKind kind;
    int arity;                  /* element-wise operators; 0 for shaped ones, whose rules count    */
    unsigned props;
    unsigned reads[3];          /* what dy/da, dy/db, dy/dc look at                               */
    double low, high;           /* where tests draw operands from                                 */
    const char *value;          /* the formulas as text: valid C and valid Python                 */
    const char *partial[3];
    const char *python;         /* the dunder without underscores ("mul"), or ""                  */
    const char *numpy;          /* NumPy's names for it, comma separated                          */
    const char *doc;
} FgOpInfo;

extern const FgOpInfo fg_op_info[FG_OPS];

/* ---- dtypes ------------------------------------------------------------------------------- */

/* The numbers are NumPy's type numbers, so that no table of translation exists. Only FLOAT and
 * DOUBLE are differentiated; the others are held as data for masks, indices and counts. */
typedef enum {
    FG_BOOL = 0, FG_INT64 = 7, FG_FLOAT32 = 11, FG_FLOAT64 = 12, FG_COMPLEX64 = 14, FG_COMPLEX128 = 15
} FgDtype;

/* Bytes an element; 0: the core holds no such dtype. */
static inline int64_t fg_item(int dtype)
{
    static const uint8_t items[] = { 1, 1, 1, 2, 2, 4, 4, 8, 8, 8, 8, 4, 8 };
    return dtype == FG_FLOAT64 ? 8 : dtype < 13 ? items[dtype] : 0;
}

/* ---- kernels ------------------------------------------------------------------------------ */

/* Element kernels see contiguous memory only. Strided and broadcast operands are brought into
 * blocks of FG_BLOCK elements by the caller; that keeps a kernel one loop and the library small.
 * `y` may be the same pointer as an operand. The result of an element does not depend on n or on
 * its place: the tail goes through the same vector routine as the body. */
#define FG_BLOCK 1024

typedef void (*FgValueLoop)(const void *a, const void *b, const void *c, void *y, int64_t n);

/* out[i] = g[i] * partial(a[i], b[i], c[i], y[i]), and exactly zero where g[i] or the partial is
 * zero (the strong zero). Operands that the partial does not read may be NULL. `tie` is the weight
 * of a tie in maximum and minimum: 1/2 between arrays, 0 against a literal. */
typedef void (*FgPartialLoop)(const void *g, const void *a, const void *b, const void *c,
                              const void *y, void *out, int64_t n, double tie);

/* y[i] = a[i] <op> b[i] as a byte, 0 or 1. */
typedef void (*FgCompareLoop)(const void *a, const void *b, uint8_t *y, int64_t n);

/* Two operators in one, for programs: what lies between them is never stored. */
#define FG_FUSED_TABLE(ROW) \
    ROW(multiply_add, a * b + c) \
    ROW(multiply_subtract, a * b - c) \
    ROW(subtract_multiply, c - a * b) \
    ROW(multiply_multiply, (a * b) * c) \
    ROW(weigh_add, fg_weigh(a, b) + c) \
    ROW(weigh_subtract, fg_weigh(a, b) - c) \
    ROW(subtract_weigh, c - fg_weigh(a, b)) \
    ROW(weigh_weigh, fg_weigh(fg_weigh(a, b), c))

enum {
#define FG_FUSED_ROW(name, formula) FG_FUSED_##name,
    FG_FUSED_TABLE(FG_FUSED_ROW)
#undef FG_FUSED_ROW
    FG_FUSED_END
};

/* One set per dtype and instruction set. NULL where the partial is zero everywhere. */
typedef struct FgLoops {
    FgValueLoop value[FG_ELEMENTWISE_END];
    FgPartialLoop partial[FG_ELEMENTWISE_END][3];
    FgCompareLoop compare[FG_COMPARE_END - FG_ELEMENTWISE_END];
    FgValueLoop fused[FG_FUSED_END];
    void (*fill)(void *y, double value, int64_t n);
    void (*accumulate)(void *y, const void *x, int64_t n);              /* y[i] += x[i]             */
    void (*scale)(void *y, const void *x, double k, int64_t n);         /* y[i] = x[i] * k, plain   */
    void (*mask)(void *y, const uint8_t *x, int64_t n);                 /* bytes to 0.0 and 1.0     */
    double (*sum)(const void *x, int64_t n);        /* error as pairwise summation, or better       */
    double (*max)(const void *x, int64_t n);        /* n >= 1; NaN if any is NaN, as NumPy          */
    double (*min)(const void *x, int64_t n);
    int (*finite)(const void *x, int64_t n);        /* whether all are                              */
    int (*zeros)(const void *x, int64_t n);         /* whether any is 0                             */
} FgLoops;

/* An inner loop of a generalised ufunc; which: what it does of two things (NULL: the first). */
typedef void FgMatrixLoop(char **data, const int64_t *dims, const int64_t *steps, void *which);

typedef struct FgKernels {
    const char *isa;            /* "base", "avx2", "avx512"                                       */
    FgLoops f32, f64;
    FgMatrixLoop *solve,        /* (n,n),(n,k)->(n,k),(n,n),(n): x, factors, rows exchanged        */
        *solve_again,           /* (n,n),(n,n),(n),(n,k)->(n,k); the matrix, or its transpose      */
        *triangular,            /* (n,n),(n,k)->(n,k); the lower triangle is read, or the upper    */
        *cholesky;              /* (n,n)->(n,n); the lower factor, or the upper                    */
} FgKernels;

/* An inner loop of NumPy's, as `ufunc._get_strided_loop` hands it out. */
typedef int (*FgStridedLoop)(void *context, char *const *data, const int64_t *dimensions,
                             const int64_t *strides, void *auxdata);

typedef struct FgCallInfo {
    FgStridedLoop loop;
    void *context, *auxdata;
    unsigned char requires_pyapi, no_floatingpoint_errors;
} FgCallInfo;

/* NumPy's matrix product for float64; NULL: plain loops. Set once, when the module is imported. */
extern const FgCallInfo *fg_linalg_product;

/* The kernels in use: chosen once at import by fg_dispatch, never NULL afterwards. */
extern const FgKernels *fg_kernels;

/* name: "base", "avx2", "avx512", or NULL for the best this machine runs. Returns 0, or -1 where
 * the name is unknown or the machine (or the build) lacks it; the choice then stays as it was. */
int fg_dispatch(const char *name);
/* 1 if this machine and this build can run the named instruction set. */
int fg_isa_available(const char *name);
/* What the build was made with: "libmvec" or "own". */
const char *fg_vector_math(void);

/* ---- nodes -------------------------------------------------------------------------------- */

/* Ids: the segment's slot in the directory, then the place in the segment. */
#define FG_SEGMENT_BITS 10
#define FG_SEGMENT (1 << FG_SEGMENT_BITS)
#define FG_SEGMENTS_MAX (1 << (32 - FG_SEGMENT_BITS))
#define FG_NO_ID 0u             /* the first place of slot 0 is never handed out                   */

enum {                          /* FgNode.flags                                                   */
    FG_NEEDS_GRAD  = 1 << 0,    /* a wanted leaf feeds it                                         */
    FG_LEAF        = 1 << 1,    /* outside every tape: parameters, arguments, constants           */
    FG_PYTHON      = 1 << 2,    /* stands for a Python float                                      */
    FG_CONST_A     = 1 << 3,    /* that operand is the inline constant                            */
    FG_CONST_B     = 1 << 4,
    FG_CONST_C     = 1 << 5,
    FG_LITERAL     = 1 << 6,    /* a constant operand was written as a literal (ties, powers)     */
    FG_CONSUMED    = 1 << 7,    /* a reverse sweep has run through it and freed what it read      */
    FG_WANTED      = 1 << 8,    /* keep its adjoint: the sweep was asked for it                   */
    FG_ARGUMENT    = 1 << 9,    /* a leaf made by a transformation, not by the user               */
    FG_PENDING     = 1 << 10,   /* its value is computed with its run, when somebody looks        */
    FG_READS_SELF  = 1 << 11,   /* a partial of the node itself reads its value                   */
    FG_RETAINED    = 1 << 12,   /* retain_grad(): the adjoint goes to the handle's .grad           */
    FG_PURE        = 1 << 13,   /* a dual: made of arguments of its forward transformation alone  */
    FG_COMPUTED    = 1 << 14,   /* pending, and computed once already without being kept           */
    FG_YIELDS      = 1 << 15,   /* and gives way in promotion (NEP 50), as what functions make of */
                                /* one does not: np.sin(0.5) is a np.float64                       */
    FG_WEAK        = FG_PYTHON | FG_YIELDS,     /* what operators make of weak ones is weak       */
    /* The bits of what others never are: */
    FG_PROGRAM     = FG_PURE,   /* a leaf: the input of a program, which nobody differentiates by */
    FG_INSIDE      = FG_PURE,   /* an operation: it is known to depend on an argument of a        */
                                /* transformation,                                                */
    FG_OUTSIDE     = FG_COMPUTED,               /* ... or to depend on none; and waits no more    */
    FG_STEPPED     = FG_LITERAL,                /* a dual: it depends on its arguments by steps   */
                                                /* alone;                                         */
    FG_NO_ZERO     = FG_CONST_A,                /* ... no entry of its tangent is exactly zero;   */
    FG_ROOTED      = FG_CONST_B,                /* ... it is a root that vanishes somewhere       */
    FG_CUBED       = FG_CONST_C                 /* ... and is of third order (roots.pyx)          */
};

/* Leaves are numbered from 1, again and again. A recorded element-wise operation knows the lowest
 * and the highest number among the leaves it depends on, so that a sweep for a few leaves need not
 * enter what cannot depend on them. */
#define FG_REACH(low, high) ((uint32_t)(high) << 16 | (uint32_t)(low))
#define FG_REACH_ANY  FG_REACH(0, 0xffff)
#define FG_REACH_NONE FG_REACH(0xffff, 0)

static inline uint32_t fg_reach_both(uint32_t a, uint32_t b) {
    uint32_t low = (a & 0xffff) < (b & 0xffff) ? a & 0xffff : b & 0xffff;
    uint32_t high = a >> 16 > b >> 16 ? a >> 16 : b >> 16;
    return FG_REACH(low, high);
}

static inline int fg_reach_within(uint32_t a, uint32_t b) {
    return (a & 0xffff) >= (b & 0xffff) && a >> 16 <= b >> 16;
}

static inline int fg_reach_meets(uint32_t a, uint32_t b) {
    return (a & 0xffff) <= b >> 16 && (b & 0xffff) <= a >> 16;
}

/* A shape, shared by all nodes that have it; counted. dims has `rank` entries. */
typedef struct FgShape {
    uint32_t refs;
    int32_t rank;
    int64_t size;               /* the product of the dims                                        */
    int64_t dims[];
} FgShape;

/* The memory of a value, or a view of another's; counted. Pool chunks hold this header and, at
 * the next multiple of 64, the data. A view has no data of its own and its strides (in bytes)
 * there instead. Memory may be written to only where a single reference is left, so whoever must
 * go on seeing the present contents just keeps a reference. */
typedef struct FgValue {
    uint32_t refs;
    uint16_t size_class;        /* of the pool, from which the chunk came                         */
    uint8_t contiguous;         /* C order without gaps: strides are not kept                     */
    uint8_t uniform;            /* one element stands for all: strides are 0 and not kept         */
    char *data;
    struct FgValue *base;       /* a view: whose memory it shows, else NULL                       */
    struct FgValue *next;       /* the next free chunk, or the next of a scratch list             */
    int64_t nbytes;             /* of the data; a view: 0                                         */
    void *owner;                /* a Python object to release with the value, or NULL             */
    void *spare[2];
} FgValue;

_Static_assert(sizeof(FgValue) == 64, "the value header is one cache line");

/* The derivative of one node during a sweep: a number for a scalar, memory for an array. */
typedef union FgAdjoint { double number; FgValue *value; } FgAdjoint;

/* One recorded operation: one cache line. */
typedef struct FgNode {
    /* 0: what it is */
    uint16_t op;
    uint8_t dtype;
    uint8_t rank;
    uint16_t flags;
    uint16_t index;             /* a projection: which result; a dual: whether it has a second    */
                                /* tangent, and under which number (infinite.pyx)                 */
    /* 8: who needs it */
    uint32_t refs;              /* handles and recorded consumers: the node lives                 */
    uint32_t uses;              /* consumers that read the value: it lives (and with a handle)    */
    /* 16: what it was made of */
    union {
        struct { uint32_t a, b; };  /* (a leaf: b tells where a constant came from)               */
        FgAdjoint tangent;      /* a dual: operands it has none                                   */
    };
    uint32_t c;                 /* (a dual: which forward transformation its tangent belongs to;  */
                                /* a leaf: how deep inside transformations it was made; that of   */
                                /* an argument: by which thread)                                  */
    uint32_t attr;              /* in the attribute arena: axes, indices, long operand lists;     */
                                /* element-wise, leaves, duals: which leaves it depends on        */
                                /* (FG_REACH)                                                     */
    /* 32: the value: inline for scalars, real or complex; else shape and memory */
    union {
        struct { double re, im; };
        struct { FgShape *shape; FgValue *value; };
    };
    /* 48: a scalar constant operand; a node that is about to be freed: the next one of them */
    union { double constant; uint32_t next_dead; };
    /* 56: the Tensor that stands for it, borrowed, or NULL */
    void *handle;
} FgNode;

_Static_assert(sizeof(FgNode) == 64, "a node is one cache line");

/* The dual that a tangent stands in. */
static inline FgNode *fg_dual_of(FgAdjoint *tangent) {
    return (FgNode *)(void *)((char *)tangent - offsetof(FgNode, tangent));
}

/* Whether it is a recorded float64 scalar that nothing has happened to: what most scalar code
 * consists of, decided by one comparison. */
static inline int fg_plain_scalar(const FgNode *n) {
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    uint64_t head;
    const uint64_t flags = (uint64_t)(FG_NEEDS_GRAD | FG_CONSUMED) << 32;
    __builtin_memcpy(&head, n, 8);
    return (head & (flags | 0xffff0000u)) ==
           ((uint64_t)FG_NEEDS_GRAD << 32 | (uint64_t)FG_FLOAT64 << 16);
#else
    return n->rank == 0 && n->dtype == FG_FLOAT64 &&
           (n->flags & (FG_NEEDS_GRAD | FG_CONSUMED)) == FG_NEEDS_GRAD;
#endif
}

/* A thousand nodes and what a sweep needs beside them. Nodes of a tape stand in the order of
 * recording, segment after segment, so that operands always come before their consumers; a
 * segment is recycled whole when its last node dies. */
typedef struct FgSegment {
    struct FgTape *tape;        /* NULL: a segment of leaves                                      */
    struct FgSegment *before, *after;
    struct FgSegment *emptied;  /* the next segment that a sweep has emptied                      */
    FgNode *nodes;              /* FG_SEGMENT of them, 64-byte aligned                            */
    FgAdjoint *adjoints;        /* FG_SEGMENT of them once a sweep has been here, else NULL       */
    uint64_t sequence;          /* grows along the tape                                           */
    uint32_t slot;
    uint32_t used, live;        /* places handed out; of these, alive                             */
    uint32_t listed;            /* among the emptied ones                                         */
    uint32_t marked;            /* nodes that the sweep has reached and not yet run through       */
    uint64_t marks[FG_SEGMENT / 64];    /* which they are                                         */
    uint64_t feeds[FG_SEGMENT / 64];    /* nodes that a wanted leaf feeds (pruning)               */
} FgSegment;

/* How many recorded element-wise results may wait for their values at once. */
#define FG_RUN 48

typedef struct FgTape {
    FgSegment *first, *last;    /* last: where nodes are appended                                 */
    FgSegment *emptied;         /* to be recycled when the sweep that walks over them has ended    */
    int64_t live;               /* nodes                                                          */
    uint64_t sequence;          /* of the newest segment                                          */
    uint32_t consumed;          /* consumed nodes that may still be reached from others           */
    uint32_t busy;              /* inside a sweep: handles that are dropped go on the queue       */
    uint32_t waiting;           /* entries of run in use                                          */
    uint32_t run[FG_RUN];       /* nodes whose values are pending, oldest first; 0: died          */
    uint32_t *queue;            /* handles dropped while busy                                     */
    uint32_t queued, queue_size;
    uint64_t thread;            /* of the owner, for error messages                               */
    int orphan;                 /* its thread has ended                                           */
    int stale;                  /* something was recorded on a Tensor whose own graph is gone      */
    uint32_t customs;           /* living nodes with a rule of the user's, which may run Python    */
    uint32_t rules;             /* of these, those that may be a part of a sweep with numbers      */
    uint32_t steps;             /* steps (floor, sign) recorded since a sweep left the tape empty  */
    int streaming;              /* forward mode in constant memory: at which depth, or 0           */
    uint32_t held;              /* graphs in use: the stream must leave operations as they are     */
    uint32_t stream;            /* which forward transformation that is                           */
    uint64_t streamed;          /* segments before this one have their tangents                   */
    int64_t stream_bytes;       /* of array results that wait for their tangents                  */
    uint32_t stream_reach;      /* the leaves that its arguments are (FG_REACH)                   */
    uint32_t duals;             /* living duals that depend on more than these                    */
    struct FgTape *spare;       /* where Python rules record while a sweep of this one waits       */
} FgTape;

#endif
