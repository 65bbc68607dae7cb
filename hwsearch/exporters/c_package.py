"""A dynamic integer model as a C99 package: the measured kernels verbatim, generated constant data, no allocation.

All work happens in one static arena, whose layout is the plan that was priced (`program.py`). What runs is written by
hand (kernels/c/hw_model.c) and the same in every package; only data, sizes and the self-test's vectors are generated.
Each kernel function is a compilation unit of its own, as it was when it was measured: together in one, compilers share and
outline code between widths, which made whole convolutions up to 8 % slower than their rows.
"""

import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwsearch.emulation.isa import Isa
from hwsearch.exporters.c_data import GENERATED, data_source, input_step_text, selftest_source
from hwsearch.exporters.program import Program, plan_program
from hwsearch.hardware.cost import Cost
from hwsearch.integers.execute import Execution
from hwsearch.integers.integer_model import Codes, IntegerModel
from hwsearch.kernels.bodies.known import bodies_for
from hwsearch.kernels.catalogue import C_FOLDER, HEADERS, Kernel, carried, unit
from hwsearch.kernels.runtime import RUNTIME_HEADERS, runtime_sources

DATA_SOURCE, SELFTEST_SOURCE = "hw_model_data.c", "hw_selftest.c"
SELFTEST_VECTORS = 8
"""Inputs in the self-test, every entry that occurs among them."""
KERNEL_FOLDER = "kernels"
"""Holds one source per kernel function, which includes the verbatim bodies of its operation: portable and the core's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageNotes:
    """What a package says about itself besides its integers. `mean_limit_us` is None without a mean budget.

    `isa`: the instruction set whose kernels it has besides the portable ones, and provides memory for.
    """

    task: str
    device: str
    isa: Isa
    built_with: str
    paths: tuple[Cost, ...]
    mean_limit_us: float | None


def write_c_package(model: IntegerModel, folder: Path, notes: PackageNotes, *, inputs: Codes, answers: Execution) -> Program:
    """Write the package into `folder`, which must exist; returns the program it executes.

    `inputs` `[N, H, W, C]` and the reference's `answers` to them serve the self-test.
    """
    program = plan_program(model, notes.isa)
    sources = kernel_sources(program, notes.isa)
    verbatim = (*carried(HEADERS, notes.isa), *RUNTIME_HEADERS, *runtime_sources(model.menu.kind), *sources)
    for name in verbatim:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(C_FOLDER / name, target)
    chosen = _selftest_choice(answers.entries)
    (folder / KERNEL_FOLDER).mkdir()
    texts = {_kernel_file(kernel): _kernel_unit(kernel, notes.isa) for kernel in program.kernels} | {
        "hw_model.h": _header(model, program, notes),
        DATA_SOURCE: data_source(model, program, [nanoseconds_up(cost.latency_us) for cost in notes.paths]),
        SELFTEST_SOURCE: selftest_source(inputs[chosen], answers.logits[chosen], answers.entries[chosen]),
        "CMakeLists.txt": _cmake(model, program),
        "README.md": _readme(model, program, notes),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    return program


def kernel_sources(program: Program, isa: Isa) -> tuple[str, ...]:
    """Kernel sources a program needs on an instruction set, as paths within the package."""
    return carried(sorted({*chain.from_iterable(kernel.sources for kernel in program.kernels)}), isa)


def package_sources(folder: Path) -> list[Path]:
    """Sources of a written package's library, the self-test left out."""
    runtime = [path for path in folder.glob("hw_*.c") if path.name != SELFTEST_SOURCE]  # with DATA_SOURCE
    return sorted(runtime) + sorted(folder.glob(f"{KERNEL_FOLDER}/*.c"))


def package_includes(folder: Path) -> list[Path]:
    """Folders of a written package that its sources include from."""
    return [folder]


def nanoseconds_up(latency_us: float) -> int:
    """A cost in whole nanoseconds, rounded up, so that what is paid never falls short."""
    return math.ceil(latency_us * 1000)


def nanoseconds_down(latency_us: float) -> int:
    """A limit in whole nanoseconds, rounded down."""
    return math.floor(latency_us * 1000)


def _selftest_choice(entries: NDArray[np.int64]) -> list[int]:
    """Positions of the first input of each entry, filled up with the first others."""
    first = [int(position) for position in np.unique(entries, return_index=True)[1]]
    others = [position for position in range(len(entries)) if position not in first]
    return sorted(first + others[: max(0, SELFTEST_VECTORS - len(first))])


def _kernel_file(kernel: Kernel) -> str:
    return f"{KERNEL_FOLDER}/{kernel.symbol}.c"


def _kernel_unit(kernel: Kernel, isa: Isa) -> str:
    body = bodies_for(isa)[-1]
    macros = (f"HW_BODIES={body.number} /* {body.folder} */", *kernel.macros)
    return f"/* {GENERATED} One function, compiled alone as it was measured. */\n{unit(carried(kernel.sources, isa), macros)}"


