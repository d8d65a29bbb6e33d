"""Options of a method: a frozen dataclass beside its class, in which a typing error is an error."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import isfinite
from typing import Any, TypeVar

from tasks.example import UsageError
from tasks.typed import near

SCHEDULES = ("linear", "cosine", "constant")


@dataclass(frozen=True)
class Config:
    """`warmup` is a share of the steps, `clip` the largest gradient norm of a slot, or of what slots share; 0: none."""

    lr: float = 2e-4
    weight_decay: float = 0.0
    warmup: float = 0.06
    schedule: str = "linear"
    clip: float = 1.0

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise UsageError(f"no schedule {self.schedule!r}; there are: {', '.join(SCHEDULES)}")
        if self.lr < 0 or self.weight_decay < 0 or self.clip < 0 or not 0 <= self.warmup <= 1:
            found = f"{self.lr}, {self.weight_decay}, {self.clip}, {self.warmup}"
            raise UsageError(f"lr, weight_decay and clip are 0 or more, warmup is a share from 0 to 1; found {found}")


def some_of(value: str, known: tuple[str, ...], where: str) -> None:
    """Names in one string, each of them known and at least one."""
    if not value.split() or set(value.split()) - set(known):
        raise UsageError(f"{where} takes some of: {' '.join(known)}; found {value!r}")


Kind = TypeVar("Kind", bound=Config)


def configure(kind: type[Kind], values: Mapping[str, Any], where: str) -> Kind:
    """Options by name -> the dataclass of this kind."""
    known = {field.name: field.default for field in fields(kind)}
    found = {}
    for key, value in values.items():
        if key not in known:
            raise UsageError(f"{where}: no option {key!r}; {near(key, known)}")
        found[key] = _as(type(known[key]), value, f"{where}: option {key!r}")
    return kind(**found)


def _as(kind: type, value: Any, where: str) -> Any:
    """A value from YAML or a command line as the kind the default has ("1e-4" is a string to YAML)."""
    try:
        if kind is bool or isinstance(value, bool):
            if isinstance(value, bool) and kind is bool:
                return value
            raise ValueError
        converted = kind(value)
        if (kind is int and converted != float(value)) or (kind is float and not isfinite(converted)):
            raise ValueError
        return converted
    except (TypeError, ValueError, OverflowError):
        raise UsageError(f"{where} takes {kind.__name__}, found {value!r}") from None
