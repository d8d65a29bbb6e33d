"""Methods that learn from the sources first: what they can do before the target, and on how many examples that rests."""

from pathlib import Path

import pytest
from safetensors.torch import load_file

from benchmark.config import loading
from benchmark.evaluation import evaluate
from benchmark.execution.cell_runner import CellRunner
from benchmark.grid import cells, planner
from benchmark.results.store import ResultStore
from methods import load_method
from methods.base import TARGET_STAGE

CHANGES = {
    "tasks": ("ocnli",),
    "sources": ("afqmc", "cote_mfw"),
    "config": {"meta_lora": {"lr": 0.02, "tasks": 1, "inner_steps": 1, "pool": 8}, "shared_lora": {"lr": 0.02, "pool": 8}},
    "budget": {"batch_size": 4, "epochs": 1, "max_steps": 2, "evaluations": 1, "patience": 0},
    "source_budget": {"batch_size": 4, "epochs": 1, "max_steps": 4, "evaluations": 1, "patience": 0},
    "limit": {"train": 32, "dev": 4, "test": 24},
}  # fmt: skip


@pytest.fixture
def bench(model_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ADAPTERBENCH_CACHE", str(tmp_path / "records"))

    def made(folder: str, *methods: str) -> tuple[CellRunner, list[cells.PlannedCell]]:
        backbone = {"name": str(model_folders["qwen3"]), "device": "cpu"}
        changes = CHANGES | {"methods": methods, "backbone": backbone, "results": str(tmp_path / folder)}
        found = loading.load_profile("smoke", changes)
        return CellRunner(found, ResultStore(found.results_folder)), planner.plan_grid(found)

    return made


def test_a_source_stage_is_scored_before_the_target_and_the_target_does_not_notice(bench, monkeypatch):
    there, cells = bench("with", "meta_lora", "lora")
    found = {cell.cell.key: (cell, there.run([cell])[0]) for cell in cells}
    assert [result.error for _, result in found.values()] == [None] * 3
    assert found["lora/ocnli/4/0"][1].metrics.zero_step == {}
    source, (target, result) = found["meta_lora.source/sources/full/0"][0], found["meta_lora/ocnli/4/0"]

    method = load_method("meta_lora")(there.backbone, target.options)
    method.load(load_file(there.store.get_adapter_path(source.identity)))
    method.begin_stage(TARGET_STAGE, [0])
    [task] = there.load_tasks(target)
    assert result.metrics.zero_step == evaluate.compute_test_metrics(
        task, evaluate.predict_test(method, [task], "sum")[0]
    )
    method.close()

    monkeypatch.setattr(CellRunner, "predict_before_training", lambda *_: [])
    there, cells = bench("without", "meta_lora")
    for cell in cells:
        [plain] = there.run([cell])
    assert plain.metrics.zero_step == {}
    assert plain.predictions.sha256 == result.predictions.sha256
    assert plain.metrics.test == result.metrics.test


def test_a_pool_limits_the_sources_and_the_result_says_so(bench):
    there, cells = bench("pools", "meta_lora", "shared_lora")
    found = {cell.cell.key: there.run([cell])[0] for cell in cells}
    meta, shared = (found[f"{name}.source/sources/full/0"] for name in ("meta_lora", "shared_lora"))
    for result in (meta, shared):
        for source in ("afqmc", "cote_mfw"):
            assert result.data[source].splits["train"] == 8
            assert result.data[source].offered["train"] == 32
        assert result.details.training.num_gradients == 4
    assert [meta.data[s].digests for s in CHANGES["sources"]] == [shared.data[s].digests for s in CHANGES["sources"]]
    assert meta.details.training.num_steps == 2
    assert set(meta.details.training.diagnostics) == {"moved", "support_before", "support_after", "query"}
    assert len(meta.details.training.loss) == 2  # of whichever source was drawn
    assert shared.details.training.diagnostics == {}
    target = found["meta_lora/ocnli/4/0"]
    assert target.data["ocnli"].splits["train"] == target.data["ocnli"].offered["train"] == 12  # 4 of each of 3 labels


def test_a_mixtures_cost_is_that_of_all_its_sources(bench):
    there, cells = bench("cost", "shared_lora")
    result = there.run([cells[0]])[0]
    batches = 4 * 4  # rows that were passed
    assert result.costs.num_tokens > batches * 20  # a prompt alone is longer than that; one source would have half
    rows = [
        len(i.prompt_ids) + len(i.answer_ids) for task in there.load_tasks(cells[0]) for i in task.encode_split("train")
    ]
    assert batches * min(rows) <= result.costs.num_tokens <= batches * max(rows)
