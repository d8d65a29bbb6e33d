"""Validation of a profile beyond its types. Invalid values raise `UsageError` with a one-line correction."""

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

NAME_PATTERN = r"\w[\w.+-]*"  # names that become part of a file name
DEVICE_PATTERN = r"auto|cpu|mps|cuda(:\d+)?"
SMALLEST_MAX_LENGTH = 16  # tokens; no instruction fits in fewer


def validate_profile(profile: Profile) -> Profile:
    """Validate a profile; returns it with an absolute `data_dir`, and `pack` 1 if it uses several devices."""
    validate_names(profile)
    validate_numbers(profile)
    if not re.fullmatch(DEVICE_PATTERN, profile.backbone.device):
        raise UsageError(f"no device {profile.backbone.device!r}; there are: auto, cpu, cuda, cuda:1 (by its number)")
    if profile.source == "local" and profile.data_dir is None:
        raise UsageError("source local needs a folder of original files: --data-dir DIR")
    if profile.data_dir and not Path(profile.data_dir).is_dir():
        raise UsageError(f"data_dir {profile.data_dir}: no such folder; it holds one sub-folder per task")
    pack = profile.pack if profile.devices == 1 else 1  # a cell that needs several devices leaves no memory for others
    data_dir = str(Path(profile.data_dir).resolve()) if profile.data_dir else profile.data_dir
    return replace(profile, data_dir=data_dir, pack=pack)


def validate_suite(profile: Profile) -> None:
    """Validate the suite, and that the profile's tasks belong to it or are custom, not part of another suite."""
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
            choices = ", ".join(suite.tasks)
            raise UsageError(f"task {name} is of suite {other}, not {suite.name}; --tasks takes {choices}, or all")
    if targets := [name for name in profile.sources if name in suite.targets]:
        raise UsageError(
            f"sources: {', '.join(targets)} can only be a target, on which no source stage may train; "
            f"sources are: {', '.join(suite.sources)}"
        )


def validate_names(profile: Profile) -> None:
    """Validate the names of the profile, its suite, methods, tasks and random streams."""
    for kind, name in (("profile", profile.name), ("suite", profile.suite.name)):
        if not re.fullmatch(NAME_PATTERN, name):
            raise UsageError(f"{kind} name {name!r}: it names a folder; use only letters, digits, - _ and .")
    validate_suite(profile)
    for kind, names, valid_names in (
        ("method", profile.methods, METHODS),
        ("task", profile.tasks, TASKS),
        ("task", profile.sources, TASKS),
        ("task", profile.suite.tasks, TASKS),
        ("stream", profile.seed_streams, SEED_STREAMS),
    ):
        for name in names:
            if name not in valid_names and not is_custom_task(name):
                raise UsageError(f"no {kind} {name!r}; {suggest_name(name, valid_names)}")
        if len(set(names)) < len(names):
            raise UsageError(f"{kind}s are named twice: {', '.join(names)}")
    for row in profile.methods:  # a method, or a variant of one
        method = parse_method_name(row)
        if row != method and not re.fullmatch(NAME_PATTERN, row.removeprefix(f"{method}:")):
            raise UsageError(f"row {row!r}: use only letters, digits, - _ and ., as in {method}:mine")
        if row != method and not profile.config.get(row):
            raise UsageError(f"row {row} of {method} has no options of its own; set one: --set {row}.lr=0.01")
    for kind in ("methods", "tasks", "shots", "seeds"):
        if not getattr(profile, kind):
            raise UsageError(f"profile {profile.name}: {kind} is empty; name at least one")


def validate_numbers(profile: Profile) -> None:
    """Validate shots, seeds, limits, lengths, and the numbers of workers, devices and packed cells."""
    for shots in (*profile.shots, profile.source_shots):
        if shots != FULL and not (isinstance(shots, int) and shots > 0):
            raise UsageError(f"shots {shots!r}: give a number from 1 up, or `full`")
    if len(set(profile.shots)) < len(profile.shots) or len(set(profile.seeds)) < len(profile.seeds):
        raise UsageError(f"shots {profile.shots} or seeds {profile.seeds} contain a number twice")
    if invalid_seeds := [seed for seed in profile.seeds if not 0 <= seed < 2**31]:
        raise UsageError(f"seed {invalid_seeds[0]}: seeds are 0 or more, and below 2^31")
    invalid_limits = {
        split: limit for split, limit in profile.limit.items() if split not in ("train", "dev", "test") or limit < 1
    }
    if invalid_limits:
        raise UsageError(f"limit {invalid_limits}: name train, dev or test, with a number from 1 up")
    if profile.max_length < SMALLEST_MAX_LENGTH:
        raise UsageError(f"max_length {profile.max_length}: give {SMALLEST_MAX_LENGTH} tokens or more")
    if profile.workers != AUTO and not (isinstance(profile.workers, int) and profile.workers > 0):
        raise UsageError(f"workers {profile.workers!r}: give a number from 1 up, or `auto`")
    if profile.devices < 1 or (profile.devices > 1) != (profile.strategy != AUTO):
        correction = "set both or neither, as in --set devices=2 --set strategy=ddp"
        raise UsageError(f"devices {profile.devices} with strategy {profile.strategy}: {correction}")
    if profile.devices > 1 and (profile.workers not in (AUTO, 1) or ":" in profile.backbone.device):
        settings = f"workers {profile.workers}, device {profile.backbone.device}"
        raise UsageError(f"devices {profile.devices}: one group of processes takes the first devices, found {settings}")
    if profile.pack != AUTO and not (isinstance(profile.pack, int) and profile.pack > 0):
        raise UsageError(f"pack {profile.pack!r}: give a number of cells from 1 up, or `auto`")
