"""Nested weights: one stored code, every width a prefix of it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hwsearch.errors import SpaceError
from hwsearch.quantizers.nested import NestedWeight

WIDTHS = (2, 4, 8)


def _weight(seed: int = 0) -> torch.Tensor:
    return torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(seed)) * 0.2


@given(st.integers(0, 200), st.booleans(), st.sampled_from(WIDTHS))
@pytest.mark.slow
def test_every_width_is_a_prefix_of_the_stored_code(seed, per_channel, bits):
    nested = NestedWeight(_weight(seed), WIDTHS, per_channel=per_channel, rescaled=True)
    top = nested.codes() >> (8 - bits)
    half_step = nested.half_step(bits).reshape(-1, 1, 1, 1)
    assert torch.allclose(nested(bits), half_step * (2 * top + 1 - 2**bits), rtol=1e-6)


def test_the_half_step_offset_keeps_truncation_free_of_bias():
    weight = torch.randn(1, 200_000, generator=torch.Generator().manual_seed(0))
    nested = NestedWeight(weight, (8,), per_channel=True, rescaled=False)
    nested.widths = (2, 4, 8)
    with torch.no_grad():
        for bits in (2, 4):
            assert abs(float((nested(bits) - nested.weight).mean())) < 0.01
            plain = nested.codes() >> (8 - bits) << (8 - bits)  # dropping bits without the offset
            truncated = (plain - 128) * torch.exp(nested.log_step)
            assert float((truncated - weight).square().mean()) > 2 * float((nested(bits) - weight).square().mean())


@pytest.mark.parametrize(("bits", "least_db"), [(2, 7.0), (4, 18.0), (8, 38.0)])
def test_quantization_noise_of_a_gaussian_is_near_the_best_of_its_width(bits, least_db):
    """Best signal-to-noise of a uniform quantizer of a Gaussian: 9.3, 20.2 and 40.3 dB (Max 1960); sharing costs the rest."""
    weight = torch.randn(1, 100_000, generator=torch.Generator().manual_seed(1))
    nested = NestedWeight(weight, (bits,), per_channel=True, rescaled=True)
    with torch.no_grad():
        noise = float((nested(bits) - weight).square().mean())
    assert 10 * torch.log10(torch.tensor(1 / noise)) >= least_db


def test_the_step_of_one_bit_is_the_mean_magnitude():
    uniform = torch.rand(4, 3000, generator=torch.Generator().manual_seed(0)) - 0.5
    weight = -0.1 * uniform.sign() * torch.log1p(-2 * uniform.abs())  # Laplace: few large values, a small mean
    nested = NestedWeight(weight, (1,), per_channel=True, rescaled=False)
    with torch.no_grad():
        values = nested(1)
        assert torch.allclose(nested.half_step(1), weight.abs().mean(dim=1), rtol=0.08)
    assert torch.equal(values.sign(), weight.sign()) and len(values[0].abs().unique()) == 1


@pytest.mark.parametrize("widths", [(1, 2), (3, 8), (1, 4, 8), (1, 2, 3, 4, 8)])
def test_odd_widths_are_prefixes_too_and_wider_is_better(widths):
    nested = NestedWeight(_weight(3), widths, per_channel=True, rescaled=True)
    with torch.no_grad():
        noise = [float((nested(bits) - nested.weight).square().mean()) for bits in widths]
        for bits in widths:
            top = nested.codes() >> (8 - bits)
            assert torch.allclose(nested(bits), nested.half_step(bits).reshape(-1, 1, 1, 1) * (2 * top + 1 - 2**bits), rtol=1e-6)
    assert noise == sorted(noise, reverse=True)


def test_gradients_reach_weights_inside_the_range_and_the_steps():
    nested = NestedWeight(_weight(), WIDTHS, per_channel=True, rescaled=False)
    with torch.no_grad():
        nested.weight[0, 0, 0, 0] = 100.0
    nested(2).sum().backward()
    assert nested.weight.grad is not None and nested.log_step.grad is not None
    assert nested.weight.grad[0, 0, 0, 0] == 0
    assert (nested.weight.grad != 0).sum() > nested.weight.numel() / 2
    assert torch.all(nested.log_step.grad.isfinite()) and torch.any(nested.log_step.grad != 0)


def test_a_width_that_was_not_trained_is_refused():
    with pytest.raises(SpaceError, match="but 3 was asked"):
        NestedWeight(_weight(), WIDTHS, per_channel=True, rescaled=False)(3)
