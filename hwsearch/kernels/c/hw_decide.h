/* What an entry's logits say, for policies. */
#ifndef HW_DECIDE_H
#define HW_DECIDE_H

#include "hw_kernels.h"

/* Prototype of the kernel of the catalogue that decides (portable/hw_argmax.c). */
void hw_argmax(const hw_op *op);

typedef struct hw_decision {
    uint32_t index;  /* of the largest logit */
    uint32_t margin; /* its lead over the second largest */
} hw_decision;

static inline hw_decision hw_decide(const int32_t *logits, int count)
{
    hw_decision decision;
    hw_op op; /* hw_argmax reads three of its fields; clearing the others would call memset */

    op.input[0] = (const uint8_t *)logits;
    op.output = &decision;
    op.in_c = (uint16_t)count;
    hw_argmax(&op);
    return decision;
}

#endif
