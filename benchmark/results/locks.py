"""Per-cell lock files with a heartbeat; a stale lock is taken over once its owner process is dead.

On one machine, a process is identified by its id and start time, so no clock is involved and a suspended process keeps
its cells. Owners on other machines that share the folder are judged by their heartbeat: the modification time of the
lock file against the clock of the file system and, in case that clock was set back, how long this process has seen the
modification time unchanged.

The only requirement on the file system is that exclusive creation of a file (O_EXCL) is atomic. `flock` is not used:
many shared file systems do not support it, or support it only between processes of one machine.
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

HEARTBEAT_INTERVAL_SECONDS = 5.0
STALE_AFTER_SECONDS = 60.0  # a lock without a heartbeat for this long has no owner
# lock file -> (its last observed modification time, monotonic time at which that was first observed)
OBSERVED_HEARTBEATS: dict[Path, tuple[float, float]] = {}


@contextmanager
def hold_locks(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Hold locks for the duration of the block; yields those that were acquired. A thread sends the heartbeats."""
    token = uuid4().hex
    stop_event = threading.Event()
    acquired: list[Path] = []
    heartbeat = threading.Thread(target=_run_heartbeat, args=(acquired, token, stop_event), daemon=True)
    try:
        acquired += [path for path in paths if acquire_lock(path, token)]
        heartbeat.start()
        yield list(acquired)
    finally:
        stop_event.set()
        if heartbeat.ident:
            heartbeat.join()
        for path in paths:
            release_lock(path, token=token)


def acquire_lock(path: Path, token: str = "") -> bool:
    """Create the lock file, or take over one whose owner is dead; returns whether this process now holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    owner_record = {
        "process": os.getpid(),
        "born": get_process_start_time(os.getpid()),
        "machine": get_machine_id(),
        "token": token,
        "since": time(),
    }
    if create_lock_file(path, owner_record):
        return True
    old_bytes = read_lock_bytes(path)
    if old_bytes is None or is_lock_held(path):
        return False
    with claim_removal(path, old_bytes) as is_claimed:
        if not is_claimed or is_lock_held(path):  # empty lock files are identical, so this one may be new
            return False
        path.unlink(missing_ok=True)
    return create_lock_file(path, owner_record)


@contextmanager
def claim_removal(path: Path, lock_bytes: bytes) -> Iterator[bool]:
    """Yield whether the lock file still contains `lock_bytes` and this process has the exclusive right to remove it.

    The right is itself a lock file, named by the hash of `lock_bytes`. The contents of locks are unique, so a process
    that read a lock long ago cannot remove the lock of a later owner.
    """
    permit_path = path.with_name(f"{path.name}.{sha1(lock_bytes).hexdigest()[:16]}")
    token = uuid4().hex
    try:
        yield acquire_lock(permit_path, token) and read_lock_bytes(path) == lock_bytes
    finally:
        if (read_lock_owner(permit_path) or {}).get("token") == token:
            permit_path.unlink(missing_ok=True)


def create_lock_file(path: Path, owner_record: dict[str, Any]) -> bool:
    """Create a lock file exclusively; returns False if it exists. Of several processes, exactly one succeeds."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return False
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(owner_record, file)
    except OSError:  # disk full: an empty lock file would block other processes
        path.unlink(missing_ok=True)
        raise
    return True


def release_lock(path: Path, **owner: Any) -> None:
    """Remove a lock of this machine whose owner record has the fields `owner` (`token`, or `process`)."""
    lock_bytes = read_lock_bytes(path)
    owner_record = parse_lock_owner(lock_bytes) or {}
    is_owner = all(owner_record.get(key) == value for key, value in owner.items())
    if is_owner and owner_record.get("machine") == get_machine_id():
        try:
            with claim_removal(path, lock_bytes or b"") as is_claimed:
                if is_claimed:
                    path.unlink(missing_ok=True)
        except OSError:  # disk full: no other process can take the lock over either
            path.unlink(missing_ok=True)


