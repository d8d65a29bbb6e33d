"""Fill a grid: in this process, or with worker processes that each hold the backbone and take the next pack of cells.

A worker has one thread: several threads in each of several processes are slower than one process alone. A worker that
dies, or is ended because it takes too long, costs the cell it had, and another takes its place; the cells of a pack
come up again, each alone. This module imports no torch; a worker does.
"""

import gc
import os
import signal
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from time import monotonic, sleep
from typing import Any, NamedTuple

from benchmark.config.profile import Profile
from benchmark.config.run_limits import RunLimits
from benchmark.execution.progress import Progress
from benchmark.execution.scheduler import CLAIMED_ELSEWHERE, POLL_INTERVAL_SECONDS, Scheduler
from benchmark.results.store import ResultStore
from benchmark.scheduling.packing import Pack
from benchmark.system.formatting import format_duration
from tasks.core.types import UsageError

THREAD_COUNT_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class WorkerProcess(NamedTuple):
    process: BaseProcess
    pipe: Connection


def run_packs(
    profile: Profile,
    packs: Sequence[Pack],
    store: ResultStore,
    progress: Progress,
    num_workers: int,
    limits: RunLimits | None = None,
) -> Scheduler:
    """Run all that is due, as far as the limits allow. -> what became of it."""
    shop = Scheduler(packs, profile, store, progress, limits)
    if num_workers == 1 and shop.limits.cell_timeout_seconds is None and profile.devices == 1:
        run_in_this_process(shop)
    else:  # what hangs can only be ended with its process
        run_in_worker_processes(shop, num_workers)
    return shop


def run_in_this_process(scheduler: Scheduler) -> None:
    from benchmark.execution.cell_runner import CellRunner

    bench = CellRunner(scheduler.profile, scheduler.store)
    while scheduler.num_unfinished:
        pack = scheduler.take_pack()
        if pack is None and scheduler.stop_reason:
            return
        if pack is None:
            sleep(POLL_INTERVAL_SECONDS)
            continue
        scheduler.complete_pack(pack, run_unclaimed_cells(bench, pack))


def run_in_worker_processes(scheduler: Scheduler, num_workers: int) -> None:
    """One pack at a time to each worker, until none is left."""
    crew = {worker.pipe: worker for worker in (spawn_worker(scheduler) for _ in range(num_workers))}
    busy: dict[Connection, Pack | None] = dict.fromkeys(crew)  # None: still loading
    since: dict[Connection, float] = {}
    idle: list[Connection] = []
    try:
        while scheduler.num_unfinished:
            for pipe in list(idle):
                pack = scheduler.take_pack()
                if pack is None:
                    break
                idle.remove(pipe)
                if try_send_pack(scheduler, crew[pipe], pack):
                    busy[pipe], since[pipe] = pack, monotonic()
                else:
                    crew.pop(pipe)
            while scheduler.queue.pending_packs and not scheduler.stop_reason and len(crew) < num_workers:
                worker = spawn_worker(scheduler)
                crew[worker.pipe], busy[worker.pipe] = worker, None
            if not busy and scheduler.stop_reason:
                return
            if not busy:
                sleep(POLL_INTERVAL_SECONDS)
                continue
            ready = wait(list(busy), POLL_INTERVAL_SECONDS)
            for pipe in [pipe for pipe in busy if pipe in ready]:
                if receive_message(scheduler, crew[pipe], busy[pipe]):
                    idle.append(pipe)
                else:
                    crew.pop(pipe)
                busy.pop(pipe)
            for pipe, pack in list(busy.items()):
                if check_timeout(scheduler, crew[pipe], pack, since.get(pipe)):
                    busy.pop(pipe)
                    crew.pop(pipe)
    finally:
        shut_down_workers(list(crew.values()))
        for pipe, pack in busy.items():
            if pipe in crew:
                scheduler.store.release_locks(pack or (), crew[pipe].process.pid)


