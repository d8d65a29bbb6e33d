"""What a plan says of the last run: expected and taken time, and nothing that a crash left."""

from dataclasses import replace
from io import StringIO
from pathlib import Path

from rich.console import Console

from benchmark import grid, past, planning, store
from benchmark.price import Prices
from benchmark.profile import Profile


def test_the_error_of_the_last_run_is_said(tmp_path: Path):
    assert past.error(tmp_path) == ""
    past.note(tmp_path, 96, 2, 200.0, 100.0)
    past.note(tmp_path, 96, 2, 200.0, 250.0)
    assert past.error(tmp_path) == "the last run took 4 min for 96 cells, 25 % more than planned"
    past.note(tmp_path, 8, 2, 40.0, 20.0)
    assert past.error(tmp_path) == "the last run took 20 s for 8 cells, 50 % less than planned"


def test_a_torn_line_does_not_count(tmp_path: Path):
    past.note(tmp_path, 8, 2, 40.0, 20.0)
    with (tmp_path / "runs.jsonl").open("a") as file:
        file.write('{"cells": 9, "took"')
    assert past.last(tmp_path)["cells"] == 8


def test_a_plan_shows_it(small: Profile):
    found, said = replace(small, methods=("lora",)), StringIO()
    found.folder.mkdir(parents=True, exist_ok=True)
    past.note(found.folder, 8, 2, 40.0, 40.0)
    cells = grid.plan(found)
    planning.draw(
        Console(file=said, width=120), found, cells, store.Store(found.folder).states(cells, []), Prices(found, ()), []
    )
    assert "the last run took 40 s for 8 cells, as planned" in said.getvalue()
