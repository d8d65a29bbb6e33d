import csv
import io
from dataclasses import replace
from math import isclose

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import rankdata

from benchmark.analysis import load, significance
from benchmark.analysis.leaderboard import build_leaderboard
from benchmark.analysis.paired import PairedScores
from benchmark.analysis.statistics import apply_holm_correction, combine_tasks, compute_task_contribution
from benchmark.config.profile import Profile
from benchmark.grid import planner
from benchmark.reporting import build, format
from benchmark.results.store import ResultStore

LORA, PROMPT, NONE = ("lora", (4,)), ("prompt", (4,)), ("zero_shot", (4,))
N = 24


def fill(found: Profile, answered, right: dict, but: tuple = (), n: int = N, **columns) -> dict[tuple, np.ndarray]:
    """Every cell, with its share of right answers by method or (method, task). -> the scores by cell."""
    kept = {}
    for planned in planner.plan_grid(found):
        cell = planned.cell
        if cell.key in but:
            continue
        draw = np.random.default_rng([*cell.key.encode()])
        share = right.get((cell.method, cell.task), right.get(cell.method, 0.5))
        kept[cell[:4]] = scores = (draw.random(n) < share).astype(float)
        answered(found, planned, scores, **columns)
    return kept


def kept_of(found: Profile) -> PairedScores:
    return PairedScores(found, load.collect_results(found, ResultStore(found.results_folder))[1])


def stacked(scores: dict, method: str, task: str, shots: int) -> np.ndarray:
    return np.stack([scores[method, task, shots, seed] for seed in (0, 1, 2)])


def test_a_difference_is_that_of_the_kept_scores(small, answered):
    scores = fill(small, answered, {"lora": 0.8})
    kept = kept_of(small)
    apart = {task: stacked(scores, "lora", task, 4) - stacked(scores, "prompt", task, 4) for task in small.tasks}
    assert kept.compute_difference(LORA, PROMPT, ["afqmc"]) == combine_tasks(
        [compute_task_contribution(apart["afqmc"])]
    )
    assert kept.compute_difference(LORA, PROMPT, small.tasks) == combine_tasks(
        [compute_task_contribution(d) for d in apart.values()]
    )
    assert isclose(
        kept.compute_difference(PROMPT, LORA, small.tasks).mean,
        -kept.compute_difference(LORA, PROMPT, small.tasks).mean,
    )
    assert kept.compute_difference(LORA, ("lora", (16,)), small.tasks).num_seeds == 3


def test_a_row_may_be_the_mean_over_several_numbers_of_shots(small, answered):
    scores = fill(small, answered, {})
    both = (4, 16)
    found = kept_of(small).compute_difference(("lora", both), ("prompt", both), ["chnsent"])
    means = [np.mean([stacked(scores, name, "chnsent", k) for k in both], axis=0) for name in ("lora", "prompt")]
    assert found == combine_tasks([compute_task_contribution(means[0] - means[1])])


def test_what_no_seed_changes_is_compared_with_every_seed(small, answered):
    scores = fill(small, answered, {})
    found = kept_of(small).compute_difference(LORA, NONE, ["chnsent"])
    assert found == combine_tasks(
        [compute_task_contribution(stacked(scores, "lora", "chnsent", 4) - scores["zero_shot", "chnsent", 0, 0])]
    )
    two = replace(small, methods=("zero_shot", "majority"))
    scores |= fill(two, answered, {})
    found = kept_of(two).compute_difference(NONE, ("majority", (4,)), ["chnsent"])
    fixed = scores["zero_shot", "chnsent", 0, 0] - scores["majority", "chnsent", 0, 0]
    assert found == combine_tasks([compute_task_contribution(fixed[None])], is_seed_independent=True)
    assert found.compute_half_width() is not None


def test_a_mean_over_tasks_has_no_hole_and_one_task_takes_the_seeds_there_are(small, answered):
    fill(small, answered, {}, but=("lora/chnsent/4/1",))
    kept = kept_of(small)
    assert kept.compute_difference(LORA, PROMPT, "chnsent").num_seeds == 2
    assert kept.compute_difference(LORA, PROMPT, ["chnsent"]) is None
    assert kept.compute_difference(LORA, PROMPT, ["afqmc", "chnsent"]) is None
    assert kept.compute_difference(LORA, PROMPT, ["afqmc", "cote_bd"]) is not None
    assert kept.compute_difference(LORA, ("shared_lora", (4,)), ["afqmc"]) is None


