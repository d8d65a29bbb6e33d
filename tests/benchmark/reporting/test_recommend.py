import argparse
import io
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from benchmark.analysis.comparable import choose_common_seeds, describe_missing_seeds, find_nearest_shots
from benchmark.analysis.intervals import MeanEstimate
from benchmark.analysis.statistics import compute_bootstrap_interval, resample_means
from benchmark.cli.main import main
from benchmark.cli.parser import build_parser
from benchmark.config.profile import FULL, Profile
from benchmark.config.run_limits import parse_size
from benchmark.grid import planner
from benchmark.reporting.recommend import evaluate_held_out, recommend_method
from benchmark.results.store import ResultStore
from tasks.core.types import UsageError

TRAINED = ("lora", "prompt", "adapter")
RIGHT = {"lora": 9, "prompt": 6, "adapter": 3}  # of ten; zero_shot and majority guess


def fill(found: Profile, answered, right: dict | None = None, but=lambda cell: False, n: int = 60, **cost) -> None:
    """Every cell with so many right answers of ten by method or (method, task), drawn by seed and example."""
    right = RIGHT | (right or {})
    for planned in planner.plan_grid(found):
        cell = planned.cell
        if but(cell):
            continue
        share = right.get((cell.method, cell.task), right.get(cell.method, 1)) / 10
        draw = np.random.default_rng([cell.seed, *cell.key.encode()])
        scores = (draw.permutation(n) < share * n).astype(float)
        result = answered(found, planned, scores)
        if cell.method in cost:
            seconds, bytes_ = cost[cell.method]
            times = replace(result.times, seconds=seconds)
            result = replace(result, times=times, costs=replace(result.costs, peak_bytes=bytes_))
            ResultStore(found.results_folder).save_result(planned, result)


@pytest.fixture
def wide(small) -> Profile:
    """Three methods that train and two that do not, on two families."""
    methods = ("zero_shot", "majority", *TRAINED)
    return replace(small, methods=methods, tasks=("cmnli", "ocnli", "chnsent"), shots=(4,))


def said(found: Profile, *words: str) -> str:
    out = io.StringIO()
    options = build_parser().parse_args(["recommend", *words])
    shots = tuple(FULL if k == FULL else int(k) for k in options.shots or ()) or found.shots
    seeds = tuple(map(int, options.seeds or ())) or found.seeds
    asked = {"methods": tuple(options.methods or found.methods), "tasks": tuple(options.tasks or found.tasks)}
    found = replace(found, shots=shots, seeds=seeds, **asked)
    assert recommend_method(found, options, Console(file=out, width=120)) == 0
    return " ".join(out.getvalue().split())


# -------------------------------------------------------------------- planted: the answer is known


def test_the_method_that_is_best_is_named_and_the_others_are_behind(wide, answered):
    fill(wide, answered)
    text = said(wide)
    assert text.startswith("Try lora first: all 3 tasks, 4 shots")
    assert "prompt 60.0 ±0.0 -30.0" in text
    assert text.count("behind") == 2
    assert "Not significantly different" not in text
    assert "Expected regret: 0.0 points, at most 0.0 in 95 % of the bootstrap resamples" in text
    assert "lora is best in 100 %" in text
    assert "Gain over the untrained backbone (zero_shot): +80.0" in text
    assert "Leave-one-task-out over 3 tasks: the chosen method is on average 0.0 points below" in text
    assert "a random method 30.0" in text
    assert "Weak evidence" not in text


def test_a_family_has_its_own_answer(wide, answered):
    fill(wide, answered, {("prompt", "chnsent"): 10, ("lora", "chnsent"): 4})
    assert said(wide, "--family", "inference").startswith("Try lora first: inference tasks (cmnli, ocnli), 4 shots")
    text = said(wide, "--family", "sentiment")
    assert text.startswith("Try prompt first: sentiment tasks (chnsent), 4 shots")
    # one task of the family: whether the rule carries over is asked of all tasks, and the others would choose lora
    assert "Leave-one-task-out over 3 tasks" in text
    assert "chnsent 60.0: lora, best prompt" in text
    assert "chnsent is the only task" in text


