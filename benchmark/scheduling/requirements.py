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
from benchmark.config.profile import Profile
from benchmark.grid import planner, specs
from benchmark.system import disk_cache
from methods.core import architecture, backbone_files
from tasks.core import download
from tasks.core.sources import (
    GITHUB_RAW_URL,
    File,
    GitHub,
    GitHubSource,
    Hub,
    HubSource,
    LocalSource,
    open_record_source,
    parse_nothing,
)
from tasks.core.types import UsageError

BACKBONE = "backbone"
HOST_TIMEOUT_SECONDS = 3.0  # for a host to answer
BYTES_PER_PUBLISHED_WEIGHT = 2  # bytes of a weight in a repository: bfloat16


class Requirement(NamedTuple):
    """One thing that has to be here before a grid can run without a network."""

    name: str  # BACKBONE, or a task
    repository: str
    revision: str
    subset: str  # config, or folder
    num_bytes: float | None  # of what is here; of a backbone that is not, what its name says; else not known
    is_available: bool
    host: str = ""  # that has it; "": it lies or is made here


def list_requirements(profile: Profile) -> list[Requirement]:
    return [
        get_backbone_requirement(profile),
        *(get_data_requirement(profile, task) for task in list_required_tasks(profile)),
    ]


def list_required_tasks(profile: Profile) -> tuple[str, ...]:
    """The tasks of the table, and those that source stages and source prompts learn from."""
    below = dict.fromkeys(task for target in profile.tasks for task in planner.get_source_tasks(profile, target)[1])
    more = [task for task in below if task not in profile.tasks]
    return (*profile.tasks, *more) if more and any(map(learns_from_sources, profile.methods)) else profile.tasks


def learns_from_sources(variant: str) -> bool:
    """Whether a method learns from source tasks first."""
    return specs.get_method_spec(variant).learns_from_sources


def get_backbone_requirement(profile: Profile) -> Requirement:
    from huggingface_hub import constants

    name, revision = profile.backbone.name, profile.backbone.revision
    path = find_backbone_folder(name, revision)
    shape = architecture.find_model_shape(name)
    known = (
        sum_file_sizes(path.iterdir()) if path else shape and float(shape.num_parameters * BYTES_PER_PUBLISHED_WEIGHT)
    )
    if is_local_backbone(name):
        return Requirement(BACKBONE, name, "", "", known, True)
    return Requirement(BACKBONE, name, revision or "main", "", known, bool(path), constants.ENDPOINT)


def is_local_backbone(name: str) -> bool:
    return name == "tiny" or Path(name).expanduser().is_dir()


def find_backbone_folder(name: str, revision: str | None) -> Path | None:
    """Where a backbone lies: itself, or in the hub's cache if it is there and whole."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    if is_local_backbone(name):
        found = backbone_files.find_or_download_backbone(name)
        backbone_files.validate_backbone_files(found, name)
        return found
    try:
        found = Path(
            snapshot_download(
                name, revision=revision, allow_patterns=backbone_files.DOWNLOAD_PATTERNS, local_files_only=True
            )
        )
        backbone_files.validate_backbone_files(found, name)
    except (LocalEntryNotFoundError, UsageError):
        return None
    return found


def get_data_requirement(profile: Profile, task: str) -> Requirement:
    if profile.source == "sample":
        return Requirement(task, "made here", "", "sample", None, True)
    origin = open_data_source(profile, task)
    if profile.source == "local" and isinstance(origin, LocalSource):
        try:
            found = [origin.folder / path for file in origin.find_parts().values() for path in file.paths]
        except UsageError:
            return Requirement(task, "your files", "", str(origin.folder), None, False)
        return Requirement(task, "your files", "", str(origin.folder), sum_file_sizes(found), True)
    if isinstance(origin, GitHubSource):
        paths = [origin.folder / path for path in list_raw_files(origin)]
        here = all(path.is_file() for path in paths)
        host = os.environ.get("ADAPTERBENCH_RAW", GITHUB_RAW_URL)
        return Requirement(task, origin.hub.repository, origin.hub.commit, origin.hub.folder, sum_file_sizes(paths) if here else None,
                    here, host)  # fmt: skip
    from huggingface_hub import constants

    assert isinstance(origin, HubSource)  # what is left
    hub = origin.hub
    tables = download.load_cached_dataset(hub.id, hub.config, hub.revision)
    kept = [Path(file["filename"]) for table in (tables or {}).values() for file in table.cache_files]
    return Requirement(task, hub.id, hub.revision, hub.config or "", sum_file_sizes(kept) if tables else None, bool(tables),
                constants.ENDPOINT)  # fmt: skip


def open_data_source(profile: Profile, task: str) -> LocalSource | HubSource:
    """Where a task's records come from, without importing the task, which takes seconds."""
    facts = specs.get_task_spec(task)

    def ask() -> list:
        hub = getattr(tasks.load_task(task), "hub", None)
        if profile.source == "hub" and hub is None:
            raise UsageError(f"{task}: names no copy on a hub; use --source local or sample")
        return hub and [type(hub).__name__, list(hub)]

    made = disk_cache.load_or_compute(["hub", task, facts.code_hash], ask)
    hub = made and {"Hub": Hub, "GitHub": GitHub}[made[0]](*made[1])
    read = tuple(File(part, tuple(paths), parse_nothing, names) for part, paths, names in facts.files)
    return open_record_source(task, read, hub, profile.source, profile.data_dir)


def list_raw_files(raw_source: GitHubSource) -> list[str]:
    """The files that are read of a repository."""
    found = raw_source.find_parts().values()
    return list(dict.fromkeys(path for file in found for path in (*file.paths, file.label_names_file) if path))


def sum_file_sizes(paths: Iterable[Path]) -> float:
    return float(sum(path.stat().st_size for path in paths if path.is_file()))


# -------------------------------------------------------------------- hosts


def find_unreachable_hosts(urls: Iterable[str]) -> dict[str, str]:
    """Which hosts do not answer within SECONDS, and why; all are asked at once, through a proxy where one is set."""
    found = dict.fromkeys(urls, f"no answer in {HOST_TIMEOUT_SECONDS:.0f} s")
    threads = [
        Thread(target=_probe_host, args=(url, found), daemon=True) for url in found
    ]  # a name server may hang for long
    for thread in threads:
        thread.start()
    end = monotonic() + HOST_TIMEOUT_SECONDS
    for thread in threads:
        thread.join(max(0.0, end - monotonic()))
    return {url: why for url, why in [*found.items()] if why}


def _probe_host(url: str, errors_by_url: dict[str, str]) -> None:
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=HOST_TIMEOUT_SECONDS).close()
        errors_by_url[url] = ""
    except urllib.error.HTTPError:  # it answered
        errors_by_url[url] = ""
    except (OSError, ValueError) as error:
        why = getattr(error, "reason", error)
        errors_by_url[url] = str(getattr(why, "strerror", None) or why)
