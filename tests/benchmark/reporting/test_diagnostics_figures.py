"""Pictures of what sources taught, from results made by hand."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from benchmark.grid import planner
from benchmark.grid.cells import Cell
from benchmark.reporting import diagnostics
from benchmark.results.cell_result import CellResult
from benchmark.results.schema import CurvePoint, SourceDiagnostics
from tests.support.result_fixtures import TRAINING

BLOCKS = [[1, 0.1, 0.9, 0], [0.1, 1, 0, 0.8], [0.9, 0, 1, 0.1], [0, 0.8, 0.1, 1]]


CURVES = {f"gate, layer {layer}": (CurvePoint(1, 0.0), CurvePoint(2, 0.1 * (layer + 1))) for layer in range(2)}
DIAGNOSTICS = SourceDiagnostics(("a", "b", "c", "d"), {"alike": BLOCKS, "by layer": [0.5, 0.7]})


@pytest.fixture
def result(small, fake) -> Callable[..., CellResult]:
    """A finished source stage with these training curves and diagnostics."""
    planned = planner.plan_grid(small)[0]

    def make(
        method: str, seed: int = 0, *, curves: dict = CURVES, diagnostics: SourceDiagnostics | None = DIAGNOSTICS,
        **changes: object,
    ) -> CellResult:  # fmt: skip
        saved = fake(small, planned, 0.5, source_diagnostics=diagnostics)
        details = replace(saved.details, training=replace(TRAINING, diagnostics=curves))
        return replace(saved, cell=Cell(method, "sources", 0, seed, "source"), stored_details=details, **changes)

    return make


def test_tasks_that_are_alike_stand_beside_each_other():
    order = diagnostics.order_by_similarity(BLOCKS)
    assert {frozenset(order[:2]), frozenset(order[2:])} == {frozenset((0, 2)), frozenset((1, 3))}
    assert diagnostics.order_by_similarity([[1.0, 0.5], [0.5, 1.0]]) == [0, 1]


def test_a_picture_for_each_method_that_has_something_to_show(tmp_path, result):
    nothing = {"curves": {}, "diagnostics": SourceDiagnostics(("a",), {})}
    paths = diagnostics.draw_diagnostics(
        [result("ta_lora", 1), result("ta_lora"), result("ta_lora:zero"), result("lora", **nothing),
         result("mpt", diagnostics=None)],
        tmp_path,
    )  # fmt: skip
    assert [path.name for path in paths] == ["inside-ta_lora.png", "inside-ta_lora.zero.png"]
    assert all(path.stat().st_size > 10_000 for path in paths)


def test_curves_of_one_kind_share_a_panel(tmp_path, result, monkeypatch: pytest.MonkeyPatch):
    drawn = []
    monkeypatch.setattr(diagnostics, "draw_curves", lambda _axes, kind, own: drawn.append((kind, sorted(own))))
    diagnostics.draw_method_diagnostics(result("ta_lora"), tmp_path / "one.png")
    assert drawn == [("gate", ["gate, layer 0", "gate, layer 1"])]


def test_many_panels_go_into_rows_that_can_be_read(tmp_path, result):
    from PIL import Image

    curves = {f"kind {i}": (CurvePoint(1, 0.0), CurvePoint(2, 0.1)) for i in range(5)}
    few = result("ta_lora")
    many = result("meta_lora", curves=curves)
    sizes = [Image.open(diagnostics.draw_method_diagnostics(one, tmp_path / "one.png")).size for one in (few, many)]
    assert sizes[0][0] == sizes[1][0]  # three beside each other
    assert sizes[1][1] > 2 * sizes[0][1]  # and seven in three rows
