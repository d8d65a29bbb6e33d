"""Lists the backbone and data that a profile needs and what is already on this machine, without network or torch."""

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
HOST_TIMEOUT_SECONDS = 3.0  # seconds to wait for an answer of a host
BYTES_PER_PUBLISHED_WEIGHT = 2  # weights in repositories are usually bfloat16


class Requirement(NamedTuple):
    """A backbone or data set that must be on this machine before a grid can run without network."""

    name: str  # BACKBONE, or the name of a task
    repository: str
    revision: str
    subset: str  # configuration or folder in the repository
    num_bytes: float | None  # size on disk; of a missing backbone an estimate from its name; None if not known
    is_available: bool
    host: str = ""  # server that has it; "" if it is local or generated


def list_requirements(profile: Profile) -> list[Requirement]:
    """List the requirements of a profile: the backbone, then the data of each task."""
    return [
        get_backbone_requirement(profile),
        *(get_data_requirement(profile, task) for task in list_required_tasks(profile)),
    ]


def list_required_tasks(profile: Profile) -> tuple[str, ...]:
    """Return the target tasks of a profile and, if a method learns from source tasks, their source tasks."""
    sources = dict.fromkeys(task for target in profile.tasks for task in planner.get_source_tasks(profile, target)[1])
    extra_tasks = [task for task in sources if task not in profile.tasks]
    if extra_tasks and any(map(learns_from_sources, profile.methods)):
        return (*profile.tasks, *extra_tasks)
    return profile.tasks


def learns_from_sources(variant: str) -> bool:
    """Return whether a method, or the method that it depends on, is trained on source tasks first."""
    return specs.get_method_spec(variant).learns_from_sources


def get_backbone_requirement(profile: Profile) -> Requirement:
    """Describe the backbone of a profile, with its size on disk or an estimate of it."""
    from huggingface_hub import constants

    name = profile.backbone.name
    revision = profile.backbone.revision
    folder = find_backbone_folder(name, revision)
    shape = architecture.find_model_shape(name)
    num_bytes = None
    if folder:
        num_bytes = sum_file_sizes(folder.iterdir())
    elif shape:
        num_bytes = float(shape.num_parameters * BYTES_PER_PUBLISHED_WEIGHT)
    if is_local_backbone(name):
        return Requirement(BACKBONE, name, "", "", num_bytes, True)
    return Requirement(BACKBONE, name, revision or "main", "", num_bytes, bool(folder), constants.ENDPOINT)


def is_local_backbone(name: str) -> bool:
    """Return whether a backbone is the bundled tiny model or a local folder."""
    return name == "tiny" or Path(name).expanduser().is_dir()


def find_backbone_folder(name: str, revision: str | None) -> Path | None:
    """Find the folder of a local backbone, or of a complete copy in the hub's cache; None if there is no such copy.

    Raises UsageError if a local backbone is incomplete.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    if is_local_backbone(name):
        folder = backbone_files.find_or_download_backbone(name)
        backbone_files.validate_backbone_files(folder, name)
        return folder
    try:
        folder = Path(
            snapshot_download(
                name, revision=revision, allow_patterns=backbone_files.DOWNLOAD_PATTERNS, local_files_only=True
            )
        )
        backbone_files.validate_backbone_files(folder, name)
    except (LocalEntryNotFoundError, UsageError):
        return None
    return folder


def get_data_requirement(profile: Profile, task: str) -> Requirement:
    """Describe the data of a task: synthetic, local files, files of a GitHub repository, or a hub data set."""
    if profile.source == "sample":
        return Requirement(task, "made here", "", "sample", None, True)
    data_source = open_data_source(profile, task)
    if profile.source == "local" and isinstance(data_source, LocalSource):
        try:
            paths = [data_source.folder / path for file in data_source.find_parts().values() for path in file.paths]
        except UsageError:
            return Requirement(task, "your files", "", str(data_source.folder), None, False)
        return Requirement(task, "your files", "", str(data_source.folder), sum_file_sizes(paths), True)
    if isinstance(data_source, GitHubSource):
        github = data_source.hub
        paths = [data_source.folder / path for path in list_raw_files(data_source)]
        is_available = all(path.is_file() for path in paths)
        num_bytes = sum_file_sizes(paths) if is_available else None
        host = os.environ.get("ADAPTERBENCH_RAW", GITHUB_RAW_URL)
        return Requirement(task, github.repository, github.commit, github.folder, num_bytes, is_available, host)
    from huggingface_hub import constants

    assert isinstance(data_source, HubSource)  # the only remaining class
    hub = data_source.hub
    tables = download.load_cached_dataset(hub.id, hub.config, hub.revision)
    num_bytes = None
    if tables:
        num_bytes = sum_file_sizes(Path(file["filename"]) for table in tables.values() for file in table.cache_files)
    return Requirement(task, hub.id, hub.revision, hub.config or "", num_bytes, bool(tables), constants.ENDPOINT)


def open_data_source(profile: Profile, task: str) -> LocalSource | HubSource:
    """Open the data source of a task without importing the task, which takes seconds.

    Raises UsageError if the data should come from a hub and the task names no copy there.
    """
    spec = specs.get_task_spec(task)

    def describe_hub() -> list:
        hub = getattr(tasks.load_task(task), "hub", None)
        if profile.source == "hub" and hub is None:
            raise UsageError(f"{task}: names no copy on a hub; use --source local or sample")
        return hub and [type(hub).__name__, list(hub)]

    hub_description = disk_cache.load_or_compute(["hub", task, spec.code_hash], describe_hub)
    hub = None
    if hub_description:
        class_name, fields = hub_description
        hub = {"Hub": Hub, "GitHub": GitHub}[class_name](*fields)
    files = tuple(File(part, tuple(paths), parse_nothing, names) for part, paths, names in spec.files)
    return open_record_source(task, files, hub, profile.source, profile.data_dir)


def list_raw_files(raw_source: GitHubSource) -> list[str]:
    """List the paths of all files that are read from a GitHub repository, without duplicates."""
    files = raw_source.find_parts().values()
    return list(dict.fromkeys(path for file in files for path in (*file.paths, file.label_names_file) if path))


def sum_file_sizes(paths: Iterable[Path]) -> float:
    """Return the total size in bytes of those paths that are files."""
    return float(sum(path.stat().st_size for path in paths if path.is_file()))


# -------------------------------------------------------------------- hosts


def find_unreachable_hosts(urls: Iterable[str]) -> dict[str, str]:
    """Return the hosts that do not answer within HOST_TIMEOUT_SECONDS, with the reason.

    All are probed at the same time, through a proxy if one is configured.
    """
    errors_by_url = dict.fromkeys(urls, f"no answer in {HOST_TIMEOUT_SECONDS:.0f} s")
    # Threads, because the timeout of urllib does not cover the name resolution, which may hang.
    threads = [Thread(target=_probe_host, args=(url, errors_by_url), daemon=True) for url in errors_by_url]
    for thread in threads:
        thread.start()
    deadline = monotonic() + HOST_TIMEOUT_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - monotonic()))
    return {url: error for url, error in [*errors_by_url.items()] if error}


def _probe_host(url: str, errors_by_url: dict[str, str]) -> None:
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=HOST_TIMEOUT_SECONDS).close()
        errors_by_url[url] = ""
    except urllib.error.HTTPError:  # an error status is an answer too
        errors_by_url[url] = ""
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        errors_by_url[url] = str(getattr(reason, "strerror", None) or reason)
