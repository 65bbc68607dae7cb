import dataclasses
import re
import shutil

import numpy as np
import pytest

from hwsearch.emulation import toolchain
from hwsearch.errors import BundleError, ToolchainError
from hwsearch.exporters.bundle import Bundle, export
from hwsearch.exporters.compiled import EmulatedPackage
from hwsearch.exporters.manifest import file_record, write_manifest
from hwsearch.exporters.verify import verify
from hwsearch.graph.menu import PolicyKind, PolicyShape
from hwsearch.hardware.cost import Budget


@pytest.fixture(scope="module")
def static_bundle(make_final, profile, tmp_path_factory):
    return export(make_final("static"), tmp_path_factory.mktemp("verify") / "bundle", profile=profile)


@pytest.fixture
def copied(static_bundle, tmp_path):
    return Bundle(shutil.copytree(static_bundle.path, tmp_path / "bundle"))


def _failed(verification):
    return [check.name for check in verification.checks if not check.ok]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["static", "gate", "cascade", "exit"])
def test_a_bundle_of_every_policy_keeps_all_its_promises(kind, make_final, profile, tmp_path):
    final = make_final(kind)
    verification = verify(export(final, tmp_path / "bundle", profile=profile), profile=profile)
    assert verification.ok, _failed(verification)
    names = [check.name for check in verification.checks]
    assert [name for name in names if name.endswith("= vectors")] == [
        "integer reference = vectors",
        "ONNX Runtime = vectors",
        "C on this computer = vectors",
        "C on an emulated Cortex-M4 = vectors",
    ]
    assert "flash is the price" in names and "arena is the planned one" in names  # equal to the byte, see verify
    cycles = [check.detail for check in verification.checks if check.name.startswith("cycles of entry")]
    assert len(cycles) == len(final.model.entries)
    for detail in cycles:  # rows of these very shapes: only dispatch, caches and data differ, and rows have the slower data
        emulated, priced = (int(number) for number in re.findall(r"(\d+) (?:emulated|priced)", detail))
        assert -0.06 < emulated / priced - 1 < 0.005, detail


@pytest.mark.slow
def test_a_linked_image_of_another_size_than_its_price_is_noticed(copied, profile, monkeypatch):
    size = EmulatedPackage.size
    for changes, check in (({"flash_bytes": -32}, "flash is the price"), ({"ram_bytes": 8}, "arena is the planned one")):

        def changed(package, changes=changes):
            found = size(package)
            return dataclasses.replace(found, **{name: getattr(found, name) + more for name, more in changes.items()})

        monkeypatch.setattr(EmulatedPackage, "size", changed)
        assert _failed(verify(copied.path, profile=profile)) == [check]


@pytest.mark.slow
def test_flash_that_another_compiler_makes_is_held_to_the_budget_alone(make_final, profile, tmp_path):
    flash = export(make_final("static"), tmp_path / "bundle", profile=profile).manifest.paths[0].flash_bytes
    runs = tuple(run.model_copy(update={"compiler": "another 1.0"}) for run in profile.runs)
    other = dataclasses.replace(profile, runs=runs)
    for limit, ok in ((flash, True), (flash - 1, False)):
        final = dataclasses.replace(make_final("static"), budget=Budget(flash_bytes=limit))
        bundle = export(final, tmp_path / str(limit), profile=profile)
        found = {check.name: check for check in verify(bundle, profile=other).checks}
        assert "flash is the price" not in found
        assert found["flash is within the budget"].ok is ok
        assert "instead of another 1.0" in found["flash is within the budget"].detail


def test_a_flipped_byte_is_refused_and_not_computed_with(copied, profile):
    path = copied.path / "model.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"model\.npz must be as it was exported"):
        verify(copied.path, profile=profile)


def _resigned(bundle, **changes):
    """The bundle with a manifest that admits its changed files."""
    manifest = bundle.manifest.model_copy(
        update={"files": {name: file_record(bundle.path / name) for name in bundle.manifest.files}, **changes}
    )
    write_manifest(manifest, bundle.path)
    return Bundle(bundle.path)


