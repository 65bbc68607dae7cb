"""The files, and writing them."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from hwsearch.kernels.loops.depthwise import depthwise_header
from hwsearch.kernels.loops.elements import add_header, pool_header
from hwsearch.kernels.loops.linear import linear_header
from hwsearch.kernels.loops.polynomials import poly_header
from hwsearch.kernels.loops.smlad import smlad_header
from hwsearch.kernels.loops.thumb1 import expand_header, finish_header, multiply_header
from hwsearch.kernels.loops.thumb1_add import add_m0_header
from hwsearch.kernels.loops.thumb1_depthwise import depthwise_m0_header
from hwsearch.kernels.loops.thumb1_linear import linear_m0_header
from hwsearch.kernels.loops.umlal import umlal_header

C_FOLDER = Path(__file__).parent.parent / "c"
FOLDER = C_FOLDER / "cortex_m" / "generated"
FILES: Mapping[str, Callable[[], Iterator[str]]] = {
    "hw_smlad_loops.h": smlad_header,
    "hw_umlal_loops.h": umlal_header,
    "hw_poly_loops.h": poly_header,
    "hw_depthwise_loops.h": depthwise_header,
    "hw_element_loops.h": add_header,
    "hw_linear_loops.h": linear_header,
    "hw_pool_loops.h": pool_header,
}
M0_FOLDER = C_FOLDER / "cortex_m0" / "generated"
M0_FILES: Mapping[str, Callable[[], Iterator[str]]] = {
    "hw_multiply_loops.h": multiply_header,
    "hw_expand_loops.h": expand_header,
    "hw_finish_loops.h": finish_header,
    "hw_depthwise_m0_loops.h": depthwise_m0_header,
    "hw_dot_loops.h": linear_m0_header,
    "hw_add_m0_loops.h": add_m0_header,
}
HEAD = """/* Written by hwsearch/kernels/loops; do not edit. */
#include "{core}/hw_{core}.h"

#ifdef HW_{CORE}
"""


def text_of(name: str) -> str:
    """The content of one file."""
    core = "cortex_m" if name in FILES else "cortex_m0"
    head = HEAD.format(core=core, CORE=core.upper())
    return "\n".join([head, *{**FILES, **M0_FILES}[name](), "#endif\n"])


if __name__ == "__main__":
    for folder, names in ((FOLDER, FILES), (M0_FOLDER, M0_FILES)):
        for file_name in names:
            (folder / file_name).write_text(text_of(file_name), encoding="utf-8", newline="\n")
