/* Times calls of a kernel with the computer's monotonic clock; for measuring on a host, not part of any package. */
#define _POSIX_C_SOURCE 199309L
#include <time.h>

#include "hw_kernels.h"

void hw_time_calls(hw_kernel kernel, const hw_op *op, uint32_t calls, uint32_t repeats, double *nanoseconds);

/* nanoseconds[i]: duration of one call, averaged over `calls` calls in a row, in repeat i. */
void hw_time_calls(hw_kernel kernel, const hw_op *op, uint32_t calls, uint32_t repeats, double *nanoseconds)
{
    for (uint32_t i = 0; i < repeats; i++) {
        struct timespec start, end;
        clock_gettime(CLOCK_MONOTONIC, &start);
        for (uint32_t j = 0; j < calls; j++)
            kernel(op);
        clock_gettime(CLOCK_MONOTONIC, &end);
        nanoseconds[i] = ((double)(end.tv_sec - start.tv_sec) * 1e9 + (double)(end.tv_nsec - start.tv_nsec)) / calls;
    }
}
