"""Where the work of a grid is handed out, pack by pack, and comes back. Imports no torch, and knows no processes."""

from collections.abc import Sequence
from time import monotonic, sleep
from typing import Any

from benchmark.config.profile import Profile
from benchmark.config.run_limits import RunLimits
from benchmark.execution.progress import Progress
from benchmark.execution.record import build_result_header
from benchmark.grid.cells import PlannedCell
from benchmark.results.store import ResultStore
from benchmark.scheduling.packing import Pack
from benchmark.system.formatting import format_duration
from benchmark.system.resources import get_timestamp
from benchmark.system.shutdown import REQUESTED_EXIT_CODES

CLAIMED_ELSEWHERE = "elsewhere"  # instead of a result: another process has it, or did it
POLL_INTERVAL_SECONDS = 1.0  # seconds between looks at cells that another process runs


class PackQueue:
    """Packs that are due, in order; one is ready when all that its cells rest on is there."""

    def __init__(self, packs: Sequence[Pack]) -> None:
        self.pending_packs = list(packs)
        self.unfinished = {planned.identity for pack in packs for planned in pack}  # not yet over
        self.failed_identities: set[str] = set()

    def pop_ready_pack(self) -> Pack | None:
        """The first ready pack, taken out."""
        for place, pack in enumerate(self.pending_packs):
            if not any(parent in self.unfinished for planned in pack for parent in planned.dependencies):
                return self.pending_packs.pop(place)
        return None

    def mark_finished(self, planned_cell: PlannedCell, *, has_failed: bool) -> None:
        self.unfinished.discard(planned_cell.identity)
        if has_failed:
            self.failed_identities.add(planned_cell.identity)

    def append_pack(self, pack: Pack) -> None:
        self.pending_packs.append(pack)

    def prepend_packs(self, packs: Sequence[Pack]) -> None:
        self.pending_packs[:0] = packs

    def has_failed_dependency(self, planned_cell: PlannedCell) -> bool:
        return any(parent in self.failed_identities for parent in planned_cell.dependencies)


class Scheduler:
    """Hands out packs until none is left, or until the run has gone on long enough."""

    def __init__(
        self,
        packs: Sequence[Pack],
        profile: Profile,
        store: ResultStore,
        progress: Progress,
        limits: RunLimits | None = None,
    ) -> None:
        self.queue, self.profile, self.progress, self.limits = (
            PackQueue(packs),
            profile,
            progress,
            limits or RunLimits(),
        )
        self.start_time, self.stop_reason = monotonic(), ""  # why no more is handed out
        known = [(planned, store.load_result(planned)) for pack in packs for planned in pack]
        tried = {
            planned.identity: old["times"]["finished"]
            for planned, old in known
            if old and (not store.is_complete(planned, old) or store.has_damaged_files(planned, old))
        }
        self.store = ResultStore(store.folder, tried)

    @property
    def num_unfinished(self) -> int:
        """Cells that are not over."""
        return len(self.queue.unfinished)

    def take_pack(self) -> Pack | None:
        """The next ready pack; cells that rest on a failed one fail on the way."""
        if REQUESTED_EXIT_CODES:  # the signal's exception can be lost, as in a finaliser; here it is not
            raise SystemExit(REQUESTED_EXIT_CODES[0])
        self.stop_reason = self.stop_reason or self.get_stop_reason()
        while not self.stop_reason and (pack := self.queue.pop_ready_pack()):
            orphans = [planned for planned in pack if self.queue.has_failed_dependency(planned)]
            for planned in orphans:
                self.fail_cell(planned, "a cell it rests on failed")
            if left := tuple(planned for planned in pack if planned not in orphans):
                self.progress.start_pack(left)
                return left
        return None

    def get_stop_reason(self) -> str:
        """Why the run should end at this boundary between packs, if it should."""
        if self.limits.on_failure == "stop" and self.progress.num_failed:
            return "a cell failed, and --on-failure is stop"
        if (
            self.limits.time_budget_seconds is not None
            and monotonic() - self.start_time >= self.limits.time_budget_seconds
        ):
            return f"the budget of {format_duration(self.limits.time_budget_seconds)} is over"
        return ""

    def get_timeout(self, pack: Pack) -> float | None:
        """Seconds that a pack may take."""
        return None if self.limits.cell_timeout_seconds is None else self.limits.cell_timeout_seconds * len(pack)

    def complete_pack(self, pack: Pack, outcomes: Sequence[Any]) -> None:
        """A pack came back: each cell with its result, or because another process has it."""
        again = []
        for planned, result in zip(pack, outcomes, strict=True):
            if result != CLAIMED_ELSEWHERE:
                self.queue.mark_finished(planned, has_failed=result["state"] == "failed")
                self.progress.finish_cell(planned, result)
            elif found := self.store.load_finished_result(planned):
                self.queue.mark_finished(planned, has_failed=found["state"] == "failed")
                self.progress.finish_elsewhere(planned, found)
            else:  # still at it, or died there: it comes up again here
                self.progress.release_cell(planned)
                again.append(planned)
        if again:
            self.queue.append_pack(tuple(again))
            sleep(POLL_INTERVAL_SECONDS / 10)

    def fail_cell(self, planned_cell: PlannedCell, reason: str) -> None:
        """A cell that could not even fail by itself."""
        error = {"reason": reason, "traceback": ""}
        result = build_result_header(planned_cell, self.profile, get_timestamp(), 0.0) | {
            "state": "failed",
            "error": error,
            "environment": {},
        }
        self.store.save_result(planned_cell, result)
        self.queue.mark_finished(planned_cell, has_failed=True)
        self.progress.finish_cell(planned_cell, result)

    def on_worker_death(self, pack: Pack, reason: str) -> None:
        """A pack took its process down: a lone cell failed by it, those of a pack are tried alone."""
        if len(pack) == 1:
            self.fail_cell(pack[0], reason)
        else:
            self.requeue_pack(pack, reason, [(planned,) for planned in pack])

    def requeue_pack(self, pack: Pack, reason: str, packs: Sequence[Pack]) -> None:
        """A pack lost its process, and comes up in these."""
        self.progress.report_requeue(pack, reason)
        self.queue.prepend_packs(packs)