def test_a_method_as_good_as_the_first_is_tied_and_the_cheaper_one_is_named(wide, answered):
    fill(wide, answered, {"prompt": 9}, lora=(4.0, 100), prompt=(1.0, 100))
    text = said(wide)
    first = text.split()[1]
    assert {first} < {"lora", "prompt"}
    other = ({"lora", "prompt"} - {first}).pop()
    assert f"Not significantly different from {first}: {other}" in text
    assert ("(prompt is 4.0x faster)" in text) == (first == "lora")
    assert "best in 100 %" not in text


def test_limits_decide_who_is_asked(wide, answered):
    fill(wide, answered, lora=(9.0, 3 * 2**30), prompt=(4.0, 2**30), adapter=(1.0, 2**30))
    assert said(wide).startswith("Try lora first")
    text = said(wide, "--memory", "2GB")
    assert text.startswith("Try prompt first")
    assert "Rejected (over the limits): lora." in text
    assert said(wide, "--memory", "2GB", "--seconds", "2").startswith("Try adapter first")
    with pytest.raises(UsageError, match="no method within the limits: adapter takes 1.0 GB and 1.0 s"):
        said(wide, "--seconds", "0.5")


def test_guessing_is_not_recommended(wide, answered):
    fill(wide, answered, {"majority": 5, "lora": 5, "prompt": 9})
    text = said(wide)
    assert text.startswith("Try prompt first")
    assert "Rejected (within noise of majority): adapter, lora." in text
    fill(wide, answered, {"majority": 9, "lora": 9, "prompt": 9})
    text = said(wide)
    assert "itself is within noise of majority" in text
    assert "Rejected" not in text  # better one that guesses than none


# -------------------------------------------------------------------- thin evidence is said


def test_one_seed_has_no_ties_and_no_expected_loss(wide, answered):
    fill(replace(wide, seeds=(0,)), answered)
    text = said(wide)
    assert "Weak evidence: a single seed gives no significance tests" in text
    assert "Expected regret" not in text
    assert text.startswith("Try lora first")


def test_everything_tied_is_said(wide, answered):
    fill(wide, answered, dict.fromkeys(TRAINED, 6), n=20)
    assert "no method differs significantly from" in said(wide)


def test_a_method_without_all_cells_is_left_out_and_how_to_run_it(wide, answered):
    fill(wide, answered, {"adapter": 10}, lambda cell: cell.method == "adapter" and cell.seed > 0)
    text = said(wide)
    assert text.startswith("Try lora first")
    assert "Left out: adapter (seed 0 only), there above lora: adapter +10.0." in text
    again = f"run {wide.cli_flags} --methods adapter --tasks cmnli,chnsent,ocnli --shots 4 --seeds 0,1,2"
    assert again in text
    assert str(wide.results_folder) in again  # it goes on where the others are
    assert "±" in text


def test_a_task_with_one_method_does_not_empty_the_table(wide, answered):
    fill(wide, answered, but=lambda cell: cell.task == "ocnli" and cell.method != "lora")
    text = said(wide)
    assert "too few results on ocnli at 4 shots" in text
    assert "Left out" not in text


def test_shots_that_were_not_run_are_answered_by_the_nearest(wide, answered):
    fill(replace(wide, shots=(4, 16)), answered)
    assert "no results at" not in said(wide, "--shots", "16")
    assert "no results at 12 shots; nearest: 16 shots" in said(wide, "--shots", "12")
    assert "no results at full data; nearest: 16 shots" in said(wide, "--shots", "full")


def test_a_task_without_results_is_answered_by_its_family(wide, answered):
    fill(replace(wide, tasks=("cmnli", "chnsent")), answered)
    text = said(wide, "--tasks", "ocnli")
    assert text.startswith("Try lora first: ocnli by cmnli")
    assert "no results on ocnli, only on other tasks of the family" in text
    with pytest.raises(
        UsageError, match="no results on bq or other tasks of the family; to create them: `.* --tasks bq`"
    ):
        said(wide, "--tasks", "bq")


def test_methods_on_different_tasks_cannot_be_compared(wide, answered):
    pair = replace(wide, methods=("lora", "prompt"), tasks=("ocnli", "chnsent"))
    fill(pair, answered, but=lambda cell: (cell.method == "lora") != (cell.task == "ocnli"))
    with pytest.raises(
        UsageError, match="no method has all of chnsent, ocnli at 4 shots on any seed; to create them: `"
    ):
        said(pair)
    assert "no other method to compare lora with" in said(pair, "--tasks", "ocnli")


