/* Loops: a graph that is run again and again, in a frame of its own. */
#include "alloc.h"
#include "run.h"

static int64_t bytes_of(const FgOperand *x) { return x->size * fg_item(x->dtype); }
static int64_t padded(int64_t nbytes) { return (nbytes + 63) & ~(int64_t)63; }
/* A carry or an entry that is a register of the body, as far as the body looks at it. */
static int in_register(const FgOperand *x)
{
    return x->rank == 0 &&
           (x->dtype == FG_FLOAT64 || x->dtype == FG_FLOAT32 || x->dtype == FG_BOOL);
}

/* What a carry is, and what it becomes: a number, or memory by turns. */
typedef struct Carry {
    double number;
    char *memory[2];
} Carry;

/* An array, row after row. */
typedef struct Rows {
    char *first;
    int64_t stride;
} Rows;

/* What run_loop takes of it: two buffers for each carry; a row for each output that nobody wants;
 * whole operands that do not lie in order. */
int64_t fg_loop_scratch(const FgLoop *loop)
{
    const FgPlan *body = loop->body;
    int64_t total = padded(loop->carries * (int64_t)sizeof(Carry)) + 64 +
                    padded((loop->sequences + body->output_count) * (int64_t)sizeof(Rows));
    for (int32_t k = 0; k < body->output_count; k++)
        total += (k < loop->carries ? 2 : 1) * padded(bytes_of(&body->outputs[k]));
    for (int32_t k = loop->carries; k < body->input_count; k++)
        total += padded(bytes_of(&body->inputs[k]) *
                        (k < loop->carries + loop->sequences ? loop->length : 1));
    return total;
}

static void *take(char **scratch, int64_t nbytes)
{
    void *memory = *scratch;
    *scratch += padded(nbytes);
    return memory;
}

static int loop_frame(FgFrame *f, const FgStep *s)
{
    FgLoopFrame *own = &f->loops[s->loop_number];
    const FgLoop *loop = s->loop;
    if (own->body == NULL) {
        own->body = fg_frame_new(loop->body);
        if (own->body == NULL) return FG_RUN_ERROR;
        own->body->owner = loop->body_owner;
    }
    if (own->condition == NULL && loop->condition != NULL) {
        own->condition = fg_frame_new(loop->condition);
        if (own->condition == NULL) return FG_RUN_ERROR;
        own->condition->owner = loop->condition_owner;
    }
    if (own->scratch == NULL) own->scratch = fg_chunk(loop->scratch);
    if (own->scratch == NULL) return FG_RUN_ERROR;
    own->body->root = f->root;
    if (own->condition != NULL) own->condition->root = f->root;
    return FG_RUN_DONE;
}

/* Let a graph's input have its value at p. */
static void bind_input(FgFrame *f, int32_t k, const char *p)
{
    const FgOperand *x = &f->plan->inputs[k];
    if (x->place >= 0) f->memory[x->place] = (char *)(uintptr_t)p;
    else if (x->reg != UINT32_MAX) f->registers[x->reg] = fg_number_at(p, x->dtype);
}

/* An operand of the loop as rows of the body's input. */
static Rows rows_of(FgFrame *f, const FgOperand *x, char **scratch)
{
    int64_t row = fg_item(x->dtype);
    int plain = x->place >= 0;
    for (int32_t k = x->rank - 1; k > 0; k--) {
        if (x->dims[k] != 1 && x->strides[k] != row) plain = 0;
        row *= x->dims[k];
    }
    if (x->size == 0) return (Rows){ *scratch, row };
    if (plain) return (Rows){ f->memory[x->place] + x->offset, x->rank ? x->strides[0] : row };
    char *copy = take(scratch, bytes_of(x));
    fg_operand_copy(f, x, copy);
    return (Rows){ copy, row };
}

static void bind_constants(FgFrame *f, const FgStep *s, FgFrame *inner, FgFrame *test, char *scratch)
{
    const int32_t carries = s->loop->carries, sequences = s->loop->sequences;
    for (int32_t k = 0; k < s->loop->constants; k++) {
        const FgOperand *x = &s->in[carries + sequences + k];
        char room[8], *p;
        if (x->rank == 0 || (x->contiguous && x->place >= 0)) p = pointer_to(f, x, room);
        else fg_operand_copy(f, x, p = take(&scratch, bytes_of(x)));
        bind_input(inner, carries + sequences + k, p);
        if (test != NULL) bind_input(test, carries + k, p);
    }
}