def _header(model: IntegerModel, program: Program, notes: PackageNotes) -> str:
    channels, height, width = model.network.input_shape
    constants: Mapping[str, object] = {
        "ENTRIES": len(model.entries),
        "CLASSES": model.network.output.out_channels,
        "INPUT_HEIGHT": height,
        "INPUT_WIDTH": width,
        "INPUT_CHANNELS": channels,
        "INPUT_BYTES": height * width * channels,
        "INPUT_ZERO": model.input_zero,
        "INPUT_STEP": input_step_text(model.input_step),
        "ARENA_BYTES": program.arena_bytes,
    }
    defines = [f"#define HW_MODEL_{name} {value}" for name, value in constants.items()]
    if notes.mean_limit_us is not None:
        defines.append(f"#define HW_MODEL_MEAN_LIMIT_NS UINT64_C({nanoseconds_down(notes.mean_limit_us)})")
    return _HEADER.format(generated=GENERATED, defines="\n".join(defines))


_HEADER = """\
/* {generated} */
#ifndef HW_MODEL_H
#define HW_MODEL_H

#include <stdint.h>

#include "hw_run.h"

/* A code of the input is floor(real / HW_MODEL_INPUT_STEP + 1/2) + HW_MODEL_INPUT_ZERO, kept within 0 .. 255. */
{defines}

/* Price of a whole inference that ends at each entry, in nanoseconds, rounded up. */
extern const uint64_t hw_model_cost_ns[HW_MODEL_ENTRIES];

#endif
"""


def _cmake(model: IntegerModel, program: Program) -> str:
    units = (_kernel_file(kernel) for kernel in program.kernels)
    sources = "\n".join(f"  {name}" for name in (*runtime_sources(model.menu.kind), DATA_SOURCE, *units))
    return f"""\
# {GENERATED}
cmake_minimum_required(VERSION 3.10)
project(hw_model C)

set(CMAKE_C_STANDARD 99)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF)

add_library(hw_model STATIC
{sources}
)
target_include_directories(hw_model PUBLIC ${{CMAKE_CURRENT_SOURCE_DIR}})
target_compile_options(hw_model PRIVATE -O3 -Wall -Wextra -Werror -ffunction-sections -fdata-sections)

enable_testing()
add_executable(hw_selftest hw_selftest.c)
target_link_libraries(hw_selftest hw_model)
add_test(NAME hw_selftest COMMAND hw_selftest)
"""


def _readme(model: IntegerModel, program: Program, notes: PackageNotes) -> str:
    return "\n".join(chain(_readme_head(model, program, notes), _readme_entries(model, notes), _readme_governor(notes))) + "\n"


def _readme_head(model: IntegerModel, program: Program, notes: PackageNotes) -> Iterator[str]:
    channels, height, width = model.network.input_shape
    yield f"# {notes.task} for {notes.device}\n"
    yield "C99, no allocation, nothing of the C library but `stdint.h` and `string.h`.\n"
    yield "Self-test on this computer:\n"
    yield "```\ncmake -S . -B build && cmake --build build && ctest --test-dir build\n```\n"
    yield "In a firmware: compile the sources that `CMakeLists.txt` lists for `hw_model` with this folder on the include path."
    yield f"The prices below hold for: `{notes.built_with}`.\n"
    yield f"- input: {height} x {width} x {channels} codes (height, width, channel), one byte each, 4-byte aligned;"
    yield f"  code = floor(real / {model.input_step:.9g} + 1/2) + {model.input_zero}, kept within 0 .. 255"
    yield f"- output: {model.network.output.out_channels} int32 logits, comparable with each other"
    yield f"- RAM: {program.arena_bytes} bytes of static arena, besides the caller's input and logits and the stack"
    yield "  (on x86-64 up to 120 KB of it)\n"


def _readme_entries(model: IntegerModel, notes: PackageNotes) -> Iterator[str]:
    yield f"{model.menu.kind.description} No input costs more than the largest price below.\n"
    yield "| entry | ends at | latency |\n| --- | --- | --- |"
    for index, (entry, cost) in enumerate(zip(model.menu.entries, notes.paths, strict=True)):
        yield f"| {index} | {entry.exit or 'the end'} | {cost.latency_us / 1000:.4g} ms |"
    yield ""


def _readme_governor(notes: PackageNotes) -> Iterator[str]:
    yield "## Holding the mean on every input sequence\n"
    if notes.mean_limit_us is None:
        yield "This model has no mean limit; `hw_governor` can hold any rate that is at least `hw_model_cost_ns[0]`."
        rate = "rate_ns"
    else:
        yield f"The mean limit of {notes.mean_limit_us / 1000:.4g} ms is certified for inputs like those it was calibrated on."
        yield "To hold it on every sequence of inputs, run under the governor:"
        rate = "HW_MODEL_MEAN_LIMIT_NS"
    yield "\n```c\nhw_governor governor;"
    yield "uint64_t saved = hw_model_cost_ns[HW_MODEL_ENTRIES - 1]; /* the most that may be saved up */\n"
    yield f"if (hw_governor_init(&governor, hw_model_cost_ns, HW_MODEL_ENTRIES, {rate}, saved, 0) == 0)"
    yield "    entry = hw_model_run_governed(&governor, input, logits);\n```"
