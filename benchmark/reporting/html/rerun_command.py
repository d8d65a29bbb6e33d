"""The command that runs a cell again: the profile, what was changed in it, and the cell's own place in the grid."""

import shlex
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmark.config import loading as profiles
from benchmark.config.profile import Profile
from benchmark.system.redaction import get_backbone_display_name
from tasks.suites import CHINESE, SUITES

RERUN_FOLDER = "results/again"  # elsewhere, or the finished cell would only be found
OMITTED_FIELDS = {"name", "about", "suite", "methods", "tasks", "shots", "seeds", "results", "wandb", "workers", "pack",
       "backbone"}  # fmt: skip
FOLDER_PLACEHOLDER = "DIR"  # in place of a folder of this machine


def build_rerun_command(profile: Profile) -> str:
    """Without the cell: a page adds --methods, --tasks, --shots and --seeds."""
    words = [
        "python -m benchmark run",
        f"--profile {shlex.quote(get_profile_argument(profile))}",
        *iterate_changed_flags(profile),
    ]
    return " ".join([*words, f"--results {RERUN_FOLDER}"])


def get_profile_argument(profile: Profile) -> str:
    return profile.name if profile.name in profiles.list_presets() else f"{profile.name}.yaml"


def iterate_changed_flags(profile: Profile) -> Iterator[str]:
    """Flags for every field that is not as the profile's file has it."""
    if get_profile_argument(profile) != profile.name:
        return
    shipped = SUITES.get(profile.suite.name) == profile.suite
    changed = {"suite": profile.suite.name if shipped else asdict(profile.suite), "tasks": profile.tasks}
    old, new = asdict(profiles.load_profile(profile.name, changed)), asdict(profile)
    if profile.suite != CHINESE:
        yield f"--suite {profile.suite.name}" if shipped else format_setting("suite", asdict(profile.suite))
    if new["backbone"]["name"] != old["backbone"]["name"]:
        folder = Path(new["backbone"]["name"]).expanduser().is_dir()
        name = (
            f"{FOLDER_PLACEHOLDER}/{get_backbone_display_name(new['backbone']['name'])}"
            if folder
            else new["backbone"]["name"]
        )
        yield f"--backbone {shlex.quote(name)}"
    for field, value in new["backbone"].items():
        if field not in ("name", "device") and value != old["backbone"][field]:
            yield format_setting(f"backbone.{field}", value)
    if new["data_dir"] != old["data_dir"]:
        yield f"--data-dir {FOLDER_PLACEHOLDER}"
    for field in sorted(new.keys() - OMITTED_FIELDS - {"data_dir"}):
        yield from iterate_changed_settings(field, old[field], new[field])


def iterate_changed_settings(field_path: str, default_value: Any, value: Any) -> Iterator[str]:
    """A setting for a value, or for each part of it that differs where parts can be set alone."""
    if default_value == value:
        return
    alone = isinstance(default_value, dict) and isinstance(value, dict) and default_value.keys() <= value.keys()
    if not alone or any("." in key for key in value):  # a path's dots are between its parts
        yield format_setting(field_path, value)
        return
    for key in sorted(value):
        yield from iterate_changed_settings(f"{field_path}.{key}", default_value.get(key), value[key])


def format_setting(field_path: str, value: Any) -> str:
    import yaml

    text = yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("\n...\n").strip()
    return f"--set {shlex.quote(f'{field_path}={text}')}"
