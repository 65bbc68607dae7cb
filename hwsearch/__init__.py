"""Hardware-aware search for input-aware dynamic mixed-precision networks.

The names below are the public API; each is loaded when first used, so that `import hwsearch` costs nothing. A type checker sees
them as what they are.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hwsearch.version import VERSION

if TYPE_CHECKING:
    from hwsearch.exporters.bundle import Bundle, export, load_bundle
    from hwsearch.exporters.verify import verify
    from hwsearch.finalizer.finetune import finalize
    from hwsearch.graph.capture import capture
    from hwsearch.graph.space import load_space
    from hwsearch.hardware.cost import Budget
    from hwsearch.hardware.profile import load_profile
    from hwsearch.predictors.governor import Governor
    from hwsearch.pricing.cost_model import CostModel
    from hwsearch.quantizers.training import train_supernet
    from hwsearch.results.front import load_front
    from hwsearch.study.preview import preview
    from hwsearch.study.search import search
    from hwsearch.tasks.catalogue import load_task
    from hwsearch.tasks.task import Task

__version__ = VERSION

__all__ = [
    "Budget", "Bundle", "CostModel", "Governor", "Task", "capture", "export", "finalize", "load_bundle", "load_front",
    "load_profile", "load_space", "load_task", "preview", "search", "train_supernet", "verify",
]  # fmt: skip

_ROOMS = {
    "Budget": "hwsearch.hardware.cost",
    "Bundle": "hwsearch.exporters.bundle",
    "CostModel": "hwsearch.pricing.cost_model",
    "Governor": "hwsearch.predictors.governor",
    "Task": "hwsearch.tasks.task",
    "capture": "hwsearch.graph.capture",
    "export": "hwsearch.exporters.bundle",
    "finalize": "hwsearch.finalizer.finetune",
    "load_bundle": "hwsearch.exporters.bundle",
    "load_front": "hwsearch.results.front",
    "load_profile": "hwsearch.hardware.profile",
    "load_space": "hwsearch.graph.space",
    "load_task": "hwsearch.tasks.catalogue",
    "preview": "hwsearch.study.preview",
    "search": "hwsearch.study.search",
    "train_supernet": "hwsearch.quantizers.training",
    "verify": "hwsearch.exporters.verify",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module 'hwsearch' has no attribute {name!r}")
    return getattr(import_module(_ROOMS[name]), name)


def __dir__() -> list[str]:
    return __all__
