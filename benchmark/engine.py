"""Fill a grid: in this process, or with worker processes that each hold the backbone and take the next pack of cells.

A worker has one thread: several threads in each of several processes are slower than one process alone. A worker that
dies costs the cell it had, and another takes its place; the cells of a pack come up again, each alone. This module
imports no torch; a worker does.
"""

import os
import signal
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from time import sleep
from typing import Any, NamedTuple

from benchmark.environment import STOPPED, now
from benchmark.grid import Planned
from benchmark.packs import Pack
from benchmark.profile import Profile
from benchmark.progress import Progress
from benchmark.result import header
from benchmark.store import Store
from tasks.example import UsageError

ELSEWHERE = "elsewhere"  # instead of a result: another process has it, or did it
POLL = 1.0  # seconds between looks at cells that another process runs
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


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


class Worker(NamedTuple):
    process: BaseProcess
    pipe: Connection


def workers(profile: Profile, cuda: bool, due: int) -> int:
    """How many processes: as asked, else one per core on a CPU and one on a GPU; never more than cells."""
    asked = profile.workers if isinstance(profile.workers, int) else 1 if cuda else cores()
    return max(1, min(asked, due))


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def fill(profile: Profile, due: Sequence[Pack], store: Store, progress: Progress, count: int) -> int:
    """Run all that is due. -> how many cells failed."""
    shop = Shop(Queue(due), profile, store, progress)
    if count == 1:
        alone(shop)
    else:
        together(shop, count)
    return progress.failed


class Shop(NamedTuple):
    """Where the work is handed out and comes back."""

    queue: Queue
    profile: Profile
    store: Store
    progress: Progress

    def take(self) -> Pack | None:
        """The next ready pack; cells that rest on a failed one fail on the way."""
        if STOPPED:  # the signal's exception can be lost, as in a finaliser; here it is not
            raise SystemExit(STOPPED[0])
        while pack := self.queue.next():
            orphans = [planned for planned in pack if self.queue.orphaned(planned)]
            for planned in orphans:
                self.lost(planned, "a cell it rests on failed")
            if left := tuple(planned for planned in pack if planned not in orphans):
                self.progress.start(left)
                return left
        return None

    def settle(self, pack: Pack, said: Sequence[Any]) -> None:
        """A pack came back: each cell with its result, or because another process has it."""
        again = []
        for planned, result in zip(pack, said, strict=True):
            if result != ELSEWHERE:
                self.queue.over(planned, failed=result["state"] == "failed")
                self.progress.finish(planned, result)
            elif self.store.done(planned):
                self.queue.over(planned, failed=False)
                self.progress.elsewhere(planned)
            else:  # still at it, or failed or died there: it comes up again here
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

    def bury(self, worker: Worker, pack: Pack | None) -> None:
        """A worker died: its cell failed, those of a pack are tried alone; if it had none, the grid cannot be run."""
        worker.process.join()
        worker.pipe.close()
        code = worker.process.exitcode or 0
        signal_name = signal.Signals(-code).name if code < 0 else ""
        reason = f"the worker died by {signal_name}" if signal_name else f"the worker left with exit code {code}"
        if signal_name == "SIGKILL":
            reason += " (out of memory?)"
        if pack is None:
            raise UsageError(f"{reason} while it loaded the backbone; `--workers 1` shows why")
        for planned in pack:
            self.store.lock_path(planned).unlink(missing_ok=True)
        if len(pack) == 1:
            self.lost(pack[0], reason)
            return
        for planned in pack:
            self.progress.put_back(planned)
        self.queue.first([(planned,) for planned in pack])


def alone(shop: Shop) -> None:
    from benchmark.run import Bench

    bench = Bench(shop.profile, shop.store)
    while shop.queue.open:
        pack = shop.take()
        if pack is None:
            sleep(POLL)
            continue
        shop.settle(pack, attempt(bench, pack))


def together(shop: Shop, count: int) -> None:
    """One pack at a time to each worker, until none is left."""
    crew = [hire(shop.profile) for _ in range(count)]
    busy: dict[Connection, Pack | None] = {worker.pipe: None for worker in crew}  # None: still loading
    idle: list[Connection] = []
    try:
        while shop.queue.open:
            for pipe in list(idle):
                pack = shop.take()
                if pack is None:
                    break
                idle.remove(pipe)
                busy[pipe] = pack
                pipe.send(pack)
            if not busy:
                sleep(POLL)
                continue
            for pipe in wait(list(busy), POLL):
                pack = busy.pop(pipe)
                try:
                    said = pipe.recv()
                except (EOFError, ConnectionResetError):
                    worker = next(worker for worker in crew if worker.pipe is pipe)
                    crew.remove(worker)
                    shop.bury(worker, pack)
                    if shop.queue.waiting:
                        crew.append(hire(shop.profile))
                        busy[crew[-1].pipe] = None
                    continue
                if isinstance(said, UsageError):
                    raise said
                idle.append(pipe)
                if pack is not None:
                    shop.settle(pack, said)
    finally:
        dismiss(crew)


def hire(profile: Profile) -> Worker:
    """Start a worker process. Its threads are limited before it imports torch."""
    context = get_context("spawn")
    here, there = context.Pipe()
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        process = context.Process(target=work, args=(there, profile), daemon=True)
        process.start()
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    there.close()
    return Worker(process, here)


def dismiss(crew: Sequence[Worker]) -> None:
    for worker in crew:
        worker.pipe.close()
        worker.process.terminate()
    for worker in crew:
        worker.process.join(5)
        if worker.process.is_alive():
            worker.process.kill()


def work(pipe: Connection, profile: Profile) -> None:
    """A worker's life: load the backbone, then run what comes until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    try:
        import torch

        from benchmark.run import Bench

        torch.set_num_threads(1)
        bench = Bench(profile, Store(profile.folder))
        pipe.send("ready")
        while True:
            pipe.send(attempt(bench, pipe.recv()))
    except UsageError as error:
        pipe.send(error)
    except (EOFError, BrokenPipeError):
        return  # the parent is gone, or has no more


def attempt(bench: Any, pack: Pack) -> list[Any]:
    """Run a pack without the cells that another process has, or did meanwhile."""
    with bench.store.lock(pack) as mine:
        own = [planned for planned in pack if planned in mine and not bench.store.done(planned)]
        results = {planned.identity: result for planned, result in zip(own, bench.run(own), strict=True)} if own else {}
        return [results.get(planned.identity, ELSEWHERE) for planned in pack]
