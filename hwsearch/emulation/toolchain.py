"""C compilers: which one builds for a target, and what it built before."""

import hashlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hwsearch.emulation.build_target import HOST, ZIG, BuildTarget
from hwsearch.emulation.linker_script import LINKER_SCRIPT
from hwsearch.errors import ToolchainError


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiler:
    """A C compiler for one target, and the flags that everything is built with."""

    name: str
    """`ziglang`, `arm-none-eabi-gcc`, `cc`, `gcc`, `clang`, or what the variable CC names."""
    version: str
    target: str
    command: tuple[str, ...]
    flags: tuple[str, ...]

    @property
    def description(self) -> str:
        return f"{self.name} {self.version}" if self.name == ZIG else self.version

    @property
    def recorded_flags(self) -> str:
        """The flags that decide what code comes out, without folders of this machine."""
        return " ".join(flag for flag in self.flags if not flag.startswith("-isystem"))


def find_compiler(target: BuildTarget, prefer: str | None = None) -> Compiler:
    """The compiler for `target`, or exactly the one that `prefer` names.

    On the host the variable CC comes first, as everywhere.

    Raises:
        ToolchainError: there is none, or the preferred one cannot build for the target.

    >>> find_compiler(HOST).target
    'host'
    """
    candidates = (prefer,) if prefer else _candidates(target)
    for name in candidates:
        flags, command = target.flags(name), _command(name)
        if not flags:
            raise ToolchainError(
                f"C for {target.name} must be built by {' or '.join(target.compilers)}, but {name!r} was named; name one of them."
            )
        if command:
            return Compiler(name=name, version=_version(name, command), target=target.name, command=command, flags=flags)
    raise ToolchainError(
        f"Building C for {target.name} needs one of these compilers: {', '.join(candidates)}, but none was found; "
        "install one with: pip install 'hwsearch[mcu]' (it brings ziglang)."
    )


def _candidates(target: BuildTarget) -> tuple[str, ...]:
    named = os.environ.get("CC")
    return (named,) if named and target == HOST else target.compilers


def _command(name: str) -> tuple[str, ...]:
    """How to call a compiler; empty if it is not installed."""
    if name == ZIG:
        return (sys.executable, "-m", "ziglang", "cc") if importlib.util.find_spec(ZIG) else ()
    words = tuple(shlex.split(name))
    return words if shutil.which(words[0]) else ()


@cache
def _version(name: str, command: tuple[str, ...]) -> str:
    """What a compiler says of itself, for the record.

    zig's own number comes first, since clang's does not tell which run-time library and driver were used.
    """
    clang_or_gcc = _run((*command, "--version"), "ask for the version of").splitlines()[0].split("(http")[0].strip()
    if name == ZIG:
        return f"{_run((*command[:-1], 'version'), 'ask for the version of').strip()} ({clang_or_gcc})"
    return clang_or_gcc


def build_elf(
    sources: Sequence[Path],
    *,
    out: Path,
    compiler: Compiler,
    includes: Sequence[Path] = (),
    macros: Sequence[str] = (),
    keep: Sequence[str],
) -> Path:
    """Link an image without an operating system at `out`: code and constants in flash, variables in RAM, no start-up code.

    `keep` names the functions that will be called; what they do not reach is left out.

    Raises:
        ToolchainError: the compiler refuses the sources.
    """
    script = in_cache("link", LINKER_SCRIPT.encode(), "bare.ld")
    roots = [f"-Wl,-u,{symbol}" for symbol in keep]
    # There is no start-up code, so the entry point only silences the linker: the emulator calls functions by address.
    linking = ["-Wl,--gc-sections", f"-Wl,-T,{script}", *roots, f"-Wl,-e,{keep[0]}"]
    linking += [] if compiler.name == ZIG else ["-nostartfiles"]
    return _link(sources, includes, macros, linking, out, compiler)


def build_shared(
    sources: Sequence[Path], *, out: Path, compiler: Compiler, includes: Sequence[Path] = (), macros: Sequence[str] = ()
) -> Path:
    """Link a shared library for this computer at `out`.

    Raises:
        ToolchainError: the compiler refuses the sources.
    """
    return _link(sources, includes, macros, ["-shared"], out, compiler)


