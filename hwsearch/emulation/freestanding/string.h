/* The part of <string.h> that kernels may use, for compilers that bring none when there is no operating system.
 *
 * The bodies come from the compiler's run-time library.
 */
#ifndef HW_FREESTANDING_STRING_H
#define HW_FREESTANDING_STRING_H

#include <stddef.h>

void *memcpy(void *restrict destination, const void *restrict source, size_t count);
void *memmove(void *destination, const void *source, size_t count);
void *memset(void *destination, int value, size_t count);
int memcmp(const void *left, const void *right, size_t count);

#endif
