import io
from dataclasses import replace
from math import sqrt

import pytest
from rich.console import Console

from benchmark.cli.main import main
from benchmark.config.profile import Profile
from benchmark.grid import planner
from benchmark.reporting.compare import compare_methods
from benchmark.results.store import ResultStore
from tasks.core.types import UsageError


def fill(found: Profile, answered, right: dict, but: tuple = ()) -> None:
    """Every cell with a pattern of right answers, by method or (method, task)."""
    for planned in planner.plan_grid(found):
        cell = planned.cell
        if cell.key not in but:
            answered(found, planned, right.get((cell.method, cell.task), right.get(cell.method, [1, 0])) * 30)


def screen(found: Profile, *pair: str) -> str:
    out = io.StringIO()
    assert compare_methods(found, *pair, Console(file=out, width=140)) == 0
    return out.getvalue()


def row(said: str, name: str) -> list[str]:
    return next(line.split() for line in said.splitlines() if line.split() and line.strip().startswith(f"{name} "))


@pytest.fixture
def one(small) -> Profile:
    return replace(small, shots=(4,))


def test_one_screen_says_where_by_how_much_at_what_cost_and_in_words(one, answered):
    fill(one, answered, {("lora", "afqmc"): [1, 1], ("prompt", "chnsent"): [1, 1]})
    said = screen(one, "lora", "prompt")
    assert row(said, "afqmc")[-1] == "lora"
    assert "+50.0" in row(said, "afqmc")
    assert row(said, "chnsent")[-1] == "prompt"
    assert row(said, "cote_bd")[-1] == "tied"
    # two of three tasks have differences of 0 and 1, of 0 and -1: a variance of 2 x 1/4 / 59 / 9, t(118) = 1.980
    assert row(said, "all tasks")[2:] == ["+0.0", f"±{198.0 * sqrt(0.5 / 59 / 9):.1f}", "tied"]
    assert row(said, "choice tasks")[2:6] == ["75.0", "±0.0", "75.0", "±0.0"]
    assert row(said, "trained parameters")[2:] == ["1", "k", "1", "k"]
    text = " ".join(said.split())
    assert (
        "lora and prompt do not differ significantly on 1 of 3 tasks; lora is better on 1; prompt is better on 1."
        in text
    )
    assert "Over all 3 tasks they do not differ significantly (p = 1); smallest detectable difference" in text
    assert "Bootstrap over both" in text


def test_the_order_of_the_names_turns_the_sign_and_nothing_else(one, answered):
    fill(one, answered, {("lora", "afqmc"): [1, 1]})
    assert "-50.0" in row(screen(one, "prompt", "lora"), "afqmc")
    assert "lora is better on 1" in screen(one, "prompt", "lora")


def test_the_cheaper_one_is_named(one, answered):
    fill(one, answered, {})
    for planned in planner.plan_grid(one):
        if planned.cell.method == "prompt":
            result = answered(one, planned, [1, 0] * 30)
            result = replace(result, costs=replace(result.costs, trained_parameters=200))
            ResultStore(one.results_folder).save_result(planned, result)
    assert "prompt trains 5.0x fewer parameters" in screen(one, "lora", "prompt")


def test_two_that_no_seed_changes_are_compared_on_the_examples(one, answered):
    fixed = replace(one, methods=("zero_shot", "majority"))
    fill(fixed, answered, {("zero_shot", "afqmc"): [1, 1]})
    said = screen(fixed, "zero_shot", "majority")
    assert row(said, "afqmc")[-1] == "zero_shot"
    assert "over the test examples; both methods are independent of the seed" in " ".join(said.split())


def test_each_number_of_shots_has_its_screen(small, answered):
    fill(small, answered, {})
    said = screen(small, "lora", "prompt")
    assert "lora against prompt, 4 shots" in said
    assert "lora against prompt, 16 shots" in said


def test_methods_outside_the_profile_are_found(one, answered):
    wide = replace(one, methods=("prefix", "bitfit"))
    fill(wide, answered, {})
    assert row(screen(one, "prefix", "bitfit"), "afqmc")[-1] == "tied"


def test_what_is_missing_is_said(one, answered):
    fill(one, answered, {}, but=("lora/afqmc/4/0", "lora/afqmc/4/1", "lora/afqmc/4/2"))
    said = screen(one, "lora", "prompt")
    assert row(said, "afqmc")[-2:] == ["not", "run"]
    assert "No mean over all tasks: 1 lack results of both methods, e.g. afqmc" in said
    assert "do not differ significantly on 2 of 2 tasks" in said


def test_one_seed_has_no_verdict(one, answered):
    alone = replace(one, seeds=(0,))
    fill(alone, answered, {"lora": [1, 1]})
    said = screen(alone, "lora", "prompt")
    assert row(said, "afqmc")[-2:] == ["one", "seed"]
    assert "no verdict" in said
    assert "p = " not in said


def test_bad_pairs_are_one_line(one, answered, capsys):
    with pytest.raises(UsageError, match="no results of lora or prompt"):
        compare_methods(one, "lora", "prompt", Console())
    fill(one, answered, {})
    with pytest.raises(UsageError, match="two different methods"):
        compare_methods(one, "lora", "lora", Console())
    with pytest.raises(UsageError, match="did you mean 'lora'"):
        compare_methods(one, "lora", "lorra", Console())
    other = replace(one, config={"lora": {"rank": 3}, "prompt": {"length": 3}})
    with pytest.raises(UsageError, match="18 cells are of other code, options or data"):
        compare_methods(other, "lora", "prompt", Console())
    words = [
        "--profile",
        "smoke",
        "--backbone",
        one.backbone.name,
        "--results",
        str(one.results_folder),
        "--seeds",
        "0,1,2",
    ]
    words += ["--tasks", "afqmc,chnsent,cote_bd"]
    assert main(["compare", "lora", "prompt", *words]) == 0
    assert "do not differ significantly on 3 of 3" in capsys.readouterr().out
    assert main(["compare", "lora", *words]) == 2
