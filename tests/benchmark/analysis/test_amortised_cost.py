"""What a cell cost when others share what it rests on, and what it would have cost alone."""

from dataclasses import replace
from typing import NamedTuple

from benchmark.analysis.leaderboard import build_leaderboard, compute_seconds_with_dependencies
from benchmark.analysis.significance import compute_significance
from benchmark.grid import planner
from benchmark.reporting import format, tables
from benchmark.results.schema import CellTimes


class Result(NamedTuple):
    """The fields of a result that costs depend on."""

    identity: str
    times: CellTimes
    dependencies: tuple[str, ...]
    is_done: bool


def result(name: str, seconds: float, *parents: str, state: str = "done") -> Result:
    return Result(name, CellTimes("", "", seconds), parents, state == "done")


def test_shared_work_is_divided_among_its_heirs_and_counted_whole_for_one():
    """Two prompts of 8 s each, a source stage of 10 s on both, two targets of 1 s on it, one target on a prompt."""
    found = compute_seconds_with_dependencies(
        [result("p", 8), result("q", 8), result("s", 10, "p", "q"), result("a", 1, "s"), result("b", 1, "s"),
         result("c", 2, "p")]
    )  # fmt: skip
    assert found["p"] == (8, 8)
    assert found["s"] == (10 + 8 / 2 + 8, 26)
    assert found["a"] == found["b"] == (1 + 22 / 2, 27)
    assert found["c"] == (2 + 8 / 2, 10)
    assert sum(found[name][0] for name in "abc") == 8 + 8 + 10 + 1 + 1 + 2  # what was spent, once


def test_what_is_above_twice_is_counted_once():
    found = compute_seconds_with_dependencies([result("p", 4), result("s", 10, "p"), result("a", 1, "s", "p")])
    assert found["a"] == (1 + 12 + 2, 15)


def test_without_all_parents_there_is_no_cost():
    found = compute_seconds_with_dependencies(
        [result("s", 10, state="failed"), result("a", 1, "s"), result("b", 2, "gone"), result("c", 3)]
    )
    assert found == {"c": (3, 3)}


def test_the_table_says_what_a_method_rests_on(heir, fake):
    """Every cell took 2 s: a target rests on a source stage, and that on a prompt for each source."""
    cells = planner.plan_grid(heir)
    table = build_leaderboard(heir, [fake(heir, planned, 0.5) for planned in cells])
    line = next(line for line in table.rows if line.method == "heirs:Heir")
    above = len({planned.cell.task for planned in cells if planned.cell.method == "prompt"})
    assert line.seconds_per_cell == 2
    assert line.standalone_seconds >= 2 + 2 + 2 * (above - 1)
    assert 2 < line.amortised_seconds < line.standalone_seconds
    assert (
        format.format_seconds_with_dependencies(line) == f"{line.amortised_seconds:.1f} ({line.standalone_seconds:.1f})"
    )


def test_the_table_says_what_the_sources_gave_before_a_step_on_the_target(heir, fake):
    """And has no column for it where no method learns from sources."""
    heir = replace(heir, methods=("lora", *heir.methods))
    results = [fake(heir, planned, 0.5) for planned in planner.plan_grid(heir)]
    for index, result in enumerate(results):
        if result.cell.method == "heirs:Heir" and result.is_target:
            metrics = replace(result.metrics, zero_step=dict.fromkeys(result.metrics.test, 0.25))
            results[index] = replace(result, metrics=metrics)
    table = build_leaderboard(heir, results)
    lines = {line.method: line for line in table.rows}
    assert {figure.mean for figure in lines["heirs:Heir"].zero_step_averages.values()} == {0.25}
    assert set(lines["lora"].zero_step_averages.values()) == {None}
    for shown, said in ((table.rows, True), ([lines["lora"]], False)):
        _, header, rows = next(
            tables.build_tables(table._replace(rows=shown), compute_significance(table, results), heir.shots[0])
        )
        assert ("0 steps" in header) == ("with sources" in header) == said
        assert all(len(row) == len(header) for row in rows)
        if said:
            assert {row[0]: row[header.index("0 steps")] for row in rows}["heirs:Heir"].startswith("25.0")
