import dataclasses
import json
import shutil

import numpy as np
import pytest

from hwsearch.errors import BundleError, ProfileError
from hwsearch.exporters.bundle import Bundle, export
from hwsearch.graph.network import Network
from hwsearch.integers.execute import run_model


@pytest.fixture(scope="module")
def exported(make_final, profile, tmp_path_factory):
    """An exit model and its bundle, not to be changed."""
    final = make_final("exit")
    return final, export(final, tmp_path_factory.mktemp("bundles") / "bundle", report="<p>report</p>", profile=profile)


@pytest.fixture
def copied(exported, tmp_path):
    """A copy of the bundle, to be damaged."""
    return Bundle(shutil.copytree(exported[1].path, tmp_path / "bundle"))


def test_a_bundle_holds_what_a_user_needs(exported):
    _, bundle = exported
    names = set(bundle.manifest.files)
    assert {
        "model.npz",
        "model.onnx",
        "vectors.npz",
        "report.html",
        "c/CMakeLists.txt",
        "c/hw_model.h",
        "c/hw_selftest.c",
    } <= names
    found = {path.relative_to(bundle.path).as_posix() for path in bundle.path.rglob("*") if path.is_file()}
    assert found == names | {"manifest.json"}
    bundle.check_files()


def test_model_and_vectors_come_back_equal(exported):
    final, bundle = exported
    vectors = bundle.vectors()
    expected = run_model(final.model, final.sample_codes)
    assert (vectors.inputs == final.sample_codes).all() and (vectors.answers.logits == expected.logits).all()
    assert (run_model(bundle.model(), vectors.inputs).entries == vectors.answers.entries).all()


def test_the_manifest_says_what_was_promised(exported, profile):
    final, bundle = exported
    manifest = bundle.manifest
    assert manifest.paths == final.paths and manifest.cost == final.cost
    assert manifest.budget == final.budget and manifest.certificate == final.certificate
    assert manifest.thresholds == final.model.thresholds and manifest.profile == profile.name
    assert (manifest.menu, manifest.policy, manifest.shares) == (final.model.menu, final.policy, final.shares)
    assert manifest.price.provenance == {"emulated": pytest.approx(1.0)}
    record = json.loads((bundle.path / "manifest.json").read_text())
    assert record["schema"] == 2 and record["menu"]["entries"][0]["exit"] == "exit1"


def test_the_same_model_gives_the_same_bytes(exported, profile, tmp_path):
    final, bundle = exported
    again = export(final, tmp_path / "again", report="<p>report</p>", profile=profile)
    assert again.manifest.files == bundle.manifest.files and again.manifest.digest == bundle.manifest.digest


def test_a_flipped_byte_in_any_file_is_caught_with_one_sentence(copied):
    rng = np.random.default_rng(0)
    for name in [*Bundle(copied.path).manifest.files, "manifest.json"]:
        path = copied.path / name
        intact = path.read_bytes()
        for position in [0, len(intact) - 1, *rng.integers(0, len(intact), 4)]:
            damaged = bytearray(intact)
            damaged[position] ^= 1 << int(rng.integers(8))
            path.write_bytes(damaged)
            with pytest.raises(BundleError, match=r"must be as it was exported, but .*; copy the bundle again\.$") as caught:
                Bundle(copied.path).check_files()
            assert path.name in str(caught.value) and "\n" not in str(caught.value)
        path.write_bytes(intact)
    Bundle(copied.path).check_files()


def test_a_missing_file_is_named(copied):
    (copied.path / "c" / "hw_model.h").unlink()
    with pytest.raises(BundleError, match=r"must hold c/hw_model\.h"):
        copied.check_files()


def test_a_shortened_file_is_told_by_its_size(copied):
    path = copied.path / "model.onnx"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(BundleError, match=r"model\.onnx .* bytes instead of"):
        copied.check_files()


def test_what_a_user_adds_is_left_alone(copied):
    (copied.path / "c" / "build").mkdir()
    (copied.path / "c" / "build" / "hw_model.o").write_bytes(b"object")
    copied.check_files()


