/* Plans: graphs made ready to run, and the frames they run in.
 *
 * Reading order: this page, plan/plan.c (from a graph to a plan), run/run.c (running one). What is
 * Python about them stands in fastgrad/_core/program.pyx.
 */
#ifndef FG_VM_H
#define FG_VM_H

#include "fg.h"
#include "graph.h"
#include "pool.h"
#include "reduce.h"
#include "vm_scalar.h"

/* ---- graphs (rows: graph.h) --------------------------------------------------------------- */

typedef struct FgDims {
    int32_t rank;
    int64_t size;
    const int64_t *dims;
} FgDims;

/* An attribute in numbers. By operator: a transposition's axes; the mask of reduced or flipped
 * axes; an index as (kind, start, step, count) an axis; the axis of a concatenation, or -1 for
 * packing; a constant's data; an FgLoop. ROWS: the
 * entries along axis 0, int64: `data`, or the last operand. PYTHON: only NumPy knows how. */
enum { FG_ATTR_NONE, FG_ATTR_NUMBERS, FG_ATTR_DATA, FG_ATTR_LOOP, FG_ATTR_ROWS, FG_ATTR_PYTHON };

typedef struct FgAttribute {
    int32_t kind;
    int32_t count;
    const int64_t *numbers;
    const void *data;
} FgAttribute;

typedef struct FgGuardRow {
    int32_t node, kind;
    int64_t outcome;
} FgGuardRow;

/* What a planner is given. Node attributes are numbers of `attributes`, equal ones once. */
typedef struct FgSource {
    const FgGraphNode *nodes;
    int64_t count;
    const int32_t *operands;
    const FgDims *shapes;
    int64_t shape_count;
    const FgAttribute *attributes;
    const int32_t *inputs, *outputs;
    int64_t input_count, output_count;
    const FgGuardRow *guards;
    int64_t guard_count;
    const FgKernels *kernels;
    int threads_from;           /* elements from which a run is shared among threads             */
} FgSource;

/* ---- plans -------------------------------------------------------------------------------- */

/* Where an array lives: which piece of memory, in a frame's list of them. */
enum { FG_PLACE_INPUT, FG_PLACE_CONSTANT, FG_PLACE_OUTPUT, FG_PLACE_FRAME };

typedef struct FgPlace {
    int32_t kind;
    int32_t which;              /* which input or output                                         */
    int32_t node;               /* whose value                                                   */
    int32_t first, last;        /* steps between which it is needed                              */
    int64_t nbytes;
    int64_t offset;             /* in the frame                                                  */
    const void *data;           /* a constant's                                                  */
} FgPlace;

/* How a value is found: a number in a register, or memory seen with some strides. A number that
 * stands for a whole array has rank > 0 and no strides to speak of. */
typedef struct FgOperand {
    int32_t place;              /* -1: a register                                                */
    uint32_t reg;
    uint8_t dtype;
    uint8_t contiguous;
    int32_t rank;
    int64_t size, offset;
    const int64_t *dims, *strides;      /* strides in bytes                                      */
    int32_t node;
} FgOperand;

/* Operators of blocks that no graph has. */
enum {
    FG_BLOCK_GATHER = FG_OPS,   /* a: which input; strided or broadcast memory                    */
    FG_BLOCK_MASK,              /* bytes to 0.0 and 1.0                                           */
    FG_BLOCK_WIDEN, FG_BLOCK_NARROW, FG_BLOCK_WHOLE,        /* float to double, back; int64      */
    FG_BLOCK_TRUTH,             /* number to byte                                                 */
    FG_BLOCK_AND, FG_BLOCK_OR, FG_BLOCK_XOR, FG_BLOCK_NOT,  /* of bytes                          */
    FG_BLOCK_FINITE,
    FG_CALL_ALL_FINITE,         /* of an array: a step of its own                                 */
    FG_CALL_WEIGHTS,            /* the partials of max, min, logsumexp: which, which axes      */
    FG_BLOCK_SUM,               /* b: which sum                                                   */
    FG_BLOCK_FUSED              /* and FG_FUSED_...: two operators in one                         */
};