def build_program(
    sources: Sequence[Path], *, out: Path, compiler: Compiler, includes: Sequence[Path] = (), macros: Sequence[str] = ()
) -> Path:
    """Link an executable program at `out`.

    Raises:
        ToolchainError: the compiler refuses the sources.
    """
    return _link(sources, includes, macros, [], out, compiler)


def _link(
    sources: Sequence[Path],
    includes: Sequence[Path],
    macros: Sequence[str],
    linking: Sequence[str],
    out: Path,
    compiler: Compiler,
) -> Path:
    """Each source is compiled alone and kept, so that what shares kernels builds them once."""
    options = [*compiler.flags, *(f"-D{macro}" for macro in macros), *(f"-I{folder}" for folder in includes)]

    def compile_alone(source: Path, compiled: Path) -> None:
        _build([source], includes, [*options, "-c", str(source)], compiled, compiler)

    with tempfile.TemporaryDirectory() as folder:
        objects = [Path(folder) / f"{number}.o" for number in range(len(sources))]
        with ThreadPoolExecutor(os.cpu_count()) as threads:  # each waits for a compiler's process
            list(threads.map(compile_alone, sources, objects))  # listed, so that a failure is raised
        return _build(objects, (), [*compiler.flags, *map(str, objects), *linking], out, compiler)


def _build(sources: Sequence[Path], includes: Sequence[Path], arguments: Sequence[str], out: Path, compiler: Compiler) -> Path:
    """Run the compiler, unless it built exactly this before."""
    places = {*map(str, sources), *(f"-I{folder}" for folder in includes)}  # what is built does not depend on where it lies
    options = [argument for argument in arguments if argument not in places]
    key = _content_key(compiler, options, _read(sources, includes))
    built = cache_folder() / "build" / f"{key}{out.suffix}"
    if not built.exists():
        built.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=built.parent) as folder:
            result = Path(folder) / out.name
            _run((*compiler.command, *arguments, "-o", str(result)), "build with")
            result.replace(built)
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(built, out)  # with its mode: programs can be run
    return out


_INCLUDE = re.compile(rb'^[ \t]*#[ \t]*include[ \t]*[<"]([^>"\n]+)[>"]', re.MULTILINE)


def _read(sources: Sequence[Path], includes: Sequence[Path]) -> list[Path]:
    """The sources and every file that they may include, through others too, whatever is switched on."""
    found = dict.fromkeys(sources)
    waiting = list(sources)
    while waiting:
        file = waiting.pop()
        for name in _INCLUDE.findall(file.read_bytes()):
            for folder in (file.parent, *includes):
                path = folder / name.decode()
                if path.is_file() and path not in found:
                    found[path] = None
                    waiting.append(path)
    return list(found)


def _content_key(compiler: Compiler, arguments: Sequence[str], files: Sequence[Path]) -> str:
    digest = hashlib.sha256(repr((compiler.command, compiler.version, list(arguments))).encode())
    for path in files:
        digest.update(f"\0{path.name}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _run(command: Sequence[str], purpose: str) -> str:
    environment = dict(os.environ)
    environment.setdefault("ZIG_GLOBAL_CACHE_DIR", str(cache_folder() / "zig"))
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        said = next((line for line in lines if "error" in line), lines[-1] if lines else "nothing")
        raise ToolchainError(
            f"To {purpose} {shlex.join(command[:4])} … must succeed, but it left with code {done.returncode} and said: "
            f"{said.strip()}; check the compiler's installation and the sources."
        )
    return done.stdout


def in_cache(folder: str, content: bytes, name: str) -> Path:
    """A file of this name and content in the cache, written once, alone in its folder."""
    path = cache_folder() / folder / hashlib.sha256(content).hexdigest()[:16] / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(content)
        Path(file.name).replace(path)
    return path


@cache
def cache_folder() -> Path:
    """Where built code is kept between runs: `$XDG_CACHE_HOME/hwsearch`, or a temporary folder if that cannot be written."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(home) / "hwsearch"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        folder = Path(tempfile.gettempdir()) / f"hwsearch-{os.getuid()}"
        folder.mkdir(parents=True, exist_ok=True)
    return folder
