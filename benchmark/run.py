"""Run a pack of cells of one method: read, train, choose on dev, and then read test once. -> a result for each."""

import gc
from collections.abc import Iterator, Sequence
from time import monotonic
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

import methods
import tasks
from benchmark import ranks
from benchmark.budget import Budget
from benchmark.environment import Clock, environment, failure, forget_peak, now, peak
from benchmark.grid import FULL, TARGET, Planned, sources_of
from benchmark.learn import History, joined, learn, mixed
from benchmark.measure import scored, tested
from benchmark.profile import Profile
from benchmark.result import columns, cost, data, header, training
from benchmark.score import Prediction
from benchmark.store import NotANumber, Store, Unwritable
from methods.backbone import Backbone
from methods.base import Method, Stage
from tasks.base import Task
from tasks.group import Group
from tasks.split import leaks

SELDOM = 50  # on a CPU at most such a part of the time is spent on looking for what cells left


class Bench:
    """What a process keeps between cells: the backbone, loaded once. (Tasks remember their records themselves.)"""

    def __init__(self, profile: Profile, store: Store) -> None:
        self.profile, self.store, self.clock, self.look = profile, store, Clock(), 0.0
        self.shared: dict[tuple[str, str], int] = {}  # texts of a source's train that are in a target's test
        weights = profile.backbone
        device = ("cuda" if torch.cuda.is_available() else "cpu") if weights.device == "auto" else weights.device
        self.device = device
        self.backbone = Backbone.load(
            weights.name,
            revision=weights.revision,
            dtype=weights.dtype,
            device=device,
            attention=weights.attention,
            sharded=profile.strategy == "fsdp",
            checkpointing=weights.checkpointing,
        )
        self.startup = self.clock.total

    def run(self, pack: Sequence[Planned], why: str | None = None) -> list[dict[str, Any]]:
        """Results of a pack, saved; a cell that fails is a result too, and the others of its pack are tried alone.

        `why` a cell that was planned in a pack runs alone.
        """
        self.forget()
        started, clock = now(), Clock()
        try:
            results, error = list(self.results(pack, clock)), None
        except Unwritable:  # no fault of the cell
            raise
        except Exception as caught:  # whatever a method or a task raises is a result, and the grid goes on
            results, error = [], failure(caught)
        if error and len(pack) > 1:  # past the handler, which would keep the pack's tensors
            return [self.run([planned], error["reason"])[0] for planned in pack]
        results = results or [{"state": "failed", "error": error}]
        for place, planned in enumerate(pack):
            results[place] = self.header(planned, started, clock.total / len(pack)) | results[place]
            if why and "cost" in results[place]:
                results[place]["cost"]["unpacked"] = why
            try:
                self.store.save(planned, results[place])
            except NotANumber as caught:
                found = self.header(planned, started, clock.total / len(pack))
                results[place] = found | {"state": "failed", "error": failure(caught)}
                self.store.save(planned, results[place])
        return results

    def forget(self) -> None:
        """Free what earlier cells learned: methods and Lightning's Trainers refer to each other, so they stay until
        Python looks for such circles, and beside all that a process keeps for good it seldom does by itself.
        """
        begun = monotonic()
        if begun >= self.look or self.device != "cpu":
            gc.collect()
            self.look = begun + SELDOM * (monotonic() - begun)

    def header(self, planned: Planned, started: str, seconds: float) -> dict[str, Any]:
        shared = {name: getattr(self.profile, name) for name in ("devices", "strategy") if self.profile.devices > 1}
        return header(planned, self.profile, started, seconds) | {"environment": environment(self.device) | shared}

    def results(self, pack: Sequence[Planned], clock: Clock) -> Iterator[dict[str, Any]]:
        forget_peak(self.device)
        with clock("load"):
            method = methods.load(pack[0].cell.method)(self.backbone, pack[0].options)
            stages = [stage for stage in method.stages if pack[0].cell.stage in (stage.name, stage.on)]
            members = [task for cell in pack for task in self.open(cell)]
            self.inherit(method, pack[0], stages[0])
        with clock("tokenise"):
            for member in members:
                for split in ("train", "dev", "test")[: 3 if stages[-1].on == TARGET else 2]:
                    member.encoded(split)
        try:
            yield from self.measured(method, stages, pack, members, clock)
        finally:
            method.close()

    def measured(
        self, method: Method, stages: Sequence[Stage], pack: Sequence[Planned], members: list[Task], clock: Clock
    ) -> Iterator[dict[str, Any]]:
        starts = [cell.parts["seeds"]["start"] for cell in pack for _ in cell.members]
        budget = Budget(**pack[0].parts["budget"])
        runs = []
        options: dict[str, Any] = {"batch_size": budget.batch_size, "seed": pack[0].parts["seeds"]["order"]}
        with clock("test"):
            before = self.before(method, pack[0], stages[0], members, starts)
        with clock("train"):
            for stage in stages:  # one on the sources, or all on the target
                group = Group(members, stage.batches, **(options | method.grouping(stage)))
                runs.append(learn(method, group, stage, budget, seeds=starts, normalise=self.profile.normalise))
        histories = [joined(own) for own in zip(*runs, strict=True)]
        dev = sum(history.dev_seconds for history in histories)
        clock.seconds["dev"], clock.seconds["train"] = dev, clock.seconds["train"] - dev
        if stages[-1].on != TARGET:
            yield self.source_result(method, pack[0], members, histories, clock)
            return
        with clock("test"):
            found = tested(method, members, self.profile.normalise)
        for slot, (planned, task, history) in enumerate(zip(pack, members, histories, strict=True)):
            with clock("save"):
                test = scored(task, found[slot])
                kept = self.store.save_predictions(planned, columns(task, found[slot]))
                adapter = method.adapter(slot)
                artefact = {"artefact": self.keep(planned, adapter)} if planned.needed else {}
            yield {
                "state": "done",
                "metrics": {"test": test, "dev": {task.metric: history.score} if history.dev else {}}
                | ({"before": scored(task, before[slot])} if before else {}),
                "training": training([history]),
                "data": data(task) | {"leaked": self.leaked(planned, task)},
                "cost": cost(method, adapter, history, clock, len(pack)) | self.took(),
                "predictions": kept,
            } | artefact

    def before(
        self, method: Method, planned: Planned, stage: Stage, members: Sequence[Task], starts: Sequence[int]
    ) -> list[list[Prediction]]:
        """Where a stage on the sources came first: predictions before the first step on the target."""
        if stage == method.stages[0] or stage.on != TARGET:
            return []
        method.enter(stage, starts, [member.encoded("train") for member in members])
        found = tested(method, members, self.profile.normalise)
        self.inherit(method, planned, stage)  # `enter` comes again, after the stored state
        return found

    def source_result(
        self, method: Method, planned: Planned, members: list[Task], histories: list[History], clock: Clock
    ) -> dict[str, Any]:
        """What many targets rest on: its dev scores on every source, no test."""
        state, names = method.learned(), [task.name for task in members]
        return {
            "state": "done",
            "artefact": self.keep(planned, state),
            "metrics": {"dev": {task.name: h.score for task, h in zip(members, histories, strict=True) if h.dev}},
            "training": training([mixed(histories)]),
            "inside": {"tasks": names, "found": method.inside(names)},
            "data": {task.name: data(task) for task in members},
            "cost": cost(method, state, mixed(histories), clock, 1, len(members)) | self.took(),
        }

    def took(self) -> dict[str, Any]:
        """Memory, and on how many devices, where the seconds are not those of one."""
        return peak(self.device) | ({"devices": self.profile.devices} if self.profile.devices > 1 else {})

    def leaked(self, planned: Planned, task: Task) -> dict[str, int]:
        """Test examples whose text a source trains on too, by source, where the cell rests on sources."""
        found = {}
        for name in sources_of(self.profile, planned.cell.task)[1] if planned.parents else ():
            if (name, task.name) not in self.shared:
                source = tasks.load(name)(source=self.profile.source, data_dir=self.profile.data_dir)
                source.prepare_data()
                source.setup()
                self.shared[name, task.name] = len(leaks(source.examples["train"], task.examples["test"]))
            if count := self.shared[name, task.name]:
                found[name] = count
        return found

    def open(self, planned: Planned) -> list[Task]:
        """The tasks a cell trains on, drawn and ready."""
        profile, settings, seeds = self.profile, planned.parts["settings"], planned.parts["seeds"]
        shots = None if settings["shots"] in (0, FULL) else settings["shots"]
        found = []
        for name in planned.members:
            task = tasks.load(name)(
                self.backbone.tokenizer,
                source=profile.source,
                data_dir=profile.data_dir,
                shots=shots,
                most=planned.most,
                seed=seeds["split"],
                order=seeds["order"],
                batch_size=Budget(**planned.parts["budget"]).batch_size,
                max_length=profile.max_length,
                limit=profile.limit,
            )
            task.prepare_data()
            task.setup()
            found.append(task)
        return found

    def inherit(self, method: Method, planned: Planned, stage: Stage) -> None:
        """What the cell rests on: the stage before, or the parent method on each source."""
        states = [load_tensors(self.store.artefact(parent).read_bytes()) for parent in planned.parents]
        if not states:
            return
        if stage == method.stages[0]:
            method.inherit(states)
        else:
            method.load(states[0])

    def keep(self, planned: Planned, state: dict[str, Tensor]) -> dict[str, Any]:
        """Write what a cell learned. -> what its result says about the file."""
        tensors = {name: ranks.whole(tensor.detach()).cpu().contiguous().clone() for name, tensor in state.items()}
        return self.store.keep(self.store.artefact(planned.identity), save_tensors(tensors))
