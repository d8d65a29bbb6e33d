"""Which cells share their passes: never what differs in more than task and seed, and never slower than alone."""

from dataclasses import replace
from itertools import combinations

import pytest

from benchmark.config.profile import Profile
from benchmark.grid import dataset_stats, planner
from benchmark.grid.cells import PlannedCell
from benchmark.scheduling import packing
from benchmark.scheduling.packing import Pack


def made(found: Profile, due: list[PlannedCell] | None = None, workers: int = 1) -> list[Pack]:
    due = planner.plan_grid(found) if due is None else due
    return packing.build_packs(found, due, {cell.identity: 1.0 for cell in due}, device="cpu", num_workers=workers)


def test_every_due_cell_is_in_one_pack_with_its_kind(small: Profile):
    cells = planner.plan_grid(small)
    found = made(replace(small, pack=4))
    assert sorted(cell.identity for pack in found for cell in pack) == sorted(cell.identity for cell in cells)
    assert 1 < max(map(len, found)) <= 4
    for pack in found:
        assert len({(cell.cell.method, cell.cell.shots, str(cell.options), cell.dependencies) for cell in pack}) == 1
    assert all(len(pack) == 1 for pack in found if pack[0].cell.method == "zero_shot")


@pytest.mark.parametrize("changes", [
    {"methods": ("full",)}, {"methods": ("peft",)}, {"methods": ("lora",), "config": {"lora": {"dropout": 0.1}}},
    {"methods": ("lora",), "pack": 1}, {"methods": ("majority", "head_only")},
])  # fmt: skip
def test_what_cannot_be_packed_runs_alone(small: Profile, changes: dict):
    assert {len(pack) for pack in made(replace(small, **({"pack": 4} | changes)))} == {1}


def test_cells_that_rest_on_other_cells_are_packed_by_what_they_rest_on(heir: Profile):
    """Each seed has source stages of its own, and afqmc leaves itself out of its own."""
    found = made(replace(heir, pack=8))
    on_target = [pack for pack in found if pack[0].cell.method == "heirs:Heir" and pack[0].cell.stage == "target"]
    assert (
        sorted([cell.cell.task for cell in pack] for pack in on_target)
        == [["afqmc"]] * 2 + [["cote_bd", "chnsent"]] * 2
    )
    assert all(len({cell.dependencies for cell in pack}) == 1 for pack in on_target)
    prompts = [pack for pack in found if pack[0].cell.method == "prompt"]
    assert [len(pack) for pack in prompts] == [4]  # two sources, two seeds: nothing ties them to one another


def test_an_interrupted_grid_has_all_methods_of_what_it_reached(small: Profile):
    due = [cell for cell in planner.plan_grid(small) if cell.cell.method != "zero_shot"]
    found = made(replace(small, pack=1), due)
    reached = [(pack[0].cell.seed, pack[0].cell.shots, pack[0].cell.task) for pack in found]
    assert reached[::2] == reached[1::2]
    packed = made(replace(small, pack=3), due)
    assert [[cell.cell[1:] for cell in pack] for pack in packed[::2]] == [[c.cell[1:] for c in p] for p in packed[1::2]]


def test_of_a_round_the_longest_comes_first(small: Profile):
    due = [cell for cell in planner.plan_grid(small) if cell.cell.method != "zero_shot"][:4]
    price = {cell.identity: 2.0 if cell.cell.method == "prompt" else 1.0 for cell in due}
    found = packing.build_packs(replace(small, pack=1), due, price, device="cpu", num_workers=1)
    assert [pack[0].cell.method for pack in found] == ["prompt", "lora"] * 2


def test_the_cuts_are_those_of_least_cost():
    sizes = [(60.0, rest) for rest in (16.0, 16.0, 22.0, 24.0, 40.0, 41.0, 78.0)]

    def cost(cuts: list[tuple[int, int]]) -> float:
        return sum(250 + 8 * (end - first) * sizes[end - 1][1] for first, end in cuts)

    def every(most: int) -> list[list[tuple[int, int]]]:
        inner = [c for n in range(7) for c in combinations(range(1, 7), n)]
        found = [list(zip((0, *c), (*c, 7), strict=True)) for c in inner]
        return [cuts for cuts in found if max(end - first for first, end in cuts) <= most]

    for most in (1, 2, 3, 7):
        found = packing._choose_cuts(sizes, 8, 250.0, most)
        assert cost(found) == min(map(cost, every(most)))
        assert found in every(most)
    assert (
        len(packing._choose_cuts(sizes, 8, 1.0, 7)) == 6
    )  # where a step costs little of itself, only equal lengths go together


def test_a_heavy_backbone_leaves_its_cells_alone(small: Profile, monkeypatch: pytest.MonkeyPatch):
    due = [cell for cell in planner.plan_grid(small) if cell.cell.method == "lora"]
    sizes = {}
    for name, number in (("tiny", 1e6), ("0.5B", 5e8)):
        monkeypatch.setattr(packing, "parse_parameter_count", lambda _, number=number: number)
        sizes[name] = max(len(pack) for pack in made(small, due))
    assert sizes["0.5B"] == 1 < sizes["tiny"] <= packing.MAX_PACK_SIZE["cpu"]
    monkeypatch.setattr(packing, "parse_parameter_count", lambda _: 5e8)
    price = {cell.identity: 1.0 for cell in due}
    assert max(len(pack) for pack in packing.build_packs(small, due, price, device="cuda", num_workers=1)) > 1


def test_few_cells_are_shared_out_over_the_processes(small: Profile):
    due = [cell for cell in planner.plan_grid(small) if cell.cell.method == "lora"]
    assert max(map(len, made(small, due))) > 2 == max(map(len, made(small, due, workers=4)))


def test_a_plan_of_records_from_the_hub_reads_none(small: Profile, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dataset_stats, "measure_prompt_lengths", None)  # to call it would fail
    due = [cell for cell in planner.plan_grid(small) if cell.cell.method == "lora"]
    assert max(len(pack) for pack in made(replace(small, source="hub"), due)) > 1
