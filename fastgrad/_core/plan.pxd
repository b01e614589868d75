from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fastgrad._core.fg cimport (
    FG_GRAPH_INPUT, FG_GRAPH_LITERAL, FG_GRAPH_MANY, FG_GRAPH_WEAK, FG_GUARD_BOOL, FG_GUARD_COUNT,
    FG_GUARD_FINITE, FG_GUARD_INT, FG_INDEX_INT, FG_INDEX_NEW, FG_INDEX_SLICE,
    FgCallInfo, FgGraphNode, FgKernels, FgOpInfo)

cdef extern from "vm.h" nogil:
    enum: FG_call
    ctypedef struct FgDims:
        int32_t rank
        int64_t size
        const int64_t *dims
    enum: FG_ATTR_NONE, FG_ATTR_NUMBERS, FG_ATTR_DATA, FG_ATTR_LOOP, FG_ATTR_ROWS, FG_ATTR_PYTHON
    ctypedef struct FgAttribute:
        int32_t kind, count
        const int64_t *numbers
        const void *data
    ctypedef struct FgGuardRow:
        int32_t node, kind
        int64_t outcome
    ctypedef struct FgSource:
        const FgGraphNode *nodes
        int64_t count
        const int32_t *operands
        const FgDims *shapes
        int64_t shape_count
        const FgAttribute *attributes
        const int32_t *inputs
        const int32_t *outputs
        int64_t input_count, output_count
        const FgGuardRow *guards
        int64_t guard_count
        const FgKernels *kernels
        int threads_from
    enum: FG_PLACE_INPUT, FG_PLACE_CONSTANT, FG_PLACE_OUTPUT, FG_PLACE_FRAME
    ctypedef struct FgPlace:
        int32_t kind, which, node, first, last
        int64_t nbytes, offset
    ctypedef struct FgOperand:
        int32_t place
        uint32_t reg
        uint8_t dtype
        int32_t rank
        int64_t size, offset
        const int64_t *dims
        const int64_t *strides
        int32_t node
    enum: FG_BLOCK_AND, FG_BLOCK_OR, FG_BLOCK_XOR, FG_BLOCK_NOT
    enum: FG_BLOCK_FINITE, FG_CALL_ALL_FINITE, FG_CALL_WEIGHTS
    ctypedef struct FgBlockInput:
        FgOperand from_ "from"
        uint8_t direct
    ctypedef struct FgBlockOutput:
        int32_t place
    ctypedef struct FgBlockRun:
        int64_t size
        int32_t length, op_count, input_count, output_count, sum_count
        uint32_t registers
        uint8_t shared
        FgBlockInput *inputs
        FgBlockOutput *outputs
    enum: FG_STEP_SCALARS, FG_STEP_BLOCKS, FG_STEP_COPY, FG_STEP_LOAD, FG_STEP_PACK
    enum: FG_STEP_PYTHON, FG_STEP_GUARD, FG_STEP_FINITE, FG_STEP_WEIGHTS
    enum: FG_INNER_OPERANDS, FG_INNER_AXES
    ctypedef struct FgInner:
        const FgCallInfo *info
        int32_t operands, results, axes, first, which
        int64_t lanes, lane, room
        int64_t *dims
        int64_t *steps
        int64_t *lengths
        int64_t *strides
        int64_t *at
    ctypedef struct FgPlan
    ctypedef struct FgStep:
        uint8_t kind, dtype
        uint16_t op
        int32_t node, count
        int64_t work
        FgOperand out
        FgOperand *in_ "in"
        FgBlockRun *blocks
        const FgInner *inner
        int32_t nodes, node_count
    ctypedef struct FgLoop:
        const FgPlan *body
        const FgPlan *condition
        void *body_owner
        void *condition_owner
        int32_t carries, sequences, constants
        int64_t length
        int32_t reverse
        int64_t scratch
    ctypedef struct FgPlan:
        int64_t node_count, kept_count
        FgStep *steps
        int32_t step_count
        int32_t *order
        FgPlace *places
        int32_t place_count
        uint32_t registers
        int64_t frame_bytes, bound, work, block_bytes
        FgOperand *inputs
        FgOperand *outputs
        int32_t *output_place
        int32_t input_count, output_count, loop_count
        int32_t folded, merged
        const char *error
    ctypedef struct FgFrame
    ctypedef struct FgLoopFrame:
        FgFrame *body
        FgFrame *condition
    ctypedef struct FgFrame:
        FgFrame *next
        FgFrame *root
        FgLoopFrame *loops
        int stop
        int32_t broken
        const FgPlan *broken_plan
        const FgPlan *plan
        double *registers
        char **memory
        void *owner
        void *objects
    ctypedef int (*FgPythonStep)(FgFrame *, const FgStep *) noexcept nogil
    const FgKernels **fg_vm_kernels
    const FgCallInfo *fg_vm_matmul[2]
    FgPythonStep fg_vm_python
    int (*fg_vm_signals)(FgFrame *) noexcept nogil
    int64_t fg_loop_scratch(const FgLoop *)
    enum: FG_RUN_DONE, FG_RUN_ERROR
    FgPlan *fg_plan_new(const FgSource *)
    const char fg_plan_no_memory[]
    void fg_plan_free(FgPlan *)
    const char *fg_plan_verify(const FgPlan *)
    FgFrame *fg_frame_new(const FgPlan *)
    void fg_frame_free(FgFrame *)
    int fg_run(FgFrame *)
    void fg_operand_copy(FgFrame *, const FgOperand *, char *)
    int64_t fg_item(int)
