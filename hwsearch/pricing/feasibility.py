"""Whether a search can have a result at all: asked before anything is trained."""

from collections.abc import Callable, Iterable, Sequence

from hwsearch.errors import InfeasibleBudget, JobError
from hwsearch.graph.precision import BitAssignment
from hwsearch.graph.space import SearchSpace
from hwsearch.hardware.cost import ENERGY, LATENCY, Budget, Cost, cost_objectives
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.pricing.cost_model import CostModel


def fastest_assignment(space: SearchSpace, costs: CostModel) -> BitAssignment:
    """Every unit at the precision with the lowest latency; ties to the narrower one."""
    prices = costs.unit_prices(space)
    return space.assignment({name: min(options, key=lambda o: (o[1], o[0]))[0] for name, options in prices.items()})


def smallest_assignment(space: SearchSpace) -> BitAssignment:
    """Every unit at its narrowest weights, then narrowest activations."""
    return space.assignment({unit.name: min(unit.precisions) for unit in space.units})


def require_reachable(space: SearchSpace, costs: CostModel, budget: Budget) -> None:
    """Raise `InfeasibleBudget` if a limit lies below what the cheapest model of the space costs.

    The cheapest latency and energy are those of the fastest static assignment, ending at the earliest exit if exits are
    allowed; the smallest flash is that of the narrowest one. Meeting every limit alone does not promise meeting all together.
    """
    exits = space.network.exits if any(kind.shares_trunk for kind in space.policies.kinds) else ()
    reachable = {
        "latency_us": (fastest_assignment(space, costs), lambda cost: cost.latency_us),
        "energy_uj": (fastest_assignment(space, costs), lambda cost: cost.energy_uj),
        "flash_bytes": (smallest_assignment(space), lambda cost: float(cost.flash_bytes)),
        "ram_bytes": (smallest_assignment(space), lambda cost: float(cost.ram_bytes)),
    }
    for limit, allowed in budget.limits().items():
        assignment, quantity = reachable[limit.removeprefix("mean_")]
        lowest = _lowest(costs, assignment, ("", *exits), quantity)
        if lowest > allowed:
            op, share = _largest_op(costs, assignment)
            raise InfeasibleBudget(
                f"The budget must be reachable, but {limit} is limited to {allowed:g} and the cheapest model of {space.name} on "
                f"{costs.profile.name} needs {lowest:g} (op {op} holds {100 * share:.0f} % of the latency); "
                "raise that limit, allow narrower widths, or choose a smaller network."
            )


def require_own_axes(objectives: Sequence[str], profile: HardwareProfile) -> None:
    """Raise `JobError` if energy stands beside latency on a device whose energy is latency times one power."""
    energies, latencies = (
        [objective.name for objective in cost_objectives(objectives) if objective.quantity is quantity]
        for quantity in (ENERGY, LATENCY)
    )
    if energies and latencies and profile.energy_is_time:
        raise JobError(
            f"Each objective must be an axis of its own, but the energy of {profile.name} is latency times active power "
            f"(power_x_time), so {energies[0]} beside {latencies[0]} says nothing new: it is the same axis; "
            f"leave {energies[0]} out or measure energy with a power meter (hwsearch measure --meter)."
        )


def _lowest(costs: CostModel, assignment: BitAssignment, exits: Iterable[str], quantity: Callable[[Cost], float]) -> float:
    return min(quantity(costs.price(assignment, exits=(exit_name,))) for exit_name in exits)


def _largest_op(costs: CostModel, assignment: BitAssignment) -> tuple[str, float]:
    ops = costs.network.path([""])
    latencies = [price.latency_us for price in costs.breakdown(assignment)]
    largest = max(range(len(ops)), key=latencies.__getitem__)
    return ops[largest].name, latencies[largest] / sum(latencies)
