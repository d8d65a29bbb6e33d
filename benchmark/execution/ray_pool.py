"""Run packs of cells with Ray: one actor per GPU, or per CPU core, of this machine or of a cluster.

Actors load the backbone once and get packs from the same `Scheduler` as the workers of
`benchmark.execution.process_pool`. Results use the same store and locks, so all machines must see the results folder
under the same path. If an actor dies, the cells of a pack run again one by one; a single cell is retried until
MAX_WORKER_DEATHS actors have died with it. This module does not import torch, and imports Ray on first use only.
"""

import gc
import os
import signal
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from time import monotonic, sleep
from typing import Any, NamedTuple

from benchmark.config.profile import Profile
from benchmark.config.run_limits import RunLimits
from benchmark.execution.messages import PackFinished, WorkerFailed
from benchmark.execution.process_pool import THREAD_COUNT_VARIABLES, run_unclaimed_cells
from benchmark.execution.progress import Progress
from benchmark.execution.ray_cluster import DriverEnvironment, count_cluster_gpus, import_ray
from benchmark.execution.scheduler import POLL_INTERVAL_SECONDS, Scheduler
from benchmark.results import files, locks
from benchmark.results.files import convert_write_errors
from benchmark.results.store import ResultStore
from benchmark.scheduling.packing import Pack
from benchmark.system.formatting import format_duration
from benchmark.system.redaction import describe_failure
from tasks.core.types import UsageError

MAX_WORKER_DEATHS = 3  # actors that may die with the same cell, or in succession while they load
KILL_TIMEOUT_SECONDS = 5.0  # seconds to wait for a killed process to exit
INACTIVITY_WARNING_SECONDS = 60.0  # seconds without a running actor until a warning is printed
LOW_PRIORITY_DIFFERENCE = 10  # niceness above that of this process from which a warning is printed


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
    probe_file = files.get_scratch_path(store.folder / "cells" / "shared")
    with convert_write_errors(store.folder):
        probe_file.touch()
    environment = DriverEnvironment.capture(probe_file)
    pool = RayPool(scheduler, num_workers, (profile, scheduler.store.previous_attempts, environment))
    try:
        while scheduler.num_unfinished:
            pool.assign_packs()
            scheduler.stop_reason = scheduler.stop_reason or scheduler.get_stop_reason()
            if scheduler.stop_reason and not any(worker.pack for worker in pool.busy_workers.values()):
                break
            pool.process_answers()
    finally:
        pool.shut_down()
        with suppress(OSError):
            probe_file.unlink()
    return scheduler


# -------------------------------------------------------------- in the driver


class ProcessInfo(NamedTuple):
    """Process of an actor: machine, process id, start time and niceness."""

    machine: str
    pid: int
    created_at: str | None
    niceness: int

    @classmethod
    def current(cls) -> "ProcessInfo":
        """Describe this process."""
        pid = os.getpid()
        niceness = os.getpriority(os.PRIO_PROCESS, 0)
        return cls(locks.get_machine_id(), pid, locks.get_process_start_time(pid), niceness)


@dataclass(eq=False)
class RayWorkerState:
    """State of an actor as the driver sees it."""

    actor: Any
    started_at: float  # monotonic time at which its current task began
    pack: Pack | None = None  # None: idle, or loading the backbone
    process_info: ProcessInfo | None = None  # set once the backbone is loaded


