"""A cell's predictions are its own, bit by bit: in another run, and after whichever cells. (Beside which cells in a pack,
and in how many processes: see the tests of runs.)
"""

from dataclasses import replace

import pytest
from rich.console import Console

from benchmark.config.profile import Profile
from benchmark.execution import process_pool
from benchmark.execution.progress import Progress
from benchmark.grid import planner
from benchmark.results.store import ResultStore


def predictions(found: Profile, folder: str, *, backwards: bool = False) -> dict[str, str]:
    """Cell -> hash of its predictions with their scores, in the order in which they were done."""
    cells, place = planner.plan_grid(found), ResultStore(found.results_folder / folder)
    due = [(cell,) for cell in (reversed(cells) if backwards else cells)]  # a parent is waited for
    price = {cell.identity: 1.0 for cell in cells}
    with Progress(cells, 0, price, 1, Console(quiet=True)) as progress:
        assert not process_pool.run_packs(found, due, place, progress, 1).num_unfinished
    return {r.key: r.predictions.sha256 for r in place.load_results() if r.predictions}


@pytest.fixture
def four(heir: Profile) -> Profile:
    """A control, all weights, one stage and two."""
    methods = ("zero_shot", "full", "lora", "heirs:Heir")
    return replace(heir, methods=methods, tasks=("afqmc", "cote_bd"), seeds=(0,))


def test_no_cell_depends_on_those_before_it(four: Profile):
    """Nothing of a cell stays behind in the process that runs the next."""
    forwards, backwards = predictions(four, "forwards"), predictions(four, "backwards", backwards=True)
    assert list(forwards) != list(backwards)
    assert forwards == backwards


def test_the_same_cells_twice_give_the_same_predictions_and_results(four: Profile):
    """But for times."""
    once, again = (predictions(four, folder) for folder in ("once", "again"))
    assert once == again
    for one, other in zip(
        *(ResultStore(four.results_folder / folder).load_results() for folder in ("once", "again")), strict=True
    ):
        assert one.identity == other.identity
        assert one.metrics == other.metrics
        assert one.data == other.data
        assert one.details.training == other.details.training