def try_send_pack(scheduler: Scheduler, worker: WorkerProcess, pack: Pack) -> bool:
    """Whether a worker took a pack: one that was killed while it had none did not, and another takes its place."""
    try:
        worker.pipe.send(pack)
    except (BrokenPipeError, ConnectionResetError):
        worker.process.join()
        worker.pipe.close()
        scheduler.requeue_pack(pack, "the worker that should have it is gone", [pack])
        return False
    return True


def receive_message(scheduler: Scheduler, worker: WorkerProcess, pack: Pack | None) -> bool:
    """A worker says that it is ready, or what became of its pack, or it is no more. -> whether it can go on."""
    try:
        said = worker.pipe.recv()
    except (EOFError, ConnectionResetError):
        reap_worker(scheduler, worker, pack)
        return False
    if isinstance(said, UsageError):
        raise said
    if pack is not None:
        scheduler.complete_pack(pack, said)
    return True


def check_timeout(scheduler: Scheduler, worker: WorkerProcess, pack: Pack | None, started_at: float | None) -> bool:
    """End a worker whose pack takes longer than it may."""
    allowed = scheduler.get_timeout(pack) if pack else None
    if allowed is None or monotonic() - started_at < allowed:
        return False
    worker.process.kill()
    reap_worker(
        scheduler,
        worker,
        pack,
        f"took longer than its {format_duration(scheduler.limits.cell_timeout_seconds)} (--timeout)",
    )
    return True


def reap_worker(scheduler: Scheduler, worker: WorkerProcess, pack: Pack | None, reason: str = "") -> None:
    """A worker is dead: its pack is broken; if it had none, the grid cannot be run."""
    worker.process.join()
    worker.pipe.close()
    code = worker.process.exitcode or 0
    name = signal.Signals(-code).name if code < 0 else ""
    died = f"the worker died by {name}" if name else f"the worker left with exit code {code}"
    reason = reason or died + (" (out of memory?)" if name == "SIGKILL" else "")
    if pack is None:
        raise UsageError(f"{reason} while it loaded the backbone; `--workers 1` shows why")
    scheduler.store.release_locks(pack, worker.process.pid)
    scheduler.on_worker_death(pack, reason)


def spawn_worker(scheduler: Scheduler) -> WorkerProcess:
    """Start a worker process. Its threads are limited before it imports torch."""
    context = get_context("spawn")
    here, there = context.Pipe()
    before = {name: os.environ.get(name) for name in THREAD_COUNT_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_COUNT_VARIABLES, "1"))
    try:
        process = context.Process(
            target=run_worker, args=(there, scheduler.profile, scheduler.store.previous_attempts), daemon=True
        )
        process.start()
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    there.close()
    return WorkerProcess(process, here)


def shut_down_workers(workers: Sequence[WorkerProcess]) -> None:
    for worker in workers:
        worker.pipe.close()
        worker.process.terminate()
    for worker in workers:
        worker.process.join(5)
        if worker.process.is_alive():
            worker.process.kill()


def run_worker(pipe: Connection, profile: Profile, previous_attempts: dict[str, str]) -> None:
    """A worker's life: load the backbone, then run what comes until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    try:
        import torch

        from benchmark.execution.cell_runner import CellRunner
        from benchmark.execution.device_group import DeviceGroup

        torch.set_num_threads(1)
        bench = (CellRunner if profile.devices == 1 else DeviceGroup)(
            profile, ResultStore(profile.results_folder, previous_attempts)
        )
        gc.freeze()  # what is here by now stays, and need not be looked at again
        pipe.send("ready")
        while True:
            pipe.send(run_unclaimed_cells(bench, pipe.recv()))
    except UsageError as error:
        pipe.send(error)
    except (EOFError, BrokenPipeError):
        return  # the parent is gone, or has no more


def run_unclaimed_cells(cell_runner: Any, pack: Pack) -> list[Any]:
    """Run a pack without the cells that another process has, or did meanwhile."""
    with cell_runner.store.lock_cells(pack) as mine:
        own = [planned for planned in pack if planned in mine and not cell_runner.store.load_finished_result(planned)]
        results = (
            {planned.identity: result for planned, result in zip(own, cell_runner.run(own), strict=True)} if own else {}
        )
        return [results.get(planned.identity, CLAIMED_ELSEWHERE) for planned in pack]
