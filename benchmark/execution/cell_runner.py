"""Run a pack of cells of one method: load the data, train, select on dev, and evaluate the test split once.

Cells of a pack differ in task or seed only. Each has one slot of the method and one result.
"""

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

GC_INTERVAL_FACTOR = 50  # on a CPU garbage collection takes at most 1/50 of the time


class CellRunner:
    """Runs packs of cells in one process with a backbone that is loaded once. Tasks cache their examples themselves."""

    def __init__(self, profile: Profile, store: ResultStore) -> None:
        self.profile = profile
        self.store = store
        self.clock = PhaseTimer()
        self.next_gc_time = 0.0
        self.leak_counts: dict[tuple[str, str], int] = {}  # (source, target) -> test examples that the source trains on
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

    def run(self, pack: Sequence[PlannedCell], unpacked_reason: str | None = None) -> list[dict[str, Any]]:
        """Run a pack and save one result per cell, in the order of the pack.

        A failure becomes a result with state "failed". If a pack of several cells fails, each of its cells runs again
        alone; `unpacked_reason` is then the error of the pack and is stored with the cost of the cell.
        Raises FolderNotWritableError if the results folder cannot be written.
        """
        self.collect_garbage()
        started_at = get_timestamp()
        clock = PhaseTimer()
        results: list[dict[str, Any]] = []
        error = None
        try:
            results = list(self.iterate_results(pack, clock))
        except FolderNotWritableError:  # not an error of the cell
            raise
        except Exception as exception:  # any error of a method or a task is a failed result, and the grid continues
            error = describe_failure(exception)
        if error and len(pack) > 1:  # outside the handler, whose traceback would keep the tensors of the pack alive
            return [self.run([planned], error["reason"])[0] for planned in pack]
        if error:
            results = [{"state": "failed", "error": error}]
        for index, planned in enumerate(pack):
            header = self.build_header(planned, started_at, clock.total_seconds / len(pack))
            results[index] = header | results[index]
            if unpacked_reason and "cost" in results[index]:
                results[index]["cost"]["unpacked"] = unpacked_reason
            try:
                self.store.save_result(planned, results[index])
            except NonFiniteValueError as exception:
                header = self.build_header(planned, started_at, clock.total_seconds / len(pack))
                results[index] = header | {"state": "failed", "error": describe_failure(exception)}
                self.store.save_result(planned, results[index])
        return results

    def collect_garbage(self) -> None:
        """Free the tensors of earlier cells.

        Methods and Lightning's Trainers form reference cycles, which CPython's collector reclaims too rarely in a
        process with many long-lived objects. On a GPU it runs before every pack, on a CPU at limited intervals.
        """
        start = monotonic()
        if start >= self.next_gc_time or self.device != "cpu":
            gc.collect()
            self.next_gc_time = start + GC_INTERVAL_FACTOR * (monotonic() - start)

    def build_header(self, planned_cell: PlannedCell, started_at: str, seconds: float) -> dict[str, Any]:
        """Build the fields that every result has, and the environment; `seconds` is the time of this cell."""
        environment = collect_environment(self.device)
        if self.profile.devices > 1:
            environment = environment | {"devices": self.profile.devices, "strategy": self.profile.strategy}
        return build_result_header(planned_cell, self.profile, started_at, seconds) | {"environment": environment}

    def iterate_results(self, pack: Sequence[PlannedCell], clock: PhaseTimer) -> Iterator[dict[str, Any]]:
        """Load the method and the tasks of a pack, train, and yield one result per cell, without header."""
        reset_peak_memory(self.device)
        with clock("load"):
            method = methods.load_method(pack[0].cell.method)(self.backbone, pack[0].options)
            stages = [stage for stage in method.stages if pack[0].cell.stage in (stage.name, stage.trained_on)]
            member_tasks = [task for cell in pack for task in self.load_tasks(cell)]
            self.load_dependencies(method, pack[0], stages[0])
        splits = ("train", "dev", "test") if stages[-1].trained_on == TARGET_STAGE else ("train", "dev")
        with clock("tokenise"):
            for task in member_tasks:
                for split in splits:
                    task.encode_split(split)
        try:
            yield from self.train_and_evaluate(method, stages, pack, member_tasks, clock)
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
        """Train the stages of a pack and yield its results: one of the source stage, or one per target cell.

        `member_tasks` are the training tasks of all cells in order, one per slot of the method.
        """
        start_seeds = [cell.identity_inputs["seeds"]["start"] for cell in pack for _ in cell.training_tasks]
        budget = Budget(**pack[0].identity_inputs["budget"])
        histories_by_stage = []
        options: dict[str, Any] = {"batch_size": budget.batch_size, "seed": pack[0].identity_inputs["seeds"]["order"]}
        with clock("test"):
            predictions_before = self.predict_before_training(method, pack[0], stages[0], member_tasks, start_seeds)
        with clock("train"):
            for stage in stages:  # one source stage, or all target stages
                data = MultiTaskDataModule(member_tasks, stage.batch_mode, **(options | method.batching_options(stage)))
                histories_by_stage.append(
                    train_stage(method, data, stage, budget, seeds=start_seeds, normalise=self.profile.normalise)
                )
        histories = [combine_stages(slot_histories) for slot_histories in zip(*histories_by_stage, strict=True)]
        dev_seconds = sum(history.dev_seconds for history in histories)
        clock.seconds_by_phase["dev"] = dev_seconds
        clock.seconds_by_phase["train"] -= dev_seconds
        if stages[-1].trained_on != TARGET_STAGE:
            yield self.build_source_result(method, pack[0], member_tasks, histories, clock)
            return
        with clock("test"):
            predictions = predict_test(method, member_tasks, self.profile.normalise)
        for slot, (planned, task, history) in enumerate(zip(pack, member_tasks, histories, strict=True)):
            with clock("save"):
                metrics: dict[str, Any] = {"test": compute_test_metrics(task, predictions[slot]), "dev": {}}
                prediction_file = self.store.save_predictions(
                    planned, build_prediction_columns(task, predictions[slot])
                )
                adapter = method.slot_state_dict(slot)
                artifact = {"artefact": self.save_artifact(planned, adapter)} if planned.should_save_adapter else {}
            if history.dev_scores:
                metrics["dev"] = {task.metric: history.best_dev_score}
            if predictions_before:
                metrics["before"] = compute_test_metrics(task, predictions_before[slot])
            yield {
                "state": "done",
                "metrics": metrics,
                "training": build_training_record([history]),
                "data": build_data_record(task) | {"leaked": self.count_leaked_examples(planned, task)},
                "cost": build_cost_record(method, adapter, history, clock, len(pack)) | self.get_resource_usage(),
                "predictions": prediction_file,
            } | artifact

    def predict_before_training(
        self,
        method: Method,
        planned_cell: PlannedCell,
        stage: Stage,
        member_tasks: Sequence[Task],
        start_seeds: Sequence[int],
    ) -> list[list[Prediction]]:
        """Predict the test splits before the first target step; an empty list if no source stage came first.

        -> one list of predictions per slot.
        """
        if stage == method.stages[0] or stage.trained_on != TARGET_STAGE:
            return []
        method.begin_stage(stage, start_seeds, [task.encode_split("train") for task in member_tasks])
        predictions = predict_test(method, member_tasks, self.profile.normalise)
        self.load_dependencies(
            method, planned_cell, stage
        )  # restore the stored state: training calls begin_stage again
        return predictions

    def build_source_result(
        self,
        method: Method,
        planned_cell: PlannedCell,
        member_tasks: list[Task],
        histories: list[History],
        clock: PhaseTimer,
    ) -> dict[str, Any]:
        """Build the result of a source stage, on which target cells depend: dev scores per source, no test scores."""
        state = method.trained_state_dict()
        names = [task.name for task in member_tasks]
        history = combine_slots(histories)
        return {
            "state": "done",
            "artefact": self.save_artifact(planned_cell, state),
            "metrics": {
                "dev": {
                    task.name: slot_history.best_dev_score
                    for task, slot_history in zip(member_tasks, histories, strict=True)
                    if slot_history.dev_scores
                }
            },
            "training": build_training_record([history]),
            "inside": {"tasks": names, "found": method.source_diagnostics(names)},
            "data": {task.name: build_data_record(task) for task in member_tasks},
            "cost": build_cost_record(method, state, history, clock, 1, len(member_tasks)) | self.get_resource_usage(),
        }

    def get_resource_usage(self) -> dict[str, Any]:
        """Return the peak memory, and the number of devices if several share the cell."""
        usage = measure_peak_memory(self.device)
        if self.profile.devices > 1:
            usage = usage | {"devices": self.profile.devices}
        return usage

    def count_leaked_examples(self, planned_cell: PlannedCell, task: Task) -> dict[str, int]:
        """Count the test examples whose text is also in a source task's training data.

        -> source task -> count, if above 0; empty if the cell depends on no source task.
        """
        if not planned_cell.dependencies:
            return {}
        leak_counts = {}
        for name in get_source_tasks(self.profile, planned_cell.cell.task)[1]:
            if (name, task.name) not in self.leak_counts:
                source = tasks.load_task(name)(data_source=self.profile.source, data_dir=self.profile.data_dir)
                source.prepare_data()
                source.setup()
                self.leak_counts[name, task.name] = len(find_leaks(source.examples["train"], task.examples["test"]))
            if count := self.leak_counts[name, task.name]:
                leak_counts[name] = count
        return leak_counts

    def load_tasks(self, planned_cell: PlannedCell) -> list[Task]:
        """Load the training tasks of a cell, with the few-shot sample of the cell's seed."""
        profile = self.profile
        settings = planned_cell.identity_inputs["settings"]
        seeds = planned_cell.identity_inputs["seeds"]
        shots = None if settings["shots"] in (0, FULL) else settings["shots"]
        training_tasks = []
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
            training_tasks.append(task)
        return training_tasks

    def load_dependencies(self, method: Method, planned_cell: PlannedCell, stage: Stage) -> None:
        """Load the states that the cell depends on: the previous stage, or the parent method's state on each source."""
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
        """Save the trained tensors of a cell. -> the entry about the file in its result."""
        tensors = {
            name: distributed.gather_full_tensor(tensor.detach()).cpu().contiguous().clone()
            for name, tensor in state.items()
        }
        return self.store.save_attachment(self.store.get_adapter_path(planned_cell.identity), save_tensors(tensors))
