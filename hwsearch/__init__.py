"""Hardware-aware search for input-aware dynamic mixed-precision networks.

The names below are the public API; each is loaded when first used, so that `import hwsearch` costs nothing.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Task": "hwsearch.tasks.task",
    "load_task": "hwsearch.tasks.catalogue",
    "capture": "hwsearch.graph.capture",
    "load_space": "hwsearch.graph.space",
    "load_profile": "hwsearch.hardware.profile",
    "CostModel": "hwsearch.pricing.cost_model",
    "Budget": "hwsearch.hardware.cost",
    "train_supernet": "hwsearch.quantizers.training",
    "preview": "hwsearch.study.preview",
    "search": "hwsearch.study.search",
    "load_front": "hwsearch.results.front",
    "finalize": "hwsearch.finalizer.finetune",
    "export": "hwsearch.exporters.bundle",
    "verify": "hwsearch.exporters.verify",
}

__all__ = sorted(_PUBLIC)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'hwsearch' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return __all__
