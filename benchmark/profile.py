"""A profile: everything that decides a grid, typed, from a YAML file and flags. Imports nothing heavy."""

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from benchmark.budget import Budget
from methods import NAMES as METHODS
from methods import method_of
from tasks import NAMES as TASKS
from tasks import fields, foreign
from tasks.example import UsageError
from tasks.suites import CHINESE, SUITES, Suite
from tasks.typed import near, typed

FOLDER = Path(__file__).parent / "profiles"
FULL = "full"  # shots: all training examples
STREAMS = ("split", "start", "order")  # what a cell's seed drives
AUTO = "auto"
PLAIN = r"\w[\w.+-]*"  # of what becomes part of a file's name
DEVICES = r"auto|cpu|mps|cuda(:\d+)?"
SHORTEST = 16  # tokens: no instruction fits in fewer


@dataclass(frozen=True)
class Weights:
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
    backbone: Weights = field(default_factory=Weights)
    source: Literal["sample", "local", "hub"] = "sample"
    data_dir: str | None = None  # the folder of `source: local`
    suite: Suite = CHINESE  # whose tasks; a name, or one of the profile's own with `sources` and `targets`
    methods: tuple[str, ...] = METHODS  # rows; `lora:rank-2` is lora once more, under the options `config` has for it
    tasks: tuple[str, ...] = CHINESE.tasks  # of the suite, or one's own; `all`, `sources` and `targets` name several
    shots: tuple[int | str, ...] = (16,)
    seeds: tuple[int, ...] = (0, 1, 2)
    vary: tuple[str, ...] = STREAMS  # which streams follow the seed; the others stay at 0
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
    def title(self) -> str:
        """What the grid is called: the profile, and the suite unless that is the usual one or the profile's own."""
        return self.name if self.suite.name in (CHINESE.name, self.name) else f"{self.name}-{self.suite.name}"

    @property
    def flags(self) -> str:
        """How a command line asks for it."""
        shipped = self.suite.name in SUITES and self.suite != CHINESE
        folder = f" --results {shlex.quote(self.results)}" if self.results else ""
        return f"--profile {self.name}{f' --suite {self.suite.name}' if shipped else ''}{folder}"

    @property
    def folder(self) -> Path:
        return Path(self.results) if self.results else Path("results") / self.title

    def seeds_of(self, seed: int) -> dict[str, int]:
        """The seed of each stream."""
        return {stream: seed if stream in self.vary else 0 for stream in STREAMS}


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load(name: str, changes: Mapping[str, Any] | None = None, settings: Iterable[str] = ()) -> Profile:
    """A profile by name or file, with changed fields and `a.b=value` settings on top; checked."""
    values = read(name)
    values = values | {key: value for key, value in (changes or {}).items() if value is not None}
    for setting in settings:
        assign(values, setting)
    return check(named(values, name))


def read(name: str) -> dict[str, Any]:
    """The fields of a YAML file, or of a profile that ships."""
    path = FOLDER / f"{name}.yaml" if name in names() else Path(name)
    if not path.is_file():
        raise UsageError(f"no profile {name!r}; {near(name, names())} (or the path of a YAML file)")
    return {"name": path.stem} | fields.read(path)


def assign(values: dict[str, Any], setting: str) -> None:
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
        found = values.get(part)
        values[part] = dict(found) if isinstance(found, Mapping) else {}
        values = values[part]
    values[last] = fields.value(text, f"--set {setting[:80]!r}")


def named(values: Mapping[str, Any], where: str) -> Profile:
    """Fields as a profile; `all` stands for every method, or every task of the suite."""
    values = dict(values)
    suite = suite_of(values.get("suite", CHINESE.name), str(values["name"]), f"profile {where}")
    several = {"all": suite.tasks, "sources": suite.sources, "targets": suite.targets}
    asked = values.get("tasks", "all")
    word = asked[0] if isinstance(asked, list | tuple) and len(asked) == 1 else asked
    if isinstance(word, str) and word in several:
        values["tasks"] = several[word]
    if values.get("methods") in ("all", ["all"]):
        values["methods"] = METHODS
    return typed(Profile, {"sources": suite.sources} | values | {"suite": suite}, f"profile {where}")


def suite_of(asked: Any, name: str, where: str) -> Suite:
    """A suite that ships, by its name, or one that the profile declares; without a name it is called as the profile."""
    if isinstance(asked, Suite):
        return asked
    if isinstance(asked, str):
        if asked not in SUITES:
            raise UsageError(f"no suite {asked!r}; {near(asked, SUITES)}")
        return SUITES[asked]
    return typed(Suite, {"name": name, **asked} if isinstance(asked, Mapping) else asked, where, "suite")


