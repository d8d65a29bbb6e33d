"""Methods that learn from the sources first, through the grid: what is trained once, shared, and in which order."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmark.config import loading
from benchmark.execution.cell_runner import CellRunner
from benchmark.grid import cells, planner
from benchmark.results.schema import Metrics
from benchmark.results.store import ResultStore
from tasks.synthetic import generators

CHANGES = {
    "tasks": ("ocnli",),
    "sources": ("afqmc", "cote_mfw"),
    "budget": {"batch_size": 4, "epochs": 1, "max_steps": 2, "evaluations": 1, "patience": 0},
    "source_budget": {"batch_size": 4, "epochs": 1, "max_steps": 2, "evaluations": 0, "patience": 0},
    "limit": {"train": 8, "dev": 4, "test": 4},
}


@pytest.fixture
def ran(model_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Cells of some methods by key, with their results, run in order as one process would."""
    monkeypatch.setenv("ADAPTERBENCH_CACHE", str(tmp_path / "records"))

    def run(*methods: str, **config: dict) -> dict[str, tuple[cells.PlannedCell, dict]]:
        backbone = {"name": str(model_folders["qwen3"]), "device": "cpu"}
        changes = CHANGES | {"methods": methods, "backbone": backbone, "results": str(tmp_path / "results")}
        changes |= {"config": config}
        found = loading.load_profile("smoke", changes)
        bench = CellRunner(found, ResultStore(found.results_folder))
        return {cell.cell.key: (cell, bench.run([cell])[0]) for cell in planner.plan_grid(found)}

    return run


def test_source_prompts_are_shared_and_every_stage_is_run(ran):
    found = ran("spot", "attempt", "mpt")
    assert {key.split("/")[0] for key in found} == {"prompt", "spot", "attempt", "mpt.source", "mpt"}
    assert len(found) == 2 + 4
    assert [result.error for _, result in found.values()] == [None] * 6
    prompts = {cell.identity for key, (cell, _) in found.items() if key.startswith("prompt/")}
    assert all(set(found[f"{method}/ocnli/4/0"][0].dependencies) == prompts for method in ("spot", "attempt"))
    assert set(found["mpt.source/sources/full/0"][0].dependencies) == prompts
    assert found["mpt/ocnli/4/0"][0].dependencies == (found["mpt.source/sources/full/0"][0].identity,)
    tokens = {method: found[f"{method}/ocnli/4/0"][1].costs.num_tokens for method in ("spot", "mpt")}
    assert tokens["spot"] == 2 * tokens["mpt"]  # its own prompt first, then the tuning


def test_a_mixture_of_sources_is_trained_once_and_carried_to_the_target(ran):
    found = ran("spot_generic", "shared_lora", "hydra_lora", "mtl_lora", "moe_lora")
    assert len(found) == 2 * 5
    assert {result.state for _, result in found.values()} == {"done"}
    for key, (cell, result) in found.items():
        if ".source/" in key:
            assert result.metrics == Metrics({}, {}, {})  # no evaluations were asked for, and test is never read
        else:
            assert len(cell.dependencies) == 1
            assert set(result.metrics.test) >= {"accuracy"}


def test_stages_on_the_sources_follow_each_other(ran):
    found = ran("ta_lora", "ta_lora:zero", **{"ta_lora:zero": {"start": "zero"}})
    first, second, *targets = found
    assert (first, second) == ("ta_lora.prompt/sources/full/0", "ta_lora.source/sources/full/0")
    assert targets == ["ta_lora/ocnli/4/0", "ta_lora:zero/ocnli/4/0"]
    assert {result.state for _, result in found.values()} == {"done"}
    assert found[second][0].dependencies == (found[first][0].identity,)
    assert all(found[target][0].dependencies == (found[second][0].identity,) for target in targets)
    trained = {key: result.costs.trained_parameters for key, (_, result) in found.items()}
    assert trained[first] == 20 * 32
    assert trained[second] == 20 * 32 + 2 * (8 * 32 + 16 * 8) + 2 * 2 * (16 * 8 + 4)  # all, and two sources' own
    assert trained[targets[0]] == 20 * 32 + 2 * (16 * 8 + 4)
    steps = {key: result.details.training.num_steps for key, (_, result) in found.items()}
    assert (steps[first], steps[second], steps[targets[0]]) == (1, 2, 2)  # shares of 2, rounded up


def test_a_stage_that_has_nothing_to_learn_costs_no_step(ran):
    found = ran("ta_lora", ta_lora={"length": 0})
    steps = {key: result.details.training.num_steps for key, (_, result) in found.items()}
    assert list(steps.values()) == [0, 2, 2]


def test_a_row_of_its_own_runs_and_is_counted_as_itself(ran):
    found = ran("lora", "lora:rank-2", **{"lora:rank-2": {"rank": 2}})
    trained = {key: result.costs.trained_parameters for key, (_, result) in found.items()}
    assert trained["lora/ocnli/4/0"] == 4 * trained["lora:rank-2/ocnli/4/0"]


def test_a_target_test_text_in_a_source_is_counted(model_folders, tmp_path):
    for task in ("cote_mfw", "cote_bd"):
        generators.write_task_files(task, tmp_path / "data")
    stolen = (tmp_path / "data/cote_bd/test.txt").read_text(encoding="utf-8").splitlines()[:3]
    with (tmp_path / "data/cote_mfw/train.txt").open("a", encoding="utf-8") as file:
        file.write("\n".join(stolen) + "\n")
    backbone = {"name": str(model_folders["qwen3"]), "device": "cpu"}
    where = {"source": "local", "data_dir": str(tmp_path / "data"), "results": str(tmp_path / "results"), "limit": {}}
    changes = (
        CHANGES | where | {"methods": ("lora",), "tasks": ("cote_bd",), "sources": ("cote_mfw",), "backbone": backbone}
    )
    found = loading.load_profile("smoke", changes)
    bench = CellRunner(found, ResultStore(found.results_folder))
    (cell,) = planner.plan_grid(found)
    task = bench.load_tasks(cell)[0]
    assert bench.count_leaked_examples(cell, task) == {}  # it rests on no source
    leaked = bench.count_leaked_examples(replace(cell, inputs=replace(cell.inputs, dependencies=("x",))), task)[
        "cote_mfw"
    ]
    assert 1 <= leaked <= 3  # a stolen row may have been cut to dev
