"""Write `hwsearch/measuring/shapes.csv`: the operations of the reference networks, which every table must hold.

Run it after changing `hwsearch/tasks/networks.py`: `python tools/reference_shapes.py`.
"""

import csv
import io

from hwsearch.graph.network import Network
from hwsearch.graph.op import shape_text
from hwsearch.graph.space import list_spaces, network_for_space
from hwsearch.measuring.grid import COLUMNS, SHAPES_FILE


def table(networks: dict[str, Network]) -> str:
    """The file's content: one line per operation, in execution order."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for name, network in networks.items():
        for op in network.ops:
            shapes = (shape_text(op.in_shape), shape_text(op.out_shape))
            geometry = (f"{rows}x{columns}" for rows, columns in (op.kernel, op.stride, op.padding))
            writer.writerow([name, op.name, op.kind, *shapes, *geometry, op.groups])
    return text.getvalue()


if __name__ == "__main__":
    content = table({name: network_for_space(name) for name in list_spaces()})
    SHAPES_FILE.write_text(content, encoding="utf-8")
    print(f"{SHAPES_FILE.name}: {content.count(chr(10)) - 1} operations")
