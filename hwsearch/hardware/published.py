"""Whole networks that others timed on a device, as they published them (`networks.csv` of a profile).

Here stands what a table of operations cannot hold, such as networks computed in float32: a search never chooses float32 for an
operation, and totals of networks do not tell what each of their operations costs.
"""

import csv
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

from hwsearch.errors import ProfileError

NETWORKS_FILE = "networks.csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedNetwork:
    """One published result; fields are the columns.

    `precision` is `int8` or `float32`. `left_out_us` is what the method behind the profile's table predicts when this network is
    left out of its fit.
    """

    network: str
    precision: str
    latency_us: float
    energy_uj: float
    left_out_us: float
    source: str

    @property
    def left_out_error(self) -> float:
        """Relative error of that prediction."""
        return self.left_out_us / self.latency_us - 1


COLUMNS = tuple(field.name for field in fields(PublishedNetwork))
_NUMBERS = ("latency_us", "energy_uj", "left_out_us")


def read_networks(folder: Path) -> tuple[PublishedNetwork, ...]:
    """The published networks of a profile; none if it has no such file."""
    path = folder / NETWORKS_FILE
    if not path.exists():
        return ()
    with path.open(newline="", encoding="utf-8") as file:
        lines = csv.DictReader(file)
        if tuple(lines.fieldnames or ()) != COLUMNS:
            raise ProfileError(f"{path}:1: the columns must be {','.join(COLUMNS)}, but differ; correct the first line.")
        return tuple(_parse(cells, f"{path}:{number}") for number, cells in enumerate(lines, start=2))


def _parse(cells: dict[str, str], where: str) -> PublishedNetwork:
    try:
        numbers = {name: float(cells[name]) for name in _NUMBERS}
        row = PublishedNetwork(network=cells["network"], precision=cells["precision"], source=cells["source"], **numbers)
    except (TypeError, ValueError) as error:
        raise ProfileError(f"{where}: {', '.join(_NUMBERS)} must be numbers ({error}); correct the row.") from error
    if min(numbers.values()) <= 0 or max(numbers.values()) == float("inf"):
        raise ProfileError(f"{where}: times and energies must be above 0, but found {min(numbers.values()):g}; correct the row.")
    return row


def write_networks(folder: Path, rows: Iterable[PublishedNetwork]) -> None:
    """Write `networks.csv`."""
    with (folder / NETWORKS_FILE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            numbers = (format(getattr(row, name), ".6g") for name in _NUMBERS)
            writer.writerow([row.network, row.precision, *numbers, row.source])
