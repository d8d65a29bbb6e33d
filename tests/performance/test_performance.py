"""`make bench` (tests/performance) compares like with like, and its page says what was measured."""

import json
from copy import deepcopy

import pytest
import torch

import methods  # noqa: E402
import tasks  # noqa: E402
from benchmark.evaluation.scoring import predict  # noqa: E402
from benchmark.grid import planner  # noqa: E402
from benchmark.results.store import ResultStore  # noqa: E402
from methods.core.seeding import create_generator  # noqa: E402
from tasks.core.types import UsageError  # noqa: E402
from tests.performance import document, targets
from tests.performance import experiments as parts  # noqa: E402
from tests.performance import results_folder as folder  # noqa: E402
from tests.performance import runners as sides  # noqa: E402
from tests.performance import workload as material  # noqa: E402

SIDE = {"methods": ["lora"], "cells": 8, "processes": 1, "seconds": 80.0, "cells_per_hour": 360.0, "phases": dict.fromkeys(sides.PHASES, 1.0),
        "scoring_share": 0.9, "padded_share": 0.05, "peak_bytes": 2**29, "scores": {"lora/chnsent": 0.5},
        "each": {"lora/chnsent/0": 10.0}}  # fmt: skip


# -------------------------------------------------------------------- the peer


@pytest.fixture
def cell(model_folders, tmp_path) -> dict:
    work = material.Work(str(model_folders["qwen3"]), steps=2, shots=2, limit={"test": 8})
    return work.cell("lora", "chnsent", 0, tmp_path)


@pytest.mark.parametrize("name", ["lora", "prompt"])
@pytest.mark.parametrize("task", ["chnsent", "cote_bd"])
def test_with_the_same_weights_the_peer_predicts_what_the_suite_does(name, task, qwen3, cell, model_folders):
    from peft import set_peft_model_state_dict

    from tests.performance import naive

    data = tasks.load_task(task)(qwen3.tokenizer, shots=2, max_per_split={"test": 8})
    method = methods.load_method(name)(qwen3, {"rank": 8} if name == "lora" else {"length": 20})
    method.begin_stage(method.stages[0], [0], [data.encode_split("train")])
    with torch.no_grad():
        for key, value in method.named_parameters():
            value.add_(0.3 * torch.randn(value.shape, generator=create_generator(key)))
    items = data.encode_split("test")
    ours = predict(method, items, 0, max_new_tokens=6)
    weights = {key: value.clone() for key, value in method.peft_format(0)[1].items()}
    method.close()
    model, tokenizer = naive.load(cell | {"method": name})
    set_peft_model_state_dict(model, weights)
    rows = naive.tokenised(tokenizer, [item.example._asdict() for item in items], 512)
    # peft ignores positions where a prompt is soft, so padding in front of a text moves the prompt away from it
    blocks = [[row] for row in rows] if (name, task) == ("prompt", "cote_bd") else [rows]
    said = [naive.predicted(model.eval(), tokenizer, block, 6) for block in blocks]
    theirs, scores = ([one for pair in said for one in pair[i]] for i in (0, 1))
    assert theirs == [prediction.text for prediction in ours]
    for found, prediction in zip(scores, ours, strict=True):
        assert found == pytest.approx(prediction.scores, abs=1e-3)


def test_the_peer_gets_the_suites_rows_and_numbers(cell, qwen3):
    from tests.performance import naive

    data = tasks.load_task("chnsent")(qwen3.tokenizer, shots=2, max_per_split={"test": 8})
    for split in ("train", "test"):
        items = data.encode_split(split)
        assert [row["ids"] for row in naive.tokenised(qwen3.tokenizer, cell[split], 512)] == [
            list(i.prompt_ids) for i in items
        ]
    config = methods.load_method("lora").Config()
    assert (cell["rank"], cell["alpha"], cell["warmup"]) == (config.rank, config.alpha, config.warmup)
    assert cell["length"] == methods.load_method("prompt").Config.length
    assert naive.load(cell)[0].peft_config["default"].target_modules == {"q_proj", "k_proj", "v_proj", "o_proj"}


def test_the_peer_trains_and_answers(cell):
    from tests.performance import naive

    found = naive.main(json.loads(json.dumps(cell)))
    assert set(found["predictions"]) <= {"负面", "正面"}
    assert [len(scores) for scores in found["scores"]] == [2] * len(cell["test"]) == [2] * 8
    assert 0 < found["padded_share"] < 1
    assert set(found["seconds"]) == {"load", "tokenise", "train", "test"}


# -------------------------------------------------------------------- the suite's figures


def test_phases_and_start_make_up_the_wall_clock(small, fake):
    cells = [planned for planned in planner.plan_grid(small) if planned.cell.method == "lora"]
    for planned in cells:
        fake(small, planned, 0.25)
    found = sides.suite_figures(small, wall=1000.0)
    assert found["cells"] == len(cells)
    assert sum(found["phases"].values()) * len(cells) == pytest.approx(1000 * found["processes"], rel=1e-3)
    assert found["scoring_share"] == pytest.approx(len(cells) * (1.0 + 0.2 + 0.5) / (1000 * found["processes"]))
    assert found["padded_share"] == pytest.approx(0.1)
    assert found["cells_per_hour"] == pytest.approx(3.6 * len(cells), rel=0.01)


