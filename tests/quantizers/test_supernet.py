"""The supernet: one set of weights at every assignment."""

import numpy as np
import pytest
import torch
from torch import nn

from hwsearch.errors import NetworkError
from hwsearch.graph.capture import capture
from hwsearch.graph.op import OpKind
from hwsearch.graph.precision import Precision
from hwsearch.quantizers.calibrate import estimate_statistics
from hwsearch.quantizers.evaluation import evaluate
from hwsearch.quantizers.supernet import Supernet
from hwsearch.quantizers.tensors import check_quantizable, code_source, is_unsigned
from hwsearch.quantizers.training import narrowest, widest
from hwsearch.tasks.float_training import accuracy


def test_the_fixture_has_every_kind_of_operation(everything):
    _, space, _ = everything
    assert {op.kind for op in space.network.ops} == set(OpKind) - {OpKind.ARGMAX}


def test_the_float_pass_is_the_module_it_came_from(everything):
    task, _, supernet = everything
    with torch.no_grad():
        wanted = task.model(task.test.images)
    assert torch.allclose(supernet.float_forward(task.test.images)[""], wanted, atol=1e-4)


def test_eight_bits_follow_the_float_network_closely(everything):
    task, space, supernet = everything
    with torch.no_grad():
        wanted = task.model(task.test.images)
        got = supernet.eval()(task.test.images, widest(space))[""]
    assert (got - wanted).abs().mean() < 0.05 * wanted.abs().mean()
    assert evaluate(supernet, widest(space), task.test).accuracy == pytest.approx(accuracy(task.model, task.test), abs=0.05)


def test_fewer_bits_are_further_from_the_float_network(everything):
    task, space, supernet = everything
    with torch.no_grad():
        wanted = task.model(task.test.images)
        errors = [
            float((supernet(task.test.images, space.uniform(Precision(bits, bits)))[""] - wanted).square().mean())
            for bits in (8, 4, 2)
        ]
    assert errors == sorted(errors)


def test_arrays_bring_back_the_same_supernet(everything):
    task, space, supernet = everything
    arrays = supernet.to_arrays()
    assert all(isinstance(array, np.ndarray) for array in arrays.values())
    again = Supernet.from_arrays(space, arrays)
    exits = (*space.network.exits, "")
    with torch.no_grad():
        before = supernet.eval()(task.test.images, narrowest(space), exits=exits)
        after = again(task.test.images, narrowest(space), exits=exits)
    assert all(torch.equal(before[name], after[name]) for name in exits)
    assert again.input_quantizer == supernet.input_quantizer


def test_exit_heads_send_no_gradient_into_the_trunk(small):
    from hwsearch.quantizers.calibrate import untrained_supernet

    task, space = small
    supernet = untrained_supernet(task, space, task.model).train()
    supernet(task.train.images[:8], widest(space), exits=("exit1",))["exit1"].sum().backward()
    touched = {name for name, parameter in supernet.named_parameters() if parameter.grad is not None and parameter.grad.any()}
    assert touched and all("exit1" in name for name in touched)


def test_images_become_codes_with_channels_last(everything):
    task, _, supernet = everything
    codes = supernet.encode(task.test.images[:4])
    assert codes.dtype == np.uint8 and codes.shape == (4, 9, 9, 2)
    values = (codes.astype(np.float64) - supernet.input_quantizer.zero) * supernet.input_quantizer.step
    assert np.abs(values.transpose(0, 3, 1, 2) - task.test.images[:4].numpy()).max() <= supernet.input_quantizer.step


def test_statistics_of_batches_are_pooled(everything):
    task, space, supernet = everything
    whole = estimate_statistics(supernet, widest(space), task.train.images)
    parts = estimate_statistics(supernet, widest(space), task.train.images, batch=64)
    assert set(whole) == {"stem", "depthwise"}
    # the first operation sees the same codes either way, so its pooled moments are exact
    assert torch.allclose(whole["stem"].mean, parts["stem"].mean, atol=1e-5)
    assert torch.allclose(whole["stem"].variance, parts["stem"].variance, atol=1e-5)


def test_an_evaluation_has_a_row_for_each_exit_and_the_trunk_last(everything):
    task, space, supernet = everything
    result = evaluate(supernet, widest(space), task.test)
    assert result.exits == ("exit1", "exit2", "")
    assert result.losses.shape == result.correct.shape == result.margins.shape == (3, len(task.test))
    alone = evaluate(supernet, widest(space), task.test, exits=("",))
    assert np.allclose(result.losses[-1], alone.losses[0])
    with torch.no_grad():
        logits = supernet(task.test.images, widest(space))[""].double().numpy()
    ordered = np.sort(logits, axis=1)
    assert np.allclose(result.margins[-1], ordered[:, -1] - ordered[:, -2])
    assert np.array_equal(result.correct[-1], logits.argmax(1) == task.test.labels.numpy())


def test_maximum_pooling_shares_codes_with_its_input(everything):
    _, space, supernet = everything
    assert code_source(space.network, "pool") == "stem"
    assert supernet.activation("pool") is supernet.activation("stem")


def test_signs_follow_from_activation_functions(everything):
    _, space, _ = everything
    signs = {op.name: is_unsigned(space.network, op.name, input_is_unsigned=False) for op in space.network.ops}
    assert signs["stem"] and signs["pool"] and signs["depthwise"] and signs["hidden"]
    assert not signs["signed"] and not signs["grouped"] and not signs["average"]


def test_logits_after_a_batch_norm_are_refused():
    model = nn.Sequential(nn.Conv2d(1, 2, 4), nn.BatchNorm2d(2), nn.Flatten()).eval()
    with pytest.raises(NetworkError, match="without batch norm"):
        check_quantizable(capture(model, torch.zeros(1, 1, 4, 4)))
