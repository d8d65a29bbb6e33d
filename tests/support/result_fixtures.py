"""Results made by hand, for everything that only reads them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest

from benchmark.config import loading
from benchmark.config.profile import Profile
from benchmark.execution.record import build_result
from benchmark.grid import planner
from benchmark.grid.cells import PlannedCell
from benchmark.results.cell_result import CellResult
from benchmark.results.schema import Costs, CurvePoint, DataRecord, DevScore, Metrics, TrainingRecord
from benchmark.results.store import ResultStore
from benchmark.system.environment import Environment
from benchmark.system.redaction import FailureDescription
from tests.support.wandb_runs import KEY, Caught

SECONDS = {"load": 0.1, "tokenise": 0.1, "train": 1.0, "dev": 0.2, "test": 0.5, "save": 0.1, "rest": 0.0}
COSTS = Costs(
    trained_parameters=1000, adapter_bytes=4000, seconds_by_phase=SECONDS, peak_bytes=2**20,
    peak_measured_on="process", pack_size=1, num_micro_batches=1, num_tokens=90, tokens_per_second=90.0,
    padded_share=0.1,
)  # fmt: skip
TRAINING = TrainingRecord(
    num_steps=3, num_gradients=3, best_step=2, stopped_step=0, diagnostics={}, dev=(DevScore(2, 0.5, 1.1),),
    loss=(CurvePoint(1, 2.0), CurvePoint(2, 1.5), CurvePoint(3, 1.0)),
)  # fmt: skip
EMPTY_DATA = DataRecord(
    splits={"train": 8, "dev": 8, "test": 16}, offered={}, truncated={}, short={}, origin="sample", digests={},
    leaked={},
)  # fmt: skip
ENVIRONMENT = Environment({}, "3.12", "Linux", "cpu: none", None, None)


@pytest.fixture
def small(tmp_path: Path, model_folders: dict[str, Path]) -> Profile:
    """Two trained methods and a control, a source and two target tasks, two numbers of shots, three seeds."""
    changes = {
        "methods": ["zero_shot", "lora", "prompt"], "tasks": ["afqmc", "chnsent", "cote_bd"], "shots": [4, 16],
        "seeds": [0, 1, 2], "results": str(tmp_path / "results"), "backbone": {"name": str(model_folders["qwen3"])},
    }  # fmt: skip
    return loading.load_profile("smoke", changes)


@pytest.fixture
def fake() -> Callable[..., CellResult]:
    """A finished cell with this score, or a failed one with this error, saved; `changes` are fields of the result."""

    def make(
        profile: Profile, planned: PlannedCell, score: float | None = None, *, error: str = "", **changes: object
    ) -> CellResult:
        if error:
            result = build_result(planned, profile, error=FailureDescription(error))
        else:
            result = replace(
                build_result(planned, profile, training=TRAINING, environment=ENVIRONMENT),
                metrics=Metrics({result_metric(planned): score}, {planned.training_tasks[0]: 0.5}, {}),
                costs=COSTS,
                data=dict.fromkeys(planned.training_tasks, EMPTY_DATA),
            )
        result = replace(result, times=replace(result.times, seconds=2.0))
        result = replace(result, **changes)
        ResultStore(profile.results_folder).save_result(planned, result)
        return result

    return make


@pytest.fixture
def answered(fake) -> Callable[..., CellResult]:
    """A finished cell with a score for each of its test examples, in the predictions beside it."""

    def make(profile: Profile, planned: PlannedCell, scores: Sequence[float], **columns: object) -> CellResult:
        uid = [f"{planned.cell.task}:{index}" for index in range(len(scores))]
        table = {
            "uid": uid,
            "asked": uid,
            "group": [""] * len(uid),
            "score": [float(score) for score in scores],
            "target": ["yes"] * len(uid),
            "predicted": ["yes" if score else "no" for score in scores],
            "correct": [bool(score) for score in scores],
        } | columns
        predictions = ResultStore(profile.results_folder).save_predictions(planned, table)
        return fake(profile, planned, fmean(scores), predictions=predictions)

    return make


@pytest.fixture(scope="session")
def shown(tmp_path_factory: pytest.TempPathFactory, model_folders: dict[str, Path]) -> tuple[Profile, Path, str]:
    """The page of a grid made by hand."""
    from tests.support.pages import built

    return built(tmp_path_factory.mktemp("page"), model_folders["qwen3"])


def result_metric(planned: PlannedCell) -> str:
    return planner.specs.get_task_spec(planned.training_tasks[0]).metric


@pytest.fixture
def offline(small: Profile, fake, monkeypatch: pytest.MonkeyPatch) -> Profile:
    """A grid of which seven cells are there, where no account is known."""
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_SILENT", "true")
    for planned in planner.plan_grid(small):
        if planned.cell.task == "chnsent" and planned.cell.shots in (0, 4):
            fake(small, planned, 0.25)
    return small


@pytest.fixture
def caught(offline: Profile, monkeypatch: pytest.MonkeyPatch) -> list[Caught]:
    """Runs that W&B does not get."""
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setattr("benchmark.reporting.wandb.export.start_run", Caught)
    monkeypatch.setattr(Caught, "sent", [], raising=False)
    return Caught.sent


TWO_STAGES = '''
"""A method that learns from the sources first, and from the prompts of each source before that."""
from methods.base import SOURCE_STAGE, TARGET_STAGE, MethodDependency
from methods.lora import LoRA

class Heir(LoRA):
    name = "heir"
    stages = (SOURCE_STAGE, TARGET_STAGE)
    dependency = MethodDependency("prompt", {"length": 3}, ("lr",))
    target_only_options = ("alpha",)
'''


@pytest.fixture
def heir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: Profile) -> Profile:
    """A grid whose method rests on cells of its own and of another method."""
    (tmp_path / "heirs.py").write_text(TWO_STAGES)
    monkeypatch.syspath_prepend(tmp_path)
    config = {"heirs:Heir": {"lr": 0.125}}
    return replace(small, methods=("heirs:Heir",), shots=(4,), seeds=(0, 1), sources=("afqmc", "bq"), config=config)
