"""A profile: everything that decides a grid, typed, from a YAML file and flags. Imports nothing heavy."""

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchmark.config.budget import Budget
from methods import NAMES as METHODS
from tasks.suites import CHINESE, SUITES, Suite

FULL = "full"  # shots: all training examples
SEED_STREAMS = ("split", "start", "order")  # what a cell's seed drives
AUTO = "auto"


@dataclass(frozen=True)
class BackboneConfig:
    """The backbone: `tiny`, a local folder or a hub id, and how it is loaded."""

    name: str = "tiny"
    revision: str | None = None  # of a hub id; without one the result is not reproducible
    dtype: Literal["float32", "bfloat16", "mixed"] = "float32"
    device: str = AUTO  # cuda where there is one, else cpu
    attention: Literal["sdpa", "eager"] = "sdpa"
    checkpointing: bool = False  # of activations: memory for a second forward pass


@dataclass(frozen=True)
class Profile:
    """One grid: every method x task x shots x seed, on one backbone, under one budget."""

    name: str = "mine"
    about: str = ""
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    source: Literal["sample", "local", "hub"] = "sample"
    data_dir: str | None = None  # the folder of `source: local`
    suite: Suite = CHINESE  # whose tasks; a name, or one of the profile's own with `sources` and `targets`
    methods: tuple[str, ...] = METHODS  # rows; `lora:rank-2` is lora once more, under the options `config` has for it
    tasks: tuple[str, ...] = CHINESE.tasks  # of the suite, or one's own; `all`, `sources` and `targets` name several
    shots: tuple[int | str, ...] = (16,)
    seeds: tuple[int, ...] = (0, 1, 2)
    seed_streams: tuple[str, ...] = SEED_STREAMS  # which streams follow the seed; the others stay at 0
    sources: tuple[str, ...] = CHINESE.sources  # what source stages train on, less the target itself
    # what a target that is itself a source may learn from: all the others, each target with a source stage of its own,
    # or the half of the sources without it (every other one): two stages for all
    leave_out: Literal["task", "half"] = "task"
    source_shots: int | str = FULL
    budget: Budget = field(default_factory=Budget)
    source_budget: Budget | None = None  # of source stages; default: `budget`
    config: dict[str, dict[str, Any]] = field(default_factory=dict)  # method or row -> options that differ
    limit: dict[str, int] = field(default_factory=dict)  # most examples of a split, as {test: 200}
    max_length: int = 512  # tokens of a prompt; longer texts are cut
    normalise: Literal["sum", "mean"] = "sum"  # of an answer's log-likelihood over its tokens
    keep_adapters: bool = False  # also of cells on which nothing rests
    devices: int = 1  # that train each cell together, where one has no room for it: rows of a batch are shared out
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"  # how: the backbone whole on each device, or in shares
    workers: int | str = AUTO  # processes: one per core on a CPU, one per GPU
    pack: int | str = AUTO  # most cells of one method that train together: auto keeps the device busy, 1 is each alone
    results: str | None = None  # folder; default: results/<title>
    wandb: Literal["off", "offline", "online"] = "off"

    @property
    def grid_name(self) -> str:
        """What the grid is called: the profile, and the suite unless that is the usual one or the profile's own."""
        return self.name if self.suite.name in (CHINESE.name, self.name) else f"{self.name}-{self.suite.name}"

    @property
    def cli_flags(self) -> str:
        """How a command line asks for it."""
        shipped = self.suite.name in SUITES and self.suite != CHINESE
        folder = f" --results {shlex.quote(self.results)}" if self.results else ""
        return f"--profile {self.name}{f' --suite {self.suite.name}' if shipped else ''}{folder}"

    @property
    def results_folder(self) -> Path:
        return Path(self.results) if self.results else Path("results") / self.grid_name

    def get_stream_seeds(self, seed: int) -> dict[str, int]:
        """The seed of each stream."""
        return {stream: seed if stream in self.seed_streams else 0 for stream in SEED_STREAMS}
