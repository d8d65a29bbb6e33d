"""Files and folders: a full disk, one that may only be read, damage, a clock that goes back."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from benchmark.results import locks
from tests.fault_injection.case import Case, Undisturbed, Verdict, joined
from tests.fault_injection.harness import METHODS, Ground, done


def full_by_injection(ground: Ground, right: Undisturbed, draw: Random, times: int) -> Verdict:
    """The n-th file that is written finds the disk full, and so do all after it."""
    verdicts = []
    for _ in range(times):
        case, most = Case(ground, right), draw.randrange(1, 2 * right.cells)

        def fill(most: int = most) -> None:
            right_sync, count = os.fsync, iter(range(10**6))

            def sync(file: int) -> None:
                if next(count) >= most:
                    raise OSError(28, "No space left on device")
                right_sync(file)

            os.fsync = sync

        ground.said()
        case.tried, code = 1, ground.run(case.folder, before=fill)
        case.expect(f"exit code {code}", code == 2)
        case.expect("not said in one line", "No space left on device" in one_error(ground.said()))
        case.note()
        verdicts.append(case.resumed())
    return joined(verdicts)


def one_error(text: str) -> str:
    """The only line that says an error."""
    lines = [line for line in text.splitlines() if line.startswith("error: ")]
    return lines[0] if len(lines) == 1 and "Traceback" not in text else ""


@contextmanager
def mounted(folder: Path, size: str) -> Iterator[str]:
    """A file system of this size there. -> why there is none"""
    folder.mkdir(parents=True)
    said = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        yield " ".join(said.stderr.split())
    finally:
        if said.returncode == 0:
            subprocess.run(["umount", "-l", str(folder)], check=False)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def full_disk(ground: Ground, right: Undisturbed, draw: Random, times: int) -> Verdict:
    """A file system with room for a part of the grid, then for all of it."""
    verdicts = []
    pages = sum(-(-path.stat().st_size // 4096) for path in right.folder.rglob("*") if path.is_file())
    for _ in range(times):
        case = Case(ground, right)
        with mounted(case.folder, f"{4 * draw.randrange(4, pages * 3 // 4)}k") as why:
            if why:
                return Verdict(0, 0, 0, skipped=f"no tmpfs can be mounted: {why}")
            ground.said()
            case.tried, code = 1, ground.run(case.folder)
            case.expect(f"exit code {code}", code == 2)
            case.expect("not said in one line", "No space left on device" in one_error(ground.said()))
            case.note()
            remount(case.folder, "size=64m")
            verdicts.append(case.resumed())
    return joined(verdicts)


def read_only(ground: Ground, right: Undisturbed, draw: Random, times: int) -> Verdict:
    """A part is done, then the folder may only be read: what looks still looks, what writes says so."""
    case = Case(ground, right)
    with mounted(case.folder, "64m") as why:
        if why:
            return Verdict(0, 0, 0, skipped=f"no tmpfs can be mounted: {why}")
        ground.run(case.folder, methods=METHODS[:2])
        case.note()
        remount(case.folder, "ro")
        for verb, wanted in (("status", 0), ("plan", 0), ("run", 2)):
            ground.said()
            case.tried, code = case.tried + 1, ground.run(case.folder, verb=verb)
            case.expect(f"{verb} ends with {code}", code == wanted)
            case.expect(f"{verb} says no error in one line", wanted == 0 or "Read-only" in one_error(ground.said()))
        remount(case.folder, "rw")
        return case.resumed()


def cut(path: Path, draw: Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: draw.randrange(len(data))])


def flip(path: Path, draw: Random) -> None:
    """One bit, and the time of the file as it was."""
    data, fact = bytearray(path.read_bytes()), path.stat()
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(7)
    path.write_bytes(data)
    os.utime(path, ns=(fact.st_atime_ns, fact.st_mtime_ns + 1))


def lose(path: Path, draw: Random) -> None:
    path.unlink()


DAMAGE = {
    "results": "cells/*.json",
    "predictions": "predictions/*.parquet",
    "artefacts": "adapters/*.safetensors",
    "index": "index.json",
}


def damaged(kind: str, how: Callable[[Path, Random], None]) -> Callable[..., Verdict]:
    """A file of a finished grid is spoiled: exactly its cell is done again."""

    def fault(ground: Ground, right: Undisturbed, draw: Random, times: int) -> Verdict:
        verdicts = []
        for _ in range(times):
            case = Case(ground, right)
            subprocess.run(["cp", "-a", str(right.folder), str(case.folder)], check=True)
            case.tried = 1
            case.note()
            how(draw.choice(sorted(case.folder.glob(DAMAGE[kind]))), draw)
            verdicts.append(case.resumed(repaired=0 if kind == "index" else 1))
        return joined(verdicts)

    return fault


def spoiled_cache(ground: Ground, right: Undisturbed, draw: Random, times: int) -> Verdict:
    """Files of the cache folder: facts about code, and the written samples."""
    verdicts = []
    for turn in range(times):
        case = Case(ground, right)
        cache = ground.home / "cache"
        facts = sorted(cache.glob("facts/*.json"))
        own = [*cache.glob("samples-*/chnsent/*"), *cache.glob("samples-*/afqmc/*")]
        for path in draw.sample(facts, len(facts) // 2) + (own if turn % 2 else own[:1]):
            (cut if draw.random() < 0.5 else flip)(path, draw)
        case.tried = 1
        verdicts.append(case.resumed())
    return joined(verdicts)


def clock_back(ground: Ground, right: Undisturbed, draw: Random, times: int) -> Verdict:
    """Half of the grid, then the clock goes back by a day, and a lock from the future is in the way."""
    verdicts = []
    for _ in range(times):
        case = Case(ground, right)
        ground.run(case.folder, methods=METHODS[:2])
        case.note()
        ahead = time.time() + 86_400
        for path in case.folder.rglob("*"):
            os.utime(path, (ahead, ahead))
        due = next(name for name in done(right.folder) if name.startswith(METHODS[-1]))
        lock = case.folder / "locks" / due.replace(".json", ".lock")
        lock.parent.mkdir(exist_ok=True)
        lock.write_text(f'{{"process": {2**22 + 1}, "born": "1", "machine": "{locks.get_machine_id()}"}}')
        os.utime(lock, (ahead, ahead))
        case.tried = 1
        verdicts.append(case.resumed())
    return joined(verdicts)
