"""Where the work of a grid is handed out, pack by pack, and comes back. Imports no torch, and knows no processes."""

from collections.abc import Sequence
from time import monotonic, sleep
from typing import Any

from benchmark.environment import STOPPED, now
from benchmark.grid import Planned
from benchmark.limits import Limits
from benchmark.packs import Pack
from benchmark.price import spoken
from benchmark.profile import Profile
from benchmark.progress import Progress
from benchmark.result import header
from benchmark.store import Store

ELSEWHERE = "elsewhere"  # instead of a result: another process has it, or did it
POLL = 1.0  # seconds between looks at cells that another process runs


class Queue:
    """Packs that are due, in order; one is ready when all that its cells rest on is there."""

    def __init__(self, due: Sequence[Pack]) -> None:
        self.waiting = list(due)
        self.open = {planned.identity for pack in due for planned in pack}  # not yet over
        self.failed: set[str] = set()

    def next(self) -> Pack | None:
        """The first ready pack, taken out."""
        for place, pack in enumerate(self.waiting):
            if not any(parent in self.open for planned in pack for parent in planned.parents):
                return self.waiting.pop(place)
        return None

    def over(self, planned: Planned, *, failed: bool) -> None:
        self.open.discard(planned.identity)
        if failed:
            self.failed.add(planned.identity)

    def later(self, pack: Pack) -> None:
        self.waiting.append(pack)

    def first(self, packs: Sequence[Pack]) -> None:
        self.waiting[:0] = packs

    def orphaned(self, planned: Planned) -> bool:
        return any(parent in self.failed for parent in planned.parents)


class Shop:
    """Hands out packs until none is left, or until the run has gone on long enough."""

    def __init__(
        self, due: Sequence[Pack], profile: Profile, store: Store, progress: Progress, limits: Limits | None = None
    ) -> None:
        self.queue, self.profile, self.progress, self.limits = Queue(due), profile, progress, limits or Limits()
        self.begun, self.ended = monotonic(), ""  # why no more is handed out
        known = [(planned, store.read(planned)) for pack in due for planned in pack]
        tried = {
            planned.identity: old["times"]["finished"]
            for planned, old in known
            if old and (not store.complete(planned, old) or store.damaged(planned, old))
        }
        self.store = Store(store.folder, tried)

    @property
    def left(self) -> int:
        """Cells that are not over."""
        return len(self.queue.open)

    def take(self) -> Pack | None:
        """The next ready pack; cells that rest on a failed one fail on the way."""
        if STOPPED:  # the signal's exception can be lost, as in a finaliser; here it is not
            raise SystemExit(STOPPED[0])
        self.ended = self.ended or self.enough()
        while not self.ended and (pack := self.queue.next()):
            orphans = [planned for planned in pack if self.queue.orphaned(planned)]
            for planned in orphans:
                self.lost(planned, "a cell it rests on failed")
            if left := tuple(planned for planned in pack if planned not in orphans):
                self.progress.start(left)
                return left
        return None

    def enough(self) -> str:
        """Why the run should end at this boundary between packs, if it should."""
        if self.limits.on_failure == "stop" and self.progress.failed:
            return "a cell failed, and --on-failure is stop"
        if self.limits.budget is not None and monotonic() - self.begun >= self.limits.budget:
            return f"the budget of {spoken(self.limits.budget)} is over"
        return ""

    def allowed(self, pack: Pack) -> float | None:
        """Seconds that a pack may take."""
        return None if self.limits.timeout is None else self.limits.timeout * len(pack)

    def settle(self, pack: Pack, said: Sequence[Any]) -> None:
        """A pack came back: each cell with its result, or because another process has it."""
        again = []
        for planned, result in zip(pack, said, strict=True):
            if result != ELSEWHERE:
                self.queue.over(planned, failed=result["state"] == "failed")
                self.progress.finish(planned, result)
            elif found := self.store.over(planned):
                self.queue.over(planned, failed=found["state"] == "failed")
                self.progress.elsewhere(planned, found)
            else:  # still at it, or died there: it comes up again here
                self.progress.put_back(planned)
                again.append(planned)
        if again:
            self.queue.later(tuple(again))
            sleep(POLL / 10)

    def lost(self, planned: Planned, reason: str) -> None:
        """A cell that could not even fail by itself."""
        error = {"reason": reason, "traceback": ""}
        result = header(planned, self.profile, now(), 0.0) | {"state": "failed", "error": error, "environment": {}}
        self.store.save(planned, result)
        self.queue.over(planned, failed=True)
        self.progress.finish(planned, result)

    def broken(self, pack: Pack, reason: str) -> None:
        """A pack took its process down: a lone cell failed by it, those of a pack are tried alone."""
        if len(pack) == 1:
            self.lost(pack[0], reason)
        else:
            self.again(pack, reason, [(planned,) for planned in pack])

    def again(self, pack: Pack, reason: str, packs: Sequence[Pack]) -> None:
        """A pack lost its process, and comes up in these."""
        self.progress.again(pack, reason)
        self.queue.first(packs)
