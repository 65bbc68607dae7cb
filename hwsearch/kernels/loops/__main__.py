"""The files, and writing them."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from hwsearch.kernels.loops.depthwise import depthwise_header
from hwsearch.kernels.loops.elements import add_header, pool_header
from hwsearch.kernels.loops.polynomials import poly_header
from hwsearch.kernels.loops.smlad import smlad_header
from hwsearch.kernels.loops.umlal import umlal_header

FOLDER = Path(__file__).parent.parent / "c" / "cortex_m"
FILES: Mapping[str, Callable[[], Iterator[str]]] = {
    "hw_smlad_loops.h": smlad_header,
    "hw_umlal_loops.h": umlal_header,
    "hw_poly_loops.h": poly_header,
    "hw_depthwise_loops.h": depthwise_header,
    "hw_element_loops.h": add_header,
    "hw_pool_loops.h": pool_header,
}
HEAD = """/* Written by hwsearch/kernels/loops; do not edit. */
#include "hw_cortex_m.h"

#ifdef HW_CORTEX_M
"""


def text_of(name: str) -> str:
    """The content of one file."""
    return "\n".join([HEAD, *FILES[name](), "#endif\n"])


if __name__ == "__main__":
    for file_name in FILES:
        (FOLDER / file_name).write_text(text_of(file_name), encoding="utf-8", newline="\n")
