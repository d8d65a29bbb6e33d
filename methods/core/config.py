"""Options of a method: the base dataclass, and its construction from names and values with validation."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import isfinite
from typing import Any, TypeVar

from tasks.core.suggestions import suggest_name
from tasks.core.types import UsageError

LR_SCHEDULES = ("linear", "cosine", "constant")


@dataclass(frozen=True)
class MethodConfig:
    """Options common to all methods.

    `warmup` is a fraction of the steps. `clip` is the maximum gradient norm of a slot's parameters, or of those that
    slots share; 0 disables clipping. Raises UsageError for an invalid value.
    """

    lr: float = 2e-4
    weight_decay: float = 0.0
    warmup: float = 0.06
    schedule: str = "linear"
    clip: float = 1.0

    def __post_init__(self) -> None:
        if self.schedule not in LR_SCHEDULES:
            raise UsageError(f"no schedule {self.schedule!r}; there are: {', '.join(LR_SCHEDULES)}")
        if self.lr < 0 or self.weight_decay < 0 or self.clip < 0 or not 0 <= self.warmup <= 1:
            values = f"{self.lr}, {self.weight_decay}, {self.clip}, {self.warmup}"
            raise UsageError(f"lr, weight_decay and clip must be 0 or more, warmup from 0 to 1; found {values}")


def validate_choices(value: str, choices: tuple[str, ...], context: str) -> None:
    """Raise UsageError unless `value` is one or more of the choices, separated by spaces."""
    if not value.split() or set(value.split()) - set(choices):
        raise UsageError(f"{context} takes some of: {' '.join(choices)}; found {value!r}")


ConfigType = TypeVar("ConfigType", bound=MethodConfig)


def build_config(config_class: type[ConfigType], options: Mapping[str, Any], context: str) -> ConfigType:
    """Build a config from option values. Raises UsageError for an unknown name or an invalid value."""
    defaults = {field.name: field.default for field in fields(config_class)}
    values = {}
    for key, value in options.items():
        if key not in defaults:
            raise UsageError(f"{context}: no option {key!r}; {suggest_name(key, defaults)}")
        values[key] = _coerce(type(defaults[key]), value, f"{context}: option {key!r}")
    return config_class(**values)


def _coerce(value_type: type, value: Any, context: str) -> Any:
    """Convert a value from YAML or the command line to the type of the default (YAML reads "1e-4" as a string)."""
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
