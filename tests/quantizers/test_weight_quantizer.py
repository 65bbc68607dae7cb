"""What every scheme of quantizing weights must do, each of them run through it."""

import numpy as np
import pytest
import torch

from hwsearch.errors import SpaceError
from hwsearch.graph.menu import Menu, MenuEntry, PolicyKind
from hwsearch.graph.precision import Precision
from hwsearch.integers.execute import run_model
from hwsearch.quantizers.calibrate import estimate_statistics, untrained_supernet
from hwsearch.quantizers.fold import fold_model
from hwsearch.quantizers.schemes import SCHEMES, scheme_named
from hwsearch.quantizers.supernet import Supernet
from hwsearch.quantizers.training import train_supernet
from hwsearch.quantizers.weight_quantizer import CODE_BITS, WeightQuantizer

WIDTHS = (1, 2, 3, 4, 8)
SHAPES = [(6, 4, 3, 3), (5, 7)]


def _weight(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.2


@pytest.fixture(params=[(per_channel, rescaled) for per_channel in (True, False) for rescaled in (True, False)], ids=str)
def form(request):
    """Whether there is a step per channel, and whether there is a factor per width."""
    return request.param


@pytest.mark.parametrize("scheme", SCHEMES)
class TestWeightQuantizer:
    @pytest.fixture(params=SHAPES, ids=["convolution", "linear"])
    def shape(self, request):
        return request.param

    @pytest.fixture
    def quantizer(self, scheme, shape, form):
        return SCHEMES[scheme](_weight(shape), WIDTHS, per_channel=form[0], rescaled=form[1])

    def test_it_is_a_final_kind_of_the_abstract_one(self, quantizer):
        assert type(quantizer).__bases__ == (WeightQuantizer,)
        assert getattr(type(quantizer), "__final__", False), "inheritance stops at one step"

    def test_codes_are_whole_8_bit_numbers_in_the_shape_of_the_weights(self, quantizer, shape):
        codes = quantizer.codes()
        assert codes.dtype is torch.int64 and codes.shape == shape and not codes.requires_grad
        assert codes.min() >= 0 and codes.max() < 2**CODE_BITS and len(codes.unique()) > 16

    @pytest.mark.parametrize("bits", WIDTHS)
    def test_every_width_is_the_middle_of_the_bins_of_the_top_bits(self, quantizer, bits, shape):
        half_step = quantizer.half_step(bits)
        assert half_step.shape == (quantizer.channels,) and (half_step > 0).all()
        whole = 2 * (quantizer.codes() >> (CODE_BITS - bits)) + 1 - 2**bits
        expected = half_step.reshape(-1, *[1] * (len(shape) - 1)) * whole
        torch.testing.assert_close(quantizer(bits), expected, rtol=1e-6, atol=0)

    def test_more_bits_come_closer_to_the_weights(self, quantizer):
        noise = [float((quantizer(bits) - quantizer.weight).detach().square().mean()) for bits in WIDTHS]
        assert noise == sorted(noise, reverse=True)

    def test_other_weights_are_taken_as_if_it_had_been_made_of_them(self, quantizer, scheme, shape, form):
        other = 3 * _weight(shape, seed=1) + 0.1
        held = dict(quantizer.named_parameters())
        quantizer.replace(other)
        made = SCHEMES[scheme](other, WIDTHS, per_channel=form[0], rescaled=form[1])
        assert all(torch.equal(tensor, made.state_dict()[name]) for name, tensor in quantizer.state_dict().items())
        assert all(parameter is held[name] for name, parameter in quantizer.named_parameters()), "an optimizer may hold them"

    def test_what_it_is_made_of_stays_its_owners(self, scheme):
        weight = _weight(SHAPES[0])
        before = weight.clone()
        SCHEMES[scheme](weight, WIDTHS, per_channel=True, rescaled=True).replace(_weight(SHAPES[0], seed=1))
        assert torch.equal(weight, before)

    def test_gradients_reach_every_parameter(self, quantizer):
        for bits in WIDTHS:
            (quantizer(bits) * _weight(tuple(quantizer.weight.shape), seed=2)).sum().backward()
        for name, parameter in quantizer.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name
        assert (quantizer.weight.grad != 0).float().mean() > 0.5

    def test_its_groups_hold_every_parameter_once(self, quantizer):
        groups = quantizer.parameter_groups()
        held = [id(p) for p in (*groups.weights, *groups.steps, *groups.rest)]
        assert sorted(held) == sorted(id(p) for p in quantizer.parameters())
        assert [id(p) for p in groups.weights] == [id(quantizer.weight)]

    def test_a_width_that_was_not_trained_is_refused(self, scheme):
        quantizer = SCHEMES[scheme](_weight(SHAPES[0]), (2, 8), per_channel=True, rescaled=True)
        for ask in (quantizer, quantizer.half_step):
            with pytest.raises(SpaceError, match=r"one of the widths \(2, 8\) they were trained for, but 3 was asked"):
                ask(3)

    def test_a_supernet_that_is_saved_is_read_with_its_scheme(self, scheme, everything):
        task, space, _ = everything
        supernet = untrained_supernet(task, space, task.model, scheme=scheme)
        arrays = supernet.to_arrays()
        again = Supernet.from_arrays(space, arrays)
        assert again.scheme == scheme and again.to_arrays().keys() == arrays.keys()
        assert all(np.array_equal(array, again.to_arrays()[name]) for name, array in arrays.items())

    def test_a_trained_supernet_and_its_integer_model_choose_alike(self, scheme, small):
        task, space = small
        supernet = train_supernet(task, space, float_model=task.model, epochs=1, seed=0, scheme=scheme)
        for bits in (2, 4, 8):
            assignment = space.uniform(Precision(bits, bits))
            statistics = estimate_statistics(supernet, assignment, task.train.images)
            menu = Menu(kind=PolicyKind.STATIC, entries=(MenuEntry(assignment=assignment),))
            model = fold_model(supernet, menu, [statistics])
            real = supernet(task.test.images, assignment, statistics=statistics)[""]
            whole = run_model(model, supernet.encode(task.test.images)).logits
            step = model.entries[0].logit_step
            assert np.abs(whole * step - real.detach().numpy()).max() <= 1.5 * step, bits


def test_an_unknown_scheme_is_refused():
    with pytest.raises(SpaceError, match=f"one of {', '.join(SCHEMES)}, but found 'none of them'; name one of these"):
        scheme_named("none of them")


def test_tensors_of_no_known_scheme_are_refused(everything):
    _, space, supernet = everything
    renamed = {name.replace(f".{supernet.scheme}.", ".lost."): array for name, array in supernet.to_arrays().items()}
    with pytest.raises(SpaceError, match=r"must be of one scheme \(.*nested.*\), but its tensors name none; train it anew"):
        Supernet.from_arrays(space, renamed)
