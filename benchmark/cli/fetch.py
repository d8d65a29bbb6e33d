"""`benchmark fetch`: downloads and checks the backbone and the data of a profile, e.g. for machines without a network.

Nothing is downloaded twice: an interrupted download is resumed, and complete files are only checked. The files of the
backbone are compared with the hashes in the hub's cache, and each task's loader reads all of its examples once.
"""

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import file_digest, sha1
from pathlib import Path
from time import perf_counter

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

import tasks
from benchmark.cli.system_checks import find_existing_parent
from benchmark.config.profile import Profile
from benchmark.grid import dataset_stats
from benchmark.scheduling import requirements
from benchmark.scheduling.requirements import Requirement
from benchmark.system.formatting import format_bytes, format_duration
from methods.core import backbone_files
from tasks.core import download
from tasks.core.sources import get_cache_folder
from tasks.core.types import UsageError


def fetch_profile(profile: Profile, console: Console, dry_run: bool) -> int:
    """Download and check everything the profile needs; with `dry_run` only print it. Returns 0.

    Raises `UsageError` if a download cannot start, or at the end if any of them failed.
    """
    needed = requirements.list_requirements(profile)
    print_requirements(console, profile, needed)
    missing = [need for need in needed if not need.is_available]
    if dry_run:
        unknown = "" if all(need.num_bytes for need in missing) else " and data of unknown size"
        size = format_bytes(sum(need.num_bytes or 0 for need in missing))
        summary = f"{len(missing)} of {len(needed)} to fetch, {size}{unknown}" if missing else "everything is present"
        console.print(summary, soft_wrap=True)
        return 0
    check_can_fetch(missing)
    failed: dict[str, str] = {}
    for number, need in enumerate(needed, start=1):
        console.print(
            f"{number}/{len(needed)} {need.name} {need.repository}", style="bold", soft_wrap=True, markup=False
        )
        start = perf_counter()
        try:
            with progress_bars(console.is_terminal):
                if need.name == requirements.BACKBONE:
                    outcome = fetch_backbone(profile)
                else:
                    outcome = fetch_records(profile, need.name)
        except UsageError as error:
            failed[need.name] = str(error)
            outcome = f"failed: {error}"
        console.print(f"    {outcome} ({format_duration(perf_counter() - start)})", soft_wrap=True, markup=False)
    if failed:
        first_error = next(iter(failed.values()))
        raise UsageError(f"{len(failed)} of {len(needed)} failed ({', '.join(failed)}); the first: {first_error}")
    for line in format_transfer_instructions(profile, needed):
        console.print(line, soft_wrap=True, markup=False)
    return 0


def print_requirements(console: Console, profile: Profile, requirements: Sequence[Requirement]) -> None:
    """Print a table of the requirements: repository, revision, subset, size, and whether they are present."""
    table = Table(
        title=f"requirements of {profile.name}",
        title_justify="left",
        box=SIMPLE_HEAD,
        header_style="dim",
        padding=(0, 1, 0, 0),
    )
    for name in ("", "repository", "revision", "subset", "size", "present"):
        table.add_column(name, justify="right" if name == "size" else "left")
    for need in requirements:
        size = "" if need.num_bytes is None else format_bytes(need.num_bytes)
        if size and not need.is_available:
            size = f"about {size}"
        table.add_row(
            need.name, need.repository, need.revision[:12], need.subset, size, "yes" if need.is_available else "no"
        )
    console.print(table)


def check_can_fetch(missing: Sequence[Requirement]) -> None:
    """Raise `UsageError` before any download: missing local files, no network, too little disk space."""
    from huggingface_hub import constants

    local = [need for need in missing if not need.host]
    if local:
        raise UsageError(
            f"{local[0].name}: no records in {local[0].subset}; fetch downloads from a hub, copy your own files there"
        )
    if not missing:
        return
    if constants.is_offline_mode():
        raise UsageError(
            f"HF_HUB_OFFLINE is set, and {missing[0].name} is missing; unset it on a machine with a network"
        )
    for host, reason in requirements.find_unreachable_hosts(need.host for need in missing).items():
        raise UsageError(
            f"{host} cannot be reached ({reason}); fetch on a machine with a network, then copy the caches here"
        )
    num_bytes = sum(need.num_bytes or 0 for need in missing)
    folder = find_existing_parent(Path(constants.HF_HUB_CACHE))
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise UsageError(
            f"{folder}: {format_bytes(free)} free, {format_bytes(num_bytes)} are needed; set HF_HOME to a larger disk"
        )


# -------------------------------------------------------------------- backbone and data