def test_documents_are_what_is_drawn(small, answered):
    fill(small, answered, {}, group=["one", "two", "three", "four"] * (N // 4))
    assert kept_of(small).compute_difference(LORA, PROMPT, ["chnsent"]).num_examples == 4


def test_other_examples_are_not_paired(small, answered):
    fill(small, answered, {})
    planned = next(cell for cell in planner.plan_grid(small) if cell.cell.key == "lora/chnsent/4/1")
    answered(small, planned, [1.0] * N, asked=[f"other {index}" for index in range(N)])
    kept = kept_of(small)
    assert kept.compute_difference(LORA, PROMPT, ["chnsent"]) is None
    assert kept.compute_difference(LORA, PROMPT, ["afqmc"]) is not None


def test_predictions_that_cannot_be_used_say_why(small, answered, fake):
    fill(small, answered, {})
    cells = {cell.cell.key: cell for cell in planner.plan_grid(small)}
    ResultStore(small.results_folder).get_predictions_path(cells["lora/afqmc/4/0"]).unlink()
    ResultStore(small.results_folder).get_predictions_path(cells["lora/chnsent/4/0"]).write_bytes(b"other")
    result = answered(small, cells["lora/cote_bd/4/0"], [0.5] * N)
    fake(small, cells["lora/cote_bd/4/0"], 0.7, predictions=result.predictions)
    kept = kept_of(small)
    assert [kept.compute_difference(LORA, PROMPT, task).num_seeds for task in small.tasks] == [2, 2, 2]
    assert [kept.unusable_cells[f"lora/{task}/4/0"].split()[-1] for task in small.tasks] == [
        "missing",
        "scoring",
        "examples",
    ]
    worth = significance.compute_significance(
        build_leaderboard(small, (results := load.collect_results(small, ResultStore(small.results_folder))[1])),
        results,
    )
    assert (
        sum(
            note.startswith("1 cells are excluded from the differences")
            for note in build.describe_significance(build_leaderboard(small, results), worth)
        )
        == 3
    )


# -------------------------------------------------------------------- the leaderboard


@pytest.fixture
def clear(small, answered) -> Profile:
    """Four methods, of which two are alike, one is clearly worse, one guesses; and the controls."""
    rows = ("majority", "head_only", "lora", "prompt", "prefix", "bitfit")
    found = replace(small, methods=rows, tasks=("afqmc", "bq", "chnsent", "ocnli"), shots=(4,))
    right = {"majority": 0.3, "head_only": 0.4, "lora": 0.9, "prompt": 0.9, "prefix": 0.65, "bitfit": 0.3}
    fill(found, answered, right, n=300)
    return found


def worth_of(found: Profile):
    results = load.collect_results(found, ResultStore(found.results_folder))[1]
    return build_leaderboard(found, results), significance.compute_significance(
        build_leaderboard(found, results), results
    )


def test_ties_flags_and_ranks_of_a_leaderboard(clear):
    table, worth = worth_of(clear)
    rows = {line.method: worth.entries[line.method, 4, "choice tasks"] for line in table.rows}
    assert worth.reference_by_shots == {4: "lora"}
    assert {name: row.tie_letters for name, row in rows.items()} == {
        "majority": "", "head_only": "", "lora": "a", "prompt": "a", "prefix": "b", "bitfit": "",
    }  # fmt: skip
    assert {name: row.unranked_reason for name, row in rows.items() if row.unranked_reason} == {
        "bitfit": significance.AT_MAJORITY
    }
    assert rows["lora"].difference is None
    assert rows["prefix"].difference.compute_interval()[1] < 0
    others = [row for name, row in rows.items() if name != "lora"]
    assert [row.corrected_p_value for row in others] == apply_holm_correction(
        [row.difference.compute_p_value() for row in others]
    )
    names, ranks = worth.average_ranks[4, "choice tasks"]
    assert set(names[:2]) == {"lora", "prompt"}
    assert names[2:] == ["prefix"]
    assert (ranks.mean_ranks[2], ranks.num_tasks) == (3.0, 4)
    # any selection of tasks has ranks of its own
    own = [
        [f.mean for f in (line.task_scores["afqmc"], line.task_scores["bq"])]
        for line in table.rows
        if line.method in names
    ]
    assert worth.average_ranks[4, "source tasks"][1].num_tasks == 2
    assert sorted(worth.average_ranks[4, "source tasks"][1].mean_ranks) == sorted(
        rankdata(-np.array(own), axis=0).mean(1)
    )


def test_a_method_that_cannot_be_compared_takes_no_letter_from_the_others(clear):
    cells = {cell.cell.key: cell for cell in planner.plan_grid(clear)}
    for seed in (1, 2):  # one seed of one method
        ResultStore(clear.results_folder).get_result_path(cells[f"prefix/chnsent/4/{seed}"]).unlink()
    ResultStore(clear.results_folder).get_predictions_path(cells["bitfit/bq/4/0"]).write_bytes(
        b"other"
    )  # predictions that are not its own
    _, worth = worth_of(clear)
    letters = {name: worth.entries[name, 4, "chnsent"].tie_letters for name in clear.methods}
    assert letters["lora"] == letters["prompt"] == "a"
    assert letters["prefix"] == ""
    average = {name: worth.entries[name, 4, "choice tasks"].tie_letters for name in clear.methods}
    assert average["lora"] == average["prompt"] == "a"


def test_below_a_classifier_on_frozen_states_there_is_no_rank(clear):
    found = replace(clear, methods=("head_only", "prefix", "bitfit"))
    _, worth = worth_of(found)
    assert worth.reference_by_shots == {4: "prefix"}  # the best, where lora is not there
    assert worth.entries["bitfit", 4, "choice tasks"].unranked_reason == significance.BELOW_HEAD
    assert worth.entries["prefix", 4, "choice tasks"].unranked_reason == ""


def test_the_report_says_it_in_the_terminal_in_markdown_and_in_numbers(clear):
    out = io.StringIO()
    folder = build.build_report(clear, Console(file=out, width=150))
    text = (folder / "leaderboard.md").read_text()
    _, worth = worth_of(clear)
    row = worth.entries["prefix", 4, "choice tasks"]
    low, high = row.difference.compute_interval()
    shown = f"{100 * row.difference.mean:+.1f} ±{50 * (high - low):.1f} b"
    for said in (text, out.getvalue()):
        assert "choice vs lora" in said
        assert shown in said
        assert f"{format.UNRANKED_MARK} not ranked: {significance.AT_MAJORITY}" in said
        assert "average rank over the 4 choice tasks" in " ".join(said.split())
    found = {(r["method"], r["name"]): r for r in csv.DictReader((folder / "leaderboard.csv").open())}
    line = found["prefix", "choice tasks"]
    assert (line["reference"], line["ties"], line["difference_seeds"]) == ("lora", "b", "3")
    numbers = [float(line[name]) for name in ("difference", "difference_low", "difference_high", "difference_p")]
    assert np.allclose(numbers, [row.difference.mean, low, high, row.corrected_p_value])
    assert isclose(float(line["detectable"]), row.difference.compute_detectable_difference())
    assert found["bitfit", "choice tasks"]["flag"] == significance.AT_MAJORITY
    assert found["lora", "chnsent"]["difference"] == ""


def test_a_reader_is_told_what_the_letters_can_find(clear):
    table, worth = worth_of(clear)
    text = " ".join(build.describe_significance(table, worth))
    gaps = [worth.entries[name, 4, "choice tasks"].difference for name in ("prompt", "prefix", "bitfit")]
    sizes = [
        [100 * gap.compute_detectable_difference(1 - 0.05 / pairs) for gap in gaps] for pairs in (1, 3)
    ]  # three have letters
    alone, letters = (f"{min(own):.1f} to {max(own):.1f}" for own in sizes)
    planned = f"(80 % power): {alone} points for one planned comparison"
    assert f"{planned}, {letters} after Holm correction for 3 pairs." in text
    assert min(sizes[1]) > 1.2 * min(sizes[0])


def test_one_seed_is_said_and_decides_nothing(small, answered):
    found = replace(small, seeds=(0,), shots=(4,))
    fill(found, answered, {"lora": 1.0, "prompt": 0.1})
    out = io.StringIO()
    build.build_report(found, Console(file=out, width=150))
    _, worth = worth_of(found)
    row = worth.entries["prompt", 4, "choice tasks"]
    assert (row.tie_letters, row.unranked_reason, row.corrected_p_value) == ("", "", None)
    assert f"{100 * row.difference.mean:+.1f} (1 seed)" in out.getvalue()
    assert "One seed gives no variance over seeds" in out.getvalue()


def test_rows_are_compared_with_lora_or_the_method_they_are_variants_of_or_the_best(small, fake):
    def against(**means: float) -> str:
        names = [name.replace("__", ":") for name in means]
        found = replace(small, methods=("lora",), shots=(4,))
        line = build_leaderboard(found, [fake(found, planned, 0.5) for planned in planner.plan_grid(found)]).rows[0]
        figure = next(iter(line.averages.values()))
        return significance.choose_reference(
            [
                line._replace(method=name, averages={"choice tasks": figure._replace(mean=mean)})
                for name, mean in zip(names, means.values(), strict=True)
            ],
            "lora",
        )

    assert against(lora=0.2, prompt=0.5, prompt__short=0.6) == "lora"
    assert against(prompt=0.2, prompt__short=0.5, prompt__long=0.6) == "prompt"
    assert against(prompt=0.2, prompt__short=0.5, adapter=0.4, adapter__wide=0.3) == "prompt:short"


def test_a_flag_that_no_table_shows_is_not_explained(clear):
    table, worth = worth_of(clear)
    first = next(iter(table.task_groups))
    elsewhere = {
        key: row._replace(unranked_reason="" if key[2] == first else significance.AT_MAJORITY)
        for key, row in worth.entries.items()
    }
    assert any(format.UNRANKED_MARK in said for said in build.describe_significance(table, worth))
    assert not any(
        format.UNRANKED_MARK in said for said in build.describe_significance(table, worth._replace(entries=elsewhere))
    )
