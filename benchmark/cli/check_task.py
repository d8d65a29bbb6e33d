"""`benchmark check` on a task: the loader checks of `tasks.check`, a line for each."""

from collections import Counter
from dataclasses import replace
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from rich.console import Console

import methods
import tasks
from benchmark.config.profile import Profile
from tasks.example import UsageError
from tasks.typed import near

if TYPE_CHECKING:
    from tasks.base import Task

STATE_STYLES = {"passed": "green", "warning": "yellow", "failed": "bold red"}


def is_task(name: str) -> bool:
    """Whether a name is that of a task; else it is one of a method, or no name at all."""
    if name in tasks.NAMES or tasks.is_file(name):
        return True
    if ":" not in name:
        if name not in methods.NAMES:
            raise UsageError(f"no method or task {name!r}; {near(name, [*methods.NAMES, *tasks.NAMES])}")
        return False
    from tasks.base import Task

    try:
        found = resolve_name(name)
    except (ImportError, AttributeError, SyntaxError, ValueError):
        return False  # what loads a method says what is wrong
    return isinstance(found, type) and issubclass(found, Task)


def open_task(profile: Profile, name: str, shots: int | None = None) -> "Task":
    """A task as the profile has it, with the tokenizer of its backbone."""
    kind = tasks.load(name)
    from methods.backbone import load_tokenizer
    from methods.files import find

    weights = profile.backbone
    return kind(
        load_tokenizer(find(weights.name, weights.revision), weights.name), source=profile.source,
        data_dir=profile.data_dir, shots=shots, seed=profile.seeds[0], limit=profile.limit, max_length=profile.max_length,
    )  # fmt: skip


def check_task(profile: Profile, name: str, console: Console) -> int:
    """A line for each finding, on all records. -> the exit code: 1 if a check failed."""
    task = open_task(replace(profile, limit={}), name)
    from tasks.check import check as findings

    counts: Counter[str] = Counter()
    for finding in findings(task):
        counts[finding.state] += 1
        console.print(f"[{STATE_STYLES[finding.state]}]{finding.state:<8}", end="")
        console.print(f"{finding.check:<22}{finding.said}", markup=False, soft_wrap=True)
    said = f"{counts['passed']} passed, {counts['warning']} warnings, {counts['failed']} failed"
    source = task.report.get("source", profile.source)
    console.print(f"{name} on {profile.backbone.name}, records {source}: {said}", markup=False, soft_wrap=True)
    console.print("`describe`, with the same words after it, shows lengths, labels and prompts")
    return 1 if counts["failed"] else 0
