"""Fill a grid with Ray: an actor for each GPU, or for each CPU core, of this machine or of a cluster.

An actor holds the backbone and takes packs from the same shop as the workers of `benchmark.engine`; results go through
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

from benchmark import locks
from benchmark.cluster import Place, devices, library
from benchmark.engine import THREADS, attempt
from benchmark.environment import failure
from benchmark.limits import Limits
from benchmark.packs import Pack
from benchmark.price import spoken
from benchmark.profile import Profile
from benchmark.progress import Progress
from benchmark.shop import POLL, Shop
from benchmark.store import Store, writing
from tasks.example import UsageError

TRIES = 3  # actors that may die with a cell, or one after the other while they load
GONE = 5.0  # seconds for a killed process to be gone
QUIET = 60.0  # seconds without anybody at work after which that is said
LOW = 10  # steps of priority below this process that are said


def fill(
    profile: Profile, due: Sequence[Pack], store: Store, progress: Progress, count: int, limits: Limits | None = None
) -> Shop:
    """Run all that is due, as far as the limits allow. -> what became of it."""
    shop = Shop(due, profile, store, progress, limits)
    probe = locks.own(store.folder / "cells" / "shared")
    with writing(store.folder):
        probe.touch()
    crew = Actors(shop, count, (profile, shop.store.tried, Place.here(probe)))
    try:
        while shop.left:
            crew.hand_out()
            shop.ended = shop.ended or shop.enough()
            if shop.ended and not any(worker.pack for worker in crew.busy.values()):
                break
            crew.listen()
    finally:
        crew.dismiss()
        with suppress(OSError):
            probe.unlink()
    return shop


# -------------------------------------------------------------- on this side


class Home(NamedTuple):
    """The process of an actor."""

    machine: str
    process: int
    born: str | None
    niceness: int

    @classmethod
    def here(cls) -> "Home":
        process = os.getpid()
        return cls(locks.machine(), process, locks.born(process), os.getpriority(os.PRIO_PROCESS, 0))


@dataclass(eq=False)
class Worker:
    """An actor, as this process knows it."""

    actor: Any
    since: float  # when it was given what it is at
    pack: Pack | None = None  # None: it loads
    home: Home | None = None  # once it has loaded


class Actors:
    """All of them: what each is at, and what becomes of one that dies."""

    def __init__(self, shop: Shop, count: int, given: tuple[Any, ...]) -> None:
        self.ray, self.shop, self.count, self.given = library(), shop, count, given
        gpus = devices(shop.profile)
        needs = {"num_cpus": 0, "num_gpus": 1 / ceil(count / gpus)} if gpus else {"num_cpus": 1}
        self.hand = self.ray.remote(**needs)(Hand)
        self.idle: list[Worker] = []
        self.busy: dict[Any, Worker] = {}  # by what Ray will answer
        self.died: Counter[str] = Counter()  # with a cell; "" while they loaded
        self.told, self.warned = monotonic(), False

    def hand_out(self) -> None:
        """A pack to each that has none, and a new actor for each that is missing."""
        while self.idle and (pack := self.shop.take()):
            worker = self.idle.pop()
            worker.pack, worker.since = pack, monotonic()
            self.busy[worker.actor.run.remote(pack)] = worker
        waiting = self.shop.queue.waiting and not self.shop.ended
        while waiting and len(self.idle) + len(self.busy) < self.count:
            worker = Worker(self.hand.remote(*self.given), monotonic())
            self.busy[worker.actor.load.remote()] = worker

    def listen(self) -> None:
        """What the next answer is, or who takes too long."""
        if not self.busy:
            sleep(POLL)
            return
        for answer in self.ray.wait(list(self.busy), timeout=POLL)[0]:
            self.heard(answer, self.busy.pop(answer))
        for answer, worker in list(self.busy.items()):
            allowed = self.shop.allowed(worker.pack) if worker.pack else None
            if allowed is not None and monotonic() - worker.since >= allowed:
                reason = f"took longer than its {spoken(self.shop.limits.timeout)} (--timeout)"
                self.bury(self.busy.pop(answer), reason)
        self.tell()

    def tell(self) -> None:
        """Say that nobody works, where that is so for long: their machines were lost, or others have the places."""
        if self.idle or any(worker.pack for worker in self.busy.values()):
            self.told = monotonic()
        elif self.busy and monotonic() - self.told >= QUIET:
            self.told, has = monotonic(), self.ray.cluster_resources()
            places = f"Ray has {has.get('CPU', 0):.0f} CPUs and {has.get('GPU', 0):.0f} GPUs, and others may use them"
            self.shop.progress.line(f"no actor has loaded for {spoken(QUIET)}: {places}", "yellow")

    def warn(self, home: Home) -> None:
        """Say that actors have a low priority, which is Ray's own choice: beside other work they hardly go on."""
        if not self.warned and home.niceness >= os.getpriority(os.PRIO_PROCESS, 0) + LOW:
            self.warned = True
            todo = "where machines have other work too, start Ray with RAY_worker_niceness=0"
            self.shop.progress.line(f"actors run at priority {home.niceness} (19 is the lowest); {todo}", "yellow")

    def heard(self, answer: Any, worker: Worker) -> None:
        """A worker has loaded, or says what became of its pack, or is no more."""
        errors = self.ray.exceptions
        try:
            said = self.ray.get(answer)
        except errors.RayTaskError as error:  # it lives, and cannot go on
            self.bury(worker, failure(error.cause)["reason"])
            return
        except errors.RayError:
            self.bury(worker, "the worker died (killed, out of memory, or its machine is gone)", again=True)
            return
        if isinstance(said, UsageError):
            raise said
        if worker.pack is None:
            worker.home = said
            self.warn(said)
            self.died[""] = 0
        else:
            self.shop.settle(worker.pack, said)
            worker.pack = None
        self.idle.append(worker)

    def bury(self, worker: Worker, reason: str, *, again: bool = False) -> None:
        """A worker goes, and its pack is broken; `again`: it may have been no fault of a lone cell."""
        self.end([worker])
        pack = worker.pack
        if pack and len(pack) > 1:
            self.shop.broken(pack, reason)
            return
        name = pack[0].identity if pack else ""
        self.died[name] += 1
        again = again and self.died[name] < TRIES
        if pack and again:
            self.shop.again(pack, reason, [pack])
        elif pack:
            self.shop.broken(pack, reason + (f", {TRIES} times" if self.died[name] >= TRIES else ""))
        elif not again:
            raise UsageError(f"{reason} while it loaded the backbone; a run without --engine shows why")

    def end(self, workers: Sequence[Worker]) -> None:
        """Kill actors, and take away what those of this machine left locked; elsewhere the heartbeat tells.

        Where the node of an actor is gone, Ray cannot kill it any more: it would go on with a pack that another has.
        """
        for worker in workers:
            self.ray.kill(worker.actor)
        until = monotonic() + GONE
        for worker in workers:
            home = worker.home
            if home is None or home.machine != locks.machine():
                continue
            while locks.alive(home.process, home.born) and monotonic() < until:
                sleep(0.01)
            if locks.alive(home.process, home.born):
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(home.process, signal.SIGKILL)
            self.shop.store.unlock(worker.pack or (), home.process)

    def dismiss(self) -> None:
        self.end([*self.idle, *self.busy.values()])


# ------------------------------------------------------------ on the other side


class Hand:
    """What an actor is: the backbone, loaded once, and a pack at each call."""

    def __init__(self, profile: Profile, tried: dict[str, str], place: Place) -> None:
        self.profile, self.tried, self.place = profile, tried, place

    def load(self) -> Home | UsageError:
        """-> where it is; bad input is an answer too, so that it comes back in one line."""
        os.environ.update(dict.fromkeys(THREADS, "1"))  # before torch is imported
        try:
            self.place.enter()
            import torch

            from benchmark.run import Bench

            torch.set_num_threads(1)
            self.bench = Bench(self.profile, Store(self.profile.folder, self.tried))
            gc.freeze()  # as in `engine.work`
        except UsageError as error:
            return error
        return Home.here()

    def run(self, pack: Pack) -> list[Any] | UsageError:
        try:
            return attempt(self.bench, pack)
        except UsageError as error:
            return error
