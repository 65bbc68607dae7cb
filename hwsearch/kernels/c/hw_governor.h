/* A token bucket that keeps the mean cost of inferences under a rate, whatever inputs arrive.
 *
 * Before each inference the balance earns `rate` (up to `capacity`), and only entries that it can pay may run; the
 * entry that ran is then paid. The balance never falls below zero, so the total spend of n inferences is at most
 * initial + n * rate, on every sequence of inputs. Costs are in one unit of the caller's choice, rounded up, the rate
 * rounded down; the generated hw_model.h gives nanoseconds.
 */
#ifndef HW_GOVERNOR_H
#define HW_GOVERNOR_H

#include <stdint.h>

typedef struct hw_governor {
    const uint64_t *costs; /* [entries], of a whole inference that ends at each entry */
    uint64_t rate;         /* earned before each inference */
    uint64_t capacity;     /* the most that may be saved up */
    uint64_t balance;      /* 0 .. capacity */
    int entries;
} hw_governor;

/* Returns 0, or -1 without touching the governor where it could not pay even entry 0 of every inference: `rate` and
 * `capacity` must be at least costs[0], `initial` at most `capacity`, `entries` at least 1. */
int hw_governor_init(hw_governor *governor, const uint64_t *costs, int entries, uint64_t rate, uint64_t capacity,
                     uint64_t initial);

/* Earns one inference's rate; returns the highest entry such that it and all below it can be paid. Call once per inference. */
int hw_governor_earn(hw_governor *governor);

/* Pays for the entry that ran, which must not lie above what hw_governor_earn returned. */
void hw_governor_spend(hw_governor *governor, int entry);

#endif
