/* Loops: a graph that is run again and again, in a frame of its own. */
#include <string.h>

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

/* Two buffers for each carry; a row for each output that nobody wants; whole operands that do not
 * lie in order; a number for each carry, another for what it becomes, and its buffers' size. */
int64_t fg_loop_scratch(const FgLoop *loop)
{
    const FgPlan *body = loop->body;
    int64_t total = padded(24 * loop->carries) + padded(16 * loop->sequences) + 64;
    for (int32_t k = 0; k < body->output_count; k++)
        total += (k < loop->carries ? 2 : 1) * padded(bytes_of(&body->outputs[k]));
    for (int32_t k = loop->carries; k < body->input_count; k++)
        total += padded(bytes_of(&body->inputs[k]) *
                        (k < loop->carries + loop->sequences ? loop->length : 1));
    return total;
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

/* An operand of the loop as rows of the body's input, one after the other. */
static const char *rows_of(FgFrame *f, const FgOperand *x, char **scratch, int64_t *stride)
{
    const int64_t item = fg_item(x->dtype);
    int64_t row = item;
    int plain = x->place >= 0;
    for (int32_t k = x->rank - 1; k > 0; k--) {
        if (x->dims[k] != 1 && x->strides[k] != row) plain = 0;
        row *= x->dims[k];
    }
    *stride = row;
    if (x->size == 0) return *scratch;
    if (plain) {
        if (x->rank) *stride = x->strides[0];
        return f->memory[x->place] + x->offset;
    }
    char *copy = *scratch;
    fg_operand_copy(f, x, copy);
    *scratch += padded(bytes_of(x));
    return copy;
}

int run_loop(FgFrame *f, const FgStep *s)
{
    const FgLoop *loop = s->loop;
    const FgPlan *body = loop->body;
    const int32_t carries = loop->carries, sequences = loop->sequences;
    const int32_t outputs = body->output_count;
    if (loop_frame(f, s) != FG_RUN_DONE) return FG_RUN_ERROR;
    FgFrame *inner = f->loops[s->loop_number].body, *test = f->loops[s->loop_number].condition;
    char *scratch = f->loops[s->loop_number].scratch;
    double *numbers = (double *)(void *)scratch;
    int64_t *sizes = (int64_t *)(void *)(numbers + 2 * carries);    /* of the carries' buffers    */
    scratch += padded(24 * carries);
    char *first = scratch;              /* buffers of the carries: two rows of them               */
    int64_t half = 0, at;
    for (int32_t k = 0; k < carries; k++) half += sizes[k] = padded(bytes_of(&body->outputs[k]));
    scratch += 2 * half;
    char *rows = scratch;               /* for outputs that have no other place                   */
    for (int32_t k = carries; k < outputs; k++) scratch += padded(bytes_of(&body->outputs[k]));
    at = 0;
    for (int32_t k = 0; k < carries; k++) {
        if (in_register(&s->in[k]) && s->in[k].place < 0) numbers[k] = f->registers[s->in[k].reg];
        else fg_operand_copy(f, &s->in[k], first + at);
        at += sizes[k];
    }
    const char **sequence = (const char **)(void *)scratch;
    int64_t *strides = (int64_t *)(void *)(scratch + 8 * sequences);
    scratch += padded(16 * sequences);
    for (int32_t k = 0; k < sequences; k++)
        sequence[k] = rows_of(f, &s->in[carries + k], &scratch, &strides[k]);
    for (int32_t k = 0; k < loop->constants; k++) {
        const FgOperand *x = &s->in[carries + sequences + k];
        char room[8];
        const char *p = scratch;
        if (x->rank == 0 || (x->contiguous && x->place >= 0)) {
            p = pointer_to(f, x, room);
        } else {
            fg_operand_copy(f, x, scratch);
            scratch += padded(bytes_of(x));
        }
        bind_input(inner, carries + sequences + k, p);
        if (test != NULL) bind_input(test, carries + k, p);
    }
    int now = 0;                        /* which row of buffers has the carries                   */
    for (int64_t step = 0; loop->length < 0 || step < loop->length; step++) {
        const int64_t entry = loop->reverse ? loop->length - 1 - step : step;
        char *current = first + now * half, *next = first + !now * half, *row = rows;
        if (interrupted(f, body->work + 20)) return FG_RUN_ERROR;
        for (FgFrame *g = test != NULL ? test : inner;; g = inner) {
            at = 0;
            for (int32_t k = 0; k < carries; k++) {
                const FgOperand *x = &g->plan->inputs[k];
                if (!in_register(x)) bind_input(g, k, current + at);
                else if (x->reg != UINT32_MAX) g->registers[x->reg] = numbers[k];
                at += sizes[k];
            }
            if (g == inner) break;
            int met = fg_run(g);
            if (met != FG_RUN_DONE) {
                if (met >= 0) { f->root->broken = met; f->root->broken_plan = g->plan; }
                return FG_RUN_ERROR;
            }
            char room[8];
            if (fg_number_at(pointer_to(g, &g->plan->outputs[0], room),
                             g->plan->outputs[0].dtype) == 0) goto done;
        }
        for (int32_t k = 0; k < sequences; k++)
            bind_input(inner, carries + k, sequence[k] + entry * strides[k]);
        at = 0;
        for (int32_t k = 0; k < outputs; k++) {
            const FgOperand *x = &body->outputs[k];
            char *to = next + at;
            if (k >= carries) {
                to = row;
                row += padded(bytes_of(x));
                if (s->results[k].place >= 0)
                    to = f->memory[s->results[k].place] + entry * bytes_of(x);
            } else {
                at += sizes[k];
            }
            if (body->output_place[k] >= 0) inner->memory[body->output_place[k]] = to;
        }
        int met = fg_run(inner);
        if (met != FG_RUN_DONE) {
            if (met >= 0) { f->root->broken = met; f->root->broken_plan = body; }
            return FG_RUN_ERROR;
        }
        at = 0;
        for (int32_t k = 0; k < outputs; k++) {
            const FgOperand *x = &body->outputs[k];
            if (k < carries) {
                if (in_register(x) && x->place < 0) numbers[carries + k] = inner->registers[x->reg];
                else if (body->output_place[k] < 0) fg_operand_copy(inner, x, next + at);
                at += sizes[k];
            } else if (body->output_place[k] < 0 && s->results[k].place >= 0) {
                fg_operand_copy(inner, x, f->memory[s->results[k].place] + entry * bytes_of(x));
            }
        }
        memcpy(numbers, numbers + carries, (size_t)carries * sizeof(double));
        now = !now;
    }
done:
    at = 0;
    for (int32_t k = 0; k < carries; k++) {
        const FgOperand *y = &s->results[k];
        if (y->place >= 0)
            memcpy(f->memory[y->place], first + now * half + at,
                   (size_t)bytes_of(&body->outputs[k]));
        else if (y->reg != UINT32_MAX)
            f->registers[y->reg] = numbers[k];
        at += sizes[k];
    }
    return FG_RUN_DONE;
}
