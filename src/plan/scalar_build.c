/* How scalar operations become instructions, which run/scalar_run.c explains. fg_scalar_build, at
 * the end of the file, names what is done to them in its order. */
#include <string.h>

#include "alloc.h"
#include "vm_scalar_code.h"

#define NONE UINT32_MAX

static const uint8_t arities[FG_COMPARE_END] = {
#define UNARY(name, ...) [FG_##name] = 1,
#define BINARY(name, ...) [FG_##name] = 2,
#define TERNARY(name, ...) [FG_##name] = 3,
#define COMPARE(name, ...) [FG_##name] = 2,
#include "ops.def"
};

/* The sums and products, numbered as in vm_scalar.inc. */
enum { ADD, SUBTRACT, FROM, MULTIPLY, WEIGH, PRODUCTS };

typedef enum { TRIPLES, TOTALS, PAIRS, SINGLES, CHOICES, CALLS, SINES, DROPPED } Form;

/* One instruction in the making. Operands in the order of the macros above. */
typedef struct Step {
    uint16_t op;
    uint8_t dtype;
    uint8_t form;
    uint8_t inner, outer;       /* triples                                                        */
    uint8_t count;              /* operands                                                       */
    uint8_t from;               /* bit k: operand k is the accumulator                            */
    uint8_t ends;               /* bit k: nobody reads the memory of operand k after this         */
    uint8_t turned;             /* pairs: the operands are exchanged                              */
    uint8_t in_run;             /* it is part of a run                                            */
    uint32_t run;               /* the first one of a run: of how many steps                      */
    uint8_t to;                 /* 0 A, 1 B, 2 R, 3 T                                             */
    uint32_t y, second;
    uint32_t x[3];
    float ready;                /* when the result is there, in cycles, about                     */
    float done;                 /* when this and all steps before it are                          */
} Step;

enum { KEPT = 1, STORED = 2, ENDED = 4 };

/* What is known of a register. */
typedef struct Value {
    uint32_t writer;            /* step, or NONE                                                  */
    uint32_t uses;
    uint32_t reader;            /* the last step that reads it                                    */
    uint32_t same;              /* the register whose value it is                                 */
    uint32_t place;             /* the register that holds it                                     */
    uint32_t sine;              /* the step that has its sine or cosine, or NONE                  */
    uint32_t flags;
} Value;

typedef struct Build {
    Step *steps;
    Value *values;
    Step *stretch;              /* as many as that, to sort with                                  */
    uint32_t *free;             /* places to be used again                                        */
    uint32_t *names;            /* registers by their number here, or NULL: all are numbered      */
    uint32_t *table;            /* numbers by a hash of the register, or NONE                     */
    uint32_t count, mask;       /* how many have a number; the size of the table, less 1          */
    int64_t n, written;
} Build;

static int product_of(int op)
{
    switch (op) {
    case FG_add: return ADD;
    case FG_subtract: return SUBTRACT;
    case FG_multiply: return MULTIPLY;
    case FG_weigh: return WEIGH;
    default: return -1;
    }
}

/* The operator with its operands exchanged. */
static int turned(int product)
{
    return product == SUBTRACT ? FROM : product == FROM ? SUBTRACT : product;
}

/* The first instruction of the block of variants, and that for exchanged operands; 0: there is none. */
static const struct { uint16_t plain, turned; } pairs[FG_COMPARE_END] = {
    [FG_add] = { DO_add_AA, DO_add_AA },
    [FG_subtract] = { DO_subtract_AA, DO_from_AA },
    [FG_multiply] = { DO_multiply_AA, DO_multiply_AA },
    [FG_weigh] = { DO_weigh_AA, DO_weigh_AA },
    [FG_divide] = { DO_divide_AA, DO_into_AA },
    [FG_maximum] = { DO_maximum_AA, 0 },
    [FG_minimum] = { DO_minimum_AA, 0 },
    [FG_less] = { DO_less_AA, DO_greater_AA },
    [FG_less_equal] = { DO_less_equal_AA, DO_greater_equal_AA },
    [FG_greater] = { DO_greater_AA, DO_less_AA },
    [FG_greater_equal] = { DO_greater_equal_AA, DO_less_equal_AA },
    [FG_equal] = { DO_equal_AA, DO_equal_AA },
    [FG_not_equal] = { DO_not_equal_AA, DO_not_equal_AA }
};

