/* Running plans: fg_run, and the kinds of steps that are short. Nothing in this folder knows
 * Python; a step that does is handed back through fg_vm_python. */
#include "run.h"

const FgKernels **fg_vm_kernels;
const FgCallInfo *fg_vm_matmul[2];
FgPythonStep fg_vm_python;
int (*fg_vm_signals)(FgFrame *root);

static int run_copy(FgFrame *f, const FgStep *s)
{
    char room[8];
    if (s->zero) memset(f->memory[s->out.place], 0, (size_t)(s->out.size * fg_item(s->out.dtype)));
    for (int32_t k = 0; k < s->count; k++) {
        const FgCopy *c = &s->copies[k];
        if (c->from.size)
            copy_strided(c->from.rank, c->from.dims, f->memory[c->to.place] + c->to.offset,
                         c->to.strides, pointer_to(f, &c->from, room), c->from.strides,
                         fg_item(c->from.dtype));
    }
    return FG_RUN_DONE;
}

/* Entries along axis 0, taken or added to zeros. What is out of bounds is left to NumPy, which
 * knows what to say. */
static int run_rows_at(FgFrame *f, const FgStep *s)
{
    const int64_t item = fg_item(s->dtype), row = s->width * item;
    const FgOperand *wide = s->op == FG_gather ? &s->in[0] : &s->out;
    const int64_t length = wide->dims[0];
    const int64_t *places = s->places;
    const char *from = f->memory[s->in[0].place] + s->in[0].offset;
    char *to = f->memory[s->out.place];
    if (places == NULL)
        places = (const void *)(f->memory[s->in[s->count - 1].place] + s->in[s->count - 1].offset);
    if (s->op == FG_scatter) memset(to, 0, (size_t)(s->out.size * item));
    for (int64_t i = 0; i < s->place_count; i++) {
        int64_t at = places[i] < 0 ? places[i] + length : places[i];
        if (at < 0 || at >= length) return fg_vm_python(f, s);
        if (s->op == FG_gather) {
            if (row == 8) memcpy(to + i * 8, from + at * 8, 8);
            else memcpy(to + i * row, from + at * row, (size_t)row);
        } else if (s->dtype == FG_FLOAT64) {
            double *y = (double *)(void *)(to + at * row);
            const double *x = (const void *)(from + i * row);
            for (int64_t k = 0; k < s->width; k++) y[k] += x[k];
        } else {
            float *y = (float *)(void *)(to + at * row);
            const float *x = (const void *)(from + i * row);
            for (int64_t k = 0; k < s->width; k++) y[k] += x[k];
        }
    }
    return FG_RUN_DONE;
}

static int run_load(FgFrame *f, const FgStep *s)
{
    for (int32_t k = 0; k < s->count; k++) {
        const FgCopy *c = &s->copies[k];
        double x = fg_number_at(f->memory[c->from.place] + c->from.offset, c->from.dtype);
        f->registers[c->to.reg] = c->to.dtype == FG_BOOL ? x != 0 : rounded_to(c->to.dtype, x);
    }
    return FG_RUN_DONE;
}

static int run_pack(FgFrame *f, const FgStep *s)
{
    char *out = f->memory[s->out.place];
    const int64_t item = fg_item(s->dtype);
    for (int32_t k = 0; k < s->count; k++)
        number_store(out + k * item, f->registers[s->in[k].reg], s->dtype);
    return FG_RUN_DONE;
}

/* How many entries are not 0, or not finite: then their differences with themselves are not 0. */
static int64_t count_entries(const FgOperand *x, char *data, int of_differences)
{
    int64_t dims[64], strides[64], count = 0;
    const FgWalk walk = fg_walk_over(x->rank, x->dims, x->strides, dims, strides);
    FG_EACH_RUN(&walk, data, 0, x->size,
        for (int64_t i = 0; i < run; i++) {
            const double y = fg_number_at(p + i * stride, x->dtype);
            count += (of_differences ? y - y : y) != 0;
        }
    )
    return count;
}

static int all_finite(const FgOperand *x, char *p)
{
    if (x->contiguous && (x->dtype == FG_FLOAT64 || x->dtype == FG_FLOAT32))
        return loops_of(x->dtype)->finite(p, x->size);
    return count_entries(x, p, 1) == 0;
}

static int run_finite(FgFrame *f, const FgStep *s)
{
    char room[8];
    f->registers[s->out.reg] = all_finite(&s->in[0], pointer_to(f, &s->in[0], room));
    return FG_RUN_DONE;
}

static int run_guard(FgFrame *f, const FgStep *s)
{
    char room[8];
    const FgOperand *x = &s->in[0];
    char *p = pointer_to(f, x, room);
    int64_t met = 0;
    if (s->guard_kind == FG_GUARD_COUNT) {
        met = count_entries(x, p, 0);
    } else if (s->guard_kind == FG_GUARD_FINITE) {
        met = all_finite(x, p);
    } else if (s->guard_kind == FG_GUARD_BOOL) {
        met = fg_number_at(p, x->dtype) != 0;
    } else if (x->dtype == FG_INT64) {
        memcpy(&met, p, 8);
    } else {
        double number = fg_number_at(p, x->dtype);
        if (!(number > -9.2e18 && number < 9.2e18)) return s->node;
        met = (int64_t)number;
    }
    return met == s->outcome ? FG_RUN_DONE : s->node;
}

/* ---- step after step ---------------------------------------------------------------------- */

int fg_run(FgFrame *f)
{
    const FgPlan *plan = f->plan;
    for (const FgStep *s = plan->steps, *stop = s + plan->step_count; s < stop; s++) {
        int met = FG_RUN_DONE;
        if (interrupted(f, s->kind == FG_STEP_BLOCKS ? 0 : s->work)) return FG_RUN_ERROR;
        switch (s->kind) {
        case FG_STEP_SCALARS: fg_scalar_run(s->scalars, f->registers); break;
        case FG_STEP_BLOCKS: met = run_blocks(f, s->blocks); break;
        case FG_STEP_ROWS: met = run_rows(f, s); break;
        case FG_STEP_MATMUL: met = run_matmul(f, s); break;
        case FG_STEP_COPY: met = run_copy(f, s); break;
        case FG_STEP_LOAD: met = run_load(f, s); break;
        case FG_STEP_PACK: met = run_pack(f, s); break;
        case FG_STEP_FINITE: met = run_finite(f, s); break;
        case FG_STEP_WEIGHTS: met = run_weights(f, s); break;
        case FG_STEP_ROWS_AT: met = run_rows_at(f, s); break;
        case FG_STEP_LOOP: met = run_loop(f, s); break;
        case FG_STEP_GUARD: met = run_guard(f, s); break;
        default:
            if (s->inner == NULL || !run_inner(f, s)) met = fg_vm_python(f, s);
            break;
        }
        if (met != FG_RUN_DONE) return met;
    }
    return FG_RUN_DONE;
}