class RayPool:
    """The actors of a run: assigns packs to them, handles their answers, and replaces those that die."""

    def __init__(self, scheduler: Scheduler, num_workers: int, worker_arguments: tuple[Any, ...]) -> None:
        self.ray = import_ray()
        self.scheduler = scheduler
        self.num_workers = num_workers
        self.worker_arguments = worker_arguments
        num_gpus = count_cluster_gpus(scheduler.profile)
        resources = {"num_cpus": 0, "num_gpus": 1 / ceil(num_workers / num_gpus)} if num_gpus else {"num_cpus": 1}
        self.worker_class = self.ray.remote(**resources)(RayWorker)
        self.idle_workers: list[RayWorkerState] = []
        self.busy_workers: dict[Any, RayWorkerState] = {}  # by the object reference of the pending answer
        self.death_counts: Counter[str] = Counter()  # by cell identity; "" counts deaths while loading
        self.last_activity_time = monotonic()
        self.has_warned = False

    def assign_packs(self) -> None:
        """Give each idle actor a pack, and start actors until there are `num_workers` of them."""
        while self.idle_workers and (pack := self.scheduler.take_pack()):
            worker = self.idle_workers.pop()
            worker.pack = pack
            worker.started_at = monotonic()
            self.busy_workers[worker.actor.run.remote(pack)] = worker
        has_work = self.scheduler.queue.pending_packs and not self.scheduler.stop_reason
        while has_work and len(self.idle_workers) + len(self.busy_workers) < self.num_workers:
            worker = RayWorkerState(self.worker_class.remote(*self.worker_arguments), monotonic())
            self.busy_workers[worker.actor.load.remote()] = worker

    def process_answers(self) -> None:
        """Wait briefly for answers and handle them; kill the actors that exceed their time limit."""
        if not self.busy_workers:
            sleep(POLL_INTERVAL_SECONDS)
            return
        for answer in self.ray.wait(list(self.busy_workers), timeout=POLL_INTERVAL_SECONDS)[0]:
            self.handle_answer(answer, self.busy_workers.pop(answer))
        for answer, worker in list(self.busy_workers.items()):
            timeout = self.scheduler.get_timeout(worker.pack) if worker.pack else None
            if timeout is not None and monotonic() - worker.started_at >= timeout:
                reason = (
                    f"took longer than its {format_duration(self.scheduler.limits.cell_timeout_seconds)} (--timeout)"
                )
                self.reap_worker(self.busy_workers.pop(answer), reason)
        self.warn_if_inactive()

    def warn_if_inactive(self) -> None:
        """Warn if no actor has been running for a while (nodes lost, or resources held by other jobs)."""
        if self.idle_workers or any(worker.pack for worker in self.busy_workers.values()):
            self.last_activity_time = monotonic()
        elif self.busy_workers and monotonic() - self.last_activity_time >= INACTIVITY_WARNING_SECONDS:
            self.last_activity_time = monotonic()
            resources = self.ray.cluster_resources()
            num_cpus = resources.get("CPU", 0)
            num_gpus = resources.get("GPU", 0)
            reason = f"Ray has {num_cpus:.0f} CPUs and {num_gpus:.0f} GPUs, which other jobs may be using"
            self.scheduler.progress.print_line(
                f"no actor has loaded for {format_duration(INACTIVITY_WARNING_SECONDS)}: {reason}", "yellow"
            )

    def warn_if_low_priority(self, process_info: ProcessInfo) -> None:
        """Warn once if actors have a low priority, Ray's default: on a busy machine they hardly progress."""
        difference = process_info.niceness - os.getpriority(os.PRIO_PROCESS, 0)
        if not self.has_warned and difference >= LOW_PRIORITY_DIFFERENCE:
            self.has_warned = True
            hint = "on machines with other work, start Ray with RAY_worker_niceness=0"
            self.scheduler.progress.print_line(
                f"actors run at niceness {process_info.niceness} (19 is the lowest priority); {hint}", "yellow"
            )

    def handle_answer(self, answer: Any, worker: RayWorkerState) -> None:
        """Handle an answer of an actor: backbone loaded, outcomes of its pack, or death of the actor.

        Raises a UsageError that the actor returned.
        """
        errors = self.ray.exceptions
        try:
            message = self.ray.get(answer)
        except errors.RayTaskError as error:  # the actor raised an error: it is alive but unusable
            self.reap_worker(worker, describe_failure(error.cause).reason)
            return
        except errors.RayError:
            self.reap_worker(worker, "the worker died (killed, out of memory, or its machine is gone)", can_retry=True)
            return
        if isinstance(message, WorkerFailed):
            raise message.error
        if isinstance(message, PackFinished) and worker.pack:
            self.scheduler.complete_pack(worker.pack, message.outcomes)
            worker.pack = None
        elif isinstance(message, ProcessInfo):
            worker.process_info = message
            self.warn_if_low_priority(message)
            self.death_counts[""] = 0
        self.idle_workers.append(worker)

    def reap_worker(self, worker: RayWorkerState, reason: str, *, can_retry: bool = False) -> None:
        """Remove an actor and fail or requeue its pack. `can_retry`: a single cell may not be the cause.

        Raises UsageError if the actor failed while it loaded the backbone and must not be retried.
        """
        self.kill_workers([worker])
        pack = worker.pack
        if pack and len(pack) > 1:
            self.scheduler.on_worker_death(pack, reason)
            return
        identity = pack[0].identity if pack else ""
        self.death_counts[identity] += 1
        has_reached_limit = self.death_counts[identity] >= MAX_WORKER_DEATHS
        can_retry = can_retry and not has_reached_limit
        if pack and can_retry:
            self.scheduler.requeue_pack(pack, reason, [pack])
        elif pack:
            if has_reached_limit:
                reason += f", {MAX_WORKER_DEATHS} times"
            self.scheduler.on_worker_death(pack, reason)
        elif not can_retry:
            raise UsageError(f"{reason} while it loaded the backbone; a run without --engine shows why")

    def kill_workers(self, workers: Sequence[RayWorkerState]) -> None:
        """Kill actors and release the locks of those on this machine; other locks expire without their heartbeat.

        If the node of an actor is lost, Ray cannot kill it, and it would go on with a pack that is run elsewhere. So a
        process on this machine that is still alive is killed by its process id.
        """
        for worker in workers:
            self.ray.kill(worker.actor)
        deadline = monotonic() + KILL_TIMEOUT_SECONDS
        for worker in workers:
            process = worker.process_info
            if process is None or process.machine != locks.get_machine_id():
                continue
            while locks.is_process_alive(process.pid, process.created_at) and monotonic() < deadline:
                sleep(0.01)
            if locks.is_process_alive(process.pid, process.created_at):
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(process.pid, signal.SIGKILL)
            self.scheduler.store.release_locks(worker.pack or (), process.pid)

    def shut_down(self) -> None:
        """Kill all actors."""
        self.kill_workers([*self.idle_workers, *self.busy_workers.values()])


