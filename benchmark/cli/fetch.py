"""`benchmark fetch`: backbone and records of a profile, brought here and checked, for machines without a network.

Nothing is fetched twice: what broke off goes on where it stopped, and what is whole is only checked. Weights are held
against the hashes that the hub's cache names them by, and each task's loader reads all of its records once.
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
    needed = requirements.list_requirements(profile)
    print_requirements(console, profile, needed)
    missing = [need for need in needed if not need.is_available]
    if dry_run:
        unknown = "" if all(need.num_bytes for need in missing) else " and records, whose size only the network knows"
        rest = (
            f"{len(missing)} of {len(needed)} to fetch, {format_bytes(sum(n.num_bytes or 0 for n in missing))}{unknown}"
        )
        console.print(rest if missing else "all of it is here", soft_wrap=True)
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
                said = (
                    fetch_backbone(profile) if need.name == requirements.BACKBONE else fetch_records(profile, need.name)
                )
        except UsageError as error:
            failed[need.name] = str(error)
            said = f"failed: {error}"
        console.print(f"    {said} ({format_duration(perf_counter() - start)})", soft_wrap=True, markup=False)
    if failed:
        first = next(iter(failed.values()))
        raise UsageError(f"{len(failed)} of {len(needed)} are not here ({', '.join(failed)}); the first: {first}")
    for line in format_transfer_instructions(profile, needed):
        console.print(line, soft_wrap=True, markup=False)
    return 0


def print_requirements(console: Console, profile: Profile, requirements: Sequence[Requirement]) -> None:
    table = Table(title=f"what {profile.name} needs", title_justify="left", box=SIMPLE_HEAD, header_style="dim",
                  padding=(0, 1, 0, 0))  # fmt: skip
    for name in ("", "repository", "revision", "part", "size", "here"):
        table.add_column(name, justify="right" if name == "size" else "left")
    for need in requirements:
        known = (
            "" if need.num_bytes is None else f"{'' if need.is_available else 'about '}{format_bytes(need.num_bytes)}"
        )
        table.add_row(
            need.name, need.repository, need.revision[:12], need.subset, known, "yes" if need.is_available else "no"
        )
    console.print(table)


def check_can_fetch(missing: Sequence[Requirement]) -> None:
    """What would stop it, before anything begins: files that only you have, no network, no room."""
    from huggingface_hub import constants

    if own := [need for need in missing if not need.host]:
        raise UsageError(
            f"{own[0].name}: no records in {own[0].subset}; fetch brings what is on a hub, not your own files"
        )
    if not missing:
        return
    if constants.is_offline_mode():
        raise UsageError(f"HF_HUB_OFFLINE is set, and {missing[0].name} is not here; unset it where there is a network")
    for host, why in requirements.find_unreachable_hosts(need.host for need in missing).items():
        raise UsageError(f"{host} cannot be reached ({why}); fetch where there is a network, then move the caches here")
    most, place = sum(need.num_bytes or 0 for need in missing), find_existing_parent(Path(constants.HF_HUB_CACHE))
    if (free := shutil.disk_usage(place).free) < most:
        raise UsageError(
            f"{place}: {format_bytes(free)} free, {format_bytes(most)} are needed; set HF_HOME to a larger disk"
        )


# -------------------------------------------------------------------- backbone and records


def fetch_backbone(profile: Profile) -> str:
    """Configuration, tokenizer and safetensors; a damaged file is fetched once more."""
    name, revision = profile.backbone.name, profile.backbone.revision
    folder = requirements.find_backbone_folder(name, revision) or download_backbone(name, revision)
    if requirements.is_local_backbone(name):
        return "whole"
    if broken := find_damaged_files(folder):
        for path in broken:
            path.resolve().unlink()
            path.unlink(missing_ok=True)
        if broken := find_damaged_files(folder := download_backbone(name, revision)):
            raise UsageError(
                f"backbone {name!r}: {broken[0].name} has not the hash that the hub gives it; {download.RETRY_ADVICE}"
            )
    backbone_files.validate_backbone_files(folder, name)
    return f"whole: {format_bytes(requirements.sum_file_sizes(folder.iterdir()))}"


def download_backbone(name: str, revision: str | None) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    with download.translate_errors(f"backbone {name!r}", "give --backbone tiny, or a folder", download.RETRY_ADVICE):
        HfApi().model_info(name, revision=revision, timeout=download.make_timeout())  # says in seconds what is wrong
        return Path(snapshot_download(name, revision=revision, allow_patterns=backbone_files.DOWNLOAD_PATTERNS))


@contextmanager
def progress_bars(enabled: bool) -> Iterator[None]:
    """The libraries' progress bars: for a terminal; in a log each is a thousand lines."""
    import datasets
    from huggingface_hub import utils

    off = [] if enabled else [one for one in (utils, datasets) if not one.are_progress_bars_disabled()]
    for library in off:
        library.disable_progress_bars()
    try:
        yield
    finally:
        for library in off:
            library.enable_progress_bars()


def find_damaged_files(folder: Path) -> list[Path]:
    return [path for path, right in verify_hashes(folder) if not right]


def verify_hashes(folder: Path) -> Iterator[tuple[Path, bool]]:
    """(file, whether its content is what the hub's cache named it by): sha256 of large files, git's sha1 of small."""
    for path in sorted(folder.iterdir()):
        blob = path.resolve()
        if re.fullmatch(r"[0-9a-f]{64}", blob.name):
            with blob.open("rb") as file:
                yield path, file_digest(file, "sha256").hexdigest() == blob.name
        elif re.fullmatch(r"[0-9a-f]{40}", blob.name):
            data = blob.read_bytes()
            yield path, sha1(b"blob %d\0" % len(data) + data).hexdigest() == blob.name


def fetch_records(profile: Profile, task_name: str) -> str:
    """All records of a task, read by its loader."""
    task = tasks.load_task(task_name)(data_source=profile.source, data_dir=profile.data_dir)
    with dataset_stats.convert_record_errors(task):
        task.prepare_data()  # also what no split is made of: a run asks for it
        examples = task.build_pool()
    if empty := [split for split in ("train", "test") if not examples[split]]:
        raise UsageError(f"{task_name}: no {empty[0]} examples in {task.record_source.title}")
    return f"whole: {', '.join(f'{len(own):,} {split}' for split, own in examples.items())} examples"


# -------------------------------------------------------------------- afterwards


def format_transfer_instructions(profile: Profile, requirements: Sequence[Requirement]) -> Iterator[str]:
    """How it gets to another machine, and how to run there."""
    if not any(need.host for need in requirements):
        yield f"{profile.name} needs no network: nothing has to be moved"
        return
    caches = dict(list_cache_folders())
    yield "All of it is here. For a machine without a network, copy these there, links as links (rsync -a, cp -a, tar):"
    yield from (f"  {folder}" for folder in caches.values())
    set_ = " ".join(f"{name}=<its place there>" for name in caches)
    yield f"and there: export {set_} HF_HUB_OFFLINE=1; python -m benchmark run --profile {profile.name}, flags as here"


def list_cache_folders() -> Iterator[tuple[str, Path]]:
    """The folders that hold everything, by the variable that says where each is."""
    from datasets import config
    from huggingface_hub import constants

    home = Path(constants.HF_HOME)
    parts = {"HF_HUB_CACHE": Path(constants.HF_HUB_CACHE), "HF_DATASETS_CACHE": Path(config.HF_DATASETS_CACHE)}
    if all(path.is_relative_to(home) for path in parts.values()):
        parts = {"HF_HOME": home}
    yield from (parts | {"ADAPTERBENCH_CACHE": get_cache_folder()}).items()
