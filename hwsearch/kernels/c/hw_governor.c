#include "hw_governor.h"

int hw_governor_init(hw_governor *governor, const uint64_t *costs, int entries, uint64_t rate, uint64_t capacity,
                     uint64_t initial)
{
    if (entries < 1 || rate < costs[0] || capacity < costs[0] || initial > capacity)
        return -1;
    governor->costs = costs;
    governor->rate = rate;
    governor->capacity = capacity;
    governor->balance = initial;
    governor->entries = entries;
    return 0;
}

int hw_governor_earn(hw_governor *governor)
{
    uint64_t room = governor->capacity - governor->balance;
    int limit = 0;

    governor->balance += governor->rate < room ? governor->rate : room;
    /* Entry 0 can always be paid: both rate and capacity are at least its cost. */
    while (limit + 1 < governor->entries && governor->costs[limit + 1] <= governor->balance)
        limit++;
    return limit;
}

void hw_governor_spend(hw_governor *governor, int entry)
{
    governor->balance -= governor->costs[entry];
}