#define SINGLE(name) [FG_##name] = DO_##name##_AA
static const uint16_t singles[FG_COMPARE_END] = {
    SINGLE(positive), SINGLE(negative), SINGLE(square), SINGLE(reciprocal), SINGLE(sqrt),
    SINGLE(abs), SINGLE(relu), SINGLE(step), SINGLE(is_zero), SINGLE(log_da)
};
#undef SINGLE

/* Which of the instructions for sine and cosine, in their order. */
static int sine_of(const Step *step)
{
    return (step->dtype == FG_FLOAT64 ? 0 : 2) + (step->op == FG_cos);
}

/* The number of a register. Few operations among many registers number only those that they use:
 * a program of many short strings has all registers in one file. */
static uint32_t number_of(Build *build, uint32_t name, const uint8_t *kept)
{
    uint32_t number = name;
    if (build->names != NULL) {
        uint32_t place = (name * UINT32_C(2654435761)) & build->mask;
        while ((number = build->table[place]) != NONE && build->names[number] != name)
            place = (place + 1) & build->mask;
        if (number != NONE) return number;
        build->table[place] = number = build->count;
        build->names[build->count++] = name;
    }
    build->values[number] = (Value){ .writer = NONE, .same = number, .place = name, .sine = NONE,
                                     .flags = kept != NULL && kept[name] ? KEPT : 0 };
    return number;
}

/* The operations as steps, once it is sure that they keep the rules. */
static int read_operations(Build *build, const FgScalarOp *ops, uint32_t registers,
                           const uint8_t *kept)
{
    Value *values = build->values;
    if (build->names == NULL)
        for (build->count = 0; build->count < registers; build->count++)
            number_of(build, build->count, kept);
    for (int64_t i = 0; i < build->n; i++) {
        const FgScalarOp *op = &ops[i];
        if (op->op >= FG_COMPARE_END || op->y >= registers) return -1;
        if (op->dtype != FG_FLOAT64 && op->dtype != FG_FLOAT32) return -1;
        const int arity = arities[op->op], wide = op->dtype == FG_FLOAT64;
        Step step = { .op = op->op, .dtype = op->dtype, .second = NONE, .count = (uint8_t)arity,
                      .x = { op->a, op->b, op->c } };
        for (int k = 0; k < arity; k++) {
            if (step.x[k] >= registers) return -1;
            if (build->names != NULL) step.x[k] = number_of(build, step.x[k], kept);
            values[step.x[k]].flags |= ENDED;       /* read: must not be written any more */
        }
        step.y = build->names != NULL ? number_of(build, op->y, kept) : op->y;
        if (values[step.y].writer != NONE || values[step.y].flags & ENDED) return -1;
        values[step.y].writer = (uint32_t)i;
        step.form = op->op == FG_where ? CHOICES
                  : op->op == FG_sin || op->op == FG_cos ? SINES
                  : wide && pairs[op->op].plain ? PAIRS
                  : op->op > FG_BEFORE_COMPARE ? PAIRS
                  : wide && singles[op->op] ? SINGLES : CALLS;
        if (op->op == FG_where) {                   /* of any dtype: it only chooses */
            const uint32_t mask = step.x[2];
            step.x[2] = step.x[1], step.x[1] = step.x[0], step.x[0] = mask;
        }
        build->steps[i] = step;
    }
    for (uint32_t k = 0; k < build->count; k++) values[k].flags &= KEPT;
    return 0;
}

/* Without what nobody needs, without copies, and with both sine and cosine by one call. */
static void simplify(Build *build)
{
    Value *values = build->values;
    for (int64_t i = build->n; i-- > 0;) {
        Step *step = &build->steps[i];
        if (values[step->y].uses == 0 && !(values[step->y].flags & KEPT)) {
            step->form = DROPPED;
            continue;
        }
        for (int k = 0; k < step->count; k++) values[step->x[k]].uses++;
    }
    for (int64_t i = 0; i < build->n; i++) {
        Step *step = &build->steps[i];
        if (step->form == DROPPED) continue;
        for (int k = 0; k < step->count; k++) step->x[k] = values[step->x[k]].same;
        Value *y = &values[step->y], *a = &values[step->x[0]];
        if (step->op == FG_positive && step->form == SINGLES && !(y->flags & KEPT)) {
            y->same = step->x[0];
            a->uses += y->uses - 1;
            step->form = DROPPED;
        }
        if (step->form == SINES) {
            Step *other = a->sine == NONE ? NULL : &build->steps[a->sine];
            if (other == NULL) {
                a->sine = (uint32_t)i;
            } else if (other->dtype == step->dtype && other->op != step->op &&
                       other->second == NONE) {
                other->second = step->y;
                y->writer = a->sine;
                a->uses--;
                step->form = DROPPED;
            }
        }
    }
    for (int64_t i = 0; i < build->n; i++) {
        Step *step = &build->steps[i];
        if (step->form == SINES && step->second == NONE) step->form = CALLS;
    }
}

