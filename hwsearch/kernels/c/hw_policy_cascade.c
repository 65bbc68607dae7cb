#include "hw_decide.h"
#include "hw_model_data.h"

int hw_policy_cascade(const uint8_t *input, int lowest, int highest)
{
    const hw_segment *segment = hw_model_program.segments;
    int entry = 0;

    hw_run_segment(segment, input);
    while (entry < highest) {
        const uint32_t margin = hw_decide(segment->logits, hw_model_program.classes).margin;
        if (entry >= lowest && margin >= hw_model_program.thresholds[entry])
            break;
        entry++;
        segment++;
        hw_run_segment(segment, input);
    }
    return entry;
}
