"""The schemes of quantizing weights, by name.

A supernet's saved tensors carry the name: `weighted.<operation>.<scheme>.weight`.
"""

from collections.abc import Iterable, Mapping

from hwsearch.errors import SpaceError
from hwsearch.quantizers.nested import NestedWeight
from hwsearch.quantizers.weight_quantizer import WeightQuantizer

SCHEMES: Mapping[str, type[WeightQuantizer]] = {"nested": NestedWeight}
DEFAULT_SCHEME = "nested"


def scheme_named(name: str) -> type[WeightQuantizer]:
    """The scheme of a name."""
    if name not in SCHEMES:
        raise SpaceError(f"Weights must be quantized by one of {', '.join(SCHEMES)}, but found {name!r}; name one of these.")
    return SCHEMES[name]


def scheme_of(tensors: Iterable[str]) -> str:
    """The scheme of a supernet whose saved tensors have these names."""
    held = {name.split(".")[2] for name in tensors if name.startswith("weighted.")}
    found = [scheme for scheme in SCHEMES if scheme in held]
    if len(found) != 1:
        raise SpaceError(
            f"A supernet's weights must be of one scheme ({', '.join(SCHEMES)}), but its tensors name "
            f"{' and '.join(found) or 'none'}; train it anew."
        )
    return found[0]