/* A sum or product that is used by one other only, and once, becomes part of that one. */
static void join(Build *build)
{
    Value *values = build->values;
    for (int64_t i = 0; i < build->n; i++) {
        Step *step = &build->steps[i];
        const int outer = product_of(step->op);
        if (step->form != PAIRS || outer < 0) continue;
        int best = -1;
        for (int k = 0; k < 2; k++) {
            const Value *x = &values[step->x[k]];
            if (x->writer == NONE || x->uses != 1 || x->flags & KEPT) continue;
            const Step *other = &build->steps[x->writer];
            if (other->form != PAIRS || product_of(other->op) < 0) continue;
            if (best < 0 || x->writer > values[step->x[best]].writer) best = k;
        }
        if (best < 0) continue;
        Step *inner = &build->steps[values[step->x[best]].writer];
        const uint32_t rest = step->x[1 - best];
        step->form = TRIPLES;
        step->inner = (uint8_t)product_of(inner->op);
        step->outer = (uint8_t)(best == 0 ? outer : turned(outer));
        step->count = 3;
        step->x[0] = inner->x[0], step->x[1] = inner->x[1], step->x[2] = rest;
        inner->form = DROPPED;
    }
}

/* Close what was dropped. */
static void pack(Build *build)
{
    int64_t n = 0;
    for (int64_t i = 0; i < build->n; i++) {
        const Step *step = &build->steps[i];
        if (step->form == DROPPED) continue;
        build->values[step->y].writer = (uint32_t)n;
        if (step->second != NONE) build->values[step->second].writer = (uint32_t)n;
        if (n != i) build->steps[n] = *step;
        n++;
    }
    build->n = n;
}

/* Cycles of sums and products, and what a way through memory takes. */
#define SUM_TIME 3.0f
#define CALL_TIME 40.0f
#define MEMORY_TIME 5.0f
#define SOON 6                  /* steps within which a use counts */
#define NEAR 16                 /* steps for which a sum may have the second accumulator */
#define WINDOW 24               /* steps that the processor has under way at a time, about */

static float ready_at(const Build *build, uint32_t value)
{
    const uint32_t writer = build->values[value].writer;
    return writer == NONE ? 0.0f : build->steps[writer].ready;
}

/* What the steps of a run have in common. */
static int kind_of(const Step *step)
{
    switch (step->form) {
    case TRIPLES: return DO_run_add_add + step->inner * PRODUCTS + step->outer;
    case PAIRS: return DO_run_add + (pairs[step->op].plain - DO_add_AA) / 6;
    case SINGLES: return DO_run_positive + (singles[step->op] - DO_positive_AA) / 6;
    case CHOICES: return DO_run_choose;
    case SINES: return DO_run_both_sin_f64 + sine_of(step);
    default:                    /* a function */
        return DO_end + step->op + (step->dtype == FG_FLOAT64 ? FG_COMPARE_END : 0);
    }
}

enum {
    STRETCH = 512,
    LEAST_RUN = 3,
    LEAST_MEAN = 2,             /* steps in a run on average, or the stretch stays as it is       */
    FIRST_KIND = DO_run_add_add,
    KINDS = DO_end + 2 * FG_COMPARE_END - FIRST_KIND
};

/* Steps of the same kind one after the other where they do not depend on each other: a jump that
 * goes to another place each time costs some twenty cycles, a loop over a run costs two a step.
 * Stretch after stretch, the steps are sorted by how many steps of the stretch they have to wait
 * for, and then by kind, if that makes runs of enough steps. */
