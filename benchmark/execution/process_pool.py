"""Run packs of cells in this process, or in a pool of worker processes that each load the backbone once.

A worker uses one thread: several threads in each of several processes are slower than one process alone. If a worker
dies or exceeds its time limit, its cell fails (the cells of a pack are run again one by one) and a new worker replaces
it. This module imports no torch; the workers do.
"""

import gc
import os
import signal
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from time import monotonic, sleep
from typing import NamedTuple, Protocol

from benchmark.config.profile import Profile
from benchmark.config.run_limits import RunLimits
from benchmark.execution.messages import (
    CellOutcome,
    ClaimedElsewhere,
    PackFinished,
    WorkerFailed,
    WorkerMessage,
    WorkerReady,
)
from benchmark.execution.progress import Progress
from benchmark.execution.scheduler import POLL_INTERVAL_SECONDS, Scheduler
from benchmark.grid.cells import PlannedCell
from benchmark.results.cell_result import CellResult
from benchmark.results.store import ResultStore
from benchmark.scheduling.packing import Pack
from benchmark.system.formatting import format_duration
from tasks.core.types import UsageError

THREAD_COUNT_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class WorkerProcess(NamedTuple):
    """A worker and the parent's end of the pipe to it."""

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
    """Run the due packs within the limits. -> the scheduler, with the state of the run."""
    scheduler = Scheduler(packs, profile, store, progress, limits)
    if num_workers == 1 and scheduler.limits.cell_timeout_seconds is None and profile.devices == 1:
        run_in_this_process(scheduler)
    else:  # a time limit needs a worker even if there is only one: a hanging cell ends only with its process
        run_in_worker_processes(scheduler, num_workers)
    return scheduler


def run_in_this_process(scheduler: Scheduler) -> None:
    """Run all packs in this process, one after the other."""
    from benchmark.execution.cell_runner import CellRunner

    cell_runner = CellRunner(scheduler.profile, scheduler.store)
    while scheduler.num_unfinished:
        pack = scheduler.take_pack()
        if pack is None and scheduler.stop_reason:
            return
        if pack is None:
            sleep(POLL_INTERVAL_SECONDS)
            continue
        scheduler.complete_pack(pack, run_unclaimed_cells(cell_runner, pack))


def run_in_worker_processes(scheduler: Scheduler, num_workers: int) -> None:
    """Keep `num_workers` workers busy, one pack each, until no cell is left or the scheduler stops."""
    workers = {worker.pipe: worker for worker in (spawn_worker(scheduler) for _ in range(num_workers))}
    busy: dict[Connection, Pack | None] = dict.fromkeys(workers)  # None: the worker still loads the backbone
    start_times: dict[Connection, float] = {}
    idle: list[Connection] = []
    try:
        while scheduler.num_unfinished:
            for pipe in list(idle):
                pack = scheduler.take_pack()
                if pack is None:
                    break
                idle.remove(pipe)
                if try_send_pack(scheduler, workers[pipe], pack):
                    busy[pipe] = pack
                    start_times[pipe] = monotonic()
                else:
                    workers.pop(pipe)
            while scheduler.queue.pending_packs and not scheduler.stop_reason and len(workers) < num_workers:
                worker = spawn_worker(scheduler)
                workers[worker.pipe] = worker
                busy[worker.pipe] = None
            if not busy and scheduler.stop_reason:
                return
            if not busy:
                sleep(POLL_INTERVAL_SECONDS)
                continue
            ready = wait(list(busy), POLL_INTERVAL_SECONDS)
            for pipe in [pipe for pipe in busy if pipe in ready]:
                if receive_message(scheduler, workers[pipe], busy[pipe]):
                    idle.append(pipe)
                else:
                    workers.pop(pipe)
                busy.pop(pipe)
            for pipe, pack in list(busy.items()):
                if check_timeout(scheduler, workers[pipe], pack, start_times.get(pipe)):
                    busy.pop(pipe)
                    workers.pop(pipe)
    finally:
        shut_down_workers(list(workers.values()))
        for pipe, pack in busy.items():
            if pipe in workers:
                scheduler.store.release_locks(pack or (), workers[pipe].process.pid)


def try_send_pack(scheduler: Scheduler, worker: WorkerProcess, pack: Pack) -> bool:
    """Send a pack to an idle worker. Return False, and queue the pack again, if the worker has died."""
    try:
        worker.pipe.send(pack)
    except (BrokenPipeError, ConnectionResetError):
        worker.process.join()
        worker.pipe.close()
        scheduler.requeue_pack(pack, "the worker exited before it received the pack", [pack])
        return False
    return True


