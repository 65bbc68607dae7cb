"""A bundle answers as the model that was trained."""

import numpy as np
import pytest
import torch

import hwsearch as hw
from hwsearch.errors import BundleError
from hwsearch.integers.execute import run_model
from hwsearch.quantizers.uniform import InputQuantizer


@pytest.fixture(scope="module")
def bundle(make_final, profile, tmp_path_factory):
    folder = tmp_path_factory.mktemp("predict") / "bundle"
    hw.export(make_final("cascade"), folder, profile=profile)
    return hw.load_bundle(folder)


def test_codes_are_answered_as_the_vectors_say(bundle):
    vectors = bundle.vectors()
    found = bundle.predict(vectors.inputs)
    assert (found.classes == np.argmax(vectors.answers.logits, axis=1)).all()
    assert (found.entries == vectors.answers.entries).all()
    paths = bundle.manifest.paths
    assert found.latency_us.tolist() == [paths[entry].latency_us for entry in vectors.answers.entries]


def test_images_in_real_units_are_answered_as_their_codes(bundle):
    model, codes = bundle.model(), bundle.vectors().inputs
    images = (model.input_step * (codes.astype(np.float64) - model.input_zero)).transpose(0, 3, 1, 2)
    found = bundle.predict(images)
    answers = run_model(model, codes)
    steps = np.array([entry.logit_step for entry in model.entries])
    assert (found.logits == answers.logits * steps[answers.entries][:, None]).all()


def test_numpy_encodes_images_as_training_did(bundle):
    images = torch.linspace(-1.3, 2.7, 2 * int(np.prod(bundle.model().network.input_shape)))
    images = images.reshape(2, *bundle.model().network.input_shape)
    quantizer = InputQuantizer.of_images(images)
    halves = (torch.arange(images.numel()).reshape(images.shape) % 300 - 20.5 - quantizer.zero) * quantizer.step
    for given in (images, halves):
        model = bundle.model()
        own = type(model)(
            network=model.network, menu=model.menu, stored=model.stored, entries=model.entries,
            input_step=quantizer.step, input_zero=quantizer.zero, thresholds=model.thresholds, gate=model.gate,
        )  # fmt: skip
        wanted = quantizer.codes(given).to(torch.uint8).permute(0, 2, 3, 1).numpy()
        assert (own.encode(given.numpy()) == wanted).all()


def test_images_of_another_shape_are_refused_in_one_sentence(bundle):
    with pytest.raises(BundleError, match=r"must be floats \[N, .*\] or uint8 codes .*but are float64 \[1, 1, 1, 1\]"):
        bundle.predict(np.zeros((1, 1, 1, 1)))


def test_an_altered_bundle_is_not_loaded(bundle, tmp_path):
    import shutil

    shutil.copytree(bundle.path, tmp_path / "copy")
    (tmp_path / "copy" / "model.npz").write_bytes(b"")
    with pytest.raises(BundleError, match=r"model\.npz must be as it was exported"):
        hw.load_bundle(tmp_path / "copy")
