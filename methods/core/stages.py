"""The phases of training, as data: the harness walks them and never asks which method it has."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from methods.core.config import MethodConfig


class Stage(NamedTuple):
    """One training phase: on the `sources` together or on each `target`, with `mixed` batches or `episodes`."""

    name: str
    trained_on: str
    batch_mode: str = "mixed"


SOURCE_STAGE = Stage("source", "sources")
TARGET_STAGE = Stage("target", "target", "packed")


class MethodDependency(NamedTuple):
    """A method that is trained alone on every source first: with these options, and some of the heir's own."""

    method_name: str
    options: Mapping[str, Any]
    shared_options: tuple[str, ...] = ()

    def resolve_options(self, dependant_config: MethodConfig) -> dict[str, Any]:
        """The options a parent has to run with for an heir of this configuration."""
        return {**self.options, **{name: getattr(dependant_config, name) for name in self.shared_options}}


class OptimizerGroup(NamedTuple):
    """How a parameter learns: learning rate and decoupled weight decay; `rests`: it stays where it is in warm-up."""

    lr: float
    weight_decay: float = 0.0
    frozen_during_warmup: bool = False
