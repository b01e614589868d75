/* Frames: the memory and the registers that a plan runs in. */
#include <string.h>

#include "alloc.h"
#include "vm.h"

FgFrame *fg_frame_new(const FgPlan *plan)
{
    FgFrame *f = fg_calloc(1, sizeof(FgFrame));
    if (f == NULL) return NULL;
    f->plan = plan;
    f->root = f;
    f->broken = -1;
    f->registers = fg_malloc((plan->registers + 1) * sizeof(double));
    f->memory = fg_calloc((size_t)plan->place_count + 1, sizeof(char *));
    f->loops = fg_calloc((size_t)plan->loop_count + 1, sizeof(FgLoopFrame));
    f->arrays = fg_chunk(plan->frame_bytes + 64);
    if (f->registers == NULL || f->memory == NULL || f->loops == NULL || f->arrays == NULL) {
        fg_frame_free(f);
        return NULL;
    }
    if (plan->registers) memcpy(f->registers, plan->numbers, plan->registers * sizeof(double));
    for (int32_t k = 0; k < plan->place_count; k++) {
        const FgPlace *p = &plan->places[k];
        if (p->kind == FG_PLACE_FRAME) f->memory[k] = f->arrays + p->offset;
        else if (p->kind == FG_PLACE_CONSTANT) f->memory[k] = (char *)(uintptr_t)p->data;
    }
    return f;
}

void fg_frame_free(FgFrame *f)
{
    for (int k = 0; k < FG_THREADS_MAX; k++) fg_chunk_free(f->blocks[k]);
    for (int32_t k = 0; f->loops != NULL && k < f->plan->loop_count; k++) {
        if (f->loops[k].body != NULL) fg_frame_free(f->loops[k].body);
        if (f->loops[k].condition != NULL) fg_frame_free(f->loops[k].condition);
        fg_chunk_free(f->loops[k].scratch);
    }
    for (int32_t k = 0; f->rooms != NULL && k < f->plan->step_count; k++)
        fg_chunk_free(f->rooms[k]);
    fg_free(f->rooms);
    fg_free(f->loops);
    fg_free(f->registers);
    fg_free(f->memory);
    fg_chunk_free(f->arrays);
    fg_free(f);
}