def test_a_simulated_folder_is_found_finished(tmp_path):
    found = folder.many(80, tmp_path / "many")
    cells = planner.plan_grid(found)
    assert len(cells) == 80
    folder.finish(found, cells)
    store = ResultStore(found.results_folder)
    assert {state for state, _ in store.compute_statuses(cells, store.load_results())} == {"done"}


# -------------------------------------------------------------------- targets and page


@pytest.fixture
def figures() -> dict[str, dict]:
    """Figures of every part, as the parts give them."""
    processes = {
        name: SIDE | {"cells_per_hour": rate}
        for name, rate in (
            ("naive/1", 100.0),
            ("solo/1", 700.0),
            ("packed/1", 800.0),
            ("naive/2", 190.0),
            ("packed/2", 1900.0),
        )
    }
    found = {
        "demo": SIDE,
        "memory": {"first_bytes": 10**9, "last_bytes": 10**9},
        "plan": {"grids": [{"cells": 10_000, "seconds": {"plan, nothing done": 1.5, "finished, resume": 6.0}}]},
    }
    for name in parts.BACKBONES:
        one = {
            "labels": 2,
            "rows": 9,
            "naive_seconds": 8.0,
            "suite_seconds": 2.0,
            "ratio": 4.0,
            "same_predictions": 1.0,
            "padded_share": 0.02,
        }
        operations = [{"operation": "aten::mm", "share": 0.4, "calls": 3}]
        found |= {
            f"few-shot {name}": {"backbone": name, "sides": deepcopy(processes)},
            f"full {name}": {"backbone": name, "sides": deepcopy(processes)},
            f"scoring {name}": {"backbone": name, "tasks": {"chnsent": one, "tnews": one | {"labels": 15}}},
            f"profile {name}": {
                "backbone": name,
                "task": "chnsent",
                "methods": {"lora": {"seconds": {"train": 1.0}, "operations": operations}},
            },
        }
    found[targets.FEW + targets.ORIGINAL] = deepcopy(found[targets.FEW])
    for name in ("packs", "sizes", "grids"):
        found[name] = {"per_hour": {"1": {"cells_per_hour": 100.0}, "2": {"cells_per_hour": 150.0}}}
    return found  # fmt: skip


def test_every_target_is_measured_by_a_part_that_there_is(figures, tmp_path):
    names = set(parts.every(parts.Options(tmp_path), parts.BACKBONES))
    assert {name.removesuffix(targets.ORIGINAL) for name in figures} == names
    for target in targets.TARGETS:
        assert target.measured(figures) is not None, target.what
        assert target.measured({}) is None
        assert not target.profile or target.profile in names
        assert target.wanted > 0
        assert target.unit in ("x", "%", "s", "min")
    assert len({target.what for target in targets.TARGETS}) == len(targets.TARGETS)


def test_a_target_is_met_from_its_side():
    least, most = (targets.Target("", 2.0, "x", least, lambda parts: 0.0) for least in (True, False))
    assert [least.met(value) for value in (1.9, 2.0, 2.1)] == [False, True, True]
    assert [most.met(value) for value in (1.9, 2.0, 2.1)] == [True, True, False]


def test_the_page_says_met_missed_and_where_the_time_went(figures, tmp_path):
    page = tmp_path / "performance.md"
    page.write_text((document.DOCS / "performance.md").read_text())
    machine = {"device": "cpu: Some CPU", "cores": 2, "system": "Linux", "python": "3.12", "packages": {"torch": "2"},
               "commit": None, "dirty": None, "load": 0.0}  # fmt: skip
    for name, said in figures.items():
        document.save(tmp_path / "bench", name, {"machine": machine, "form": "default", "figures": said})
    document.update(page, tmp_path / "bench")
    lines = page.read_text().splitlines()
    assert any("packed against the peer" in line and "| 10x | **missed** |" in line for line in lines)
    assert any("one process against one" in line and "| 7x | met |" in line for line in lines)
    assert any(line.startswith("- lora on chnsent") and "aten::mm 40%" in line for line in lines)
    assert any("| Some CPU |" in line for line in lines)
    document.update(page, tmp_path / "bench")
    assert page.read_text().splitlines() == lines


def test_a_page_is_made_of_what_is_there(figures):
    for part in figures.values():  # as after the first step of each part
        if "sides" in part:
            part["sides"] = dict(list(part["sides"].items())[:1])
        if "tasks" in part:
            part["tasks"] = dict(list(part["tasks"].items())[:1])
    figures["plan"]["grids"] = [{"cells": 1000, "seconds": {"plan, nothing done": 1.0}}]
    made = {name: make(figures) for name, make in document.SECTIONS.items() if name != "machine"}
    assert made["targets"].count(document.NONE) > 0
    assert "| 1,000 | 1.0 s |" in made["plan"]


def test_what_was_not_measured_is_said():
    text = document.targets({})
    assert text.count(document.NONE) == 2 * len(targets.TARGETS)
    assert "**missed**" not in text


def test_a_page_without_its_markers_is_refused():
    with pytest.raises(UsageError, match="markers of targets"):
        document.between("nothing here", "targets", "")
