"""Pictures of what sources taught, from results made by hand."""

import pytest

from benchmark.reporting import diagnostics

BLOCKS = [[1, 0.1, 0.9, 0], [0.1, 1, 0, 0.8], [0.9, 0, 1, 0.1], [0, 0.8, 0.1, 1]]


def result(method: str, seed: int = 0, **more: object) -> dict:
    return {
        "state": "done", "cell": {"method": method, "task": "sources", "seed": seed},
        "training": {"watched": {"gate, layer 0": [[1, 0.0], [2, 0.1]], "gate, layer 1": [[1, 0.0], [2, 0.2]]}},
        "inside": {"tasks": ["a", "b", "c", "d"], "found": {"alike": BLOCKS, "by layer": [0.5, 0.7]}},
    } | more  # fmt: skip


def test_tasks_that_are_alike_stand_beside_each_other():
    order = diagnostics.order_by_similarity(BLOCKS)
    assert {frozenset(order[:2]), frozenset(order[2:])} == {frozenset((0, 2)), frozenset((1, 3))}
    assert diagnostics.order_by_similarity([[1.0, 0.5], [0.5, 1.0]]) == [0, 1]


def test_a_picture_for_each_method_that_has_something_to_show(tmp_path):
    nothing = {"training": {}, "inside": {"tasks": ["a"], "found": {}}}
    paths = diagnostics.draw_diagnostics(
        [result("ta_lora", 1), result("ta_lora"), result("ta_lora:zero"), result("lora", **nothing),
         result("mpt", state="failed")],
        tmp_path,
    )  # fmt: skip
    assert [path.name for path in paths] == ["inside-ta_lora.png", "inside-ta_lora.zero.png"]
    assert all(path.stat().st_size > 10_000 for path in paths)


def test_curves_of_one_kind_share_a_panel(tmp_path, monkeypatch: pytest.MonkeyPatch):
    drawn = []
    monkeypatch.setattr(diagnostics, "draw_curves", lambda _axes, kind, own: drawn.append((kind, sorted(own))))
    diagnostics.draw_method_diagnostics(result("ta_lora"), tmp_path / "one.png")
    assert drawn == [("gate", ["gate, layer 0", "gate, layer 1"])]


def test_many_panels_go_into_rows_that_can_be_read(tmp_path):
    from PIL import Image

    few, many = result("ta_lora"), result("meta_lora")
    many["training"] = {"watched": {f"kind {i}": [[1, 0.0], [2, 0.1]] for i in range(5)}}
    sizes = [Image.open(diagnostics.draw_method_diagnostics(one, tmp_path / "one.png")).size for one in (few, many)]
    assert sizes[0][0] == sizes[1][0]  # three beside each other
    assert sizes[1][1] > 2 * sizes[0][1]  # and seven in three rows
