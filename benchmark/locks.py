"""Whose cell it is: a lock file per cell, kept alive by a heartbeat, taken over when its process is gone.

On one machine a process is known by its id and the moment it started, so no clock decides and a stopped process keeps
its cells. Of another machine on a shared folder only the heartbeat is seen: the time of the file, by the clock of the
file system; where that clock was set back, how long the time has stood still while we looked.
"""

import json
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import sha1
from pathlib import Path
from time import monotonic, time
from typing import Any
from uuid import uuid4

BEAT, DEAD = 5.0, 60.0  # seconds between heartbeats; after which a lock without one belongs to nobody
SEEN: dict[Path, tuple[float, float]] = {}  # lock of another machine -> (its time, when we first saw it so)


@contextmanager
def hold(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Those of the locks that are this process's alone, kept alive until the end."""
    token, over = uuid4().hex, threading.Event()
    mine: list[Path] = []
    beat = threading.Thread(target=_beat, args=(mine, token, over), daemon=True)
    try:
        mine += [path for path in paths if take(path, token)]
        beat.start()
        yield list(mine)
    finally:
        over.set()
        if beat.ident:
            beat.join()
        for path in paths:
            release(path, token=token)


def take(path: Path, token: str = "") -> bool:
    """Create the lock file; take over one that nobody holds any more."""
    path.parent.mkdir(parents=True, exist_ok=True)
    said = {"process": os.getpid(), "born": born(os.getpid()), "machine": machine(), "token": token, "since": time()}
    if create(path, said):
        return True
    if held(path):
        return False
    from filelock import FileLock, Timeout  # late: a tenth of a second, for what seldom happens

    try:  # several may see at once that it is dead: the second would remove the lock of the first
        with FileLock(path.with_name(".takeover"), timeout=BEAT):
            if held(path):
                return False
            path.unlink(missing_ok=True)
            return create(path, said)
    except Timeout:
        return False


def create(path: Path, said: dict[str, Any]) -> bool:
    """Write a lock that is not there; of several processes one can."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return False
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(said, file)
    except OSError:  # a full disk: an empty lock would keep others out
        path.unlink(missing_ok=True)
        raise
    return True


def release(path: Path, **owner: Any) -> None:
    """Remove a lock, if it is this owner's (by token, or by process on this machine)."""
    said = owner_of(path)
    if said and said.get("machine") == machine() and all(said.get(key) == value for key, value in owner.items()):
        path.unlink(missing_ok=True)


def owner_of(path: Path) -> dict[str, Any] | None:
    """What a lock says; nothing where there is none, or where it is just being written."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError, UnicodeDecodeError):
        return None
    return said if isinstance(said, dict) else None


def held(path: Path) -> bool:
    """Whether a lock's process still lives: known on this machine, elsewhere judged by its heartbeat."""
    try:
        stamp = path.stat().st_mtime
    except (FileNotFoundError, NotADirectoryError):
        return False
    owner = owner_of(path) or {}
    if owner.get("machine") == machine():
        known = owner.get("born") is not None  # without it, another process may have the number by now
        return alive(owner["process"], owner.get("born")) and (known or beating(path, stamp))
    return beating(path, stamp)


def beating(path: Path, stamp: float) -> bool:
    """Whether a heartbeat came not long ago."""
    if SEEN.get(path, (None,))[0] != stamp:
        SEEN[path] = stamp, monotonic()
    return clock(path.parent) - stamp < DEAD and monotonic() - SEEN[path][1] < DEAD


def clock(folder: Path) -> float:
    """The file system's clock, which set the times of its files: machines that share a folder may differ."""
    probe = folder / f".clock.{uuid4().hex}"
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:  # one may look at a folder that one may not write
        return time()
    finally:
        with suppress(OSError):
            probe.unlink()


def alive(process: int, started: str | None = None) -> bool:
    """Whether a process runs here, and is the one that started then and not another with its number."""
    try:
        with suppress(PermissionError):  # another user's: it is there
            os.kill(process, 0)
    except ProcessLookupError:
        return False
    now = born(process)
    return now != "gone" and (started is None or now is None or now == started)


def born(process: int) -> str | None:
    """When a process started, in ticks since the machine did; None where that cannot be seen."""
    try:
        facts = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return "gone" if facts[0] in "ZX" else facts[19]  # killed, and its parent has not asked yet


@cache
def machine() -> str:
    """Tells machines, their restarts and containers apart without naming them: where a process id means something."""
    facts = [socket.gethostname()]
    with suppress(OSError):
        facts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
    with suppress(OSError):
        facts.append(os.readlink("/proc/self/ns/pid"))
    return sha1("/".join(facts).encode()).hexdigest()[:10]


def _beat(paths: Sequence[Path], token: str, over: threading.Event) -> None:
    while not over.wait(BEAT):
        for path in list(paths):
            if (owner_of(path) or {}).get("token") == token:  # not that of whoever took it over
                with suppress(OSError):
                    os.utime(path)