def fetch_backbone(profile: Profile) -> str:
    """Download and check configuration, tokenizer and safetensors; a damaged file is downloaded once more.

    Returns a description of the outcome. Raises `UsageError` if a file is still damaged afterwards.
    """
    name = profile.backbone.name
    revision = profile.backbone.revision
    folder = requirements.find_backbone_folder(name, revision) or download_backbone(name, revision)
    if requirements.is_local_backbone(name):
        return "complete"
    damaged = find_damaged_files(folder)
    if damaged:
        for path in damaged:
            path.resolve().unlink()
            path.unlink(missing_ok=True)
        folder = download_backbone(name, revision)
        damaged = find_damaged_files(folder)
        if damaged:
            raise UsageError(
                f"backbone {name!r}: {damaged[0].name} does not match its hash on the hub; {download.RETRY_ADVICE}"
            )
    backbone_files.validate_backbone_files(folder, name)
    return f"complete: {format_bytes(requirements.sum_file_sizes(folder.iterdir()))}"


def download_backbone(name: str, revision: str | None) -> Path:
    """Download a backbone into the hub's cache and return its folder. Network errors become `UsageError`."""
    from huggingface_hub import HfApi, snapshot_download

    with download.translate_errors(f"backbone {name!r}", "give --backbone tiny, or a folder", download.RETRY_ADVICE):
        HfApi().model_info(
            name, revision=revision, timeout=download.make_timeout()
        )  # fails within seconds if anything is wrong
        return Path(snapshot_download(name, revision=revision, allow_patterns=backbone_files.DOWNLOAD_PATTERNS))


@contextmanager
def progress_bars(enabled: bool) -> Iterator[None]:
    """Disable the libraries' progress bars in the block unless `enabled`: in a log each takes a thousand lines."""
    import datasets
    from huggingface_hub import utils

    disabled = []
    if not enabled:
        disabled = [library for library in (utils, datasets) if not library.are_progress_bars_disabled()]
    for library in disabled:
        library.disable_progress_bars()
    try:
        yield
    finally:
        for library in disabled:
            library.enable_progress_bars()


def find_damaged_files(folder: Path) -> list[Path]:
    """Return the files of a snapshot whose content does not match their hash."""
    return [path for path, matches in verify_hashes(folder) if not matches]


def verify_hashes(folder: Path) -> Iterator[tuple[Path, bool]]:
    """Yield (file, whether it matches the hash in its blob name): SHA-256 of large files, git SHA-1 of small ones."""
    for path in sorted(folder.iterdir()):
        blob = path.resolve()
        if re.fullmatch(r"[0-9a-f]{64}", blob.name):
            with blob.open("rb") as file:
                yield path, file_digest(file, "sha256").hexdigest() == blob.name
        elif re.fullmatch(r"[0-9a-f]{40}", blob.name):
            data = blob.read_bytes()
            yield path, sha1(b"blob %d\0" % len(data) + data).hexdigest() == blob.name


def fetch_records(profile: Profile, task_name: str) -> str:
    """Download the data of a task and read all of it with its loader. Returns the number of examples by split.

    Raises `UsageError` if there are no training or no test examples.
    """
    task = tasks.load_task(task_name)(data_source=profile.source, data_dir=profile.data_dir)
    with dataset_stats.convert_record_errors(task):
        task.prepare_data()  # also downloads files outside the splits, which a run needs
        examples = task.build_pool()
    if empty := [split for split in ("train", "test") if not examples[split]]:
        raise UsageError(f"{task_name}: no {empty[0]} examples in {task.record_source.title}")
    counts = ", ".join(f"{len(split_examples):,} {split}" for split, split_examples in examples.items())
    return f"complete: {counts} examples"


# -------------------------------------------------------------------- transfer to another machine


def format_transfer_instructions(profile: Profile, requirements: Sequence[Requirement]) -> Iterator[str]:
    """Yield lines that explain how to copy the caches to another machine and how to run there."""
    if not any(need.host for need in requirements):
        yield f"{profile.name} needs no network: there is nothing to copy"
        return
    caches = dict(list_cache_folders())
    yield "Everything is present. For a machine without a network, copy these there, with links (rsync -a, cp -a, tar):"
    yield from (f"  {folder}" for folder in caches.values())
    variables = " ".join(f"{name}=<folder there>" for name in caches)
    yield (
        f"then run there: export {variables} HF_HUB_OFFLINE=1; "
        f"python -m benchmark run --profile {profile.name}, with the same flags as here"
    )


def list_cache_folders() -> Iterator[tuple[str, Path]]:
    """Yield (environment variable, folder) of the caches that hold the downloads."""
    from datasets import config
    from huggingface_hub import constants

    home = Path(constants.HF_HOME)
    folders = {"HF_HUB_CACHE": Path(constants.HF_HUB_CACHE), "HF_DATASETS_CACHE": Path(config.HF_DATASETS_CACHE)}
    if all(path.is_relative_to(home) for path in folders.values()):
        folders = {"HF_HOME": home}
    yield from (folders | {"ADAPTERBENCH_CACHE": get_cache_folder()}).items()