static void arrange(Build *build)
{
    Value *values = build->values;
    Step *old = build->stretch;
    uint16_t level[STRETCH], kind[STRETCH], order[STRETCH], sorted[STRETCH];
    uint16_t places[(KINDS > STRETCH ? KINDS : STRETCH) + 1];
    for (int64_t start = 0; start < build->n; start += STRETCH) {
        const int n = build->n - start < STRETCH ? (int)(build->n - start) : STRETCH;
        Step *steps = &build->steps[start];
        for (int i = 0; i < n; i++) {
            level[i] = 0;
            kind[i] = (uint16_t)(kind_of(&steps[i]) - FIRST_KIND);
            for (int k = 0; k < steps[i].count; k++) {
                const uint32_t writer = values[steps[i].x[k]].writer;
                if (writer == NONE || writer < start) continue;
                if (level[writer - start] >= level[i])
                    level[i] = (uint16_t)(level[writer - start] + 1);
            }
        }
        memset(places, 0, sizeof places);
        for (int i = 0; i < n; i++) places[kind[i] + 1]++;
        for (int k = 0; k < KINDS; k++) places[k + 1] += places[k];
        for (int i = 0; i < n; i++) sorted[places[kind[i]]++] = (uint16_t)i;
        memset(places, 0, sizeof places);
        for (int i = 0; i < n; i++) places[level[i] + 1]++;
        for (int k = 0; k < STRETCH; k++) places[k + 1] += places[k];
        for (int i = 0; i < n; i++) order[places[level[sorted[i]]]++] = sorted[i];
        int groups = 0;
        for (int i = 0; i < n; i++)
            groups += i == 0 || level[order[i]] != level[order[i - 1]] ||
                      kind[order[i]] != kind[order[i - 1]];
        if (n < LEAST_MEAN * groups) continue;
        memcpy(old, steps, (size_t)n * sizeof *old);
        for (int i = 0, first = 0; i < n; i++) {
            steps[i] = old[order[i]];
            values[steps[i].y].writer = (uint32_t)(start + i);
            if (steps[i].second != NONE) values[steps[i].second].writer = (uint32_t)(start + i);
            if (i + 1 == n || level[order[i]] != level[order[i + 1]] ||
                kind[order[i]] != kind[order[i + 1]]) {
                if (i + 1 - first >= LEAST_RUN) {
                    steps[first].run = (uint32_t)(i + 1 - first);
                    for (int k = first; k <= i; k++) steps[k].in_run = 1;
                }
                first = i + 1;
            }
        }
    }
}

/* Sums that go on and on, such as the adjoint of a variable that is used many times, stay in the
 * second accumulator from one addend to the next. There is one: the first sum that wants it has it
 * until it has come to its next addend. */
static void assign_total(Build *build)
{
    Value *values = build->values;
    int64_t busy = -1;
    for (int64_t i = 0; i < build->n; i++)
        for (int k = 0; k < build->steps[i].count; k++)
            values[build->steps[i].x[k]].reader = (uint32_t)i;
    for (int64_t i = 0; i < build->n; i++) {
        Step *step = &build->steps[i];
        if (step->form != TRIPLES || step->outer != ADD || step->in_run) continue;
        if (step->inner != MULTIPLY && step->inner != WEIGH) continue;
        const Value *y = &values[step->y];
        const int taken = step->from & 4;
        if (y->uses == 1 && !(y->flags & KEPT) && i >= busy && y->reader - i <= NEAR) {
            Step *next = &build->steps[y->reader];
            int64_t k = i + 1;
            while (k < y->reader && build->steps[k].form != CALLS && build->steps[k].form != SINES)
                k++;
            if (k == y->reader && next->form == TRIPLES && !next->in_run && next->outer == ADD &&
                (next->inner == MULTIPLY || next->inner == WEIGH) && next->x[2] == step->y) {
                step->to = 3;
                next->from |= 4;
                busy = k;
            }
        }
        if (taken || step->to == 3) step->form = TOTALS;
    }
}

/* How many steps after i the value is read first; SOON + 1 if not soon. */
static int next_use(const Build *build, int64_t i, uint32_t value)
{
    for (int ahead = 1; ahead <= SOON && i + ahead < build->n; ahead++) {
        const Step *step = &build->steps[i + ahead];
        for (int k = 0; k < step->count; k++)
            if (step->x[k] == value) return ahead;
    }
    return SOON + 1;
}

