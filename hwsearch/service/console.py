"""What a user sees while long work runs: one line per stage on stderr, with a bar and the time left where it is a terminal."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from hwsearch.progress import Progress

_PLAIN_INTERVAL_S = 10.0
_FIRST_STEPS = 0.05


@contextmanager
def stage_progress(title: str) -> Iterator[Progress]:
    """A `Progress` that draws on stderr: a live bar on a terminal, else a line every ten seconds and one at the end."""
    console = Console(file=sys.stderr)
    if console.is_terminal:
        with _bar(console, title) as progress:
            yield progress
    else:
        start = time.monotonic()
        yield _PlainLines(console, title, start)
        console.print(f"{title}: done in {time.monotonic() - start:.1f} s", highlight=False)


@contextmanager
def _bar(console: Console, title: str) -> Iterator[Progress]:
    columns = (
        TextColumn("{task.description:<10}"), BarColumn(bar_width=28), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(), TextColumn("[dim]{task.fields[note]}"),
    )  # fmt: skip
    with Bars(*columns, console=console) as bars:
        row = bars.add_task(title, total=None, note="")

        def progress(done: int, total: int, note: str = "") -> None:
            bars.update(row, completed=done, total=total, note=note)

        yield progress


class _PlainLines:
    """Progress for logs and pipes."""

    def __init__(self, console: Console, title: str, start: float) -> None:
        self._console, self._title, self._start = console, title, start
        self._last = start

    def __call__(self, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if now - self._last < _PLAIN_INTERVAL_S or done == 0:
            return
        self._last = now
        left = (now - self._start) / done * (total - done)
        known = f", about {left:.0f} s left" if done > _FIRST_STEPS * total else ""  # the first steps include starting up
        self._console.print(
            f"{self._title}: {done}/{total}{known}" + (f", {note}" if note else ""), highlight=False, soft_wrap=True
        )