typedef struct FgBlockOp {
    uint16_t op;
    uint8_t dtype, item;        /* item: bytes of an element of the result                        */
    uint32_t y, a, b, c;        /* block registers                                                */
} FgBlockOp;

typedef struct FgBlockInput {
    FgOperand from;
    FgWalk walk;
    uint32_t reg;
    uint8_t direct;             /* read in place; else gathered, or filled before the run         */
    uint8_t item;
} FgBlockInput;

typedef struct FgBlockOutput {
    int32_t place;
    uint32_t reg;
    uint8_t item;
} FgBlockOutput;

/* A sum of the lanes of a block register: of all of them to a register, or along axes to memory
 * of doubles, which is then narrowed. */
typedef struct FgBlockSum {
    uint8_t dtype, all;
    uint32_t reg;               /* of the frame                                                   */
    int32_t place, wide;        /* the result's memory, and the doubles (the same for float64)    */
    int64_t size;               /* of the result                                                  */
    FgWalk walk;
} FgBlockSum;

/* A sum in the making, added in the order of the kernel's `sum` and, beyond it, in pairs: the bits
 * do not depend on where blocks begin. */
typedef struct FgTotal {
    double lane[16];
    int64_t filled;             /* of a block of 512                                              */
    FgPairs blocks;
} FgTotal;

typedef struct FgBlockRun {
    int64_t size;
    int32_t length;             /* lanes of a block                                               */
    int32_t op_count, input_count, output_count, sum_count;
    uint32_t registers;
    uint8_t shared;             /* parts may run in different threads                             */
    FgBlockOp *ops;
    FgBlockInput *inputs;
    FgBlockOutput *outputs;
    FgBlockSum *sums;
} FgBlockRun;

enum {
    FG_STEP_SCALARS, FG_STEP_BLOCKS, FG_STEP_ROWS, FG_STEP_MATMUL, FG_STEP_COPY, FG_STEP_LOAD,
    FG_STEP_PACK, FG_STEP_FINITE, FG_STEP_WEIGHTS,
    FG_STEP_ROWS_AT, FG_STEP_LOOP, FG_STEP_PYTHON, FG_STEP_GUARD
};

typedef struct FgCopy {         /* part of a copying step: into a window of the result            */
    FgOperand from, to;
} FgCopy;

/* A graph that is run again and again: fastgrad.graphs.graph.Loop. */
typedef struct FgLoop {
    const struct FgPlan *body, *condition;
    void *body_owner, *condition_owner;
    int32_t carries, sequences, constants;
    int64_t length;             /* -1: as long as the condition holds                             */
    int32_t reverse;
    int64_t scratch;            /* bytes: two buffers for each carry, a row for each output       */
} FgLoop;

/* A call of an operator of matrices by the inner loop of a generalised ufunc, all but the memory. */
enum { FG_INNER_OPERANDS = 8, FG_INNER_AXES = 8 };  /* results are operands; axes before the core's */
typedef struct FgInner {
    const FgCallInfo *info;
    int32_t operands, results, axes;
    int32_t first, which;       /* the step that computes all results; the one that is wanted     */
    int64_t lanes, lane;        /* how many, and elements of the first result in each             */
    int64_t dims[1 + 2 * FG_INNER_OPERANDS], steps[3 * FG_INNER_OPERANDS];
    int64_t lengths[FG_INNER_AXES], strides[FG_INNER_OPERANDS * FG_INNER_AXES];
    int64_t at[FG_INNER_OPERANDS], room;    /* of several results: where in which memory          */
} FgInner;

