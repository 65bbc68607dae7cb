"""Re-computes everything a bundle promises, from its files alone.

A bundle whose files are altered raises `BundleError`, a missing compiler or emulator `ToolchainError`; what is intact but
does not compute or cost what it promises is a failed check.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from hwsearch.exporters.bundle import C_FOLDER_NAME, ONNX_FILE, Bundle, Vectors
from hwsearch.exporters.compiled import EmulatedPackage, HostPackage
from hwsearch.exporters.onnx_model import run_onnx
from hwsearch.exporters.program import plan_program
from hwsearch.graph.controllers import controller_of
from hwsearch.hardware.cost import Cost
from hwsearch.hardware.profile import HardwareProfile, load_profile
from hwsearch.integers.execute import Execution, run_model
from hwsearch.integers.integer_model import IntegerModel
from hwsearch.pricing.cost_model import CostModel
from hwsearch.progress import Progress, silent

CYCLE_TOLERANCE = 0.10
"""How far the emulated cycles of a whole inference may lie from the priced ones."""
PRICE_TOLERANCE = 1e-6
"""Relative difference at which a price that was computed again counts as the same."""
CYCLE_INPUTS = 3
"""Inputs on which every entry is forced to run and timed; code without data-dependent branches needs one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One promise: whether it holds, and the figures."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Subject:
    """What is checked against what."""

    bundle: Bundle
    model: IntegerModel
    profile: HardwareProfile
    vectors: Vectors


def verify(
    bundle: Bundle | str | Path,
    *,
    profile: HardwareProfile | None = None,
    emulate: bool = True,
    limit: int = 200,
    progress: Progress = silent,
) -> Verification:
    """Check a bundle: bytes, arithmetic in four places, prices, budgets, memory.

    `profile` is the one named in the manifest unless given; `limit` inputs of the vectors are computed; without `emulate`
    nothing is said about cycles and the size of the image.

    Raises:
        BundleError: a file is missing or altered.
        ProfileError: the profile is not known or cannot price the model.
        ToolchainError: there is no C compiler, or no emulator although `emulate` is set.
    """
    bundle = bundle if isinstance(bundle, Bundle) else Bundle(Path(bundle))
    bundle.check_files()
    vectors = bundle.vectors()
    first = Vectors(
        inputs=vectors.inputs[:limit],
        labels=vectors.labels[:limit],
        answers=Execution(logits=vectors.answers.logits[:limit], entries=vectors.answers.entries[:limit]),
    )
    chosen = profile or load_profile(bundle.manifest.profile)
    subject = _Subject(bundle=bundle, model=bundle.model(), profile=chosen, vectors=first)
    steps: list[Callable[[_Subject], Iterator[Check]]] = [_files, _contents, _arithmetic, _prices, _limits]
    steps += [_emulation] if emulate else []
    checks: list[Check] = []
    for step, compute in enumerate(steps):
        progress(step, len(steps), f"{len(checks)} checks done")
        checks += compute(subject)
    progress(len(steps), len(steps), f"{sum(check.ok for check in checks)} of {len(checks)} checks passed")
    return Verification(checks=tuple(checks))


def _files(subject: _Subject) -> Iterator[Check]:
    files = subject.bundle.manifest.files
    size = sum(record.bytes for record in files.values())
    yield Check(name="files are those of the manifest", ok=True, detail=f"{len(files)} files, {size} bytes, SHA-256 of each")


def _contents(subject: _Subject) -> Iterator[Check]:
    """The model is the one that the manifest describes."""
    manifest, model = subject.bundle.manifest, subject.model
    entries = len(model.menu.entries)
    yield Check(
        name="model is the one described",
        ok=model.menu == manifest.menu and tuple(model.thresholds) == manifest.thresholds and _has_its_policy(subject),
        detail=f"{model.menu.kind} with {entries} {'entry' if entries == 1 else 'entries'}",
    )


def _has_its_policy(subject: _Subject) -> bool:
    """The model's kind and its gate are those of the manifest's policy, which is the one that is priced."""
    gate, model, policy = subject.model.gate, subject.model, subject.bundle.manifest.policy
    if model.menu.kind is not policy.kind:
        return False
    wanted = controller_of(policy, model.network.input_shape, len(model.menu.entries))
    return (gate.network.ops if gate else None) == (wanted.ops if wanted else None)


def _arithmetic(subject: _Subject) -> Iterator[Check]:
    """Integer reference, ONNX Runtime and compiled C against the vectors."""
    inputs, folder = subject.vectors.inputs, subject.bundle.path
    yield _same(subject, "integer reference = vectors", run_model(subject.model, inputs))
    logits, entries = run_onnx(folder / ONNX_FILE, subject.model, inputs)
    yield _same(subject, "ONNX Runtime = vectors", Execution(logits=logits, entries=entries))
    host = HostPackage(folder / C_FOLDER_NAME, subject.model.network)
    yield _same(subject, "C on this computer = vectors", host.run(inputs), f", {host.compiler.description}")


def _same(subject: _Subject, name: str, found: Execution, by: str = "") -> Check:
    """Logits and entries agree on every input, bit for bit."""
    expected = subject.vectors.answers
    differ = (found.logits != expected.logits).any(axis=1) | (found.entries != expected.entries)
    count = len(expected.entries)
    detail = (
        f"{count} inputs bit for bit" if not differ.any() else f"{differ.sum()} of {count} differ, first {int(differ.argmax())}"
    )
    return Check(name=name, ok=count > 0 and not differ.any(), detail=detail + by)


