"""The governor: a token bucket that holds a dynamic model to its mean budget on every sequence of inputs.

Before each inference the balance earns `rate` (up to `capacity`); only entries that the balance covers may run, and what
ran is deducted. As entry 0 never costs more than the rate and the capacity, it is always affordable and the balance is
never negative:

    total spend of N inferences <= initial + N * rate

whatever the inputs, with no assumption on their distribution. All amounts are whole numbers of one unit. `hw_governor.c` is
the twin that ships.
"""

from collections.abc import Sequence

from hwsearch.errors import BudgetError


class Governor:
    """`costs[k]`: a whole inference that ends at entry k; the bucket starts full unless `initial` says otherwise."""

    def __init__(self, costs: Sequence[int], *, rate: int, capacity: int, initial: int | None = None) -> None:
        self.costs = tuple(costs)
        self.rate = rate
        self.capacity = capacity
        self.balance = capacity if initial is None else initial
        if not self.costs or min(rate, capacity) < self.costs[0] or not 0 <= self.balance <= capacity:
            raise BudgetError(
                f"A governor's rate ({rate}) and capacity ({capacity}) must be at least the cost of entry 0 "
                f"({self.costs[:1] or 'none'}) and its initial balance ({self.balance}) in 0..capacity; raise the mean budget."
            )

    def earn(self) -> int:
        """Start an inference: returns the highest entry such that it and all below it can be paid.

        >>> governor = Governor([10, 30], rate=20, capacity=40)
        >>> [(limit := governor.earn(), governor.spend(limit))[0] for _ in range(4)]
        [1, 1, 0, 1]
        """
        self.balance = min(self.capacity, self.balance + self.rate)
        limit = 0
        while limit + 1 < len(self.costs) and self.costs[limit + 1] <= self.balance:
            limit += 1
        return limit

    def spend(self, entry: int) -> None:
        """Pay for the entry that ran, which must not lie above what `earn` returned."""
        if self.costs[entry] > self.balance:
            raise BudgetError(
                f"An entry must be covered by the balance ({self.balance}), but entry {entry} costs {self.costs[entry]}; "
                "end at the entry that earn() allows."
            )
        self.balance -= self.costs[entry]
