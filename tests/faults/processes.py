"""Processes that are stopped: at random moments, two at once, a worker and its parent."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from random import Random

from tests.faults.case import Case, Undisturbed, Verdict, joined
from tests.faults.ground import Ground


def killed(ground: Ground, right: Undisturbed, draw: Random, times: int, number: int = signal.SIGKILL) -> Verdict:
    """Stopped by a signal at random moments, again and again, until the grid is done; then the next grid."""
    verdicts, codes = [], {signal.SIGKILL: {-9}, signal.SIGTERM: {143}, signal.SIGINT: {130}}[number]
    tried = 0
    while tried < times:
        case = Case(ground, right)
        while tried < times:
            process = ground.start(ground.words(case.folder))
            time.sleep(draw.uniform(0, right.seconds))
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


def children(process: int) -> list[int]:
    """Of a process: its workers (not the one that tracks resources)."""
    found = [int(one) for one in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    return [one for one in found if "spawn_main" in Path(f"/proc/{one}/cmdline").read_text()]
