"""TODO."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmark.config.profile import Profile
from benchmark.config.validation import validate_profile
from methods import NAMES as METHODS
from tasks.core import yaml_loading
from tasks.core.coercion import coerce_to_dataclass
from tasks.core.suggestions import suggest_name
from tasks.core.types import UsageError
from tasks.suites import CHINESE, SUITES, Suite

PRESETS_FOLDER = Path(__file__).parent / "presets"


def list_presets() -> list[str]:
    return sorted(path.stem for path in PRESETS_FOLDER.glob("*.yaml"))


def load_profile(name: str, changes: Mapping[str, Any] | None = None, settings: Iterable[str] = ()) -> Profile:
    """A profile by name or file, with changed fields and `a.b=value` settings on top; checked."""
    values = read_profile_fields(name)
    values = values | {key: value for key, value in (changes or {}).items() if value is not None}
    for setting in settings:
        apply_setting(values, setting)
    return validate_profile(parse_profile(values, name))


def read_profile_fields(name: str) -> dict[str, Any]:
    """The fields of a YAML file, or of a profile that ships."""
    path = PRESETS_FOLDER / f"{name}.yaml" if name in list_presets() else Path(name)
    if not path.is_file():
        raise UsageError(f"no profile {name!r}; {suggest_name(name, list_presets())} (or the path of a YAML file)")
    return {"name": path.stem} | yaml_loading.load_yaml_fields(path)


def apply_setting(profile_fields: dict[str, Any], setting: str) -> None:
    """Put `budget.epochs=3`, `lora.lr=0.01` or, for every method, `method.config.rank=4` into the fields."""
    path, equals, text = setting.partition("=")
    *outer, last = path.strip().split(".")
    if ":" in path:  # of a method by import path, whose own dots part nothing
        outer = [path.strip().rpartition(".")[0].removeprefix("config.")]
    if not equals or not last:
        raise UsageError(f"--set {setting!r}: write it as name.option=value, such as lora.lr=0.01 or budget.epochs=3")
    if outer and outer[0] not in Profile.__dataclass_fields__:
        outer = ["config", *(part for part in outer if part != "config")]
        if len(outer) != 2:
            raise UsageError(f"--set {setting!r}: write it as <method>.<option>=value, such as lora.lr=0.01")
    for part in outer:
        found = profile_fields.get(part)
        profile_fields[part] = dict(found) if isinstance(found, Mapping) else {}
        profile_fields = profile_fields[part]
    profile_fields[last] = yaml_loading.parse_yaml(text, f"--set {setting[:80]!r}")


def parse_profile(profile_fields: Mapping[str, Any], context: str) -> Profile:
    """Fields as a profile; `all` stands for every method, or every task of the suite."""
    profile_fields = dict(profile_fields)
    suite = resolve_suite(profile_fields.get("suite", CHINESE.name), str(profile_fields["name"]), f"profile {context}")
    several = {"all": suite.tasks, "sources": suite.sources, "targets": suite.targets}
    asked = profile_fields.get("tasks", "all")
    word = asked[0] if isinstance(asked, list | tuple) and len(asked) == 1 else asked
    if isinstance(word, str) and word in several:
        profile_fields["tasks"] = several[word]
    if profile_fields.get("methods") in ("all", ["all"]):
        profile_fields["methods"] = METHODS
    return coerce_to_dataclass(
        Profile, {"sources": suite.sources} | profile_fields | {"suite": suite}, f"profile {context}"
    )


def resolve_suite(requested_suite: Any, profile_name: str, context: str) -> Suite:
    """A suite that ships, by its name, or one that the profile declares; without a name it is called as the profile."""
    if isinstance(requested_suite, Suite):
        return requested_suite
    if isinstance(requested_suite, str):
        if requested_suite not in SUITES:
            raise UsageError(f"no suite {requested_suite!r}; {suggest_name(requested_suite, SUITES)}")
        return SUITES[requested_suite]
    return coerce_to_dataclass(
        Suite,
        {"name": profile_name, **requested_suite} if isinstance(requested_suite, Mapping) else requested_suite,
        context,
        "suite",
    )


def profile_to_dict(profile: Profile) -> dict[str, Any]:
    return asdict(profile)
