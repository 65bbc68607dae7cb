/* hw_argmax: index of the largest of in_c int32 logits, and its lead over the second largest.
 *
 * input[0]: int32_t [in_c]. output: uint32_t [2], the index (ties go to the lower one) and the margin, which never
 * exceeds 2^32 - 1. With a single logit there is no second and the margin is 2^32 - 1.
 */
#include "hw_portable.h"

void hw_argmax(const hw_op *op);

void hw_argmax(const hw_op *op)
{
    const int32_t *logits = (const int32_t *)(const void *)op->input[0];
    uint32_t *output = op->output;
    int32_t best = logits[0], second = INT32_MIN;
    uint32_t index = 0;
    for (uint32_t i = 1; i < op->in_c; i++) {
        if (logits[i] > best) {
            second = best;
            best = logits[i];
            index = i;
        } else if (logits[i] > second) {
            second = logits[i];
        }
    }
    output[0] = index;
    output[1] = op->in_c > 1 ? (uint32_t)best - (uint32_t)second : UINT32_MAX;
}
