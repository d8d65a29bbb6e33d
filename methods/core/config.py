"""Options of a method: a frozen dataclass beside its class, in which a typing error is an error."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import isfinite
from typing import Any, TypeVar

from tasks.core.suggestions import suggest_name
from tasks.core.types import UsageError

LR_SCHEDULES = ("linear", "cosine", "constant")


@dataclass(frozen=True)
class MethodConfig:
    """`warmup` is a share of the steps, `clip` the largest gradient norm of a slot, or of what slots share; 0: none."""

    lr: float = 2e-4
    weight_decay: float = 0.0
    warmup: float = 0.06
    schedule: str = "linear"
    clip: float = 1.0

    def __post_init__(self) -> None:
        if self.schedule not in LR_SCHEDULES:
            raise UsageError(f"no schedule {self.schedule!r}; there are: {', '.join(LR_SCHEDULES)}")
        if self.lr < 0 or self.weight_decay < 0 or self.clip < 0 or not 0 <= self.warmup <= 1:
            found = f"{self.lr}, {self.weight_decay}, {self.clip}, {self.warmup}"
            raise UsageError(f"lr, weight_decay and clip are 0 or more, warmup is a share from 0 to 1; found {found}")


def validate_choices(value: str, choices: tuple[str, ...], context: str) -> None:
    """Names in one string, each of them known and at least one."""
    if not value.split() or set(value.split()) - set(choices):
        raise UsageError(f"{context} takes some of: {' '.join(choices)}; found {value!r}")


ConfigType = TypeVar("ConfigType", bound=MethodConfig)


def build_config(config_class: type[ConfigType], options: Mapping[str, Any], context: str) -> ConfigType:
    """Options by name -> the dataclass of this kind."""
    known = {field.name: field.default for field in fields(config_class)}
    found = {}
    for key, value in options.items():
        if key not in known:
            raise UsageError(f"{context}: no option {key!r}; {suggest_name(key, known)}")
        found[key] = _coerce(type(known[key]), value, f"{context}: option {key!r}")
    return config_class(**found)


def _coerce(value_type: type, value: Any, context: str) -> Any:
    """A value from YAML or a command line as the kind the default has ("1e-4" is a string to YAML)."""
    try:
        if value_type is bool or isinstance(value, bool):
            if isinstance(value, bool) and value_type is bool:
                return value
            raise ValueError
        converted = value_type(value)
        if (value_type is int and converted != float(value)) or (value_type is float and not isfinite(converted)):
            raise ValueError
        return converted
    except (TypeError, ValueError, OverflowError):
        raise UsageError(f"{context} takes {value_type.__name__}, found {value!r}") from None
