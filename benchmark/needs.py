"""What a profile reads from elsewhere, and what of it is here already: asked without a network and without torch."""

import os
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from threading import Thread
from time import monotonic
from typing import NamedTuple

import tasks
from benchmark import catalogue, grid, memory
from benchmark.profile import Profile
from methods import files
from tasks import network
from tasks.example import UsageError
from tasks.source import RAW, File, GitHub, Hub, Local, Parquet, Raw, open_source, unread

BACKBONE = "backbone"
SECONDS = 3.0  # for a host to answer
SHARED = 2  # bytes of a weight in a repository: bfloat16


class Need(NamedTuple):
    """One thing that has to be here before a grid can run without a network."""

    name: str  # BACKBONE, or a task
    repository: str
    revision: str
    part: str  # config, or folder
    bytes: float | None  # of what is here; of a backbone that is not, what its name says; else not known
    here: bool
    host: str = ""  # that has it; "": it lies or is made here


def of(profile: Profile) -> list[Need]:
    return [backbone(profile), *(records(profile, task) for task in members(profile))]


def members(profile: Profile) -> tuple[str, ...]:
    """The tasks of the table, and those that source stages and source prompts learn from."""
    below = dict.fromkeys(task for target in profile.tasks for task in grid.sources_of(profile, target)[1])
    more = [task for task in below if task not in profile.tasks]
    return (*profile.tasks, *more) if more and any(map(learns, profile.methods)) else profile.tasks


def learns(row: str) -> bool:
    """Whether a method learns from source tasks first."""
    facts = catalogue.method(row)
    return bool(facts["parent"]) or any(stage["on"] == "sources" for stage in facts["stages"])


def backbone(profile: Profile) -> Need:
    from huggingface_hub import constants

    name, revision = profile.backbone.name, profile.backbone.revision
    path = folder(name, revision)
    shape = memory.shape_of(name)
    known = size(path.iterdir()) if path else shape and float(shape.parameters * SHARED)
    if own(name):
        return Need(BACKBONE, name, "", "", known, True)
    return Need(BACKBONE, name, revision or "main", "", known, bool(path), constants.ENDPOINT)


def own(name: str) -> bool:
    return name == "tiny" or Path(name).expanduser().is_dir()


def folder(name: str, revision: str | None) -> Path | None:
    """Where a backbone lies: itself, or in the hub's cache if it is there and whole."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    if own(name):
        found = files.find(name)
        files.check(found, name)
        return found
    try:
        found = Path(snapshot_download(name, revision=revision, allow_patterns=files.FILES, local_files_only=True))
        files.check(found, name)
    except (LocalEntryNotFoundError, UsageError):
        return None
    return found


def records(profile: Profile, task: str) -> Need:
    if profile.source == "sample":
        return Need(task, "made here", "", "sample", None, True)
    origin = opened(profile, task)
    if profile.source == "local" and isinstance(origin, Local):
        try:
            found = [origin.folder / path for file in origin.parts().values() for path in file.paths]
        except UsageError:
            return Need(task, "your files", "", str(origin.folder), None, False)
        return Need(task, "your files", "", str(origin.folder), size(found), True)
    if isinstance(origin, Raw):
        paths = [origin.folder / path for path in raw_paths(origin)]
        here = all(path.is_file() for path in paths)
        host = os.environ.get("ADAPTERBENCH_RAW", RAW)
        return Need(task, origin.hub.repository, origin.hub.commit, origin.hub.folder, size(paths) if here else None,
                    here, host)  # fmt: skip
    from huggingface_hub import constants

    assert isinstance(origin, Parquet)  # what is left
    hub = origin.hub
    tables = network.cached(hub.id, hub.config, hub.revision)
    kept = [Path(file["filename"]) for table in (tables or {}).values() for file in table.cache_files]
    return Need(task, hub.id, hub.revision, hub.config or "", size(kept) if tables else None, bool(tables),
                constants.ENDPOINT)  # fmt: skip


def opened(profile: Profile, task: str) -> Local | Parquet:
    """Where a task's records come from, without importing the task, which takes seconds."""
    facts = catalogue.task(task)

    def ask() -> list:
        hub = getattr(tasks.load(task), "hub", None)
        if profile.source == "hub" and hub is None:
            raise UsageError(f"{task}: names no copy on a hub; use --source local or sample")
        return hub and [type(hub).__name__, list(hub)]

    made = catalogue.remembered(["hub", task, facts["code"]], ask)
    hub = made and {"Hub": Hub, "GitHub": GitHub}[made[0]](*made[1])
    read = tuple(File(part, tuple(paths), unread, names) for part, paths, names in facts["files"])
    return open_source(task, read, hub, profile.source, profile.data_dir)


def raw_paths(origin: Raw) -> list[str]:
    """The files that are read of a repository."""
    found = origin.parts().values()
    return list(dict.fromkeys(path for file in found for path in (*file.paths, file.names) if path))


def size(paths: Iterable[Path]) -> float:
    return float(sum(path.stat().st_size for path in paths if path.is_file()))


# -------------------------------------------------------------------- hosts


def silent(urls: Iterable[str]) -> dict[str, str]:
    """Which hosts do not answer within SECONDS, and why; all are asked at once, through a proxy where one is set."""
    found = dict.fromkeys(urls, f"no answer in {SECONDS:.0f} s")
    threads = [Thread(target=_ask, args=(url, found), daemon=True) for url in found]  # a name server may hang for long
    for thread in threads:
        thread.start()
    end = monotonic() + SECONDS
    for thread in threads:
        thread.join(max(0.0, end - monotonic()))
    return {url: why for url, why in [*found.items()] if why}


def _ask(url: str, found: dict[str, str]) -> None:
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=SECONDS).close()
        found[url] = ""
    except urllib.error.HTTPError:  # it answered
        found[url] = ""
    except (OSError, ValueError) as error:
        why = getattr(error, "reason", error)
        found[url] = str(getattr(why, "strerror", None) or why)
