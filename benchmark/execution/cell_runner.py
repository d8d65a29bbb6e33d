"""Run a pack of cells of one method: load the data, train, select on dev, and evaluate the test split once.

Cells of a pack differ in task or seed only. Each has one slot of the method and one result.
"""

import gc
from collections.abc import Iterator, Sequence
from dataclasses import replace
from time import monotonic
from typing import Any

from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

import methods
import tasks
from benchmark.config.profile import Profile
from benchmark.evaluation.evaluate import compute_test_metrics, predict_test
from benchmark.evaluation.scoring import Prediction
from benchmark.execution.record import (
    build_costs,
    build_data_record,
    build_prediction_columns,
    build_result,
    build_training_record,
)
from benchmark.grid.cells import TARGET_STAGE, PlannedCell
from benchmark.grid.planner import get_source_tasks
from benchmark.results.cell_result import CellResult
from benchmark.results.files import FolderNotWritableError, NonFiniteValueError
from benchmark.results.schema import CellTimes, Costs, FileRecord, Metrics, SourceDiagnostics, TrainingRecord
from benchmark.results.store import ResultStore
from benchmark.system import hardware
from benchmark.system.environment import collect_environment
from benchmark.system.redaction import FailureDescription, describe_failure
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
        self.device = hardware.resolve_device(weights.device)
        self.backbone = Backbone.load(
            weights.name,
            revision=weights.revision,
            dtype=weights.dtype,
            device=self.device,
            attention=weights.attention,
            sharded=profile.strategy == "fsdp",
            checkpointing=weights.checkpointing,
        )

    def run(self, pack: Sequence[PlannedCell], unpacked_reason: str | None = None) -> list[CellResult]:
        """Run a pack and save one result per cell, in the order of the pack.

        A failure becomes a result with an error. If a pack of several cells fails, each of its cells runs again alone;
        `unpacked_reason` is then the error of the pack and is stored with the costs of the cell.
        Raises FolderNotWritableError if the results folder cannot be written.
        """
        self.collect_garbage()
        clock = PhaseTimer()
        results: list[CellResult] = []
        error = None
        try:
            results = list(self.iterate_results(pack, clock))
        except FolderNotWritableError:  # not an error of the cell
            raise
        except Exception as exception:  # any error of a method or a task is a failed result, and the grid continues
            error = describe_failure(exception)
        if error and len(pack) > 1:  # outside the handler, whose traceback would keep the tensors of the pack alive
            return [self.run([planned], error.reason)[0] for planned in pack]
        if error:
            results = [self.build_result(pack[0], error=error)]
        results = [self.complete_result(result, clock, len(pack), unpacked_reason) for result in results]
        for index, planned in enumerate(pack):
            try:
                self.store.save_result(planned, results[index])
            except NonFiniteValueError as exception:
                failed = self.build_result(planned, error=describe_failure(exception))
                results[index] = self.complete_result(failed, clock, len(pack))
                self.store.save_result(planned, results[index])
        return results

    def build_result(
        self,
        planned_cell: PlannedCell,
        *,
        error: FailureDescription | None = None,
        training: TrainingRecord | None = None,
    ) -> CellResult:
        """Build the fields that every result has, with the environment; times follow in `complete_result`."""
        environment = collect_environment(self.device)
        if self.profile.devices > 1:
            environment = replace(environment, num_devices=self.profile.devices, strategy=self.profile.strategy)
        return build_result(planned_cell, self.profile, error=error, training=training, environment=environment)

    @staticmethod
    def complete_result(
        result: CellResult, clock: PhaseTimer, pack_size: int, unpacked_reason: str | None = None
    ) -> CellResult:
        """Set the times of a result, once its pack has ended, and the reason why it ran alone, if there is one."""
        seconds = round(clock.total_seconds / pack_size, 3)
        result = replace(result, times=CellTimes(clock.started_at, get_timestamp(), seconds))
        if unpacked_reason and result.costs:
            result = replace(result, costs=replace(result.costs, unpacked_reason=unpacked_reason))
        return result

    def collect_garbage(self) -> None:
        """Free the tensors of earlier cells.

        Methods and Lightning's Trainers form reference cycles, which CPython's collector reclaims too rarely in a
        process with many long-lived objects. On a GPU it runs before every pack, on a CPU at limited intervals.
        """
        start = monotonic()
        if start >= self.next_gc_time or self.device != "cpu":
            gc.collect()
            self.next_gc_time = start + GC_INTERVAL_FACTOR * (monotonic() - start)

    def iterate_results(self, pack: Sequence[PlannedCell], clock: PhaseTimer) -> Iterator[CellResult]:
        """Load the method and the tasks of a pack, train, and yield one result per cell."""
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
    ) -> Iterator[CellResult]:
        """Train the stages of a pack and yield its results: one of the source stage, or one per target cell.

        `member_tasks` are the training tasks of all cells in order, one per slot of the method.
        """
        start_seeds = [cell.inputs.seeds.start for cell in pack for _ in cell.training_tasks]
        budget = pack[0].budget
        histories_by_stage = []
        batching: dict[str, Any] = {"batch_size": budget.batch_size, "seed": pack[0].inputs.seeds.order}
        with clock("test"):
            zero_step_predictions = self.predict_before_training(method, pack[0], stages[0], member_tasks, start_seeds)
        with clock("train"):
            for stage in stages:  # one source stage, or all target stages
                stage_batching = batching | method.batching_options(stage)
                data = MultiTaskDataModule(member_tasks, stage.batch_mode, **stage_batching)
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
                columns = build_prediction_columns(task, predictions[slot])
                predictions_file = self.store.save_predictions(planned, columns)
                adapter = method.slot_state_dict(slot)
                adapter_file = self.save_adapter(planned, adapter) if planned.should_save_adapter else None
            yield replace(
                self.build_result(planned, training=build_training_record(history)),
                metrics=Metrics(
                    test=compute_test_metrics(task, predictions[slot]),
                    dev=collect_dev_scores([task], [history]),
                    zero_step=compute_test_metrics(task, zero_step_predictions[slot]) if zero_step_predictions else {},
                ),
                data={task.name: build_data_record(task, self.count_leaked_examples(planned, task))},
                costs=self.build_costs(method, adapter, history, clock, pack_size=len(pack)),
                predictions=predictions_file,
                adapter=adapter_file,
            )

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
    ) -> CellResult:
        """Build the result of a source stage, on which target cells depend: dev scores per source, no test scores."""
        state = method.trained_state_dict()
        names = [task.name for task in member_tasks]
        history = combine_slots(histories)
        return replace(
            self.build_result(planned_cell, training=build_training_record(history)),
            metrics=Metrics(test={}, dev=collect_dev_scores(member_tasks, histories), zero_step={}),
            data={task.name: build_data_record(task) for task in member_tasks},
            costs=self.build_costs(method, state, history, clock, num_slots=len(member_tasks)),
            adapter=self.save_adapter(planned_cell, state),
            source_diagnostics=SourceDiagnostics(tuple(names), method.source_diagnostics(names)),
        )

    def build_costs(
        self,
        method: Method,
        adapter: dict[str, Tensor],
        history: History,
        clock: PhaseTimer,
        *,
        pack_size: int = 1,
        num_slots: int = 1,
    ) -> Costs:
        """Build the costs of a cell, with the peak memory until now."""
        return build_costs(
            method,
            adapter,
            history,
            clock,
            measure_peak_memory(self.device),
            pack_size=pack_size,
            num_slots=num_slots,
            num_devices=self.profile.devices,
        )

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
        cell = planned_cell.cell
        seeds = planned_cell.inputs.seeds
        shots = cell.shots if isinstance(cell.shots, int) and cell.shots > 0 else None
        training_tasks = []
        for name in planned_cell.training_tasks:
            task = tasks.load_task(name)(
                self.backbone.tokenizer,
                data_source=profile.source,
                data_dir=profile.data_dir,
                shots=shots,
                max_train_examples=planned_cell.max_train_examples,
                seed=seeds.split,
                order_seed=seeds.order,
                batch_size=planned_cell.budget.batch_size,
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

    def save_adapter(self, planned_cell: PlannedCell, state: dict[str, Tensor]) -> FileRecord:
        """Save the trained tensors of a cell and return the record of the file."""
        tensors = {
            name: distributed.gather_full_tensor(tensor.detach()).cpu().contiguous().clone()
            for name, tensor in state.items()
        }
        return self.store.save_file(self.store.get_adapter_path(planned_cell.identity), save_tensors(tensors))


def collect_dev_scores(tasks: Sequence[Task], histories: Sequence[History]) -> dict[str, float]:
    """Return task -> dev score of the selected weights, of the tasks that were evaluated at that step."""
    return {
        task.name: history.best_dev_score
        for task, history in zip(tasks, histories, strict=True)
        if history.best_dev_score is not None
    }
