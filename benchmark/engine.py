"""Fill a grid: in this process, or with worker processes that each hold the backbone and take the next cell.

A worker has one thread: several threads in each of several processes are slower than one process alone. A worker that
dies costs the cell it had, and another takes its place. This module imports no torch; a worker does.
"""

import os
import signal
from collections import deque
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from time import sleep
from typing import Any, NamedTuple

from benchmark.environment import STOPPED, now
from benchmark.grid import Planned
from benchmark.profile import Profile
from benchmark.progress import Progress
from benchmark.result import header
from benchmark.store import Store
from tasks.example import UsageError

ELSEWHERE = "elsewhere"  # instead of a result: another process has it, or did it
POLL = 1.0  # seconds between looks at cells that another process runs
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Queue:
    """Cells that are due, in order; a cell is ready when all it rests on is there."""

    def __init__(self, due: Sequence[Planned]) -> None:
        self.waiting = deque(due)
        self.open = {planned.identity for planned in due}  # not yet over
        self.failed: set[str] = set()

    def next(self) -> Planned | None:
        """The first ready cell, taken out."""
        for planned in self.waiting:
            if not any(parent in self.open for parent in planned.parents):
                self.waiting.remove(planned)
                return planned
        return None

    def over(self, planned: Planned, *, failed: bool) -> None:
        self.open.discard(planned.identity)
        if failed:
            self.failed.add(planned.identity)

    def later(self, planned: Planned) -> None:
        self.waiting.append(planned)

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


def fill(profile: Profile, due: Sequence[Planned], store: Store, progress: Progress, count: int) -> int:
    """Run all that is due. -> how many cells failed."""
    queue = Queue(due)
    if count == 1:
        alone(profile, queue, store, progress)
    else:
        together(profile, queue, store, progress, count)
    return progress.failed


def alone(profile: Profile, queue: Queue, store: Store, progress: Progress) -> None:
    from benchmark.run import Bench

    bench = Bench(profile, store)
    while queue.open:
        planned = take(queue, profile, store, progress)
        if planned is None:
            sleep(POLL)
            continue
        settle(queue, planned, attempt(bench, planned), store, progress)


def together(profile: Profile, queue: Queue, store: Store, progress: Progress, count: int) -> None:
    """One cell at a time to each worker, until none is left."""
    crew = [hire(profile) for _ in range(count)]
    busy: dict[Connection, Planned | None] = {worker.pipe: None for worker in crew}  # None: still loading
    idle: list[Connection] = []
    try:
        while queue.open:
            for pipe in list(idle):
                planned = take(queue, profile, store, progress)
                if planned is None:
                    break
                idle.remove(pipe)
                busy[pipe] = planned
                pipe.send(planned)
            if not busy:
                sleep(POLL)
                continue
            for pipe in wait(list(busy), POLL):
                planned = busy.pop(pipe)
                try:
                    said = pipe.recv()
                except (EOFError, ConnectionResetError):
                    worker = next(worker for worker in crew if worker.pipe is pipe)
                    crew.remove(worker)
                    bury(worker, planned, queue, profile, store, progress)
                    if queue.waiting:
                        crew.append(hire(profile))
                        busy[crew[-1].pipe] = None
                    continue
                if isinstance(said, UsageError):
                    raise said
                idle.append(pipe)
                if planned is not None:
                    settle(queue, planned, said, store, progress)
    finally:
        dismiss(crew)


def take(queue: Queue, profile: Profile, store: Store, progress: Progress) -> Planned | None:
    """The next ready cell; those that rest on a failed one fail on the way."""
    if STOPPED:  # the signal's exception can be lost, as in a finaliser; here it is not
        raise SystemExit(STOPPED[0])
    while planned := queue.next():
        if not queue.orphaned(planned):
            progress.start(planned)
            return planned
        lost(planned, "a cell it rests on failed", queue, profile, store, progress)
    return None


def settle(queue: Queue, planned: Planned, said: Any, store: Store, progress: Progress) -> None:
    """A cell came back: with its result, or because another process has it."""
    if said != ELSEWHERE:
        queue.over(planned, failed=said["state"] == "failed")
        progress.finish(planned, said)
    elif store.done(planned):
        queue.over(planned, failed=False)
        progress.elsewhere(planned)
    else:  # still at it, or failed or died there: it comes up again here
        queue.later(planned)
        progress.put_back(planned)
        sleep(POLL / 10)


def lost(planned: Planned, reason: str, queue: Queue, profile: Profile, store: Store, progress: Progress) -> None:
    """A cell that could not even fail by itself."""
    error = {"reason": reason, "traceback": ""}
    result = header(planned, profile, now(), 0.0) | {"state": "failed", "error": error, "environment": {}}
    store.save(planned, result)
    queue.over(planned, failed=True)
    progress.finish(planned, result)


def bury(
    worker: Worker, planned: Planned | None, queue: Queue, profile: Profile, store: Store, progress: Progress
) -> None:
    """A worker died: its cell failed; if it had none, the grid cannot be run."""
    worker.process.join()
    worker.pipe.close()
    code = worker.process.exitcode or 0
    signal_name = signal.Signals(-code).name if code < 0 else ""
    reason = f"the worker died by {signal_name}" if signal_name else f"the worker left with exit code {code}"
    if signal_name == "SIGKILL":
        reason += " (out of memory?)"
    if planned is None:
        raise UsageError(f"{reason} while it loaded the backbone; `--workers 1` shows why")
    store.lock_path(planned).unlink(missing_ok=True)
    lost(planned, reason, queue, profile, store, progress)


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


def attempt(bench: Any, planned: Planned) -> Any:
    """Run a cell unless another process has it or did it meanwhile."""
    with bench.store.lock(planned) as mine:
        if not mine or bench.store.done(planned):
            return ELSEWHERE
        return bench.run([planned])[0]