static void bind_carries(FgFrame *f, const Carry *carry, int32_t carries, int now)
{
    for (int32_t k = 0; k < carries; k++) {
        const FgOperand *x = &f->plan->inputs[k];
        if (!in_register(x)) bind_input(f, k, carry[k].memory[now]);
        else if (x->reg != UINT32_MAX) f->registers[x->reg] = carry[k].number;
    }
}

/* A guard that does not hold ends the whole run, which is told of it. */
static int run_once(FgFrame *f)
{
    const int met = fg_run(f);
    if (met >= 0) {
        f->root->broken = met;
        f->root->broken_plan = f->plan;
    }
    return met == FG_RUN_DONE;
}

static int holds(FgFrame *test)
{
    const FgOperand *x = &test->plan->outputs[0];
    char room[8];
    return fg_number_at(pointer_to(test, x, room), x->dtype) != 0;
}

int run_loop(FgFrame *f, const FgStep *s)
{
    const FgLoop *loop = s->loop;
    const FgPlan *body = loop->body;
    const int32_t carries = loop->carries, sequences = loop->sequences;
    if (loop_frame(f, s) != FG_RUN_DONE) return FG_RUN_ERROR;
    FgFrame *inner = f->loops[s->loop_number].body, *test = f->loops[s->loop_number].condition;
    char *scratch = f->loops[s->loop_number].scratch;
    Carry *carry = take(&scratch, carries * (int64_t)sizeof(Carry));
    Rows *rows = take(&scratch, (sequences + body->output_count) * (int64_t)sizeof(Rows));
    Rows *outputs = rows + sequences;
    for (int32_t k = 0; k < body->output_count; k++) {
        const int64_t nbytes = bytes_of(&body->outputs[k]);
        if (k >= carries) {
            const int32_t place = s->results[k].place;
            outputs[k] = place < 0 ? (Rows){ take(&scratch, nbytes), 0 }
                                   : (Rows){ f->memory[place], nbytes };
            continue;
        }
        for (int half = 0; half < 2; half++) carry[k].memory[half] = take(&scratch, nbytes);
        if (in_register(&s->in[k]) && s->in[k].place < 0)
            carry[k].number = f->registers[s->in[k].reg];
        else
            fg_operand_copy(f, &s->in[k], carry[k].memory[0]);
    }
    for (int32_t k = 0; k < sequences; k++) rows[k] = rows_of(f, &s->in[carries + k], &scratch);
    bind_constants(f, s, inner, test, scratch);
    int now = 0;                        /* which of its two buffers a carry is in                 */
    for (int64_t step = 0; loop->length < 0 || step < loop->length; step++, now = !now) {
        const int64_t entry = loop->reverse ? loop->length - 1 - step : step;
        if (interrupted(f, body->work + 20)) return FG_RUN_ERROR;
        if (test != NULL) {
            bind_carries(test, carry, carries, now);
            if (!run_once(test)) return FG_RUN_ERROR;
            if (!holds(test)) break;
        }
        bind_carries(inner, carry, carries, now);
        for (int32_t k = 0; k < sequences; k++)
            bind_input(inner, carries + k, rows[k].first + entry * rows[k].stride);
        for (int32_t k = 0; k < carries; k++)
            outputs[k] = (Rows){ carry[k].memory[!now], 0 };
        for (int32_t k = 0; k < body->output_count; k++)
            if (body->output_place[k] >= 0)
                inner->memory[body->output_place[k]] = outputs[k].first + entry * outputs[k].stride;
        if (!run_once(inner)) return FG_RUN_ERROR;
        for (int32_t k = 0; k < body->output_count; k++) {
            const FgOperand *x = &body->outputs[k];
            if (k < carries && in_register(x) && x->place < 0)
                carry[k].number = inner->registers[x->reg];
            else if (body->output_place[k] < 0 && (k < carries || s->results[k].place >= 0))
                fg_operand_copy(inner, x, outputs[k].first + entry * outputs[k].stride);
        }
    }
    for (int32_t k = 0; k < carries; k++) {
        const FgOperand *y = &s->results[k];
        if (y->place >= 0)
            memcpy(f->memory[y->place], carry[k].memory[now], (size_t)bytes_of(&body->outputs[k]));
        else if (y->reg != UINT32_MAX)
            f->registers[y->reg] = carry[k].number;
    }
    return FG_RUN_DONE;
}
