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
from benchmark.config.budget import Budget
from benchmark.config.profile import FULL, Profile
from benchmark.evaluation.evaluate import compute_test_metrics, predict_test
from benchmark.evaluation.scoring import Prediction
from benchmark.execution.record import (
    build_cost_record,
    build_data_record,
    build_prediction_columns,
    build_result_header,
    build_training_record,
)
from benchmark.grid.cells import TARGET_STAGE, PlannedCell
from benchmark.grid.planner import get_source_tasks
from benchmark.results.files import FolderNotWritableError, NonFiniteValueError
from benchmark.results.store import ResultStore
from benchmark.system.environment import collect_environment
from benchmark.system.redaction import describe_failure
from benchmark.system.resources import PhaseTimer, get_timestamp, measure_peak_memory, reset_peak_memory
from benchmark.training import distributed
from benchmark.training.history import History, combine_slots, combine_stages
from benchmark.training.stage import train_stage
from methods.base import Method, Stage
from methods.core.backbone import Backbone
from tasks.base import Task
from tasks.core.batching import MultiTaskDataModule
from tasks.core.splits import find_leaks

GC_INTERVAL_FACTOR = 50  # on a CPU at most such a part of the time is spent on looking for what cells left


class CellRunner:
    """What a process keeps between cells: the backbone, loaded once. (Tasks remember their records themselves.)"""

    def __init__(self, profile: Profile, store: ResultStore) -> None:
        self.profile, self.store, self.clock, self.next_gc_time = profile, store, PhaseTimer(), 0.0
        self.leak_counts: dict[tuple[str, str], int] = {}  # texts of a source's train that are in a target's test
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
        self.startup_seconds = self.clock.total_seconds

    def run(self, pack: Sequence[PlannedCell], unpacked_reason: str | None = None) -> list[dict[str, Any]]:
        """Results of a pack, saved; a cell that fails is a result too, and the others of its pack are tried alone.

        `why` a cell that was planned in a pack runs alone.
        """
        self.collect_garbage()
        started, clock = get_timestamp(), PhaseTimer()
        try:
            results, error = list(self.iterate_results(pack, clock)), None
        except FolderNotWritableError:  # no fault of the cell
            raise
        except Exception as caught:  # whatever a method or a task raises is a result, and the grid goes on
            results, error = [], describe_failure(caught)
        if error and len(pack) > 1:  # past the handler, which would keep the pack's tensors
            return [self.run([planned], error["reason"])[0] for planned in pack]
        results = results or [{"state": "failed", "error": error}]
        for place, planned in enumerate(pack):
            results[place] = self.build_header(planned, started, clock.total_seconds / len(pack)) | results[place]
            if unpacked_reason and "cost" in results[place]:
                results[place]["cost"]["unpacked"] = unpacked_reason
            try:
                self.store.save_result(planned, results[place])
            except NonFiniteValueError as caught:
                found = self.build_header(planned, started, clock.total_seconds / len(pack))
                results[place] = found | {"state": "failed", "error": describe_failure(caught)}
                self.store.save_result(planned, results[place])
        return results

    def collect_garbage(self) -> None:
        """Free what earlier cells learned: methods and Lightning's Trainers refer to each other, so they stay until
        Python looks for such circles, and beside all that a process keeps for good it seldom does by itself.
        """
        begun = monotonic()
        if begun >= self.next_gc_time or self.device != "cpu":
            gc.collect()
            self.next_gc_time = begun + GC_INTERVAL_FACTOR * (monotonic() - begun)

    def build_header(self, planned_cell: PlannedCell, started_at: str, seconds: float) -> dict[str, Any]:
        shared = {name: getattr(self.profile, name) for name in ("devices", "strategy") if self.profile.devices > 1}
        return build_result_header(planned_cell, self.profile, started_at, seconds) | {
            "environment": collect_environment(self.device) | shared
        }

    def iterate_results(self, pack: Sequence[PlannedCell], clock: PhaseTimer) -> Iterator[dict[str, Any]]:
        reset_peak_memory(self.device)
        with clock("load"):
            method = methods.load_method(pack[0].cell.method)(self.backbone, pack[0].options)
            stages = [stage for stage in method.stages if pack[0].cell.stage in (stage.name, stage.trained_on)]
            members = [task for cell in pack for task in self.load_tasks(cell)]
            self.load_dependencies(method, pack[0], stages[0])
        with clock("tokenise"):
            for member in members:
                for split in ("train", "dev", "test")[: 3 if stages[-1].trained_on == TARGET_STAGE else 2]:
                    member.encode_split(split)
        try:
            yield from self.train_and_evaluate(method, stages, pack, members, clock)
        finally:
            method.close()

    def train_and_evaluate(
        self,
        method: Method,
        stages: Sequence[Stage],
        pack: Sequence[PlannedCell],
        member_tasks: list[Task],
        clock: PhaseTimer,
    ) -> Iterator[dict[str, Any]]:
        starts = [cell.identity_inputs["seeds"]["start"] for cell in pack for _ in cell.training_tasks]
        budget = Budget(**pack[0].identity_inputs["budget"])
        runs = []
        options: dict[str, Any] = {"batch_size": budget.batch_size, "seed": pack[0].identity_inputs["seeds"]["order"]}
        with clock("test"):
            before = self.predict_before_training(method, pack[0], stages[0], member_tasks, starts)
        with clock("train"):
            for stage in stages:  # one on the sources, or all on the target
                group = MultiTaskDataModule(
                    member_tasks, stage.batch_mode, **(options | method.batching_options(stage))
                )
                runs.append(train_stage(method, group, stage, budget, seeds=starts, normalise=self.profile.normalise))
        histories = [combine_stages(own) for own in zip(*runs, strict=True)]
        dev = sum(history.dev_seconds for history in histories)
        clock.seconds_by_phase["dev"], clock.seconds_by_phase["train"] = dev, clock.seconds_by_phase["train"] - dev
        if stages[-1].trained_on != TARGET_STAGE:
            yield self.build_source_result(method, pack[0], member_tasks, histories, clock)
            return
        with clock("test"):
            found = predict_test(method, member_tasks, self.profile.normalise)
        for slot, (planned, task, history) in enumerate(zip(pack, member_tasks, histories, strict=True)):
            with clock("save"):
                test = compute_test_metrics(task, found[slot])
                kept = self.store.save_predictions(planned, build_prediction_columns(task, found[slot]))
                adapter = method.slot_state_dict(slot)
                artefact = {"artefact": self.save_artifact(planned, adapter)} if planned.should_save_adapter else {}
            yield {
                "state": "done",
                "metrics": {"test": test, "dev": {task.metric: history.best_dev_score} if history.dev_scores else {}}
                | ({"before": compute_test_metrics(task, before[slot])} if before else {}),
                "training": build_training_record([history]),
                "data": build_data_record(task) | {"leaked": self.count_leaked_examples(planned, task)},
                "cost": build_cost_record(method, adapter, history, clock, len(pack)) | self.get_resource_usage(),
                "predictions": kept,
            } | artefact

    def predict_before_training(
        self,
        method: Method,
        planned_cell: PlannedCell,
        stage: Stage,
        member_tasks: Sequence[Task],
        start_seeds: Sequence[int],
    ) -> list[list[Prediction]]:
        """Where a stage on the sources came first: predictions before the first step on the target."""
        if stage == method.stages[0] or stage.trained_on != TARGET_STAGE:
            return []
        method.begin_stage(stage, start_seeds, [member.encode_split("train") for member in member_tasks])
        found = predict_test(method, member_tasks, self.profile.normalise)
        self.load_dependencies(method, planned_cell, stage)  # `enter` comes again, after the stored state
        return found

    def build_source_result(
        self,
        method: Method,
        planned_cell: PlannedCell,
        member_tasks: list[Task],
        histories: list[History],
        clock: PhaseTimer,
    ) -> dict[str, Any]:
        """What many targets rest on: its dev scores on every source, no test."""
        state, names = method.trained_state_dict(), [task.name for task in member_tasks]
        return {
            "state": "done",
            "artefact": self.save_artifact(planned_cell, state),
            "metrics": {
                "dev": {
                    task.name: h.best_dev_score for task, h in zip(member_tasks, histories, strict=True) if h.dev_scores
                }
            },
            "training": build_training_record([combine_slots(histories)]),
            "inside": {"tasks": names, "found": method.source_diagnostics(names)},
            "data": {task.name: build_data_record(task) for task in member_tasks},
            "cost": build_cost_record(method, state, combine_slots(histories), clock, 1, len(member_tasks))
            | self.get_resource_usage(),
        }

    def get_resource_usage(self) -> dict[str, Any]:
        """Memory, and on how many devices, where the seconds are not those of one."""
        return measure_peak_memory(self.device) | (
            {"devices": self.profile.devices} if self.profile.devices > 1 else {}
        )

    def count_leaked_examples(self, planned_cell: PlannedCell, task: Task) -> dict[str, int]:
        """Test examples whose text a source trains on too, by source, where the cell rests on sources."""
        found = {}
        for name in get_source_tasks(self.profile, planned_cell.cell.task)[1] if planned_cell.dependencies else ():
            if (name, task.name) not in self.leak_counts:
                source = tasks.load_task(name)(data_source=self.profile.source, data_dir=self.profile.data_dir)
                source.prepare_data()
                source.setup()
                self.leak_counts[name, task.name] = len(find_leaks(source.examples["train"], task.examples["test"]))
            if count := self.leak_counts[name, task.name]:
                found[name] = count
        return found

    def load_tasks(self, planned_cell: PlannedCell) -> list[Task]:
        """The tasks a cell trains on, drawn and ready."""
        profile, settings, seeds = (
            self.profile,
            planned_cell.identity_inputs["settings"],
            planned_cell.identity_inputs["seeds"],
        )
        shots = None if settings["shots"] in (0, FULL) else settings["shots"]
        found = []
        for name in planned_cell.training_tasks:
            task = tasks.load_task(name)(
                self.backbone.tokenizer,
                data_source=profile.source,
                data_dir=profile.data_dir,
                shots=shots,
                max_train_examples=planned_cell.max_train_examples,
                seed=seeds["split"],
                order_seed=seeds["order"],
                batch_size=Budget(**planned_cell.identity_inputs["budget"]).batch_size,
                max_length=profile.max_length,
                max_per_split=profile.limit,
            )
            task.prepare_data()
            task.setup()
            found.append(task)
        return found

    def load_dependencies(self, method: Method, planned_cell: PlannedCell, stage: Stage) -> None:
        """What the cell rests on: the stage before, or the parent method on each source."""
        states = [
            load_tensors(self.store.get_adapter_path(parent).read_bytes()) for parent in planned_cell.dependencies
        ]
        if not states:
            return
        if stage == method.stages[0]:
            method.load_source_states(states)
        else:
            method.load(states[0])

    def save_artifact(self, planned_cell: PlannedCell, state: dict[str, Tensor]) -> dict[str, Any]:
        """Write what a cell learned. -> what its result says about the file."""
        tensors = {
            name: distributed.gather_full_tensor(tensor.detach()).cpu().contiguous().clone()
            for name, tensor in state.items()
        }
        return self.store.save_attachment(self.store.get_adapter_path(planned_cell.identity), save_tensors(tensors))