def _prices(subject: _Subject) -> Iterator[Check]:
    """The prices in the manifest are those of the exported model."""
    model, manifest = subject.model, subject.bundle.manifest
    if not _has_its_policy(subject):
        yield Check(name="price of every entry", ok=False, detail="the model's policy is not the one described")
        return
    priced = CostModel(model.network, subject.profile).paths(model.menu, manifest.policy)
    error = max(_relative(new, old) for new, old in zip(priced, manifest.paths, strict=True))
    latencies = ", ".join(f"{cost.latency_us / 1000:.4g}" for cost in priced)
    yield Check(
        name="price of every entry",
        ok=error <= PRICE_TOLERANCE,
        detail=f"{latencies} ms, {priced[0].flash_bytes} B flash, {priced[0].ram_bytes} B RAM on {subject.profile.name}",
    )


def _relative(new: Cost, old: Cost) -> float:
    pairs = zip(asdict(new).values(), asdict(old).values(), strict=True)
    return max(abs(float(a) - float(b)) / max(abs(float(b)), 1e-12) for a, b in pairs)


def _limits(subject: _Subject) -> Iterator[Check]:
    """Every entry within the hard budget, the mean within the certified one."""
    manifest = subject.bundle.manifest
    limits = {name: limit for name, limit in manifest.budget.limits().items() if not name.startswith("mean_")}
    for index, path in enumerate(manifest.paths):
        over = [name for name, limit in limits.items() if getattr(path, name) > limit]
        told = ", ".join(f"{name} {getattr(path, name):.6g} of {limit:.6g}" for name, limit in limits.items())
        yield Check(name=f"worst case of entry {index}", ok=not over, detail=told or "no hard limit was asked for")
    certificate = manifest.certificate
    if certificate.limit_us is not None:
        yield Check(
            name="certified mean latency",
            ok=certificate.bound_us <= certificate.limit_us,
            detail=f"at most {certificate.bound_us / 1000:.4g} of {certificate.limit_us / 1000:.4g} ms with confidence "
            f"{certificate.confidence:g} from {certificate.n_samples} inputs ({certificate.method})",
        )


def _emulation(subject: _Subject) -> Iterator[Check]:
    """The same C, cross-compiled, on the profile's core, or a Cortex-M4 if that cannot be emulated; its cycles if it can."""
    package = EmulatedPackage(subject.bundle.path / C_FOLDER_NAME, subject.model.network, subject.profile.header)
    name = f"C on an emulated {package.core} = vectors"
    yield _same(subject, name, package.run(subject.vectors.inputs), f", {package.compiler.description}")
    if package.is_priced_core:
        yield from _cycles(subject, package)
        yield from _memory(subject, package)


def _cycles(subject: _Subject, package: EmulatedPackage) -> Iterator[Check]:
    """Emulated cycles of every entry, each forced, against its price and against the hard limit."""
    manifest, inputs = subject.bundle.manifest, subject.vectors.inputs[:CYCLE_INPUTS]
    clock_mhz = subject.profile.device.clock_hz / 1e6
    for index, path in enumerate(manifest.paths):
        cycles = max(package.cycles_of_entry(index, image) for image in inputs)
        priced = path.latency_us * clock_mhz
        error, limit = cycles / priced - 1, manifest.budget.latency_us
        within = limit is None or cycles / clock_mhz <= limit
        detail = f"{cycles} emulated, {priced:.0f} priced ({error:+.2%})"
        if limit is not None:
            detail += f", {cycles / clock_mhz / 1000:.4g} of {limit / 1000:.4g} ms allowed"
        yield Check(name=f"cycles of entry {index}", ok=abs(error) <= CYCLE_TOLERANCE and within, detail=detail)


def _memory(subject: _Subject, package: EmulatedPackage) -> Iterator[Check]:
    """What the linked image occupies, against plan, manifest and price."""
    manifest, size = subject.bundle.manifest, package.size()
    planned = plan_program(subject.model, subject.profile.header.device.isa).arena_bytes
    price = manifest.paths[0]
    input_bytes = int(np.prod(subject.model.network.input_shape))
    yield Check(
        name="arena is the planned one",
        ok=size.ram_bytes == planned == manifest.arena_bytes and planned + input_bytes <= price.ram_bytes,
        detail=f"{size.ram_bytes} B linked, {planned} B planned, {price.ram_bytes} B priced with the input",
    )
    yield _flash(subject, size.flash_bytes, price.flash_bytes, package.compiler.description)


def _flash(subject: _Subject, linked: int, priced: int, compiler: str) -> Check:
    """Exact where the table was measured from the same compiler's code; what another makes of it must keep the budget."""
    limit, runs = subject.bundle.manifest.budget.flash_bytes, subject.profile.runs
    measured_with = runs[-1].compiler if runs else subject.profile.header.library.compiler
    detail = f"{linked} B linked, {priced} B priced"
    if compiler != measured_with:
        detail += f", by {compiler} instead of {measured_with}"
        return Check(name="flash is within the budget", ok=limit is None or linked <= limit, detail=detail)
    weighed = any(run.runtime for run in runs)  # else the header's upper bound is in the price
    ok = linked == priced if weighed else linked <= priced
    return Check(name="flash is the price" if weighed else "flash is within the price", ok=ok, detail=detail)
