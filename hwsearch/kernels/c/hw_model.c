#include "hw_model_data.h"
#include "hw_run.h"

/* A step whose input is 0 reads the caller's image; its arguments are completed in a copy, since the tables lie in flash. */
void hw_run_segment(const hw_segment *segment, const uint8_t *input)
{
    const hw_step *step = segment->steps;
    const hw_step *end = step + segment->count;

    for (; step < end; step++) {
        if (step->op.input[0] && step->op.input[1]) {
            step->kernel(&step->op);
        } else {
            hw_op op = step->op;
            op.input[0] = op.input[0] ? op.input[0] : input;
            op.input[1] = op.input[1] ? op.input[1] : input;
            step->kernel(&op);
        }
    }
}

int hw_model_run_between(const uint8_t *input, int32_t *logits, int lowest, int highest)
{
    const int entry = hw_model_program.policy(input, lowest, highest);
    const int32_t *from = hw_model_program.segments[entry].logits;
    int i;

    for (i = 0; i < hw_model_program.classes; i++)
        logits[i] = from[i];
    return entry;
}

int hw_model_run(const uint8_t *input, int32_t *logits)
{
    return hw_model_run_between(input, logits, 0, hw_model_program.entries - 1);
}

int hw_model_run_governed(hw_governor *governor, const uint8_t *input, int32_t *logits)
{
    const int entry = hw_model_run_between(input, logits, 0, hw_governor_earn(governor));

    hw_governor_spend(governor, entry);
    return entry;
}
