"""Training stages as data: the benchmark runs a method's stages without special cases for single methods."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from methods.core.config import MethodConfig


class Stage(NamedTuple):
    """One training stage.

    `trained_on` is "sources" (all source tasks together) or "target" (each target separately). `batch_mode` is "mixed",
    "episodes" or "packed".
    """

    name: str
    trained_on: str
    batch_mode: str = "mixed"


SOURCE_STAGE = Stage("source", "sources")
TARGET_STAGE = Stage("target", "target", "packed")


class MethodDependency(NamedTuple):
    """A method that is first trained on every source separately.

    It runs with `options`, and with the dependant's values of the `shared_options`.
    """

    method_name: str
    options: Mapping[str, Any]
    shared_options: tuple[str, ...] = ()

    def resolve_options(self, dependant_config: MethodConfig) -> dict[str, Any]:
        """Options of the dependency for a dependant with this configuration."""
        return {**self.options, **{name: getattr(dependant_config, name) for name in self.shared_options}}


class OptimizerGroup(NamedTuple):
    """Learning rate, decoupled weight decay, and whether the parameter stays frozen during warm-up."""

    lr: float
    weight_decay: float = 0.0
    frozen_during_warmup: bool = False
