"""Loading of profiles: YAML files and presets, `--set` overrides, and resolution of suites and task groups."""

from collections.abc import Iterable, Mapping
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
    """Names of the profiles that ship with the benchmark, sorted."""
    return sorted(path.stem for path in PRESETS_FOLDER.glob("*.yaml"))


def load_profile(name: str, changes: Mapping[str, Any] | None = None, settings: Iterable[str] = ()) -> Profile:
    """Load and validate a profile by preset name or file path.

    `changes` overrides top-level fields (None: unchanged); then `settings` of the form `a.b=value` are applied.
    Raises `UsageError` if the profile does not exist or is invalid.
    """
    profile_fields = read_profile_fields(name)
    profile_fields |= {key: value for key, value in (changes or {}).items() if value is not None}
    for setting in settings:
        apply_setting(profile_fields, setting)
    return validate_profile(parse_profile(profile_fields, name))


def read_profile_fields(name: str) -> dict[str, Any]:
    """Read the fields of a preset or of a YAML file; the default of `name` is the name of the file."""
    path = PRESETS_FOLDER / f"{name}.yaml" if name in list_presets() else Path(name)
    if not path.is_file():
        raise UsageError(f"no profile {name!r}; {suggest_name(name, list_presets())} (or the path of a YAML file)")
    return {"name": path.stem} | yaml_loading.load_yaml_fields(path)


def apply_setting(profile_fields: dict[str, Any], setting: str) -> None:
    """Set one field in place: `budget.epochs=3`, `lora.lr=0.01` or, for every method, `method.config.rank=4`."""
    path, equals, text = setting.partition("=")
    *outer, last = path.strip().split(".")
    if ":" in path:  # a method given by import path, whose dots do not separate fields
        outer = [path.strip().rpartition(".")[0].removeprefix("config.")]
    if not equals or not last:
        raise UsageError(f"--set {setting!r}: write it as name.option=value, such as lora.lr=0.01 or budget.epochs=3")
    if outer and outer[0] not in Profile.__dataclass_fields__:
        outer = ["config", *(part for part in outer if part != "config")]
        if len(outer) != 2:
            raise UsageError(f"--set {setting!r}: write it as <method>.<option>=value, such as lora.lr=0.01")
    for part in outer:
        inner_fields = profile_fields.get(part)
        profile_fields[part] = dict(inner_fields) if isinstance(inner_fields, Mapping) else {}
        profile_fields = profile_fields[part]
    profile_fields[last] = yaml_loading.parse_yaml(text, f"--set {setting[:80]!r}")


def parse_profile(profile_fields: Mapping[str, Any], context: str) -> Profile:
    """Build a profile from its fields; `all` means every method, or every task of the suite.

    `tasks` may also be `sources` or `targets`. `context` names the profile in error messages (`UsageError`).
    """
    profile_fields = dict(profile_fields)
    suite = resolve_suite(profile_fields.get("suite", CHINESE.name), str(profile_fields["name"]), f"profile {context}")
    task_groups = {"all": suite.tasks, "sources": suite.sources, "targets": suite.targets}
    requested_tasks = profile_fields.get("tasks", "all")
    if isinstance(requested_tasks, list | tuple) and len(requested_tasks) == 1:
        requested_tasks = requested_tasks[0]
    if isinstance(requested_tasks, str) and requested_tasks in task_groups:
        profile_fields["tasks"] = task_groups[requested_tasks]
    if profile_fields.get("methods") in ("all", ["all"]):
        profile_fields["methods"] = METHODS
    return coerce_to_dataclass(
        Profile, {"sources": suite.sources} | profile_fields | {"suite": suite}, f"profile {context}"
    )


def resolve_suite(requested_suite: Any, profile_name: str, context: str) -> Suite:
    """Return a built-in suite by name, or the suite that a profile declares, named after the profile by default."""
    if isinstance(requested_suite, Suite):
        return requested_suite
    if isinstance(requested_suite, str):
        if requested_suite not in SUITES:
            raise UsageError(f"no suite {requested_suite!r}; {suggest_name(requested_suite, SUITES)}")
        return SUITES[requested_suite]
    if isinstance(requested_suite, Mapping):
        requested_suite = {"name": profile_name, **requested_suite}
    return coerce_to_dataclass(Suite, requested_suite, context, "suite")
