"""The targets, by the way they are named on the command line."""

from collections.abc import Callable
from contextlib import AbstractContextManager

from hwsearch.errors import ProfileError
from hwsearch.hardware.header import ProfileHeader
from hwsearch.measuring.targets.emulator import open_emulator
from hwsearch.measuring.targets.host import open_host
from hwsearch.measuring.targets.ssh import open_ssh
from hwsearch.measuring.targets.target import Target

Open = Callable[[str, ProfileHeader], AbstractContextManager[Target]]
"""Opens a target from the name that was given and the header of the profile to fill."""

TARGETS: dict[str, Open] = {"emulator": open_emulator, "host": open_host, "ssh:USER@HOST": open_ssh}
"""What follows a colon is the target's own to read."""


def open_target(name: str, header: ProfileHeader) -> AbstractContextManager[Target]:
    """The target of this name, such as `emulator` or `ssh:USER@HOST:PORT`, with the compiler that the profile names.

    Raises:
        ProfileError: there is none of this name, or it does not fit the profile.
        ToolchainError: a compiler is missing, or the target cannot be reached.
    """
    for form, opening in TARGETS.items():
        if name.partition(":")[:2] == form.partition(":")[:2]:
            return opening(name, header)
    raise ProfileError(f"A target must be one of {', '.join(TARGETS)}, but found {name!r}; choose one of them.")
