"""What a cell will cost: as much as cells like it did in this folder, else a rough figure, and it says which."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import Any

from benchmark.config.budget import Budget
from benchmark.config.model_size import parse_parameter_count
from benchmark.config.profile import Profile
from benchmark.grid import specs
from benchmark.grid.cells import TARGET_STAGE, PlannedCell

# Rough figures for a folder without results, of the public data and the samples: tokens of an item, sizes of full sets.
TOKENS_PER_EXAMPLE = 120
NUM_TEST_EXAMPLES = 3000
NUM_TRAIN_EXAMPLES = 30_000
SYNTHETIC_DATA_SIZES = 60, 240, 1080
LARGE_MODEL_PARAMETERS = 1e8  # parameters from which on a CPU is no place to train
FLOPS_PER_SECOND = {"cpu": 5e10, "cuda": 1.5e14}  # of one core (float32) and of one large GPU (bfloat16), well used
FIXED_SECONDS_PER_CELL = 1.0  # seconds of a cell that neither train nor score
LABELS_PER_TASK = 8  # of a choice task, for k shots per label


class CostModel:
    """Seconds of cells, by what is known best: same method, task and shots; same method and task; same method."""

    def __init__(self, profile: Profile, results: Iterable[Mapping[str, Any]], device: str = "cpu") -> None:
        self.profile, self.device = profile, device
        self.measured_seconds: dict[tuple, list[float]] = defaultdict(list)
        for result in results:
            if result["state"] == "done" and result.get("cost", {}).get("devices", 1) == profile.devices:
                cell = result["cell"]
                for key in self.build_lookup_keys(cell["method"], cell["task"], cell["shots"], cell["stage"]):
                    self.measured_seconds[key].append(result["times"]["seconds"])

    @staticmethod
    def build_lookup_keys(method: str, task: str, shots: int | str, stage: str) -> list[tuple]:
        return [(method, stage, task, shots), (method, stage, task), (method, stage)]

    def estimate_seconds(self, planned_cell: PlannedCell) -> tuple[float, bool]:
        """(seconds, whether cells like it were measured in this folder)."""
        cell = planned_cell.cell
        for key in self.build_lookup_keys(cell.method, cell.task, cell.shots, cell.stage):
            if key in self.measured_seconds:
                return fmean(self.measured_seconds[key]), True
        return self.estimate_seconds_from_flops(planned_cell), False

    def estimate_seconds_from_flops(self, planned_cell: PlannedCell) -> float:
        """Operations of training and scoring, over what a device does per second."""
        profile, cell = self.profile, planned_cell.cell
        limit, budget = profile.limit, planned_cell.identity_inputs["budget"]
        tokens, test, full = (
            SYNTHETIC_DATA_SIZES
            if profile.source == "sample"
            else (TOKENS_PER_EXAMPLE, NUM_TEST_EXAMPLES, NUM_TRAIN_EXAMPLES)
        )
        test = min(test, limit.get("test", test))
        size = parse_parameter_count(profile.backbone.name)
        facts = specs.get_method_spec(cell.method)
        if facts.is_seed_independent and facts.predicts_without_scoring:
            return FIXED_SECONDS_PER_CELL  # the backbone is never asked
        passed = test * tokens if cell.stage == TARGET_STAGE else 0.0
        if budget:
            shots = cell.shots * LABELS_PER_TASK if isinstance(cell.shots, int) else full
            examples = min(shots, limit.get("train", shots)) * len(planned_cell.training_tasks)
            steps = Budget(**budget).compute_num_steps(examples)
            # backward costs two forwards; devices share out the rows of training, and score all of them each
            passed += 3 * steps * budget["batch_size"] * tokens / profile.devices
            passed += budget["evaluations"] * min(examples, limit.get("dev", 1000)) * tokens
        return FIXED_SECONDS_PER_CELL + 2 * size * passed / FLOPS_PER_SECOND[self.device]
