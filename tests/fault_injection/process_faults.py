"""Processes that are stopped: at random moments, two at once, a worker and its parent."""

import os
import signal
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from random import Random

from benchmark.results import locks
from benchmark.results.store import ResultStore
from tests.fault_injection.case import Case, Undisturbed, Verdict, joined
from tests.fault_injection.harness import METHODS, PATIENCE, Ground


def killed(ground: Ground, right: Undisturbed, draw: Random, times: int, number: int = signal.SIGKILL) -> Verdict:
    """Stopped by a signal at random moments, and again while it resumes, until the grid is done; then the next grid."""
    verdicts, codes = [], {signal.SIGKILL: {-9}, signal.SIGTERM: {143}, signal.SIGINT: {130}}[number]
    tried = 0
    while tried < times:
        case = Case(ground, right)
        while tried < times:
            process = ground.start(ground.words(case.folder))
            time.sleep(draw.uniform(0, right.left(case.folder)))
            with suppress(ProcessLookupError):
                os.kill(process, number)
            code = ground.wait(process)
            case.note()
            if code == 0:  # it had ended
                break
            tried, case.tried = tried + 1, case.tried + 1
            case.expect(f"exit code {code}", code in codes)
        verdicts.append(case.resumed())
    return joined(verdicts)


def two_at_once(ground: Ground, right: Undisturbed, draw: Random, times: int) -> Verdict:
    """Two runs of one grid, the second a moment later; one of them is killed on the way."""
    verdicts = []
    for turn in range(times):
        case = Case(ground, right)
        case.tried = 1
        first = ground.start(ground.words(case.folder))
        time.sleep(draw.uniform(0, right.seconds / 2))
        second = ground.start(ground.words(case.folder))
        if turn % 2:
            time.sleep(draw.uniform(0, right.seconds / 2))
            with suppress(ProcessLookupError):
                os.kill(first, signal.SIGKILL)
        codes = [ground.wait(first), ground.wait(second)]
        case.expect(f"exit codes {codes}", codes[1] == 0 and codes[0] in (0, -9))
        case.note()
        case.expect("not all was done", len(case.kept) == right.cells)
        verdicts.append(case.resumed())
    return joined(verdicts)


def lost_worker(ground: Ground, right: Undisturbed, draw: Random, times: int) -> Verdict:
    """One of two worker processes is killed, then their parent; the grid is taken over while a worker is at its pack."""
    case = Case(ground, right)
    words = ground.words(case.folder, "--workers", "2", "--pack", "1")
    process = ground.start(words)
    for victim in ("worker", "parent"):
        end = time.monotonic() + 120
        while not list((case.folder / "locks").glob("*.lock")) and time.monotonic() < end:
            time.sleep(0.02)
        time.sleep(draw.uniform(0, 0.5))
        with suppress(ProcessLookupError, IndexError):
            os.kill(draw.choice(children(process)) if victim == "worker" else process, signal.SIGKILL)
        case.tried += 1
    ground.wait(process)
    case.note()
    return case.resumed()


def lost_rank(ground: Ground, right: Undisturbed, draw: Random, times: int) -> Verdict:
    """One of two processes that share each cell is killed: the other ends too, and their cell has failed."""
    case = Case(ground, right)
    more = ("--set", "devices=2", "--set", "strategy=ddp")
    process = ground.start(ground.words(case.folder, *more, methods=METHODS[:1]))
    end = time.monotonic() + PATIENCE
    while not (found := [one for worker in children(process) for one in children(worker, "crew")]):
        time.sleep(0.02)
        if time.monotonic() > end:
            break
    while not list((case.folder / "locks").glob("*.lock")) and time.monotonic() < end:
        time.sleep(0.002)
    workers = children(process)
    for one in found:
        os.kill(one, signal.SIGKILL)
    case.tried, code = 1, ground.wait(process)
    failed = [result.error.reason for result in ResultStore(case.folder).load_results() if not result.is_done]
    said = bool(failed) and all(reason.startswith("the worker left") for reason in failed)
    case.expect(f"exit code {code}, failed: {failed}", code == 1 and said)
    case.expect("a process is left", not any(map(locks.is_process_alive, (*workers, *found))))
    case.note()
    return case.resumed()


def lost_actor(ground: Ground, right: Undisturbed, draw: Random, times: int) -> Verdict:
    """One of two actors of Ray vanishes in the middle of a cell, which comes up again in another."""
    if find_spec("ray") is None:
        return Verdict(0, 0, 0, skipped="Ray is not installed")
    case = Case(ground, right)
    process = ground.start(ground.words(case.folder, "--engine", "ray", "--workers", "2", "--pack", "1"))
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if owners := [said for path in (case.folder / "locks").glob("*.lock") if (said := locks.read_lock_owner(path))]:
            os.kill(owners[0]["process"], signal.SIGKILL)
            case.tried = 1
            break
        time.sleep(0.02)
    code = ground.wait(process, 2 * PATIENCE)
    case.expect("no cell was at work", case.tried == 1)
    case.expect(f"exit code {code}", code == 0)
    case.note()
    case.expect("not all was done", len(case.kept) == right.cells)
    return case.resumed()


def children(process: int, word: str = "spawn_main") -> list[int]:
    """Of a process: its workers (not the one that tracks resources)."""
    tasks = Path(f"/proc/{process}/task").glob("*/children")  # each thread has its own
    found = [int(one) for path in tasks for one in path.read_text().split()]
    return [one for one in found if word in Path(f"/proc/{one}/cmdline").read_text()]
