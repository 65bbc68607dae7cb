"""How long work tells where it is; the command line draws it, a library user may pass nothing."""

from typing import Protocol


class Progress(Protocol):
    def __call__(self, done: int, total: int, note: str = "") -> None:
        """`done` of `total` steps are finished; `note` says in a few words what holds now."""


def silent(done: int, total: int, note: str = "") -> None:
    """Progress for callers who want none."""
