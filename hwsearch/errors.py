"""What can be wrong with what a user gave, one exception per kind.

Every message has three parts: what must hold, what was found, what to do. The command line prints it as one
sentence and leaves with `exit_code`: 1 a budget cannot be met, 2 wrong input, 3 a tool is missing.
"""


class HwsearchError(Exception):
    """Base of every error that a user can cause and mend."""

    exit_code = 2


class NetworkError(HwsearchError):
    """A module cannot be captured as a network of priced operations."""


class ProfileError(HwsearchError):
    """A hardware profile is missing, malformed, or lacks a row that a price needs."""


class SpaceError(HwsearchError):
    """A search space does not fit its network or contradicts itself."""


class JobError(HwsearchError):
    """A job file, or a run folder made from one, is not what it must be."""


class BudgetError(HwsearchError):
    """A budget is not written as a quantity with its unit."""


class InfeasibleBudget(BudgetError):
    """A well-written budget that no model of the space can meet."""

    exit_code = 1


class BundleError(HwsearchError):
    """A bundle is incomplete, altered, or does not compute what it promises."""


class ClusterError(HwsearchError):
    """A Ray cluster does not answer or refuses the driver."""


class ToolchainError(HwsearchError):
    """A compiler, emulator or optional library is missing."""

    exit_code = 3
