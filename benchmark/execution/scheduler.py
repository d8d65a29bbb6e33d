"""Scheduler: hands ready packs of cells to workers and records their results. Backend-independent; imports no torch."""

from collections.abc import Sequence
from time import monotonic, sleep

from benchmark.config.profile import Profile
from benchmark.config.run_limits import RunLimits
from benchmark.execution.messages import CellOutcome
from benchmark.execution.progress import Progress
from benchmark.execution.record import build_result
from benchmark.grid.cells import PlannedCell
from benchmark.results.cell_result import CellResult
from benchmark.results.store import ResultStore
from benchmark.scheduling.packing import Pack
from benchmark.system.formatting import format_duration
from benchmark.system.redaction import FailureDescription
from benchmark.system.shutdown import REQUESTED_EXIT_CODES

POLL_INTERVAL_SECONDS = 1.0  # seconds between checks of cells that another process runs


class PackQueue:
    """Due packs in order. A pack is ready when all dependencies of its cells are finished."""

    def __init__(self, packs: Sequence[Pack]) -> None:
        self.pending_packs = list(packs)
        self.unfinished = {planned.identity for pack in packs for planned in pack}
        self.failed_identities: set[str] = set()

    def pop_ready_pack(self) -> Pack | None:
        """Remove and return the first ready pack; None if no pack is ready."""
        for index, pack in enumerate(self.pending_packs):
            if not any(parent in self.unfinished for planned in pack for parent in planned.dependencies):
                return self.pending_packs.pop(index)
        return None

    def mark_finished(self, planned_cell: PlannedCell, *, has_failed: bool) -> None:
        """Record that a cell is done or has failed."""
        self.unfinished.discard(planned_cell.identity)
        if has_failed:
            self.failed_identities.add(planned_cell.identity)

    def append_pack(self, pack: Pack) -> None:
        """Add a pack at the end."""
        self.pending_packs.append(pack)

    def prepend_packs(self, packs: Sequence[Pack]) -> None:
        """Add packs at the front."""
        self.pending_packs[:0] = packs

    def has_failed_dependency(self, planned_cell: PlannedCell) -> bool:
        """Return whether a cell on which this one depends has failed."""
        return any(parent in self.failed_identities for parent in planned_cell.dependencies)


class Scheduler:
    """Hands out packs until none is left or a limit of the run is reached."""

    def __init__(
        self,
        packs: Sequence[Pack],
        profile: Profile,
        store: ResultStore,
        progress: Progress,
        limits: RunLimits | None = None,
    ) -> None:
        self.queue = PackQueue(packs)
        self.profile = profile
        self.progress = progress
        self.limits = limits or RunLimits()
        self.start_time = monotonic()
        self.stop_reason = ""  # why no more packs are handed out
        previous_attempts = {}  # cells with a result that has to be replaced -> when it was written
        for planned in (planned for pack in packs for planned in pack):
            result = store.load_result(planned)
            if result and (not store.is_complete(planned, result) or store.has_damaged_files(planned, result)):
                previous_attempts[planned.identity] = result.times.finished
        self.store = ResultStore(store.folder, previous_attempts)

    @property
    def num_unfinished(self) -> int:
        """Number of cells that are neither done nor failed."""
        return len(self.queue.unfinished)

    def take_pack(self) -> Pack | None:
        """Return the next ready pack, or None. Cells that depend on a failed cell are marked failed and left out."""
        if REQUESTED_EXIT_CODES:  # the exception that the signal handler raises can be lost, e.g. in a finaliser
            raise SystemExit(REQUESTED_EXIT_CODES[0])
        self.stop_reason = self.stop_reason or self.get_stop_reason()
        while not self.stop_reason and (pack := self.queue.pop_ready_pack()):
            orphans = [planned for planned in pack if self.queue.has_failed_dependency(planned)]
            for planned in orphans:
                self.fail_cell(planned, "a cell that it depends on failed")
            if runnable := tuple(planned for planned in pack if planned not in orphans):
                self.progress.start_pack(runnable)
                return runnable
        return None

    def get_stop_reason(self) -> str:
        """Return why no more packs should be started, or an empty string."""
        if self.limits.on_failure == "stop" and self.progress.num_failed:
            return "a cell failed, and --on-failure is stop"
        if (
            self.limits.time_budget_seconds is not None
            and monotonic() - self.start_time >= self.limits.time_budget_seconds
        ):
            return f"the budget of {format_duration(self.limits.time_budget_seconds)} is used up"
        return ""

    def get_timeout(self, pack: Pack) -> float | None:
        """Return the seconds that a pack may take: the limit per cell times its cells; None without a limit."""
        return None if self.limits.cell_timeout_seconds is None else self.limits.cell_timeout_seconds * len(pack)

    def complete_pack(self, pack: Pack, outcomes: Sequence[CellOutcome]) -> None:
        """Record the outcome of each cell: its result, or that another process has claimed it.

        A cell of another process counts as finished once its result is stored; until then it is queued again.
        """
        pending = []
        for planned, outcome in zip(pack, outcomes, strict=True):
            if isinstance(outcome, CellResult):
                self.queue.mark_finished(planned, has_failed=not outcome.is_done)
                self.progress.finish_cell(planned, outcome)
            elif stored_result := self.store.load_finished_result(planned):
                self.queue.mark_finished(planned, has_failed=not stored_result.is_done)
                self.progress.finish_elsewhere(planned, stored_result)
            else:  # the other process still runs it or died: queue it again
                self.progress.release_cell(planned)
                pending.append(planned)
        if pending:
            self.queue.append_pack(tuple(pending))
            sleep(POLL_INTERVAL_SECONDS / 10)

    def fail_cell(self, planned_cell: PlannedCell, reason: str) -> None:
        """Record a failed result for a cell whose worker could not write one."""
        result = build_result(planned_cell, self.profile, error=FailureDescription(reason))
        self.store.save_result(planned_cell, result)
        self.queue.mark_finished(planned_cell, has_failed=True)
        self.progress.finish_cell(planned_cell, result)

    def on_worker_death(self, pack: Pack, reason: str) -> None:
        """Handle a pack whose worker died: a single cell is marked failed, several are queued again one by one."""
        if len(pack) == 1:
            self.fail_cell(pack[0], reason)
        else:
            self.requeue_pack(pack, reason, [(planned,) for planned in pack])

    def requeue_pack(self, pack: Pack, reason: str, packs: Sequence[Pack]) -> None:
        """Put the cells of a pack that lost its worker back at the front of the queue, as `packs`."""
        self.progress.report_requeue(pack, reason)
        self.queue.prepend_packs(packs)
