"""Cost model: estimated seconds per cell, from measured cells of this folder if any, otherwise from a FLOP estimate."""

from collections import defaultdict
from collections.abc import Iterable
from statistics import fmean

from benchmark.config.model_size import parse_parameter_count
from benchmark.config.profile import Profile
from benchmark.grid import specs
from benchmark.grid.cells import TARGET_STAGE, PlannedCell
from benchmark.results.cell_result import CellResult

# Rough figures for a folder without results: tokens per example and sizes of the full splits, of the public data (first
# three) and of the synthetic data (tokens per example, test examples, training examples).
TOKENS_PER_EXAMPLE = 120
NUM_TEST_EXAMPLES = 3000
NUM_TRAIN_EXAMPLES = 30_000
SYNTHETIC_DATA_SIZES = 60, 240, 1080
LARGE_MODEL_PARAMETERS = 1e8  # models with more parameters are too large to train on a CPU
FLOPS_PER_SECOND = {"cpu": 5e10, "cuda": 1.5e14}  # achieved by one CPU core (float32) and one large GPU (bfloat16)
FIXED_SECONDS_PER_CELL = 1.0  # seconds of a cell apart from training and scoring
LABELS_PER_TASK = 8  # typical number of labels of a choice task, to turn k shots into examples


class CostModel:
    """Estimates the seconds of a cell from the most similar finished cells.

    The order is: same method, stage, task and shots; same method, stage and task; same method and stage.
    """

    def __init__(self, profile: Profile, results: Iterable[CellResult], device: str = "cpu") -> None:
        self.profile = profile
        self.device = device
        self.measured_seconds: dict[tuple, list[float]] = defaultdict(list)
        for result in results:
            if result.costs and result.costs.num_devices == profile.devices:
                cell = result.cell
                for key in self.build_lookup_keys(cell.method, cell.task, cell.shots, cell.stage):
                    self.measured_seconds[key].append(result.times.seconds)

    @staticmethod
    def build_lookup_keys(method: str, task: str, shots: int | str, stage: str) -> list[tuple]:
        """Return the keys under which similar cells are looked up, most specific first."""
        return [(method, stage, task, shots), (method, stage, task), (method, stage)]

    def estimate_seconds(self, planned_cell: PlannedCell) -> tuple[float, bool]:
        """Return the expected seconds, and whether they come from measured cells of this folder."""
        cell = planned_cell.cell
        for key in self.build_lookup_keys(cell.method, cell.task, cell.shots, cell.stage):
            if key in self.measured_seconds:
                return fmean(self.measured_seconds[key]), True
        return self.estimate_seconds_from_flops(planned_cell), False

    def estimate_seconds_from_flops(self, planned_cell: PlannedCell) -> float:
        """Estimate the seconds as FLOPs of training and scoring over FLOPs per second of the device."""
        profile = self.profile
        cell = planned_cell.cell
        limit = profile.limit
        budget = planned_cell.inputs.budget
        public_data_sizes = TOKENS_PER_EXAMPLE, NUM_TEST_EXAMPLES, NUM_TRAIN_EXAMPLES
        data_sizes = SYNTHETIC_DATA_SIZES if profile.source == "sample" else public_data_sizes
        tokens_per_example, num_test_examples, num_train_examples = data_sizes
        num_test_examples = min(num_test_examples, limit.get("test", num_test_examples))
        num_parameters = parse_parameter_count(profile.backbone.name)
        spec = specs.get_method_spec(cell.method)
        if spec.is_seed_independent and spec.predicts_without_scoring:
            return FIXED_SECONDS_PER_CELL  # the backbone is not used
        num_tokens = num_test_examples * tokens_per_example if cell.stage == TARGET_STAGE else 0.0
        if budget:
            num_examples = cell.shots * LABELS_PER_TASK if isinstance(cell.shots, int) else num_train_examples
            num_examples = min(num_examples, limit.get("train", num_examples)) * len(planned_cell.training_tasks)
            num_steps = budget.compute_num_steps(num_examples)
            # A backward pass costs two forward passes. Devices share the rows of training, but each scores all rows.
            num_tokens += 3 * num_steps * budget.batch_size * tokens_per_example / profile.devices
            num_tokens += budget.evaluations * min(num_examples, limit.get("dev", 1000)) * tokens_per_example
        return FIXED_SECONDS_PER_CELL + 2 * num_parameters * num_tokens / FLOPS_PER_SECOND[self.device]
