"""Messages from workers to the process that started them."""

from dataclasses import dataclass

from benchmark.results.cell_result import CellResult
from tasks.core.types import UsageError


@dataclass(frozen=True)
class ClaimedElsewhere:
    """Outcome of a cell that another process runs or has finished."""


CellOutcome = CellResult | ClaimedElsewhere


@dataclass(frozen=True)
class WorkerReady:
    """The worker has loaded the backbone."""


@dataclass(frozen=True)
class PackFinished:
    """The worker has run a pack; one outcome per cell, in the order of the pack."""

    outcomes: tuple[CellOutcome, ...]


@dataclass(frozen=True)
class WorkerFailed:
    """The worker cannot go on for a reason that the user has to remove."""

    error: UsageError


WorkerMessage = WorkerReady | PackFinished | WorkerFailed