def read_lock_owner(path: Path) -> dict[str, Any] | None:
    """Return the owner record of a lock file, or None if there is no file or it is still being written."""
    return parse_lock_owner(read_lock_bytes(path))


def read_lock_bytes(path: Path) -> bytes | None:
    """Return the content of a lock file, or None if there is none."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def parse_lock_owner(lock_bytes: bytes | None) -> dict[str, Any] | None:
    """Parse the content of a lock file as an owner record; None if it is empty or invalid."""
    try:
        owner_record = json.loads(lock_bytes or b"")
    except ValueError:  # not JSON, or not UTF-8
        return None
    return owner_record if isinstance(owner_record, dict) else None


def is_lock_held(path: Path) -> bool:
    """Whether the owner of a lock is alive: by its process on this machine, by its heartbeat on other machines."""
    try:
        modified_at = path.stat().st_mtime
    except (FileNotFoundError, NotADirectoryError):
        return False
    owner = read_lock_owner(path) or {}
    if owner.get("machine") == get_machine_id():
        if not is_process_alive(owner["process"], owner.get("born")):
            return False
        if owner.get("born") is not None:  # without a start time, a new process may have the same id
            return True
    return has_recent_heartbeat(path, modified_at)


def has_recent_heartbeat(path: Path, modified_at: float) -> bool:
    """Whether the last heartbeat is recent, by the file system's clock and by this process's observations."""
    if OBSERVED_HEARTBEATS.get(path, (None,))[0] != modified_at:
        OBSERVED_HEARTBEATS[path] = (modified_at, monotonic())
    return (
        read_file_system_time(path.parent) - modified_at < STALE_AFTER_SECONDS
        and monotonic() - OBSERVED_HEARTBEATS[path][1] < STALE_AFTER_SECONDS
    )


def read_file_system_time(folder: Path) -> float:
    """Return the current time by the clock that sets file times; the clocks of machines that share a folder differ."""
    probe = folder / f".clock.{uuid4().hex}"
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:  # a read-only folder
        return time()
    finally:
        with suppress(OSError):
            probe.unlink()


def is_process_alive(process_id: int, start_time: str | None = None) -> bool:
    """Whether a process runs on this machine and, if a start time is known, is the same one, not a reused id."""
    try:
        with suppress(PermissionError):  # a process of another user: it exists
            os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    current_start_time = get_process_start_time(process_id)
    return current_start_time != "gone" and (
        start_time is None or current_start_time is None or current_start_time == start_time
    )


def get_process_start_time(process_id: int) -> str | None:
    """Return the start time of a process in clock ticks since boot, "gone" for a zombie, None if unknown (no /proc)."""
    try:
        fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()  # from field 3, the state, on
    except OSError:
        return None
    return "gone" if fields[0] in "ZX" else fields[19]  # Z, X: dead, and not yet reaped by its parent


@cache
def get_machine_id() -> str:
    """Return an anonymous id of the scope in which process ids are valid: host, boot and process-id namespace."""
    components = [socket.gethostname()]
    with suppress(OSError):
        components.append(Path("/proc/sys/kernel/random/boot_id").read_text())
    with suppress(OSError):
        components.append(os.readlink("/proc/self/ns/pid"))
    return sha1("/".join(components).encode()).hexdigest()[:10]


def _run_heartbeat(paths: Sequence[Path], token: str, stop_event: threading.Event) -> None:
    while not stop_event.wait(HEARTBEAT_INTERVAL_SECONDS):
        for path in list(paths):
            with suppress(OSError):  # a folder that is briefly unavailable must not end the heartbeat
                if (read_lock_owner(path) or {}).get("token") == token:  # not after a takeover
                    os.utime(path)


def format_lock_age(lock_path: Path) -> str:
    """Format how long a lock has been held, as `for 12 s`; empty if that is unknown."""
    owner = read_lock_owner(lock_path)
    return f"for {max(0, time() - owner['since']):.0f} s" if owner and "since" in owner else ""
