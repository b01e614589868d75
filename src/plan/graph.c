/* Memory for a planning and for its plan; how entries lie in memory; and pass 1: which nodes are
 * needed. */
#include "alloc.h"
#include "plan.h"

/* ---- memory ------------------------------------------------------------------------------- */

void *plan_take(Planner *p, FgChunk **chunks, size_t nbytes)
{
    enum { SIZE = 65536 };
    FgChunk *chunk = *chunks;
    nbytes = (nbytes + 15) & ~(size_t)15;
    if (chunk == NULL || chunk->size - chunk->used < nbytes) {
        const size_t size = nbytes > SIZE ? nbytes : SIZE;
        /* Behind a large chunk the rest of the last one still serves. */
        if (chunk != NULL && nbytes > SIZE) chunks = &chunk->next;
        chunk = fg_calloc(1, sizeof(FgChunk) + size);
        if (chunk == NULL) longjmp(p->out_of_memory, 1);
        chunk->size = size;
        chunk->next = *chunks;
        *chunks = chunk;
    }
    void *memory = (char *)(chunk + 1) + chunk->used;
    chunk->used += nbytes;
    return memory;
}

void plan_chunks_free(FgChunk *chunk)
{
    while (chunk != NULL) {
        FgChunk *next = chunk->next;
        fg_free(chunk);
        chunk = next;
    }
}

/* ---- looking at nodes --------------------------------------------------------------------- */

double fg_number_at(const char *data, int dtype)
{
    switch (dtype) {
    case FG_FLOAT64: { double x; memcpy(&x, data, 8); return x; }
    case FG_FLOAT32: { float x; memcpy(&x, data, 4); return x; }
    case FG_BOOL: return *data != 0;
    case 1: return *(const int8_t *)data;
    case 2: return *(const uint8_t *)data;
    case 3: { int16_t x; memcpy(&x, data, 2); return x; }
    case 4: { uint16_t x; memcpy(&x, data, 2); return x; }
    case 5: { int32_t x; memcpy(&x, data, 4); return x; }
    case 6: { uint32_t x; memcpy(&x, data, 4); return x; }
    case 7: case 9: { int64_t x; memcpy(&x, data, 8); return (double)x; }
    default: { uint64_t x; memcpy(&x, data, 8); return (double)x; }
    }
}

/* ---- pass 1: what is needed --------------------------------------------------------------- */

void plan_mark_needed(Planner *p)
{
    const FgSource *s = p->source;
    memset(p->needed, 0, p->count);
    for (int64_t k = 0; k < s->output_count; k++) p->needed[p->same[s->outputs[k]]] = 1;
    for (int64_t k = 0; k < s->guard_count; k++) p->needed[p->same[s->guards[k].node]] = 1;
    for (int64_t i = p->count - 1; i >= 0; i--) {
        int32_t few[3], *list;
        if (!p->needed[i]) continue;
        int32_t n = operands_of(p, (int32_t)i, few, &list);
        for (int32_t k = 0; k < n; k++) p->needed[p->same[list[k]]] = 1;
    }
}
