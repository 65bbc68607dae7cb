"""What every exported package has besides kernels and data: the loop over operations, a policy, the governor.

It is the same code in every package of one policy, so that it is built and weighed once, when a table is measured.
"""

import tempfile
from pathlib import Path

from hwsearch.emulation.image import Image
from hwsearch.emulation.linker_script import SECTION_ALIGNMENT
from hwsearch.emulation.toolchain import Compiler, build_elf
from hwsearch.graph.menu import PolicyKind
from hwsearch.kernels.catalogue import C_FOLDER

_ALWAYS = ("hw_model.c", "hw_governor.c")
RUNTIME_HEADERS = ("hw_model_data.h", "hw_run.h", "hw_decide.h", "hw_governor.h")
ENTRY_POINTS = ("hw_model_run", "hw_model_run_between", "hw_model_run_governed", "hw_governor_init")
"""What a firmware may call; everything else is linked only if these need it."""
_NO_MODEL = "hw_no_model.c"
"""Stands for the data and the kernel that decides, each as small as a section can be."""


def policy_function(kind: PolicyKind) -> str:
    """The function that runs a policy, in a source named after it; what it does follows from the kind's traits.

    >>> [policy_function(kind) for kind in PolicyKind]
    ['hw_policy_static', 'hw_policy_gate', 'hw_policy_cascade', 'hw_policy_cascade']
    """
    if kind.has_controller:
        return "hw_policy_gate"
    return "hw_policy_cascade" if kind.escalates else "hw_policy_static"


def runtime_sources(kind: PolicyKind) -> tuple[str, ...]:
    """Sources below `C_FOLDER` that a package of this policy has besides kernels."""
    return (*_ALWAYS, f"{policy_function(kind)}.c")


def runtime_bytes(compiler: Compiler) -> dict[PolicyKind, dict[str, int]]:
    """Flash of each policy's package without kernels and data: own code as `runtime`, and what the compiler's library adds."""
    return {kind: _linked(compiler, kind) for kind in PolicyKind}


def _linked(compiler: Compiler, kind: PolicyKind) -> dict[str, int]:
    with tempfile.TemporaryDirectory() as folder:
        image = Image.read(
            build_elf(
                [C_FOLDER / name for name in (*runtime_sources(kind), _NO_MODEL)],
                out=Path(folder) / "hw_runtime.elf",
                compiler=compiler,
                includes=[C_FOLDER],
                macros=[f"HW_POLICY={policy_function(kind)}"],
                keep=ENTRY_POINTS,
            )
        )
    stand_ins = sum(SECTION_ALIGNMENT for name in ("hw_argmax", "hw_model_program") if name in image.symbols)
    return {"runtime": image.own_bytes - stand_ins, **image.builtins}
