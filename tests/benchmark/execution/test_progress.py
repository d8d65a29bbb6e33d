import io

from rich.console import Console

from benchmark.config.model_size import parse_parameter_count
from benchmark.execution.progress import Progress
from benchmark.grid import planner
from benchmark.scheduling.cost_model import CostModel
from benchmark.system.formatting import format_duration


def shown(small, fake, terminal: bool) -> str:
    cells = planner.plan_grid(small)[:3]
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=100)
    with Progress(cells, 4, {cell.identity: 2.0 for cell in cells}, 1, console) as progress:
        for cell, score in zip(cells, (0.5, 0.25, None), strict=True):
            progress.start_pack([cell])
            error = "" if score else "RuntimeError: no"
            progress.finish_cell(cell, fake(small, cell, score, error=error))
    assert (progress.num_done, progress.num_failed) == (2, 1)
    return out.getvalue()


def test_where_there_is_no_terminal_each_cell_is_one_plain_line(small, fake):
    text = shown(small, fake, terminal=False)
    assert "\x1b" not in text
    assert [line.split()[:2] for line in text.splitlines()] == [
        ["1/3", "accuracy"],
        ["2/3", "accuracy"],
        ["3/3", "failed"],
    ]
    assert "RuntimeError: no" in text


def test_a_terminal_also_sees_counts_and_what_runs(small, fake):
    text = shown(small, fake, terminal=True)
    assert "4 cached" in text
    assert "left" in text


def test_time_left_follows_how_the_finished_cells_went(small, fake):
    cells = planner.plan_grid(small)[:3]
    progress = Progress(cells, 0, {cell.identity: 1.0 for cell in cells}, 2, Console(file=io.StringIO()))
    assert progress.remaining_seconds == 1.5
    progress.start_pack(cells[:1])
    progress.finish_cell(cells[0], fake(small, cells[0], 0.5))  # took 2 s where 1 was expected
    assert progress.remaining_seconds == 2 * 2 * 1.0 / 2


def test_prices_come_from_cells_like_it_and_say_so(small, fake):
    cells = {cell.cell.key: cell for cell in planner.plan_grid(small)}
    done = [fake(small, cells["lora/chnsent/4/0"], 0.5)]
    prices = CostModel(small, done)
    assert prices.estimate_seconds(cells["lora/chnsent/4/1"]) == (2.0, True)
    assert prices.estimate_seconds(cells["lora/afqmc/16/1"]) == (2.0, True)
    assert prices.estimate_seconds(cells["prompt/afqmc/16/1"])[1] is False


def test_sizes_and_durations_as_people_say_them():
    assert parse_parameter_count("Qwen/Qwen2.5-0.5B") == 0.5e9
    assert parse_parameter_count("Qwen/Qwen2.5-7B") == 7e9
    assert [format_duration(s) for s in (3.2, 600, 9000, 400_000)] == ["3 s", "10 min", "2.5 h", "4.6 d"]
