"""Every shipped network, with random weights, from the supernet to integers."""

import numpy as np
import pytest
import torch

from hwsearch.graph.menu import Menu, MenuEntry, PolicyKind
from hwsearch.graph.space import list_spaces, load_space, network_for_space
from hwsearch.integers import execute
from hwsearch.quantizers.calibrate import calibrate_activations, estimate_statistics
from hwsearch.quantizers.fold import fold_model, folded_forward
from hwsearch.quantizers.supernet import Supernet
from hwsearch.quantizers.uniform import InputQuantizer

LARGE = ("lenet5_mnist", "mobilenetv1_vww")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in list_spaces()]
)
def test_the_integers_of_a_shipped_network_equal_the_numpy_reference(name):
    space = load_space(name, network_for_space(name))
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(4, *space.network.input_shape, generator=generator)
    supernet = Supernet.of_space(space, InputQuantizer.of_images(images), seed=1).eval()
    calibrate_activations(supernet, images)
    rng = np.random.default_rng(0)
    assignment = space.assignment({unit.name: unit.precisions[rng.integers(len(unit.precisions))] for unit in space.units})
    statistics = estimate_statistics(supernet, assignment, images)
    menu = Menu(kind=PolicyKind.STATIC, entries=(MenuEntry(assignment=assignment),))
    model = fold_model(supernet, menu, [statistics])
    codes = supernet.encode(images)
    wanted, ours = execute.trace(model, 0, codes), folded_forward(model, 0, codes)
    for op in space.network.path([""]):
        channels_last = ours[op.name].permute(0, 2, 3, 1) if ours[op.name].dim() == 4 else ours[op.name]
        assert np.array_equal(channels_last.numpy().reshape(wanted[op.name].shape), wanted[op.name]), op.name
    with torch.no_grad():
        logits = supernet(images, assignment, statistics=statistics)[""].double()
    difference = logits / model.entries[0].logit_step - ours[space.network.output.name]
    assert difference.abs().mean() < 0.02 * logits.std() / model.entries[0].logit_step