def check(profile: Profile) -> Profile:
    """What types alone do not say. -> the profile with its data folder made absolute."""
    check_names(profile)
    check_numbers(profile)
    if not re.fullmatch(DEVICES, profile.backbone.device):
        raise UsageError(f"no device {profile.backbone.device!r}; there are: auto, cpu, cuda, cuda:1 (by its number)")
    if profile.source == "local" and profile.data_dir is None:
        raise UsageError("source local needs a folder of original files: --data-dir DIR")
    if profile.data_dir and not Path(profile.data_dir).is_dir():
        raise UsageError(f"data_dir {profile.data_dir}: no such folder; it holds one sub-folder per task")
    pack = profile.pack if profile.devices == 1 else 1  # a cell that needs several devices has no room for others
    return replace(profile, data_dir=profile.data_dir and str(Path(profile.data_dir).resolve()), pack=pack)


def check_suite(profile: Profile) -> None:
    """Its tasks, and that the profile's are among them: a task of elsewhere may stand beside, not one of another."""
    suite = profile.suite
    if suite.name in SUITES and suite != SUITES[suite.name]:
        raise UsageError(f"suite {suite.name!r} ships with other tasks; give yours another name")
    if not suite.tasks:
        raise UsageError(f"suite {suite.name} has no tasks; name its sources and targets")
    if both := [name for name in suite.sources if name in suite.targets]:
        raise UsageError(f"suite {suite.name}: {', '.join(both)} is a source and a target; it can be one of them")
    for name in (*profile.tasks, *profile.sources):
        if name in TASKS and name not in suite.tasks:
            other = next(other.name for other in SUITES.values() if name in other.tasks)
            own = ", ".join(suite.tasks)
            raise UsageError(f"task {name} is of suite {other}, not {suite.name}; --tasks takes {own}, or all")
    if targets := [name for name in profile.sources if name in suite.targets]:
        known = f"which no source stage may see; sources are: {', '.join(suite.sources)}"
        raise UsageError(f"sources: {', '.join(targets)} can only be a target, {known}")


def check_names(profile: Profile) -> None:
    for kind, name in (("profile", profile.name), ("suite", profile.suite.name)):
        if not re.fullmatch(PLAIN, name):
            raise UsageError(f"{kind} name {name!r}: it names a folder; use letters, digits, - _ and . alone")
    check_suite(profile)
    for kind, found, known in (("method", profile.methods, METHODS), ("task", profile.tasks, TASKS),
                               ("task", profile.sources, TASKS), ("task", profile.suite.tasks, TASKS),
                               ("stream", profile.vary, STREAMS)):  # fmt: skip
        for name in found:
            if name not in known and not foreign(name):
                raise UsageError(f"no {kind} {name!r}; {near(name, known)}")
        if len(set(found)) < len(found):
            raise UsageError(f"{kind}s are named twice: {', '.join(found)}")
    for row in profile.methods:
        method = method_of(row)
        if row != method and not re.fullmatch(PLAIN, row.removeprefix(f"{method}:")):
            raise UsageError(f"row {row!r}: name it with letters, digits, - _ and . alone, as in {method}:mine")
        if row != method and not profile.config.get(row):
            raise UsageError(f"row {row} of {method} has no options of its own; set one: --set {row}.lr=0.01")
    for kind in ("methods", "tasks", "shots", "seeds"):
        if not getattr(profile, kind):
            raise UsageError(f"profile {profile.name}: {kind} is empty; name at least one")


def check_numbers(profile: Profile) -> None:
    for shots in (*profile.shots, profile.source_shots):
        if shots != FULL and not (isinstance(shots, int) and shots > 0):
            raise UsageError(f"shots {shots!r}: give a number from 1 up, or `full`")
    if len(set(profile.shots)) < len(profile.shots) or len(set(profile.seeds)) < len(profile.seeds):
        raise UsageError(f"a number twice in shots {profile.shots} or seeds {profile.seeds}")
    if bad := [seed for seed in profile.seeds if not 0 <= seed < 2**31]:
        raise UsageError(f"seed {bad[0]}: seeds are 0 or more, and below 2^31")
    if bad := {name: most for name, most in profile.limit.items() if name not in ("train", "dev", "test") or most < 1}:
        raise UsageError(f"limit {bad}: name train, dev or test, with a number from 1 up")
    if profile.max_length < SHORTEST:
        raise UsageError(f"max_length {profile.max_length}: give {SHORTEST} tokens or more")
    if profile.workers != AUTO and not (isinstance(profile.workers, int) and profile.workers > 0):
        raise UsageError(f"workers {profile.workers!r}: give a number from 1 up, or `auto`")
    if profile.devices < 1 or (profile.devices > 1) != (profile.strategy != AUTO):
        wanted = "set both or neither, as in --set devices=2 --set strategy=ddp"
        raise UsageError(f"devices {profile.devices} with strategy {profile.strategy}: {wanted}")
    if profile.devices > 1 and (profile.workers not in (AUTO, 1) or ":" in profile.backbone.device):
        found = f"workers {profile.workers}, device {profile.backbone.device}"
        raise UsageError(f"devices {profile.devices}: one group of processes takes the first devices, found {found}")
    if profile.pack != AUTO and not (isinstance(profile.pack, int) and profile.pack > 0):
        raise UsageError(f"pack {profile.pack!r}: give a number of cells from 1 up, or `auto`")


def as_dict(profile: Profile) -> dict[str, Any]:
    return asdict(profile)
