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

from benchmark.limits import Limits
from benchmark.packs import Pack
from benchmark.price import spoken
from benchmark.profile import Profile
from benchmark.progress import Progress
from benchmark.shop import ELSEWHERE, POLL, Shop
from benchmark.store import Store
from tasks.example import UsageError

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Worker(NamedTuple):
    process: BaseProcess
    pipe: Connection


def workers(profile: Profile, cuda: bool, due: int) -> int:
    """How many processes: as asked, else one per core on a CPU and one on a GPU; never more than cells."""
    asked = profile.workers if isinstance(profile.workers, int) else 1 if cuda or profile.devices > 1 else cores()
    return max(1, min(asked, due))


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def fill(
    profile: Profile,
    due: Sequence[Pack],
    store: Store,
    progress: Progress,
    count: int,
    limits: Limits | None = None,
) -> Shop:
    """Run all that is due, as far as the limits allow. -> what became of it."""
    shop = Shop(due, profile, store, progress, limits)
    if count == 1 and shop.limits.timeout is None and profile.devices == 1:
        alone(shop)
    else:  # what hangs can only be ended with its process
        together(shop, count)
    return shop


def alone(shop: Shop) -> None:
    from benchmark.run import Bench

    bench = Bench(shop.profile, shop.store)
    while shop.left:
        pack = shop.take()
        if pack is None and shop.ended:
            return
        if pack is None:
            sleep(POLL)
            continue
        shop.settle(pack, attempt(bench, pack))


def together(shop: Shop, count: int) -> None:
    """One pack at a time to each worker, until none is left."""
    crew = {worker.pipe: worker for worker in (hire(shop) for _ in range(count))}
    busy: dict[Connection, Pack | None] = dict.fromkeys(crew)  # None: still loading
    since: dict[Connection, float] = {}
    idle: list[Connection] = []
    try:
        while shop.left:
            for pipe in list(idle):
                pack = shop.take()
                if pack is None:
                    break
                idle.remove(pipe)
                if handed(shop, crew[pipe], pack):
                    busy[pipe], since[pipe] = pack, monotonic()
                else:
                    crew.pop(pipe)
            while shop.queue.waiting and not shop.ended and len(crew) < count:
                worker = hire(shop)
                crew[worker.pipe], busy[worker.pipe] = worker, None
            if not busy and shop.ended:
                return
            if not busy:
                sleep(POLL)
                continue
            ready = wait(list(busy), POLL)
            for pipe in [pipe for pipe in busy if pipe in ready]:
                if heard(shop, crew[pipe], busy[pipe]):
                    idle.append(pipe)
                else:
                    crew.pop(pipe)
                busy.pop(pipe)
            for pipe, pack in list(busy.items()):
                if late(shop, crew[pipe], pack, since.get(pipe)):
                    busy.pop(pipe)
                    crew.pop(pipe)
    finally:
        dismiss(list(crew.values()))
        for pipe, pack in busy.items():
            if pipe in crew:
                shop.store.unlock(pack or (), crew[pipe].process.pid)


def handed(shop: Shop, worker: Worker, pack: Pack) -> bool:
    """Whether a worker took a pack: one that was killed while it had none did not, and another takes its place."""
    try:
        worker.pipe.send(pack)
    except (BrokenPipeError, ConnectionResetError):
        worker.process.join()
        worker.pipe.close()
        shop.again(pack, "the worker that should have it is gone", [pack])
        return False
    return True


def heard(shop: Shop, worker: Worker, pack: Pack | None) -> bool:
    """A worker says that it is ready, or what became of its pack, or it is no more. -> whether it can go on."""
    try:
        said = worker.pipe.recv()
    except (EOFError, ConnectionResetError):
        bury(shop, worker, pack)
        return False
    if isinstance(said, UsageError):
        raise said
    if pack is not None:
        shop.settle(pack, said)
    return True


def late(shop: Shop, worker: Worker, pack: Pack | None, since: float | None) -> bool:
    """End a worker whose pack takes longer than it may."""
    allowed = shop.allowed(pack) if pack else None
    if allowed is None or monotonic() - since < allowed:
        return False
    worker.process.kill()
    bury(shop, worker, pack, f"took longer than its {spoken(shop.limits.timeout)} (--timeout)")
    return True


def bury(shop: Shop, worker: Worker, pack: Pack | None, reason: str = "") -> None:
    """A worker is dead: its pack is broken; if it had none, the grid cannot be run."""
    worker.process.join()
    worker.pipe.close()
    code = worker.process.exitcode or 0
    name = signal.Signals(-code).name if code < 0 else ""
    died = f"the worker died by {name}" if name else f"the worker left with exit code {code}"
    reason = reason or died + (" (out of memory?)" if name == "SIGKILL" else "")
    if pack is None:
        raise UsageError(f"{reason} while it loaded the backbone; `--workers 1` shows why")
    shop.store.unlock(pack, worker.process.pid)
    shop.broken(pack, reason)


def hire(shop: Shop) -> Worker:
    """Start a worker process. Its threads are limited before it imports torch."""
    context = get_context("spawn")
    here, there = context.Pipe()
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        process = context.Process(target=work, args=(there, shop.profile, shop.store.tried), daemon=True)
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


def work(pipe: Connection, profile: Profile, tried: dict[str, str]) -> None:
    """A worker's life: load the backbone, then run what comes until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    try:
        import torch

        from benchmark.crew import Crew
        from benchmark.run import Bench

        torch.set_num_threads(1)
        bench = (Bench if profile.devices == 1 else Crew)(profile, Store(profile.folder, tried))
        gc.freeze()  # what is here by now stays, and need not be looked at again
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
        own = [planned for planned in pack if planned in mine and not bench.store.over(planned)]
        results = {planned.identity: result for planned, result in zip(own, bench.run(own), strict=True)} if own else {}
        return [results.get(planned.identity, ELSEWHERE) for planned in pack]
