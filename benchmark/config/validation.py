"""TODO."""

import re
from dataclasses import replace
from pathlib import Path

from benchmark.config.profile import AUTO, FULL, SEED_STREAMS, Profile
from methods import NAMES as METHODS
from methods import parse_method_name
from tasks import TASK_NAMES as TASKS
from tasks import is_custom_task
from tasks.core.suggestions import suggest_name
from tasks.core.types import UsageError
from tasks.suites import SUITES

NAME_PATTERN = r"\w[\w.+-]*"  # of what becomes part of a file's name


DEVICE_PATTERN = r"auto|cpu|mps|cuda(:\d+)?"


SMALLEST_MAX_LENGTH = 16  # tokens: no instruction fits in fewer


def validate_profile(profile: Profile) -> Profile:
    """What types alone do not say. -> the profile with its data folder made absolute."""
    validate_names(profile)
    validate_numbers(profile)
    if not re.fullmatch(DEVICE_PATTERN, profile.backbone.device):
        raise UsageError(f"no device {profile.backbone.device!r}; there are: auto, cpu, cuda, cuda:1 (by its number)")
    if profile.source == "local" and profile.data_dir is None:
        raise UsageError("source local needs a folder of original files: --data-dir DIR")
    if profile.data_dir and not Path(profile.data_dir).is_dir():
        raise UsageError(f"data_dir {profile.data_dir}: no such folder; it holds one sub-folder per task")
    pack = profile.pack if profile.devices == 1 else 1  # a cell that needs several devices has no room for others
    return replace(profile, data_dir=profile.data_dir and str(Path(profile.data_dir).resolve()), pack=pack)


def validate_suite(profile: Profile) -> None:
    """Its tasks, and that the profile's are among them: a task of elsewhere may stand beside, not one of another."""
    suite = profile.suite
    if suite.name in SUITES and suite != SUITES[suite.name]:
        raise UsageError(f"suite {suite.name!r} ships with other tasks; give yours another name")
    if not suite.tasks:
        raise UsageError(f"suite {suite.name} has no tasks; name its sources and targets")
    if both := [name for name in suite.sources if name in suite.targets]:
        raise UsageError(f"suite {suite.name}: {', '.join(both)} is a source and a target; it can be one of them")
    for name in (*profile.tasks, *profile.sources):
        if name in TASKS and name not in suite.tasks:
            other = next(other.name for other in SUITES.values() if name in other.tasks)
            own = ", ".join(suite.tasks)
            raise UsageError(f"task {name} is of suite {other}, not {suite.name}; --tasks takes {own}, or all")
    if targets := [name for name in profile.sources if name in suite.targets]:
        known = f"which no source stage may see; sources are: {', '.join(suite.sources)}"
        raise UsageError(f"sources: {', '.join(targets)} can only be a target, {known}")


def validate_names(profile: Profile) -> None:
    for kind, name in (("profile", profile.name), ("suite", profile.suite.name)):
        if not re.fullmatch(NAME_PATTERN, name):
            raise UsageError(f"{kind} name {name!r}: it names a folder; use letters, digits, - _ and . alone")
    validate_suite(profile)
    for kind, found, known in (("method", profile.methods, METHODS), ("task", profile.tasks, TASKS),
                               ("task", profile.sources, TASKS), ("task", profile.suite.tasks, TASKS),
                               ("stream", profile.seed_streams, SEED_STREAMS)):  # fmt: skip
        for name in found:
            if name not in known and not is_custom_task(name):
                raise UsageError(f"no {kind} {name!r}; {suggest_name(name, known)}")
        if len(set(found)) < len(found):
            raise UsageError(f"{kind}s are named twice: {', '.join(found)}")
    for row in profile.methods:
        method = parse_method_name(row)
        if row != method and not re.fullmatch(NAME_PATTERN, row.removeprefix(f"{method}:")):
            raise UsageError(f"row {row!r}: name it with letters, digits, - _ and . alone, as in {method}:mine")
        if row != method and not profile.config.get(row):
            raise UsageError(f"row {row} of {method} has no options of its own; set one: --set {row}.lr=0.01")
    for kind in ("methods", "tasks", "shots", "seeds"):
        if not getattr(profile, kind):
            raise UsageError(f"profile {profile.name}: {kind} is empty; name at least one")


def validate_numbers(profile: Profile) -> None:
    for shots in (*profile.shots, profile.source_shots):
        if shots != FULL and not (isinstance(shots, int) and shots > 0):
            raise UsageError(f"shots {shots!r}: give a number from 1 up, or `full`")
    if len(set(profile.shots)) < len(profile.shots) or len(set(profile.seeds)) < len(profile.seeds):
        raise UsageError(f"a number twice in shots {profile.shots} or seeds {profile.seeds}")
    if bad := [seed for seed in profile.seeds if not 0 <= seed < 2**31]:
        raise UsageError(f"seed {bad[0]}: seeds are 0 or more, and below 2^31")
    if bad := {name: most for name, most in profile.limit.items() if name not in ("train", "dev", "test") or most < 1}:
        raise UsageError(f"limit {bad}: name train, dev or test, with a number from 1 up")
    if profile.max_length < SMALLEST_MAX_LENGTH:
        raise UsageError(f"max_length {profile.max_length}: give {SMALLEST_MAX_LENGTH} tokens or more")
    if profile.workers != AUTO and not (isinstance(profile.workers, int) and profile.workers > 0):
        raise UsageError(f"workers {profile.workers!r}: give a number from 1 up, or `auto`")
    if profile.devices < 1 or (profile.devices > 1) != (profile.strategy != AUTO):
        wanted = "set both or neither, as in --set devices=2 --set strategy=ddp"
        raise UsageError(f"devices {profile.devices} with strategy {profile.strategy}: {wanted}")
    if profile.devices > 1 and (profile.workers not in (AUTO, 1) or ":" in profile.backbone.device):
        found = f"workers {profile.workers}, device {profile.backbone.device}"
        raise UsageError(f"devices {profile.devices}: one group of processes takes the first devices, found {found}")
    if profile.pack != AUTO and not (isinstance(profile.pack, int) and profile.pack > 0):
        raise UsageError(f"pack {profile.pack!r}: give a number of cells from 1 up, or `auto`")
