"""The phases of training, as data: the harness walks them and never asks which method it has."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from methods.config import Config


class Stage(NamedTuple):
    """One training phase: on the `sources` together or on each `target`, with `mixed` batches or `episodes`."""

    name: str
    on: str
    batches: str = "mixed"


SOURCE = Stage("source", "sources")
TARGET = Stage("target", "target", "packed")


class Parent(NamedTuple):
    """A method that is trained alone on every source first: with these options, and some of the heir's own."""

    method: str
    options: Mapping[str, Any]
    follows: tuple[str, ...] = ()

    def configure(self, heir: Config) -> dict[str, Any]:
        """The options a parent has to run with for an heir of this configuration."""
        return {**self.options, **{name: getattr(heir, name) for name in self.follows}}


class Rate(NamedTuple):
    """How a parameter learns: learning rate and decoupled weight decay; `rests`: it stays where it is in warm-up."""

    lr: float
    weight_decay: float = 0.0
    rests: bool = False