# --------------------------------------------------------------- in the actor


class RayWorker:
    """Class of the actors: loads the backbone once, then runs a pack at each call."""

    def __init__(
        self, profile: Profile, previous_attempts: dict[str, str], driver_environment: DriverEnvironment
    ) -> None:
        self.profile = profile
        self.previous_attempts = previous_attempts
        self.driver_environment = driver_environment

    def load(self) -> ProcessInfo | WorkerFailed:
        """Load the backbone and return the process of the actor; a UsageError is returned: Ray adds no traceback."""
        os.environ.update(dict.fromkeys(THREAD_COUNT_VARIABLES, "1"))  # before torch is imported
        try:
            self.driver_environment.apply()
            import torch

            from benchmark.execution.cell_runner import CellRunner

            torch.set_num_threads(1)
            self.cell_runner = CellRunner(
                self.profile, ResultStore(self.profile.results_folder, self.previous_attempts)
            )
            gc.freeze()  # as in `process_pool.run_worker`
        except UsageError as error:
            return WorkerFailed(error)
        return ProcessInfo.current()

    def run(self, pack: Pack) -> PackFinished | WorkerFailed:
        """Run a pack; a UsageError is returned, not raised."""
        try:
            return PackFinished(tuple(run_unclaimed_cells(self.cell_runner, pack)))
        except UsageError as error:
            return WorkerFailed(error)