typedef struct FgStep {
    uint8_t kind, dtype;
    uint16_t op;
    int32_t node;               /* of the graph; a guard: its number                              */
    int32_t level;
    int32_t count;              /* of operands, copies, loads                                     */
    int64_t work;               /* about how many elements go through it                          */
    FgOperand out;
    FgOperand *in;
    union {
        FgScalarCode *scalars;
        FgBlockRun *blocks;
        FgCopy *copies;
        struct { const int64_t *places; int64_t place_count, width; };  /* rows of an array      */
        struct { const FgLoop *loop; FgOperand *results; int32_t loop_number; };
        struct { int64_t outcome; int32_t guard_kind; };
        const FgInner *inner;       /* what NumPy computes, without Python; NULL: with it         */
        /* Rows of an operand, and of the result; a place to work. */
        struct { FgWalk walk, back; int64_t rows, length; int32_t extra; };
    };
    uint8_t zero;               /* a copying step: the rest is 0                                  */
    int32_t nodes, node_count;  /* where its nodes stand in FgPlan.order                          */
} FgStep;

typedef struct FgChunk {        /* of memory that lives as long as a plan, or a planning          */
    _Alignas(16) struct FgChunk *next;
    size_t used, size;
} FgChunk;

typedef struct FgPlan {
    FgChunk *memory;
    int64_t node_count, kept_count;
    FgStep *steps;
    int32_t step_count;
    int32_t *order;             /* the nodes of the steps                                         */
    FgPlace *places;
    int32_t place_count;
    uint32_t registers;
    double *numbers;            /* what the registers hold at first: constants                    */
    int64_t frame_bytes, bound; /* of the arrays of a frame; no order of them could do with less  */
    int64_t work;
    int64_t block_bytes;        /* the most that a block run needs beside                         */
    FgOperand *inputs, *outputs;
    int32_t *output_place;      /* where an output is written to directly, or -1: copied          */
    int32_t input_count, output_count, loop_count;
    int32_t folded, merged;
    const char *error;
} FgPlan;

FgPlan *fg_plan_new(const FgSource *source);
void fg_plan_free(FgPlan *plan);
/* NULL, or what is wrong with it. */
const char *fg_plan_verify(const FgPlan *plan);
extern const char fg_plan_no_memory[];    /* what it says where it could not look */

/* ---- frames ------------------------------------------------------------------------------- */

typedef struct FgLoopFrame {
    struct FgFrame *body, *condition;
    char *scratch;
} FgLoopFrame;

typedef struct FgFrame {
    struct FgFrame *next;
    struct FgFrame *root;       /* of the run: itself, unless it belongs to a loop                */
    FgLoopFrame *loops;
    int64_t since;              /* work since signals were looked at                              */
    int stop;                   /* somebody wants the run to end                                  */
    int32_t broken;             /* in a loop: the guard that does not hold, or -1                 */
    const struct FgPlan *broken_plan;
    const FgPlan *plan;
    double *registers;
    char **memory;              /* by place                                                       */
    char *arrays;
    char *blocks[FG_THREADS_MAX];       /* block registers of each thread, made when needed       */
    char **rooms;               /* by step: the results of an FgInner that has several            */
    void *owner;                /* what Python steps need: the Plan, and a dict of objects        */
    void *objects;
} FgFrame;

enum { FG_RUN_DONE = -1, FG_RUN_ERROR = -2 };

typedef int (*FgPythonStep)(FgFrame *frame, const FgStep *step);
/* Set once, when the module is imported. */
extern const FgKernels **fg_vm_kernels;
extern const FgCallInfo *fg_vm_matmul[2];
extern FgPythonStep fg_vm_python;
extern int (*fg_vm_signals)(FgFrame *root);     /* 1: the run is to end                           */

FgFrame *fg_frame_new(const FgPlan *plan);
void fg_frame_free(FgFrame *frame);
/* FG_RUN_DONE, FG_RUN_ERROR, or the number of the guard that does not hold. */
int fg_run(FgFrame *frame);
/* The elements of an operand in C order, to contiguous memory. */
void fg_operand_copy(FgFrame *frame, const FgOperand *x, char *out);
int64_t fg_loop_scratch(const FgLoop *loop);
int64_t fg_block_bytes(const FgBlockRun *run);
double fg_number_at(const char *p, int dtype);

#endif
