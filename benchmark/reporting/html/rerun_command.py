"""Builds the command that runs a cell again: the profile, its overrides, and the cell's coordinates in the grid."""

import shlex
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmark.config import loading as profiles
from benchmark.config.profile import Profile
from benchmark.system.redaction import get_backbone_display_name
from tasks.suites import CHINESE, SUITES

RERUN_FOLDER = "results/again"  # another folder: in the original one the finished cell would be cached
# fields that the command sets otherwise, or that do not change a score
OMITTED_FIELDS = {
    "name",
    "about",
    "suite",
    "methods",
    "tasks",
    "shots",
    "seeds",
    "results",
    "wandb",
    "workers",
    "pack",
    "backbone",
}
FOLDER_PLACEHOLDER = "DIR"  # replaces paths of this machine


def build_rerun_command(profile: Profile) -> str:
    """Build the command without the cell; the page adds --methods, --tasks, --shots and --seeds."""
    arguments = [
        "python -m benchmark run",
        f"--profile {shlex.quote(get_profile_argument(profile))}",
        *iterate_changed_flags(profile),
    ]
    return " ".join([*arguments, f"--results {RERUN_FOLDER}"])


def get_profile_argument(profile: Profile) -> str:
    """Return the value of --profile: the name of a preset, or NAME.yaml."""
    return profile.name if profile.name in profiles.list_presets() else f"{profile.name}.yaml"


def iterate_changed_flags(profile: Profile) -> Iterator[str]:
    """Yield flags for every field that differs from the preset; none for a profile from a YAML file."""
    if get_profile_argument(profile) != profile.name:
        return
    is_builtin_suite = SUITES.get(profile.suite.name) == profile.suite
    changed = {"suite": profile.suite.name if is_builtin_suite else asdict(profile.suite), "tasks": profile.tasks}
    old = asdict(profiles.load_profile(profile.name, changed))
    new = asdict(profile)
    if profile.suite != CHINESE:
        yield f"--suite {profile.suite.name}" if is_builtin_suite else format_setting("suite", asdict(profile.suite))
    if new["backbone"]["name"] != old["backbone"]["name"]:
        name = new["backbone"]["name"]
        if Path(name).expanduser().is_dir():
            name = f"{FOLDER_PLACEHOLDER}/{get_backbone_display_name(name)}"
        yield f"--backbone {shlex.quote(name)}"
    for field, value in new["backbone"].items():
        if field not in ("name", "device") and value != old["backbone"][field]:
            yield format_setting(f"backbone.{field}", value)
    if new["data_dir"] != old["data_dir"]:
        yield f"--data-dir {FOLDER_PLACEHOLDER}"
    for field in sorted(new.keys() - OMITTED_FIELDS - {"data_dir"}):
        yield from iterate_changed_settings(field, old[field], new[field])


def iterate_changed_settings(field_path: str, default_value: Any, value: Any) -> Iterator[str]:
    """Yield --set flags for a changed value; for a mapping, one flag per changed key if keys can be set separately."""
    if default_value == value:
        return
    is_mapping = isinstance(default_value, dict) and isinstance(value, dict) and default_value.keys() <= value.keys()
    if not is_mapping or any("." in key for key in value):  # a dot separates the keys of a field path
        yield format_setting(field_path, value)
        return
    for key in sorted(value):
        yield from iterate_changed_settings(f"{field_path}.{key}", default_value.get(key), value[key])


def format_setting(field_path: str, value: Any) -> str:
    """Format a --set flag with the value as one line of YAML, quoted for the shell."""
    import yaml

    text = yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("\n...\n").strip()
    return f"--set {shlex.quote(f'{field_path}={text}')}"