def test_a_folder_without_a_manifest_is_no_bundle(tmp_path):
    with pytest.raises(BundleError, match=r"must be a bundle with a manifest\.json"):
        Bundle(tmp_path).check_files()


def test_a_manifest_of_another_schema_is_refused_although_it_is_intact(copied):
    _rewrite(copied, lambda record: record | {"schema": 3})
    with pytest.raises(BundleError, match="must have schema 1 or 2, but has 3"):
        Bundle(copied.path).check_files()


def test_an_unknown_field_in_a_manifest_is_refused(copied):
    _rewrite(copied, lambda record: record | {"extra": 1})
    with pytest.raises(BundleError, match=r"manifest may only have known keys, but .*manifest\.json has 'extra'"):
        Bundle(copied.path).check_files()


def _rewrite(bundle, change):
    """Change a manifest and give it the digest of its new text, as only its writer does."""
    import hashlib

    record = change(json.loads((bundle.path / "manifest.json").read_text())) | {"digest": "0" * 64}
    content = (json.dumps(record, indent=1) + "\n").encode()
    digest = hashlib.sha256(content).hexdigest().encode()
    (bundle.path / "manifest.json").write_bytes(content.replace(b"0" * 64, digest, 1))


def test_an_export_replaces_a_bundle_and_leaves_nothing_else(exported, profile, tmp_path):
    final, _ = exported
    target = tmp_path / "out" / "bundle"
    export(final, target, report="first", profile=profile)
    second = export(dataclasses.replace(final, seed=5), target, profile=profile)
    assert second.manifest.seed == 5 and not (target / "report.html").exists()
    assert [path.name for path in target.parent.iterdir()] == ["bundle"]


def test_a_folder_with_other_files_is_not_overwritten(exported, profile, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match="holds other files; choose another"):
        export(exported[0], tmp_path, profile=profile)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_failed_export_leaves_nothing(exported, profile, tmp_path):
    final, _ = exported
    lame = dataclasses.replace(final, model=dataclasses.replace(final.model, gate=final.model))
    with pytest.raises(BundleError, match="must hold a gate exactly if"):
        export(lame, tmp_path / "bundle", profile=profile)
    assert not list(tmp_path.iterdir())


def test_a_failed_export_keeps_the_old_bundle(exported, profile, tmp_path):
    final, _ = exported
    old = export(final, tmp_path / "bundle", profile=profile)
    with pytest.raises(BundleError):
        export(dataclasses.replace(final, model=dataclasses.replace(final.model, gate=final.model)), old.path, profile=profile)
    Bundle(old.path).check_files()
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_an_unknown_profile_is_refused_before_anything_is_written(exported, tmp_path):
    with pytest.raises(ProfileError):
        export(dataclasses.replace(exported[0], profile="no_such_board"), tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


def test_names_of_modules_cannot_break_the_generated_c(make_final, profile, tmp_path):
    """An operation's name stands in comments of the package; one that ends a comment must not."""
    final = make_final("static")
    evil = "first*/ int main(void){return 1;} /*"
    text = json.dumps(final.model.network.to_json())
    renamed = Network.from_json(json.loads(text.replace('"first"', json.dumps(evil))))
    entry, menu_entry = final.model.entries[0], final.model.menu.entries[0]

    def rename(mapping):
        return {evil if name == "first" else name: value for name, value in mapping.items()}

    assignment = type(menu_entry.assignment)(rename(menu_entry.assignment))
    menu = dataclasses.replace(final.model.menu, entries=(dataclasses.replace(menu_entry, assignment=assignment),))
    constants = dataclasses.replace(entry, constants=rename(entry.constants))
    model = dataclasses.replace(final.model, network=renamed, menu=menu, entries=(constants,), stored=rename(final.model.stored))
    bundle = export(dataclasses.replace(final, model=model), tmp_path / "bundle", profile=profile)
    assert "*/ int main" not in (bundle.path / "c" / "hw_model_data.c").read_text()