def receive_message(scheduler: Scheduler, worker: WorkerProcess, pack: Pack | None) -> bool:
    """Handle one message from a worker: ready, outcomes of its pack, or end of pipe. -> whether the worker is alive.

    Raises a UsageError that the worker sent, TypeError for a message that does not fit.
    """
    try:
        message: WorkerMessage = worker.pipe.recv()
    except (EOFError, ConnectionResetError):
        reap_worker(scheduler, worker, pack)
        return False
    match message:
        case WorkerReady():
            pass
        case PackFinished() if pack is not None:
            scheduler.complete_pack(pack, message.outcomes)
        case WorkerFailed():
            raise message.error
        case _:
            raise TypeError(f"unexpected message of a worker: {message!r}")
    return True


def check_timeout(scheduler: Scheduler, worker: WorkerProcess, pack: Pack | None, started_at: float | None) -> bool:
    """Kill the worker if its pack exceeds the time limit. -> whether it was killed."""
    timeout = scheduler.get_timeout(pack) if pack else None
    if timeout is None or monotonic() - started_at < timeout:
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
    """Clean up after a dead worker and fail or requeue its pack.

    Raises UsageError if it died while it loaded the backbone: the others would fail too.
    """
    worker.process.join()
    worker.pipe.close()
    exit_code = worker.process.exitcode or 0
    if not reason and exit_code < 0:
        signal_name = signal.Signals(-exit_code).name
        reason = f"the worker was killed by {signal_name}"
        if signal_name == "SIGKILL":
            reason += " (out of memory?)"
    elif not reason:
        reason = f"the worker exited with code {exit_code}"
    if pack is None:
        raise UsageError(f"{reason} while it loaded the backbone; `--workers 1` shows why")
    scheduler.store.release_locks(pack, worker.process.pid)
    scheduler.on_worker_death(pack, reason)


def spawn_worker(scheduler: Scheduler) -> WorkerProcess:
    """Start a worker process. Its threads are limited before it imports torch."""
    context = get_context("spawn")
    parent_pipe, child_pipe = context.Pipe()
    previous_values = {name: os.environ.get(name) for name in THREAD_COUNT_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_COUNT_VARIABLES, "1"))
    try:
        process = context.Process(
            target=run_worker, args=(child_pipe, scheduler.profile, scheduler.store.previous_attempts), daemon=True
        )
        process.start()
    finally:
        for name, value in previous_values.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
    child_pipe.close()
    return WorkerProcess(process, parent_pipe)


def shut_down_workers(workers: Sequence[WorkerProcess]) -> None:
    """Terminate the workers; those that are still alive after 5 s are killed."""
    for worker in workers:
        worker.pipe.close()
        worker.process.terminate()
    for worker in workers:
        worker.process.join(5)
        if worker.process.is_alive():
            worker.process.kill()


def run_worker(pipe: Connection, profile: Profile, previous_attempts: dict[str, str]) -> None:
    """Worker main loop: load the backbone, then run packs received over the pipe until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    try:
        import torch

        from benchmark.execution.cell_runner import CellRunner
        from benchmark.execution.device_group import DeviceGroup

        torch.set_num_threads(1)
        runner_class = CellRunner if profile.devices == 1 else DeviceGroup
        cell_runner = runner_class(profile, ResultStore(profile.results_folder, previous_attempts))
        gc.freeze()  # objects that exist now are permanent: the garbage collector can skip them
        pipe.send(WorkerReady())
        while True:
            pipe.send(PackFinished(tuple(run_unclaimed_cells(cell_runner, pipe.recv()))))
    except UsageError as error:
        pipe.send(WorkerFailed(error))
    except (EOFError, BrokenPipeError):
        return  # the parent has exited or closed the pipe


class PackRunner(Protocol):
    """Runs packs of cells: `CellRunner` on one device, `DeviceGroup` on several."""

    store: ResultStore

    def run(self, pack: Sequence[PlannedCell]) -> list[CellResult]:
        """Run a pack and save one result per cell, in the order of the pack."""


def run_unclaimed_cells(pack_runner: PackRunner, pack: Pack) -> list[CellOutcome]:
    """Run the cells of a pack that no other process runs or has finished, and return one outcome per cell."""
    store = pack_runner.store
    with store.lock_cells(pack) as locked_cells:
        unclaimed = [planned for planned in pack if planned in locked_cells and not store.load_finished_result(planned)]
        results = {}
        if unclaimed:
            for planned, result in zip(unclaimed, pack_runner.run(unclaimed), strict=True):
                results[planned.identity] = result
        return [results.get(planned.identity, ClaimedElsewhere()) for planned in pack]
