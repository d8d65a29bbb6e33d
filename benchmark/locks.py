"""Whose cell it is: a lock file per cell, kept alive by a heartbeat, taken over when its process is gone.

On one machine a process is known by its id and the moment it started, so no clock decides and a stopped process keeps
its cells. Of another machine on a shared folder only the heartbeat is seen: the time of the file, by the clock of the
file system; where that clock was set back, how long the time has stood still while we looked.

All that is asked of a file system is that of several processes that create a file one succeeds. It needs no `flock`,
which many shared ones do not have, or only among the processes of one machine.
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

BEAT = 5.0  # seconds between heartbeats
DEAD = 60.0  # after which a lock without one belongs to nobody
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
    old = content(path)
    if old is None or held(path):
        return False
    with alone(path, old) as mine:
        if not mine or held(path):  # empty ones are alike, and this one may be new
            return False
        path.unlink(missing_ok=True)
    return create(path, said)


@contextmanager
def alone(path: Path, said: bytes) -> Iterator[bool]:
    """Whether the lock says this, and this process alone may remove it: it has the lock of what is said there.

    No two locks say the same, so whoever saw a lock long ago cannot remove that of whoever came after it.
    """
    permit, token = path.with_name(f"{path.name}.{sha1(said).hexdigest()[:16]}"), uuid4().hex
    try:
        yield take(permit, token) and content(path) == said
    finally:
        if (owner_of(permit) or {}).get("token") == token:
            permit.unlink(missing_ok=True)


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
    said = content(path)
    found = parsed(said) or {}
    if found.get("machine") == machine() and all(found.get(key) == value for key, value in owner.items()):
        try:
            with alone(path, said or b"") as mine:
                if mine:
                    path.unlink(missing_ok=True)
        except OSError:  # a full disk, on which nobody can take it over either
            path.unlink(missing_ok=True)


def owner_of(path: Path) -> dict[str, Any] | None:
    """What a lock says; nothing where there is none, or where it is just being written."""
    return parsed(content(path))


def content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def parsed(said: bytes | None) -> dict[str, Any] | None:
    try:
        found = json.loads(said or b"")
    except ValueError:  # not JSON, or not UTF-8
        return None
    return found if isinstance(found, dict) else None


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


def own(path: Path) -> Path:
    """A file for this process alone, beside the one that it is for."""
    return path.with_name(f".{path.name}.{machine()}.{os.getpid()}")


def sweep(folder: Path) -> None:
    """Remove what processes left behind when they died: half-written files of this machine, half-done take-overs."""
    for path in (*folder.glob(f".*.{machine()}.*"), *folder.glob(f"*/.*.{machine()}.*")):
        process = path.name.rpartition(".")[2]
        if process.isdigit() and not alive(int(process)):
            path.unlink(missing_ok=True)
    with hold(list(folder.glob("locks/*.lock.*"))):
        pass


def _beat(paths: Sequence[Path], token: str, over: threading.Event) -> None:
    while not over.wait(BEAT):
        for path in list(paths):
            with suppress(OSError):  # a folder that is out of reach for a moment must not end the heartbeat
                if (owner_of(path) or {}).get("token") == token:  # not that of whoever took it over
                    os.utime(path)
