"""Fill a grid with Ray: an actor for each GPU, or for each CPU core, of this machine or of a cluster.

An actor holds the backbone and takes packs from the same shop as the workers of `benchmark.execution.process_pool`; results go through
the same store and the same locks, so the results folder is one that every machine sees under the same path. An actor
that dies costs its pack: of several cells each comes up again alone, a lone cell until TRIES actors died with it.
This module imports no torch, and Ray only when it is asked for; an actor imports both.
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

MAX_WORKER_DEATHS = 3  # actors that may die with a cell, or one after the other while they load
KILL_TIMEOUT_SECONDS = 5.0  # seconds for a killed process to be gone
INACTIVITY_WARNING_SECONDS = 60.0  # seconds without anybody at work after which that is said
LOW_PRIORITY_DIFFERENCE = 10  # steps of priority below this process that are said


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
    probe = files.get_scratch_path(store.folder / "cells" / "shared")
    with convert_write_errors(store.folder):
        probe.touch()
    crew = RayPool(shop, num_workers, (profile, shop.store.previous_attempts, DriverEnvironment.capture(probe)))
    try:
        while shop.num_unfinished:
            crew.assign_packs()
            shop.stop_reason = shop.stop_reason or shop.get_stop_reason()
            if shop.stop_reason and not any(worker.pack for worker in crew.busy_workers.values()):
                break
            crew.process_answers()
    finally:
        crew.shut_down()
        with suppress(OSError):
            probe.unlink()
    return shop


# -------------------------------------------------------------- on this side


class ProcessInfo(NamedTuple):
    """The process of an actor."""

    machine: str
    pid: int
    created_at: str | None
    niceness: int

    @classmethod
    def current(cls) -> "ProcessInfo":
        process = os.getpid()
        return cls(
            locks.get_machine_id(), process, locks.get_process_start_time(process), os.getpriority(os.PRIO_PROCESS, 0)
        )


@dataclass(eq=False)
class RayWorkerState:
    """An actor, as this process knows it."""

    actor: Any
    started_at: float  # when it was given what it is at
    pack: Pack | None = None  # None: it loads
    process_info: ProcessInfo | None = None  # once it has loaded


class RayPool:
    """All of them: what each is at, and what becomes of one that dies."""

    def __init__(self, scheduler: Scheduler, num_workers: int, worker_arguments: tuple[Any, ...]) -> None:
        self.ray, self.scheduler, self.num_workers, self.worker_arguments = (
            import_ray(),
            scheduler,
            num_workers,
            worker_arguments,
        )
        gpus = count_cluster_gpus(scheduler.profile)
        needs = {"num_cpus": 0, "num_gpus": 1 / ceil(num_workers / gpus)} if gpus else {"num_cpus": 1}
        self.worker_class = self.ray.remote(**needs)(RayWorker)
        self.idle_workers: list[RayWorkerState] = []
        self.busy_workers: dict[Any, RayWorkerState] = {}  # by what Ray will answer
        self.death_counts: Counter[str] = Counter()  # with a cell; "" while they loaded
        self.last_activity_time, self.has_warned = monotonic(), False

    def assign_packs(self) -> None:
        """A pack to each that has none, and a new actor for each that is missing."""
        while self.idle_workers and (pack := self.scheduler.take_pack()):
            worker = self.idle_workers.pop()
            worker.pack, worker.started_at = pack, monotonic()
            self.busy_workers[worker.actor.run.remote(pack)] = worker
        waiting = self.scheduler.queue.pending_packs and not self.scheduler.stop_reason
        while waiting and len(self.idle_workers) + len(self.busy_workers) < self.num_workers:
            worker = RayWorkerState(self.worker_class.remote(*self.worker_arguments), monotonic())
            self.busy_workers[worker.actor.load.remote()] = worker

    def process_answers(self) -> None:
        """What the next answer is, or who takes too long."""
        if not self.busy_workers:
            sleep(POLL_INTERVAL_SECONDS)
            return
        for answer in self.ray.wait(list(self.busy_workers), timeout=POLL_INTERVAL_SECONDS)[0]:
            self.handle_answer(answer, self.busy_workers.pop(answer))
        for answer, worker in list(self.busy_workers.items()):
            allowed = self.scheduler.get_timeout(worker.pack) if worker.pack else None
            if allowed is not None and monotonic() - worker.started_at >= allowed:
                reason = (
                    f"took longer than its {format_duration(self.scheduler.limits.cell_timeout_seconds)} (--timeout)"
                )
                self.reap_worker(self.busy_workers.pop(answer), reason)
        self.warn_if_inactive()

    def warn_if_inactive(self) -> None:
        """Say that nobody works, where that is so for long: their machines were lost, or others have the places."""
        if self.idle_workers or any(worker.pack for worker in self.busy_workers.values()):
            self.last_activity_time = monotonic()
        elif self.busy_workers and monotonic() - self.last_activity_time >= INACTIVITY_WARNING_SECONDS:
            self.last_activity_time, has = monotonic(), self.ray.cluster_resources()
            places = f"Ray has {has.get('CPU', 0):.0f} CPUs and {has.get('GPU', 0):.0f} GPUs, and others may use them"
            self.scheduler.progress.print_line(
                f"no actor has loaded for {format_duration(INACTIVITY_WARNING_SECONDS)}: {places}", "yellow"
            )

    def warn_if_low_priority(self, process_info: ProcessInfo) -> None:
        """Say that actors have a low priority, which is Ray's own choice: beside other work they hardly go on."""
        if (
            not self.has_warned
            and process_info.niceness >= os.getpriority(os.PRIO_PROCESS, 0) + LOW_PRIORITY_DIFFERENCE
        ):
            self.has_warned = True
            todo = "where machines have other work too, start Ray with RAY_worker_niceness=0"
            self.scheduler.progress.print_line(
                f"actors run at priority {process_info.niceness} (19 is the lowest); {todo}", "yellow"
            )

    def handle_answer(self, answer: Any, worker: RayWorkerState) -> None:
        """A worker has loaded, or says what became of its pack, or is no more."""
        errors = self.ray.exceptions
        try:
            said = self.ray.get(answer)
        except errors.RayTaskError as error:  # it lives, and cannot go on
            self.reap_worker(worker, describe_failure(error.cause)["reason"])
            return
        except errors.RayError:
            self.reap_worker(worker, "the worker died (killed, out of memory, or its machine is gone)", can_retry=True)
            return
        if isinstance(said, UsageError):
            raise said
        if worker.pack is None:
            worker.process_info = said
            self.warn_if_low_priority(said)
            self.death_counts[""] = 0
        else:
            self.scheduler.complete_pack(worker.pack, said)
            worker.pack = None
        self.idle_workers.append(worker)

    def reap_worker(self, worker: RayWorkerState, reason: str, *, can_retry: bool = False) -> None:
        """A worker goes, and its pack is broken; `again`: it may have been no fault of a lone cell."""
        self.kill_workers([worker])
        pack = worker.pack
        if pack and len(pack) > 1:
            self.scheduler.on_worker_death(pack, reason)
            return
        name = pack[0].identity if pack else ""
        self.death_counts[name] += 1
        can_retry = can_retry and self.death_counts[name] < MAX_WORKER_DEATHS
        if pack and can_retry:
            self.scheduler.requeue_pack(pack, reason, [pack])
        elif pack:
            self.scheduler.on_worker_death(
                pack, reason + (f", {MAX_WORKER_DEATHS} times" if self.death_counts[name] >= MAX_WORKER_DEATHS else "")
            )
        elif not can_retry:
            raise UsageError(f"{reason} while it loaded the backbone; a run without --engine shows why")

    def kill_workers(self, workers: Sequence[RayWorkerState]) -> None:
        """Kill actors, and take away what those of this machine left locked; elsewhere the heartbeat tells.

        Where the node of an actor is gone, Ray cannot kill it any more: it would go on with a pack that another has.
        """
        for worker in workers:
            self.ray.kill(worker.actor)
        until = monotonic() + KILL_TIMEOUT_SECONDS
        for worker in workers:
            home = worker.process_info
            if home is None or home.machine != locks.get_machine_id():
                continue
            while locks.is_process_alive(home.pid, home.created_at) and monotonic() < until:
                sleep(0.01)
            if locks.is_process_alive(home.pid, home.created_at):
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(home.pid, signal.SIGKILL)
            self.scheduler.store.release_locks(worker.pack or (), home.pid)

    def shut_down(self) -> None:
        self.kill_workers([*self.idle_workers, *self.busy_workers.values()])


# ------------------------------------------------------------ on the other side


class RayWorker:
    """What an actor is: the backbone, loaded once, and a pack at each call."""

    def __init__(
        self, profile: Profile, previous_attempts: dict[str, str], driver_environment: DriverEnvironment
    ) -> None:
        self.profile, self.previous_attempts, self.driver_environment = profile, previous_attempts, driver_environment

    def load(self) -> ProcessInfo | UsageError:
        """-> where it is; bad input is an answer too, so that it comes back in one line."""
        os.environ.update(dict.fromkeys(THREAD_COUNT_VARIABLES, "1"))  # before torch is imported
        try:
            self.driver_environment.apply()
            import torch

            from benchmark.execution.cell_runner import CellRunner

            torch.set_num_threads(1)
            self.cell_runner = CellRunner(
                self.profile, ResultStore(self.profile.results_folder, self.previous_attempts)
            )
            gc.freeze()  # as in `engine.work`
        except UsageError as error:
            return error
        return ProcessInfo.current()

    def run(self, pack: Pack) -> list[Any] | UsageError:
        try:
            return run_unclaimed_cells(self.cell_runner, pack)
        except UsageError as error:
            return error