/* Which operands come from the accumulator, and which results go there. */
static void assign_accumulator(Build *build)
{
    Value *values = build->values;
    uint32_t held = NONE;
    for (int64_t i = 0; i < build->n; i++) {
        Step *step = &build->steps[i];
        const int call = step->form == CALLS || step->form == SINES;
        if (held != NONE && !step->in_run) {
            /* The first operand may be it, or the second, exchanged for the first. */
            if (step->x[0] != held && step->x[1] == held && step->count >= 2) {
                const int joined = step->form == TRIPLES || step->form == TOTALS;
                if (joined) step->inner = (uint8_t)turned(step->inner);
                else step->turned = step->form == PAIRS && pairs[step->op].turned;
                if (joined || step->turned) {
                    step->x[1] = step->x[0];
                    step->x[0] = held;
                }
            }
            if (step->x[0] == held) step->from |= 1;
            if (step->form == TRIPLES && step->x[2] == held) step->from |= 4;
        }
        float ready = i >= WINDOW ? build->steps[i - WINDOW].done : 0.0f;
        for (int k = 0; k < step->count; k++) {
            const int here = step->from >> k & 1;
            float at = ready_at(build, step->x[k]) + (here ? 0.0f : MEMORY_TIME);
            if (step->form <= TOTALS && k < 2) at += SUM_TIME;
            if (at > ready) ready = at;
            if (!here) values[step->x[k]].flags |= STORED;
        }
        step->ready = ready + (call ? CALL_TIME : SUM_TIME);
        step->done = i > 0 && step[-1].done > step->ready ? step[-1].done : step->ready;
        if (step->second != NONE) values[step->second].flags |= STORED;
        if (step->in_run) {
            step->to = 2;
            if (call) held = NONE;
            continue;
        }
        if (step->form == TOTALS) {
            if (step->to != 3) step->to = 2;
            continue;
        }
        step->to = 0;
        if (!call && held != NONE) {
            const int old = next_use(build, i, held), new = next_use(build, i, step->y);
            if (old <= SOON && (new > SOON || ready_at(build, held) > step->ready)) step->to = 2;
        }
        if (step->to == 0) held = step->y;
    }
    for (int64_t i = 0; i < build->n; i++) {
        Step *step = &build->steps[i];
        if (step->to == 0 && values[step->y].flags & (KEPT | STORED)) step->to = 1;
    }
}

/* Values that are not kept share few places, those of the registers that operations write: the
 * memory of a long string stays in the cache. What was freed last is used first. */
static void assign_places(Build *build)
{
    Value *values = build->values;
    for (int64_t i = build->n; i-- > 0;) {
        Step *step = &build->steps[i];
        step->ends = 0;
        for (int k = 0; k < step->count; k++) {
            Value *x = &values[step->x[k]];
            if (step->from >> k & 1 || x->writer == NONE || x->flags & (KEPT | ENDED)) continue;
            x->flags |= ENDED;
            step->ends |= (uint8_t)(1 << k);
        }
    }
    uint32_t idle = 0;
    build->written = 0;
    for (int64_t i = 0; i < build->n; i++) {
        Step *step = &build->steps[i];
        for (int k = 0; k < step->count; k++)
            if (step->ends >> k & 1) build->free[idle++] = values[step->x[k]].place;
        for (int k = 0; k < 2; k++) {
            const uint32_t result = k == 0 ? step->y : step->second;
            if (result == NONE || (k == 0 && step->to % 3 == 0)) continue;
            Value *y = &values[result];
            if (y->flags & KEPT) {
                build->written++;
                continue;
            }
            if (idle > 0) {
                y->place = build->free[--idle];
            } else {
                build->written++;               /* its own register */
            }
            if (!(y->flags & ENDED)) build->free[idle++] = y->place;    /* never read again */
        }
    }
}

