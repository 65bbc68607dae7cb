/* What the generated hw_model_data.c holds: the program of each menu entry, in flash, and the arena it works in. */
#ifndef HW_MODEL_DATA_H
#define HW_MODEL_DATA_H

#include "hw_kernels.h"

/* Tables begin at a line of the largest flash cache, as they did when kernels were measured. */
#if defined(__GNUC__)
#define HW_LINE __attribute__((aligned(32)))
#else
#define HW_LINE
#endif

typedef struct hw_step {
    hw_kernel kernel;
    hw_op op; /* an input of 0 is the caller's image */
} hw_step;

typedef struct hw_segment {
    const hw_step *steps;
    const int32_t *logits; /* in the arena, valid when the steps have run */
    int count;
} hw_segment;

/* Runs the path that it picks, kept within entries lowest .. highest; returns the entry whose logits stand in the arena. */
typedef int (*hw_policy)(const uint8_t *input, int lowest, int highest);

/* Each in a file of its own, of which a package has one. */
int hw_policy_static(const uint8_t *input, int lowest, int highest);
int hw_policy_gate(const uint8_t *input, int lowest, int highest);
int hw_policy_cascade(const uint8_t *input, int lowest, int highest); /* early exits too */

typedef struct hw_program {
    hw_policy policy;
    const hw_segment *segments; /* [entries]: what each runs by itself; with exits, what the one before has not run yet */
    const hw_segment *gate;     /* of hw_policy_gate */
    const uint64_t *thresholds; /* [entries - 1], of hw_policy_cascade: it stops where the best logit leads by this much */
    uint16_t entries;
    uint16_t classes;
} hw_program;

extern const hw_program hw_model_program;

void hw_run_segment(const hw_segment *segment, const uint8_t *input);

#endif
