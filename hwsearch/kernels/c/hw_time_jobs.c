/* Times kernels on another computer; for measuring over ssh, not part of any package.
 *
 * Reads jobs from standard input and writes results to standard output until the input ends. Both computers have the same
 * byte order and pointer size, since `remote.py` refuses others.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hw_kernels.h"
#include "hw_time_table.h" /* generated: HW_TIMED(symbol) for every kernel */

#define HW_MAX_REPEATS 64

void hw_time_calls(hw_kernel kernel, const hw_op *op, uint32_t calls, uint32_t repeats, double *nanoseconds);

#define HW_TIMED(symbol) void symbol(const hw_op *op);
HW_TIME_TABLE
#undef HW_TIMED
#define HW_TIMED(symbol) {#symbol, symbol},
static const struct {
    const char *name;
    hw_kernel kernel;
} table[] = {HW_TIME_TABLE};

/* Followed by arena_bytes of data. The op and all it points to lie in it; its pointers count from the start, 0 is none. */
typedef struct hw_job {
    char symbol[64];
    uint32_t arena_bytes, op_at, output_at, output_bytes, repeats, repeat_ns;
} hw_job;

static hw_kernel find(const char *symbol)
{
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (!strcmp(symbol, table[i].name))
            return table[i].kernel;
    return 0;
}

static void *moved(const void *offset, uint8_t *arena)
{
    return offset ? arena + (uintptr_t)offset : 0;
}

static void point_into(hw_op *op, uint8_t *arena)
{
    op->input[0] = moved(op->input[0], arena);
    op->input[1] = moved(op->input[1], arena);
    op->output = moved(op->output, arena);
    op->weights = moved(op->weights, arena);
    op->bias = moved(op->bias, arena);
    op->multiplier = moved(op->multiplier, arena);
    op->shift = moved(op->shift, arena);
    op->scratch = moved(op->scratch, arena);
}

/* nanoseconds[i]: duration of one call in repeat i; a repeat lasts at least repeat_ns. */
static void measure(hw_kernel kernel, const hw_op *op, const hw_job *job, double *nanoseconds)
{
    double fastest, calls;
    hw_time_calls(kernel, op, 1, 1, nanoseconds);
    hw_time_calls(kernel, op, 1, 3, nanoseconds);
    fastest = nanoseconds[0];
    for (int i = 1; i < 3; i++)
        fastest = nanoseconds[i] < fastest ? nanoseconds[i] : fastest;
    calls = job->repeat_ns / (fastest > 1 ? fastest : 1);
    hw_time_calls(kernel, op, calls > 1 ? (uint32_t)(calls + 0.5) : 1, job->repeats, nanoseconds);
}

static int run(const hw_job *job, uint8_t *arena)
{
    double nanoseconds[HW_MAX_REPEATS];
    hw_op *op = (hw_op *)(void *)(arena + job->op_at);
    hw_kernel kernel = find(job->symbol);
    if (!kernel || job->repeats < 3 || job->repeats > HW_MAX_REPEATS || fread(arena, 1, job->arena_bytes, stdin) != job->arena_bytes)
        return 0;
    point_into(op, arena);
    measure(kernel, op, job, nanoseconds);
    fwrite(nanoseconds, sizeof nanoseconds[0], job->repeats, stdout);
    fwrite(arena + job->output_at, 1, job->output_bytes, stdout);
    return fflush(stdout) == 0;
}

int main(void)
{
    hw_job job;
    int works = 1;
    while (works && fread(&job, sizeof job, 1, stdin) == 1) {
        uint8_t *room = malloc((size_t)job.arena_bytes + 64);
        works = room && run(&job, room + (64 - (uintptr_t)room % 64));
        free(room);
    }
    return !works;
}