static int handler_of(const Step *step)
{
    const int a = step->from & 1 ? 0 : 1, s = step->from & 4 ? 0 : 1;
    const int variant = 3 * a + step->to, call = 2 * a + step->to;
    if (step->in_run) return step->form == CALLS ? DO_run_call1 + step->count - 1 : kind_of(step);
    switch (step->form) {
    case TRIPLES:
        return DO_add_add_AAA + ((step->inner * PRODUCTS + step->outer) * 4 + 2 * a + s) * 3 +
               step->to;
    case TOTALS:
        return (step->inner == MULTIPLY ? DO_total_multiply_ATT : DO_total_weigh_ATT) + 3 * a +
               (s == 1 ? 2 : step->to == 3 ? 0 : 1);
    case PAIRS: return (step->turned ? pairs[step->op].turned : pairs[step->op].plain) + variant;
    case SINGLES: return singles[step->op] + variant;
    case CHOICES: return DO_choose_AA + variant;
    case CALLS: return DO_call1_AA + 4 * (step->count - 1) + call;
    case SINES: return DO_both_sin_f64_AA + 4 * sine_of(step) + call;
    default: return DO_end;
    }
}

static FgScalarCode *emit(const Build *build)
{
    FgScalarCode *code = fg_malloc(sizeof *code + (size_t)(7 * build->n + 1) * sizeof *code->code);
    if (code == NULL) return NULL;
    uint32_t *word = code->code;
    for (int64_t i = 0; i < build->n; i++) {
        const Step *step = &build->steps[i];
        if (step->run > 0 || !step->in_run) *word++ = (uint32_t)handler_of(step);
        if (step->form == CALLS && (step->run > 0 || !step->in_run))
            *word++ = step->op + (step->dtype == FG_FLOAT64 ? FG_COMPARE_END : 0u);
        if (step->run > 0) *word++ = step->run;
        for (int k = 0; k < step->count; k++)
            if (!(step->from >> k & 1)) *word++ = build->values[step->x[k]].place;
        if (step->second != NONE) *word++ = build->values[step->second].place;
        if (step->to % 3 != 0) *word++ = build->values[step->y].place;
    }
    *word++ = DO_end;
    code->instructions = build->n;
    code->words = word - code->code;
    code->written = build->written;
    FgScalarCode *shrunk = fg_realloc(code, sizeof *code + (size_t)code->words * sizeof *word);
    return shrunk != NULL ? shrunk : code;
}

FgScalarCode *fg_scalar_build(const FgScalarOp *ops, int64_t n, uint32_t registers,
                              const uint8_t *kept, int *malformed)
{
    *malformed = n < 0 || n >= INT32_MAX || registers == NONE;
    if (*malformed) return NULL;
    Build build = { .n = n };
    int64_t size = registers;
    int memory = 1;
    if (size > 16 * n + 64) {
        build.mask = 64;
        while (build.mask < 8 * n) build.mask *= 2;
        build.names = fg_malloc((size_t)(4 * n + 1) * sizeof *build.names);
        build.table = fg_malloc((size_t)build.mask * sizeof *build.table);
        memory = build.names != NULL && build.table != NULL;
        if (memory) memset(build.table, 0xff, (size_t)build.mask * sizeof *build.table);
        build.mask--;
        size = 4 * n;
    }
    build.steps = fg_malloc(((size_t)n + 1) * sizeof *build.steps);
    build.values = fg_malloc(((size_t)size + 1) * sizeof *build.values);
    build.free = fg_malloc(((size_t)size + 1) * sizeof *build.free);
    build.stretch = fg_malloc(STRETCH * sizeof *build.stretch);
    FgScalarCode *code = NULL;
    memory = memory && build.steps != NULL && build.stretch != NULL && build.values != NULL &&
             build.free != NULL;
    *malformed = memory && read_operations(&build, ops, registers, kept) != 0;
    if (memory && !*malformed) {
        simplify(&build);
        join(&build);
        pack(&build);
        arrange(&build);
        assign_total(&build);
        assign_accumulator(&build);
        assign_places(&build);
        code = emit(&build);
    }
    fg_free(build.steps);
    fg_free(build.stretch);
    fg_free(build.values);
    fg_free(build.free);
    fg_free(build.names);
    fg_free(build.table);
    return code;
}

void fg_scalar_free(FgScalarCode *code) { fg_free(code); }

void fg_scalar_measure(const FgScalarCode *code, int64_t *instructions, int64_t *bytes,
                       int64_t *registers)
{
    *instructions = code->instructions;
    *bytes = code->words * (int64_t)sizeof *code->code;
    *registers = code->written;
}
