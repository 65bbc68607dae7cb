/* Running an exported model; hw_model.h, which includes this, has its sizes and prices. */
#ifndef HW_RUN_H
#define HW_RUN_H

#include <stdint.h>

#include "hw_governor.h"

/* Classify one image: `input` holds HW_MODEL_INPUT_BYTES codes in (height, width, channel) order, 4-byte aligned, and is only
 * read; `logits` takes HW_MODEL_CLASSES values. Returns the menu entry that answered. Not reentrant: one static arena. */
int hw_model_run(const uint8_t *input, int32_t *logits);

/* The same, with the policy's choice kept within entries lowest .. highest. */
int hw_model_run_between(const uint8_t *input, int32_t *logits, int lowest, int highest);

/* The same, with only the entries that the governor can pay; see hw_governor.h. */
int hw_model_run_governed(hw_governor *governor, const uint8_t *input, int32_t *logits);

#endif
