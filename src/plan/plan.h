/* What the passes of the planner share: the planner, small functions that look at nodes, and what
 * one file calls of another. Read plan.c first: the passes in their order. */
#ifndef FG_PLAN_H
#define FG_PLAN_H

#include <setjmp.h>
#include <string.h>

#include "vm.h"

enum { UNIFORM = 1u << 16 };        /* a leaf: all entries are the number in `constant`           */

/* What is to be done for a node: a part of a step of that kind, or nothing, or part of a block run. */
enum { K_LEAF = FG_STEP_GUARD + 1, K_VIEW, K_RESULT, K_LANES, K_SUM };

/* Where a value is: in the memory of the node `base`, or the number that node `base` is. */
typedef struct Spot {
    int32_t base;
    uint8_t number, contiguous;
    int64_t offset;
    const int64_t *strides;
} Spot;

/* A step in the making. */
typedef struct Group {
    int32_t level, before;          /* before: the group of the same space made before this one   */
    int64_t space;                  /* how many elements its nodes have; below 0: see SPACE_...   */
    int32_t after;                  /* a guard that must come first, or -1                        */
    int32_t node, last;             /* its first and its last node                                */
    uint8_t kind;
    int32_t place;                  /* in the order of execution                                  */
} Group;

enum { SPACE_SCALARS = -1, SPACE_LOADS = -2, SPACE_ALONE = -3 };

typedef struct Planner {
    jmp_buf out_of_memory;
    FgChunk *temporary;
    FgPlan *plan;
    const FgSource *source;
    const FgLoops *f32, *f64;
    int64_t count;
    FgGraphNode *nodes;
    int32_t *operands;
    int32_t *same, *group, *place, *reg;
    uint8_t *needed, *kind, *outside;
    uint8_t *again;                 /* 1: computed in each run that needs it, not stored; 2: kept */
    Spot *spots;
    Group *groups;
    int32_t group_count, step_count;
    int32_t *order;                 /* groups in order of execution                               */
    int32_t *table;                 /* of merged nodes                                            */
    int32_t mask;
    struct { int64_t space; int32_t newest; } *spaces;
    int32_t space_mask;
} Planner;

/* ---- memory: graph.c ---------------------------------------------------------------------- */

/* Zeros, which live as long as the chunks do. */
void *plan_take(Planner *p, FgChunk **chunks, size_t nbytes);
void plan_chunks_free(FgChunk *chunk);

#define SCRATCH(type, n) ((type *)plan_take(p, &p->temporary, sizeof(type) * (size_t)((n) + 1)))
#define KEEP(type, n) ((type *)plan_take(p, &p->plan->memory, sizeof(type) * (size_t)((n) + 1)))

/* ---- looking at nodes --------------------------------------------------------------------- */

static inline int is_float(int dtype) { return dtype == FG_FLOAT64 || dtype == FG_FLOAT32; }
/* What a register can hold. */
static inline int is_number(int dtype) { return is_float(dtype) || dtype == FG_BOOL; }
static inline int is_value(int op) { return op < FG_ELEMENTWISE_END; }
static inline int is_compare(int op) { return op >= FG_ELEMENTWISE_END && op < FG_COMPARE_END; }
static inline const FgDims *dims_of(const Planner *p, int32_t i)
{
    return &p->source->shapes[p->nodes[i].shape];
}
static inline const FgAttribute *attribute_of(const Planner *p, int32_t i)
{
    return &p->source->attributes[p->nodes[i].attr];
}

/* The operands of a node, at most 3 of them copied to `few`. */
static inline int32_t operands_of(const Planner *p, int32_t i, int32_t *few, int32_t **list)
{
    FgGraphNode *n = &p->nodes[i];
    if (n->flags & FG_GRAPH_MANY) {
        *list = p->operands + n->a;
        return n->b;
    }
    int32_t count = 0;
    if (n->a >= 0) few[count++] = n->a;
    if (n->b >= 0) few[count++] = n->b;
    if (n->c >= 0) few[count++] = n->c;
    *list = few;
    return count;
}

