#include "hw_model_data.h"
#include "hw_run.h"

/* Prototype of the kernel of the catalogue that decides (portable/hw_argmax.c). */
void hw_argmax(const hw_op *op);

/* A step whose input is 0 reads the caller's image; its arguments are completed in a copy, since the tables lie in flash. */
static void run_segment(const hw_segment *segment, const uint8_t *input)
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

typedef struct hw_decision {
    uint32_t index;  /* of the largest logit */
    uint32_t margin; /* its lead over the second largest */
} hw_decision;

static hw_decision decide(const int32_t *logits, int count)
{
    hw_decision decision;
    hw_op op; /* hw_argmax reads three of its fields; clearing the others would call memset */

    op.input[0] = (const uint8_t *)logits;
    op.output = &decision;
    op.in_c = (uint16_t)count;
    hw_argmax(&op);
    return decision;
}

int hw_policy_static(const uint8_t *input, int lowest, int highest)
{
    (void)lowest;
    (void)highest;
    run_segment(hw_model_program.segments, input);
    return 0;
}

int hw_policy_gate(const uint8_t *input, int lowest, int highest)
{
    const hw_segment *gate = hw_model_program.gate;
    int entry;

    run_segment(gate, input);
    entry = (int)decide(gate->logits, hw_model_program.entries).index;
    if (entry < lowest)
        entry = lowest;
    if (entry > highest)
        entry = highest;
    run_segment(&hw_model_program.segments[entry], input);
    return entry;
}

int hw_policy_cascade(const uint8_t *input, int lowest, int highest)
{
    const hw_segment *segment = hw_model_program.segments;
    int entry = 0;

    run_segment(segment, input);
    while (entry < highest) {
        const uint32_t margin = decide(segment->logits, hw_model_program.classes).margin;
        if (entry >= lowest && margin >= hw_model_program.thresholds[entry])
            break;
        entry++;
        segment++;
        run_segment(segment, input);
    }
    return entry;
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
