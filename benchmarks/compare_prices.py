"""Whether two versions of hwsearch price the same: every shipped space, profile and uniform width.

`python benchmarks/compare_prices.py --write before.json` in one checkout, `--against before.json` in the other prints every
difference and, by device, how many prices are equal to the last digit. Only public names are used, so that old versions answer.
"""

import argparse
import json
from pathlib import Path

import hwsearch as hw
from hwsearch.errors import HwsearchError
from hwsearch.graph.precision import Precision
from hwsearch.graph.space import SearchSpace, list_spaces, network_for_space
from hwsearch.hardware.profile import list_profiles

QUANTITIES = ("latency_us", "energy_uj", "flash_bytes", "ram_bytes")
Prices = dict[str, list[float] | str]
"""By `profile space precision`: the four quantities, or why there is no price."""


def all_prices() -> Prices:
    found: Prices = {}
    for profile_name in list_profiles():
        profile = hw.load_profile(profile_name)
        for space_name in list_spaces():
            space = hw.load_space(space_name, network_for_space(space_name))
            costs = hw.CostModel(space.network, profile)
            for precision in uniform(space):
                found[f"{profile_name} {space_name} {precision}"] = price(costs, space, precision)
    return found


def uniform(space: SearchSpace) -> list[Precision]:
    """Precisions of one width for weights and activations that a space has, widest first."""
    return sorted({p for unit in space.units for p in unit.precisions if p.weight_bits == p.activation_bits}, reverse=True)


def price(costs: hw.CostModel, space: SearchSpace, precision: Precision) -> list[float] | str:
    try:
        cost = costs.price(space.uniform(precision))
    except HwsearchError as refusal:
        return type(refusal).__name__
    return [getattr(cost, quantity) for quantity in QUANTITIES]


def differences(before: Prices, now: Prices) -> list[str]:
    lines = []
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key, "absent"), now.get(key, "absent")
        if old == new:
            continue
        if isinstance(old, str) or isinstance(new, str):
            lines.append(f"{key}: {old} -> {new}")
        else:
            changed = [f"{name} {a:g} -> {b:g}" for name, a, b in zip(QUANTITIES, old, new, strict=True) if a != b]
            lines.append(f"{key}: {', '.join(changed)}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--write", type=Path, help="write today's prices")
    chosen.add_argument("--against", type=Path, help="compare with prices written before")
    options = parser.parse_args()
    now = all_prices()
    if options.write:
        options.write.write_text(json.dumps(now, indent=1), encoding="utf-8")
        print(f"{len(now)} prices")
        return
    before = json.loads(options.against.read_text(encoding="utf-8"))
    print("\n".join(differences(before, now)))
    for device in sorted({key.split()[0] for key in before}):
        keys = [key for key in before if key.split()[0] == device]
        print(f"{device}: {sum(before[key] == now.get(key) for key in keys)} of {len(keys)} equal")


if __name__ == "__main__":
    main()