def test_a_family_within_tasks_of_another_suite_is_not_asked(wide, answered):
    fill(replace(wide, tasks=("cmnli",)), answered)
    with pytest.raises(UsageError, match="to create them: `.* --tasks afqmc,bq,lcqmc`"):
        said(wide, "--family", "paraphrase")


def test_one_method_is_compared_with_nothing(wide, answered):
    fill(wide, answered, but=lambda cell: cell.method in ("prompt", "adapter"))
    assert "no other method to compare lora with" in said(wide)


def test_what_cannot_be_answered_is_one_line(wide, answered, capsys):
    with pytest.raises(UsageError, match="no results of a trained method"):
        said(wide)
    fill(replace(wide, tasks=("cmnli",)), answered)
    with pytest.raises(UsageError, match="no family 'inferense'; did you mean 'inference'"):
        said(wide, "--family", "inferense")
    with pytest.raises(UsageError, match="no results on topic tasks; to create them: `.*--tasks thucnews,tnews`"):
        said(wide, "--family", "topic")
    with pytest.raises(UsageError, match="no results of a trained method .* other code, options or data"):
        said(replace(wide, max_length=100))
    words = ["--profile", "smoke", "--backbone", wide.backbone.name, "--results", str(wide.results_folder)]
    assert main(["recommend", *words, "--family", "inference", "--shots", "4", "--memory", "1GB"]) == 0
    assert "Try lora first" in capsys.readouterr().out
    assert main(["recommend", *words, "--memory", "8 parsecs"]) == 2
    assert "not a size above 0" in capsys.readouterr().err


# -------------------------------------------------------------------- parts


def test_the_loss_is_that_of_the_worst_rival_in_each_draw():
    draw = np.random.default_rng(0)
    d = [draw.normal(0.0, 1.0, (3, n)) for n in (20, 30)]  # [S, n] of two tasks
    both = resample_means([np.stack([one, -one]) for one in d], num_resamples=400)
    assert both.shape == (400, 2)
    assert np.allclose(both[:, 0], -both[:, 1])  # in the same draws
    assert np.allclose(np.quantile(both[:, 0], [0.025, 0.975]), compute_bootstrap_interval(d, num_resamples=400))


def test_a_task_is_held_out_of_its_own_choice():
    def line(name: str, **scores: float) -> argparse.Namespace:
        figures = {task: MeanEstimate(score, None, 3) for task, score in scores.items()}
        return argparse.Namespace(method=name, task_scores=figures, averages={"asked": MeanEstimate(0.0, None, 3)})

    lines = [line("a", x=0.9, y=0.2, z=0.2), line("b", x=0.1, y=0.6, z=0.5)]
    found = {
        one.task: (one.chosen_method, one.best_method, round(one.loss, 2), round(one.random_choice_loss, 2))
        for one in evaluate_held_out(lines, "xyz")
    }
    assert found == {"x": ("b", "a", 0.8, 0.4), "y": ("a", "b", 0.4, 0.2), "z": ("a", "b", 0.3, 0.15)}


def test_seeds_are_those_that_compare_most_methods():
    all_, one, two = frozenset((0, 1, 2)), frozenset((0,)), frozenset((0, 1))
    assert choose_common_seeds([all_] * 5 + [one] * 16) == all_
    assert choose_common_seeds([all_] * 12 + [two]) == all_
    assert choose_common_seeds([frozenset(range(5))] * 2 + [all_] * 10) == all_
    assert choose_common_seeds([one, one, frozenset()]) == one
    assert describe_missing_seeds(one, all_) == "seed 0 only"
    assert describe_missing_seeds(frozenset(), all_) == "cells are missing"


def test_the_nearest_number_of_shots():
    assert find_nearest_shots(8, {4, 32}) == 4
    assert find_nearest_shots(16, {4, 32, FULL}) == 32
    assert find_nearest_shots(FULL, {4, 32}) == 32
    assert find_nearest_shots(16, {FULL}) == FULL


@pytest.mark.parametrize(("text", "bytes_"), [("8GB", 8 * 2**30), ("800 MB", 800 * 2**20), ("1.5g", 1.5 * 2**30)])
def test_sizes(text, bytes_):
    assert parse_size(text) == bytes_