def test_wrong_logits_in_the_vectors_fail_every_comparison(copied, profile):
    path = copied.path / "vectors.npz"
    arrays = dict(np.load(path))
    arrays["logits"][3, 1] += 1
    np.savez_compressed(path, **arrays)
    verification = verify(_resigned(copied), profile=profile, emulate=False)
    assert _failed(verification) == ["integer reference = vectors", "ONNX Runtime = vectors", "C on this computer = vectors"]
    assert "1 of 24 differ, first 3" in next(check.detail for check in verification.checks if not check.ok)


def test_a_changed_constant_in_c_fails_there_alone(copied, profile):
    path = copied.path / "c" / "hw_model_data.c"
    text = path.read_text()
    start = text.index("{", text.index("/* bias of logits */"))
    path.write_text(text[: start + 1] + "77777, " + text[text.index(",", start) + 1 :])
    assert _failed(verify(_resigned(copied), profile=profile, emulate=False)) == ["C on this computer = vectors"]


def test_a_price_that_the_profile_does_not_give_fails(copied, profile):
    path = copied.manifest.paths[0]
    cheap = dataclasses.replace(path, latency_us=path.latency_us * 0.99)
    assert _failed(verify(_resigned(copied, paths=(cheap,)), profile=profile, emulate=False)) == ["price of every entry"]


def test_an_entry_beyond_the_budget_fails(copied, profile):
    tight = Budget(flash_bytes=copied.manifest.paths[0].flash_bytes - 1)
    verification = verify(_resigned(copied, budget=tight), profile=profile, emulate=False)
    assert _failed(verification) == ["worst case of entry 0"]


def test_a_certificate_above_its_limit_fails(copied, profile):
    certificate = copied.manifest.certificate
    late = dataclasses.replace(certificate, bound_us=certificate.limit_us + 1)
    assert _failed(verify(_resigned(copied, certificate=late), profile=profile, emulate=False)) == ["certified mean latency"]


def test_thresholds_other_than_the_models_fail(copied, profile):
    assert _failed(verify(_resigned(copied, thresholds=(1,)), profile=profile, emulate=False)) == ["model is the one described"]


def test_copies_other_than_the_models_fail(copied, profile):
    menu = dataclasses.replace(copied.manifest.menu, copies=frozenset({("first", 2)}))
    assert _failed(verify(_resigned(copied, menu=menu), profile=profile, emulate=False)) == ["model is the one described"]


def test_a_policy_of_another_kind_than_the_models_fails(copied, profile):
    verification = verify(_resigned(copied, policy=PolicyShape(kind=PolicyKind.CASCADE)), profile=profile, emulate=False)
    assert _failed(verification) == ["model is the one described", "price of every entry"]


def test_a_gate_of_another_shape_than_the_models_fails(make_final, profile, tmp_path):
    bundle = export(make_final("gate"), tmp_path / "gate", profile=profile)
    wider = dataclasses.replace(bundle.manifest.policy, gate_hidden=bundle.manifest.policy.gate_hidden + 1)
    verification = verify(_resigned(bundle, policy=wider), profile=profile, emulate=False)
    assert _failed(verification) == ["model is the one described", "price of every entry"]


def test_without_a_c_compiler_the_user_is_told_what_to_install(static_bundle, profile, monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(toolchain, "_command", lambda name: ())
    with pytest.raises(ToolchainError, match=r"pip install 'hwsearch\[mcu\]'") as caught:
        verify(static_bundle, profile=profile)
    assert caught.value.exit_code == 3


def test_progress_counts_to_the_end(static_bundle, profile):
    steps = []
    verify(
        static_bundle, profile=profile, emulate=False, limit=2, progress=lambda done, total, note="": steps.append((done, total))
    )
    assert steps[-1] == (len(steps) - 1, len(steps) - 1)
