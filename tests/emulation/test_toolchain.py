import ctypes
import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

from hwsearch.emulation.build_target import HOST
from hwsearch.emulation.cores.cortex_m4 import CORTEX_M4
from hwsearch.emulation.cores.esp32_c3 import ESP32_C3
from hwsearch.emulation.image import Image
from hwsearch.emulation.linker_script import SECTION_ALIGNMENT
from hwsearch.emulation.toolchain import build_elf, build_shared, find_compiler
from hwsearch.errors import ToolchainError

ANSWER = 'int answer(void);\n#include "answer.h"\nint answer(void) { return ANSWER; }\n'


def write_answer(folder: Path, value: int) -> Path:
    (folder / "answer.h").write_text(f"#define ANSWER {value}\n")
    source = folder / "answer.c"
    source.write_text(ANSWER)
    return source


def answer(library: Path) -> int:
    return int(ctypes.CDLL(str(library)).answer())


def test_the_host_has_a_compiler_with_recorded_version_and_flags() -> None:
    compiler = find_compiler(HOST)
    assert compiler.version and "-O3" in compiler.recorded_flags


def test_ziglang_builds_for_the_cortex_m4_and_says_which_clang_it_is() -> None:
    compiler = find_compiler(CORTEX_M4.build_target, prefer="ziglang")
    assert "clang version" in compiler.description and "-mcpu=cortex_m4" in compiler.recorded_flags
    assert "/" not in compiler.recorded_flags, "recorded flags must not name folders of this machine"


def test_a_missing_compiler_says_how_to_install_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ToolchainError, match=r"compilers: arm-none-eabi-gcc, ziglang, .* pip install") as error:
        find_compiler(CORTEX_M4.build_target)
    assert error.value.exit_code == 3


def test_a_compiler_named_by_cc_must_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler -m64")
    with pytest.raises(ToolchainError, match="needs one of these compilers: no-such-compiler -m64, but none was found"):
        find_compiler(HOST)


def test_a_compiler_that_cannot_build_for_a_core_is_refused() -> None:
    with pytest.raises(ToolchainError, match="C for rv32imc must be built by ziglang, but 'gcc' was named"):
        find_compiler(ESP32_C3.build_target, "gcc")


def test_what_the_compiler_refuses_is_repeated(tmp_path: Path) -> None:
    source = tmp_path / "wrong.c"
    source.write_text("int wrong(void);\nint wrong(void) { return missing; }\n")
    with pytest.raises(ToolchainError, match=r"must succeed, but it left with code 1 .*missing"):
        build_shared([source], out=tmp_path / "wrong.so", compiler=find_compiler(HOST))


def test_the_same_sources_are_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, compiler = write_answer(tmp_path, 41), find_compiler(HOST)
    first = build_shared([source], out=tmp_path / "first.so", compiler=compiler)

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("the compiler was called again")

    monkeypatch.setattr(subprocess, "run", refuse)
    second = build_shared([source], out=tmp_path / "second.so", compiler=compiler)
    assert second.read_bytes() == first.read_bytes()


def test_a_changed_header_is_noticed(tmp_path: Path) -> None:
    compiler = find_compiler(HOST)
    assert answer(build_shared([write_answer(tmp_path, 1)], out=tmp_path / "one.so", compiler=compiler)) == 1
    assert answer(build_shared([write_answer(tmp_path, 2)], out=tmp_path / "two.so", compiler=compiler)) == 2


def test_an_image_keeps_only_what_is_called(tmp_path: Path) -> None:
    source = tmp_path / "two.c"
    source.write_text("int used(int);\nint unused(int);\nint used(int x) { return x + 1; }\nint unused(int x) { return x; }\n")
    elf = build_elf([source], out=tmp_path / "two.elf", compiler=find_compiler(CORTEX_M4.build_target), keep=["used"])
    image = Image.read(elf)
    assert "used" in image.symbols and "unused" not in image.symbols
    assert image.ram_bytes == 0 and image.sizes["used"] <= image.own_bytes == SECTION_ALIGNMENT
