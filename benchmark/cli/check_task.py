"""`benchmark check` on a task: runs the checks of `tasks.validation.loader_checks` and prints one line for each."""

from collections import Counter
from dataclasses import replace
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from rich.console import Console

import methods
import tasks
from benchmark.config.profile import Profile
from tasks.core.suggestions import suggest_name
from tasks.core.types import UsageError

if TYPE_CHECKING:
    from tasks.base import Task

STATE_STYLES = {"passed": "green", "warning": "yellow", "failed": "bold red"}


def is_task(name: str) -> bool:
    """Return whether a name is a task; otherwise it is a method. Raises `UsageError` if it is neither."""
    if name in tasks.TASK_NAMES or tasks.is_yaml_task(name):
        return True
    if ":" not in name:
        if name not in methods.NAMES:
            raise UsageError(f"no method or task {name!r}; {suggest_name(name, [*methods.NAMES, *tasks.TASK_NAMES])}")
        return False
    from tasks.base import Task

    try:
        loaded_object = resolve_name(name)
    except (ImportError, AttributeError, SyntaxError, ValueError):
        return False  # loading it as a method reports the error
    return isinstance(loaded_object, type) and issubclass(loaded_object, Task)


def open_task(profile: Profile, name: str, shots: int | None = None) -> "Task":
    """Instantiate a task with the settings of the profile and the tokenizer of its backbone."""
    task_class = tasks.load_task(name)
    from methods.core.backbone import load_tokenizer
    from methods.core.backbone_files import find_or_download_backbone

    backbone = profile.backbone
    return task_class(
        load_tokenizer(find_or_download_backbone(backbone.name, backbone.revision), backbone.name),
        data_source=profile.source,
        data_dir=profile.data_dir,
        shots=shots,
        seed=profile.seeds[0],
        max_per_split=profile.limit,
        max_length=profile.max_length,
    )


def check_task(profile: Profile, name: str, console: Console) -> int:
    """Run the loader checks on all data of a task and print one line per finding. Returns 1 if a check failed."""
    task = open_task(replace(profile, limit={}), name)
    from tasks.validation.loader_checks import check_loader

    counts: Counter[str] = Counter()
    for finding in check_loader(task):
        counts[finding.status] += 1
        console.print(f"[{STATE_STYLES[finding.status]}]{finding.status:<8}", end="")
        console.print(f"{finding.check_name:<22}{finding.message}", markup=False, soft_wrap=True)
    summary = f"{counts['passed']} passed, {counts['warning']} warnings, {counts['failed']} failed"
    source = task.report.get("source", profile.source)
    console.print(f"{name} on {profile.backbone.name}, records {source}: {summary}", markup=False, soft_wrap=True)
    console.print("`describe` with the same arguments shows lengths, labels and prompts")
    return 1 if counts["failed"] else 0
