"""Uniform quantization of activations and inputs."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hwsearch.errors import SpaceError
from hwsearch.quantizers.uniform import ActivationQuantizer, InputQuantizer, best_step, fake_quantize, round_half_up


def test_ties_round_upward_on_both_sides_of_zero():
    assert round_half_up(torch.tensor([-1.5, -0.5, 0.5, 1.5, 2.5])).tolist() == [-1.0, 0.0, 1.0, 2.0, 3.0]


def test_fake_quantize_gives_multiples_of_the_step_within_the_codes_range():
    x = torch.linspace(-3, 3, 101)
    y = fake_quantize(x, torch.tensor(0.25), 8, 4)
    codes = y / 0.25 + 8
    assert torch.equal(codes, codes.round())
    assert codes.min() == 0 and codes.max() == 15
    inside = (x > -2) & (x < 1.75)
    assert (y - x)[inside].abs().max() <= 0.125 + 1e-6


@given(st.integers(1, 8), st.booleans(), st.integers(0, 1000))
def test_the_step_gradient_is_that_of_learned_step_quantization(bits, unsigned, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(200, generator=generator, dtype=torch.float64, requires_grad=True)
    step = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(200, generator=generator, dtype=torch.float64)
    zero = 0 if unsigned else 2 ** (bits - 1)
    low, high = -zero, 2**bits - 1 - zero
    (fake_quantize(x, step, zero, bits) * upstream).sum().backward()
    v = (x / step).detach()
    inside = (v > low) & (v < high)
    wanted = torch.where(inside, round_half_up(v) - v, v.clamp(low, high))  # LSQ, equation 3
    assert torch.allclose(step.grad, (wanted * upstream).sum())
    assert torch.equal(x.grad, torch.where(inside, upstream, 0.0))


def test_the_best_step_beats_its_neighbours():
    samples = torch.randn(5000, generator=torch.Generator().manual_seed(0)).relu()
    step = best_step(samples, bits=2, unsigned=True)

    def error(candidate):
        return float((fake_quantize(samples, torch.tensor(candidate), 0, 2) - samples).square().mean())

    assert error(step) < min(error(0.8 * step), error(1.25 * step))


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
@pytest.mark.parametrize(("unsigned", "limit"), [(True, 6.0), (False, 1.0)])
def test_no_code_exceeds_the_limit_of_the_activation_function(bits, unsigned, limit):
    quantizer = ActivationQuantizer([bits], unsigned=unsigned, limit=limit)
    with torch.no_grad():
        quantizer.log_step.fill_(3.0)
        values = quantizer(torch.tensor([-100.0, 100.0]), bits)
    assert values.abs().max() <= limit * (1 + 1e-6)


@pytest.mark.parametrize("unsigned", [True, False])
def test_one_bit_has_a_step_near_the_values_that_it_stands_for(unsigned):
    samples = torch.randn(5000, generator=torch.Generator().manual_seed(0))
    step = best_step(samples.relu() if unsigned else samples, bits=1, unsigned=unsigned)
    assert 0.5 < step < 2.0


def test_a_tensor_of_zeros_gets_a_usable_step():
    quantizer = ActivationQuantizer([2, 8], unsigned=True, limit=None)
    quantizer.calibrate(torch.zeros(10))
    assert torch.isfinite(quantizer.log_step).all()
    assert quantizer.step(8).item() > 0


def test_a_width_that_was_not_trained_is_refused():
    quantizer = ActivationQuantizer([4, 8], unsigned=True, limit=None)
    with pytest.raises(SpaceError, match=r"width it was trained for \(\(4, 8\)\), but 2 was asked"):
        quantizer.step(2)


@given(st.floats(-5, 5), st.floats(0.01, 5))
def test_input_codes_hold_zero_exactly_and_every_value_of_the_range(low, extent):
    images = torch.linspace(low, low + extent, 50).reshape(1, 1, 5, 10)
    quantizer = InputQuantizer.of_images(images)
    assert 0 <= quantizer.zero <= 255
    assert float(quantizer(torch.zeros(1))) == 0.0
    assert (quantizer(images) - images).abs().max() <= quantizer.step * (1 + 1e-3)
