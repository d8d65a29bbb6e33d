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

HEARTBEAT_INTERVAL_SECONDS = 5.0  # seconds between heartbeats
STALE_AFTER_SECONDS = 60.0  # after which a lock without one belongs to nobody
OBSERVED_HEARTBEATS: dict[
    Path, tuple[float, float]
] = {}  # lock of another machine -> (its time, when we first saw it so)


@contextmanager
def hold_locks(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Those of the locks that are this process's alone, kept alive until the end."""
    token, over = uuid4().hex, threading.Event()
    mine: list[Path] = []
    beat = threading.Thread(target=_run_heartbeat, args=(mine, token, over), daemon=True)
    try:
        mine += [path for path in paths if acquire_lock(path, token)]
        beat.start()
        yield list(mine)
    finally:
        over.set()
        if beat.ident:
            beat.join()
        for path in paths:
            release_lock(path, token=token)


def acquire_lock(path: Path, token: str = "") -> bool:
    """Create the lock file; take over one that nobody holds any more."""
    path.parent.mkdir(parents=True, exist_ok=True)
    said = {
        "process": os.getpid(),
        "born": get_process_start_time(os.getpid()),
        "machine": get_machine_id(),
        "token": token,
        "since": time(),
    }
    if create_lock_file(path, said):
        return True
    old = read_lock_bytes(path)
    if old is None or is_lock_held(path):
        return False
    with claim_removal(path, old) as mine:
        if not mine or is_lock_held(path):  # empty ones are alike, and this one may be new
            return False
        path.unlink(missing_ok=True)
    return create_lock_file(path, said)


@contextmanager
def claim_removal(path: Path, lock_bytes: bytes) -> Iterator[bool]:
    """Whether the lock says this, and this process alone may remove it: it has the lock of what is said there.

    No two locks say the same, so whoever saw a lock long ago cannot remove that of whoever came after it.
    """
    permit, token = path.with_name(f"{path.name}.{sha1(lock_bytes).hexdigest()[:16]}"), uuid4().hex
    try:
        yield acquire_lock(permit, token) and read_lock_bytes(path) == lock_bytes
    finally:
        if (read_lock_owner(permit) or {}).get("token") == token:
            permit.unlink(missing_ok=True)


def create_lock_file(path: Path, owner_record: dict[str, Any]) -> bool:
    """Write a lock that is not there; of several processes one can."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return False
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(owner_record, file)
    except OSError:  # a full disk: an empty lock would keep others out
        path.unlink(missing_ok=True)
        raise
    return True


def release_lock(path: Path, **owner: Any) -> None:
    """Remove a lock, if it is this owner's (by token, or by process on this machine)."""
    said = read_lock_bytes(path)
    found = parse_lock_owner(said) or {}
    if found.get("machine") == get_machine_id() and all(found.get(key) == value for key, value in owner.items()):
        try:
            with claim_removal(path, said or b"") as mine:
                if mine:
                    path.unlink(missing_ok=True)
        except OSError:  # a full disk, on which nobody can take it over either
            path.unlink(missing_ok=True)


def read_lock_owner(path: Path) -> dict[str, Any] | None:
    """What a lock says; nothing where there is none, or where it is just being written."""
    return parse_lock_owner(read_lock_bytes(path))


def read_lock_bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def parse_lock_owner(lock_bytes: bytes | None) -> dict[str, Any] | None:
    try:
        found = json.loads(lock_bytes or b"")
    except ValueError:  # not JSON, or not UTF-8
        return None
    return found if isinstance(found, dict) else None


def is_lock_held(path: Path) -> bool:
    """Whether a lock's process still lives: known on this machine, elsewhere judged by its heartbeat."""
    try:
        stamp = path.stat().st_mtime
    except (FileNotFoundError, NotADirectoryError):
        return False
    owner = read_lock_owner(path) or {}
    if owner.get("machine") == get_machine_id():
        known = owner.get("born") is not None  # without it, another process may have the number by now
        return is_process_alive(owner["process"], owner.get("born")) and (known or has_recent_heartbeat(path, stamp))
    return has_recent_heartbeat(path, stamp)


def has_recent_heartbeat(path: Path, modified_at: float) -> bool:
    """Whether a heartbeat came not long ago."""
    if OBSERVED_HEARTBEATS.get(path, (None,))[0] != modified_at:
        OBSERVED_HEARTBEATS[path] = modified_at, monotonic()
    return (
        read_file_system_time(path.parent) - modified_at < STALE_AFTER_SECONDS
        and monotonic() - OBSERVED_HEARTBEATS[path][1] < STALE_AFTER_SECONDS
    )


def read_file_system_time(folder: Path) -> float:
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


def is_process_alive(process_id: int, start_time: str | None = None) -> bool:
    """Whether a process runs here, and is the one that started then and not another with its number."""
    try:
        with suppress(PermissionError):  # another user's: it is there
            os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    now = get_process_start_time(process_id)
    return now != "gone" and (start_time is None or now is None or now == start_time)


def get_process_start_time(process_id: int) -> str | None:
    """When a process started, in ticks since the machine did; None where that cannot be seen."""
    try:
        facts = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return "gone" if facts[0] in "ZX" else facts[19]  # killed, and its parent has not asked yet


@cache
def get_machine_id() -> str:
    """Tells machines, their restarts and containers apart without naming them: where a process id means something."""
    facts = [socket.gethostname()]
    with suppress(OSError):
        facts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
    with suppress(OSError):
        facts.append(os.readlink("/proc/self/ns/pid"))
    return sha1("/".join(facts).encode()).hexdigest()[:10]


def _run_heartbeat(paths: Sequence[Path], token: str, stop_event: threading.Event) -> None:
    while not stop_event.wait(HEARTBEAT_INTERVAL_SECONDS):
        for path in list(paths):
            with suppress(OSError):  # a folder that is out of reach for a moment must not end the heartbeat
                if (read_lock_owner(path) or {}).get("token") == token:  # not that of whoever took it over
                    os.utime(path)


def format_lock_age(lock_path: Path) -> str:
    """How long ago a lock was taken."""
    owner = read_lock_owner(lock_path)
    return f"for {max(0, time() - owner['since']):.0f} s" if owner and "since" in owner else ""