static inline int is_constant(const Planner *p, int32_t i)
{
    return p->nodes[i].op == FG_leaf && (p->nodes[i].flags & UNIFORM);
}

static inline int is_the_number(const Planner *p, int32_t i, double value)
{
    return i >= 0 && is_constant(p, i) && memcmp(&p->nodes[i].constant, &value, 8) == 0;
}

/* Whether x shows all of its base's memory, in order. */
static inline int is_whole(const Planner *p, int32_t x)
{
    const Spot *s = &p->spots[x];
    return s->contiguous && s->offset == 0 && dims_of(p, x)->size == dims_of(p, s->base)->size;
}

/* Whether a consumer in group g finds operand x among the values that the group is just working on:
 * in a block register, or in a register of the scalar string. */
static inline int is_inside(const Planner *p, int32_t x, int32_t g)
{
    int32_t base = p->spots[x].base;
    if (p->group[base] != g) return 0;
    if (p->kind[base] == FG_STEP_SCALARS) return p->groups[g].space == SPACE_SCALARS;
    return p->kind[base] == K_LANES && is_whole(p, x);
}

/* Where a basic index begins, and its strides. */
static inline int64_t index_apply(const FgAttribute *x, const int64_t *own, int64_t *strides)
{
    return fg_index_apply(x->numbers, x->count / FG_INDEX_FIELDS, own, strides);
}

static inline int64_t *strides_new(Planner *p, int32_t rank) { return KEEP(int64_t, rank); }

static inline uint32_t register_of(Planner *p, int32_t base)
{
    if (p->reg[base] < 0) p->reg[base] = (int32_t)p->plan->registers++;
    return (uint32_t)p->reg[base];
}

static inline uint64_t mix(uint64_t h, uint64_t x)
{
    h = (h ^ x) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}

static inline int64_t work_of(double work) { return work < 1e15 ? (int64_t)work : (int64_t)1e15; }

/* ---- the passes --------------------------------------------------------------------------- */

void plan_mark_needed(Planner *p);          /* graph.c                                            */
void plan_simplify_all(Planner *p);         /* simplify.c                                         */
void plan_group_all(Planner *p);            /* group.c                                            */
void plan_sink_all(Planner *p);
void plan_again_all(Planner *p);
void plan_order_groups(Planner *p);
void plan_place_all(Planner *p);            /* keep.c                                             */
void plan_step_all(Planner *p);             /* steps.c                                            */
void plan_finish_scalars(Planner *p);       /* memory.c                                           */
void plan_memory_all(Planner *p);

/* ---- what passes ask of others ------------------------------------------------------------ */

/* places.c */
void plan_spot_own(Planner *p, int32_t i);
const int64_t *plan_strides_of(Planner *p, int32_t i);
int plan_kind_of(Planner *p, int32_t i);

/* keep.c: memory for a value, or beside the values, for one step. */
int32_t plan_place_new(Planner *p, int32_t node, int64_t nbytes, int32_t at);

/* steps.c */
FgOperand plan_operand_for(Planner *p, int32_t x);
FgWalk plan_walk_new(Planner *p, const FgDims *shape, const FgDims *own, const int64_t *strides);

/* What a block run is made from: values in the order of their computation, one operator each. */
typedef struct BlockBuilder {
    FgBlockRun *run;
    int32_t *value, *stamp;         /* by node: the value that has it in the run of that stamp    */
    int32_t *shape;                 /* ... brought in for results of that shape                   */
    int32_t now;
    int32_t count, room;
    FgBlockOp *ops;                 /* operands and results are numbers of values                 */
    int32_t value_count;
    uint8_t *item, *fixed;          /* of a value: bytes; whether its register is its own         */
    int32_t *last;                  /* the operator that reads it last                            */
    int32_t *mask;                  /* the same as 0.0 and 1.0, or -1                             */
} BlockBuilder;

/* blocks.c */
void plan_blocks_step(Planner *p, BlockBuilder *b, FgStep *step, const int32_t *nodes,
                      int32_t count, int32_t group, int32_t at);

#endif
