"""The command that runs a cell again: the profile, what was changed in it, and the cell's own place in the grid."""

import shlex
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmark import profile as profiles
from benchmark.profile import Profile
from benchmark.result import backbone_title
from tasks.suites import CHINESE, SUITES

FOLDER = "results/again"  # elsewhere, or the finished cell would only be found
OWN = {"name", "about", "suite", "methods", "tasks", "shots", "seeds", "results", "wandb", "workers", "pack",
       "backbone"}  # fmt: skip
NOWHERE = "DIR"  # in place of a folder of this machine


def command(profile: Profile) -> str:
    """Without the cell: a page adds --methods, --tasks, --shots and --seeds."""
    words = ["python -m benchmark run", f"--profile {shlex.quote(base(profile))}", *changes(profile)]
    return " ".join([*words, f"--results {FOLDER}"])


def base(profile: Profile) -> str:
    return profile.name if profile.name in profiles.names() else f"{profile.name}.yaml"


def changes(profile: Profile) -> Iterator[str]:
    """Flags for every field that is not as the profile's file has it."""
    if base(profile) != profile.name:
        return
    shipped = SUITES.get(profile.suite.name) == profile.suite
    changed = {"suite": profile.suite.name if shipped else asdict(profile.suite), "tasks": profile.tasks}
    old, new = asdict(profiles.load(profile.name, changed)), asdict(profile)
    if profile.suite != CHINESE:
        yield f"--suite {profile.suite.name}" if shipped else setting("suite", asdict(profile.suite))
    if new["backbone"]["name"] != old["backbone"]["name"]:
        folder = Path(new["backbone"]["name"]).expanduser().is_dir()
        name = f"{NOWHERE}/{backbone_title(new['backbone']['name'])}" if folder else new["backbone"]["name"]
        yield f"--backbone {shlex.quote(name)}"
    for field, value in new["backbone"].items():
        if field not in ("name", "device") and value != old["backbone"][field]:
            yield setting(f"backbone.{field}", value)
    if new["data_dir"] != old["data_dir"]:
        yield f"--data-dir {NOWHERE}"
    for field in sorted(new.keys() - OWN - {"data_dir"}):
        yield from different(field, old[field], new[field])


def different(path: str, old: Any, new: Any) -> Iterator[str]:
    """A setting for a value, or for each part of it that differs where parts can be set alone."""
    if old == new:
        return
    alone = isinstance(old, dict) and isinstance(new, dict) and old.keys() <= new.keys()
    if not alone or any("." in key for key in new):  # a path's dots are between its parts
        yield setting(path, new)
        return
    for key in sorted(new):
        yield from different(f"{path}.{key}", old.get(key), new[key])


def setting(path: str, value: Any) -> str:
    import yaml

    text = yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("\n...\n").strip()
    return f"--set {shlex.quote(f'{path}={text}')}"
