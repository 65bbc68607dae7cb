"""What a finished model answers for images, on any machine that has numpy."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwsearch.errors import BundleError
from hwsearch.hardware.cost import Cost
from hwsearch.integers.execute import run_model
from hwsearch.integers.integer_model import Codes, IntegerModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Answers for N images, each array with one row per image.

    `classes` int64 `[N]`; `logits` float64 `[N, classes]` in real units; `entries` int64 `[N]`, the menu entry that answered, and
    `latency_us`, `energy_uj` float64 `[N]`, what that inference costs on the device.
    """

    classes: NDArray[np.int64]
    logits: NDArray[np.float64]
    entries: NDArray[np.int64]
    latency_us: NDArray[np.float64]
    energy_uj: NDArray[np.float64]


def predict(model: IntegerModel, images: NDArray[np.generic], paths: Sequence[Cost]) -> Prediction:
    """Run the integer reference on `images`: floats `[N, C, H, W]` as the network was trained on, or uint8 codes `[N, H, W, C]`.

    `paths` is the price of a whole inference that ends at each entry. Raises BundleError for images of another shape or kind.
    """
    answers = run_model(model, _codes(model, images))
    steps = np.array([entry.logit_step for entry in model.entries])
    return Prediction(
        classes=np.argmax(answers.logits, axis=1),
        logits=answers.logits * steps[answers.entries][:, None],
        entries=answers.entries,
        latency_us=np.array([path.latency_us for path in paths])[answers.entries],
        energy_uj=np.array([path.energy_uj for path in paths])[answers.entries],
    )


def _codes(model: IntegerModel, images: NDArray[np.generic]) -> Codes:
    channels, height, width = model.network.input_shape
    if images.dtype == np.uint8 and images.shape[1:] == (height, width, channels):
        return images.astype(np.uint8, copy=False)
    if np.issubdtype(images.dtype, np.floating) and images.shape[1:] == (channels, height, width):
        return model.encode(images.astype(np.float32))
    raise BundleError(
        f"Images of {model.network.name} must be floats [N, {channels}, {height}, {width}] or uint8 codes "
        f"[N, {height}, {width}, {channels}], but are {images.dtype} {list(images.shape)}; bring them to one of these forms."
    )
