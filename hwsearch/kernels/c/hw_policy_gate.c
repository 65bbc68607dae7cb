#include "hw_decide.h"
#include "hw_model_data.h"

int hw_policy_gate(const uint8_t *input, int lowest, int highest)
{
    const hw_segment *gate = hw_model_program.gate;
    int entry;

    hw_run_segment(gate, input);
    entry = (int)hw_decide(gate->logits, hw_model_program.entries).index;
    if (entry < lowest)
        entry = lowest;
    if (entry > highest)
        entry = highest;
    hw_run_segment(&hw_model_program.segments[entry], input);
    return entry;
}
