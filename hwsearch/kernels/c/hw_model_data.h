/* What the generated hw_model_data.c holds: the program of each menu entry, in flash, and the arena it works in. */
#ifndef HW_MODEL_DATA_H
#define HW_MODEL_DATA_H

#include "hw_kernels.h"
#include "hw_model.h"

typedef struct hw_step {
    hw_kernel kernel;
    hw_op op; /* an input of 0 is the caller's image */
} hw_step;

typedef struct hw_segment {
    const hw_step *steps;
    const int32_t *logits; /* in the arena, valid when the steps have run */
    int count;
} hw_segment;

/* What each entry runs by itself; with early exits, that is what the entry before it has not run yet. */
extern const hw_segment hw_segments[HW_MODEL_ENTRIES];
#if HW_MODEL_HAS_GATE
extern const hw_segment hw_gate;
#elif HW_MODEL_ENTRIES > 1
/* The inference stops at an entry whose best logit leads by at least this much. */
extern const uint64_t hw_thresholds[HW_MODEL_ENTRIES - 1];
#endif

#endif
