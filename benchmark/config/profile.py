"""Profile: typed configuration of a grid, loaded from a YAML file and command-line flags. Imports no torch."""

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchmark.config.budget import Budget
from methods import NAMES as METHODS
from tasks.suites import CHINESE, SUITES, Suite

FULL = "full"  # value of `shots`: all training examples
SEED_STREAMS = ("split", "start", "order")  # random streams of a cell: data split, initial weights, order of examples
AUTO = "auto"


@dataclass(frozen=True)
class BackboneConfig:
    """Backbone (`tiny`, a local folder or a Hugging Face hub id) and how it is loaded."""

    name: str = "tiny"
    revision: str | None = None  # revision of a hub id; without one, results are not reproducible
    dtype: Literal["float32", "bfloat16", "mixed"] = "float32"
    device: str = AUTO  # auto: cuda if available, else cpu
    attention: Literal["sdpa", "eager"] = "sdpa"
    checkpointing: bool = False  # activation checkpointing: less memory, at the cost of a second forward pass


@dataclass(frozen=True)
class Profile:
    """Configuration of one grid: method x task x shots x seed, on one backbone, with one training budget."""

    name: str = "mine"
    about: str = ""
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    source: Literal["sample", "local", "hub"] = "sample"
    data_dir: str | None = None  # folder of the original files, for `source: local`
    suite: Suite = CHINESE  # in YAML: the name of a built-in suite, or a suite with its `sources` and `targets`
    methods: tuple[str, ...] = METHODS  # variants; `lora:rank-2` is lora with the options that `config` has for it
    tasks: tuple[str, ...] = CHINESE.tasks  # of the suite, or custom; also `all`, `sources` or `targets`
    shots: tuple[int | str, ...] = (16,)
    seeds: tuple[int, ...] = (0, 1, 2)
    seed_streams: tuple[str, ...] = SEED_STREAMS  # streams that depend on the seed; the others use seed 0
    sources: tuple[str, ...] = CHINESE.sources  # tasks that source stages train on, except the target itself
    # source tasks of a target that is itself a source. "task": all other sources, so that each such target needs its
    # own source stage; "half": the half of the sources without the target (alternating), so that two stages serve all
    leave_out: Literal["task", "half"] = "task"
    source_shots: int | str = FULL  # shots of source stages
    budget: Budget = field(default_factory=Budget)
    source_budget: Budget | None = None  # budget of source stages; default: `budget`
    config: dict[str, dict[str, Any]] = field(default_factory=dict)  # method or variant -> changed options
    limit: dict[str, int] = field(default_factory=dict)  # split -> maximum number of examples, as {test: 200}
    max_length: int = 512  # tokens of a prompt; longer texts are truncated
    normalise: Literal["sum", "mean"] = "sum"  # reduction of an answer's log-likelihood over its tokens
    keep_adapters: bool = False  # save the adapters of all cells, not only of those that other cells depend on
    devices: int = 1  # devices that train each cell together (data-parallel), for models too large for one device
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"  # experimental; ddp: whole backbone on each; fsdp: sharded
    workers: int | str = AUTO  # worker processes; auto: one per CPU core, or one on a GPU
    pack: int | str = AUTO  # maximum cells of one method that train together; auto: as many as fill the device
    results: str | None = None  # results folder; default: results/<grid_name>
    wandb: Literal["off", "offline", "online"] = "off"

    @property
    def grid_name(self) -> str:
        """Name of the grid: the profile's, followed by the suite's unless that is the default or named the same."""
        return self.name if self.suite.name in (CHINESE.name, self.name) else f"{self.name}-{self.suite.name}"

    @property
    def cli_flags(self) -> str:
        """Command-line flags that select this profile, suite and results folder."""
        flags = f"--profile {self.name}"
        if self.suite.name in SUITES and self.suite != CHINESE:
            flags += f" --suite {self.suite.name}"
        if self.results:
            flags += f" --results {shlex.quote(self.results)}"
        return flags

    @property
    def results_folder(self) -> Path:
        """Folder of the results: `results`, by default results/<grid_name>."""
        return Path(self.results) if self.results else Path("results") / self.grid_name

    def get_stream_seeds(self, seed: int) -> dict[str, int]:
        """Return random stream -> its seed; streams that are not in `seed_streams` have seed 0."""
        return {stream: seed if stream in self.seed_streams else 0 for stream in SEED_STREAMS}
