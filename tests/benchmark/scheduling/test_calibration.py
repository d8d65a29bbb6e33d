"""What packs a device's steps pay for: read off a measured curve, and measured once."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmark.config.profile import Profile
from benchmark.grid import planner
from benchmark.scheduling import calibration, packing
from benchmark.system import disk_cache


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_cache, "get_cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(disk_cache, "hash_source_file", lambda file: "")


def curve(
    small: Profile, seconds: dict[int, float], monkeypatch: pytest.MonkeyPatch
) -> calibration.StepTimeCurve | None:
    monkeypatch.setattr(calibration, "measure_step_times", None)  # no process is started for what is known
    found = {str(cells): of for cells, of in seconds.items()}
    disk_cache.load_or_compute(calibration._build_cache_key(small), lambda: found)
    assert calibration.get_or_measure_curve(small) == calibration.get_cached_curve(small)
    return calibration.get_cached_curve(small)


def test_a_line_is_found_again(small: Profile, monkeypatch: pytest.MonkeyPatch):
    found = curve(small, {n: 0.03 + 0.01 * n for n in (1, 2, 4, 8, 16, 32)}, monkeypatch)
    rows = small.budget.batch_size * calibration.TOKENS_PER_EXAMPLE
    assert found.overhead_tokens == pytest.approx(3 * rows)  # 30 ms are three cells' worth of tokens
    assert found.max_cells == 32


def test_a_pack_ends_where_a_cell_gains_no_more(small: Profile, monkeypatch: pytest.MonkeyPatch):
    found = curve(small, {1: 0.04, 2: 0.05, 4: 0.07, 8: 0.14}, monkeypatch)
    assert found.max_cells == 4


def test_where_one_cell_fills_the_device_cells_run_alone(small: Profile, monkeypatch: pytest.MonkeyPatch):
    assert curve(small, {1: 0.5, 2: 1.0}, monkeypatch) == (0.0, 1)
    due = [cell for cell in planner.plan_grid(small) if cell.cell.method == "lora"]
    found = packing.build_packs(small, due, {cell.identity: 1.0 for cell in due}, device="cuda", num_workers=1)
    assert {len(pack) for pack in found} == {1}


def test_nothing_had_room(small: Profile, monkeypatch: pytest.MonkeyPatch):
    assert curve(small, {}, monkeypatch) is None


def test_packs_go_by_what_was_measured(small: Profile, monkeypatch: pytest.MonkeyPatch):
    due = [cell for cell in planner.plan_grid(small) if cell.cell.method == "lora"]

    def largest() -> int:
        found = packing.build_packs(small, due, {cell.identity: 1.0 for cell in due}, device="cuda", num_workers=1)
        return max(map(len, found))

    before = largest()
    curve(small, {1: 0.03, 2: 0.031, 4: 0.07}, monkeypatch)
    assert largest() == 2 < before


def test_it_is_measured_on_the_device_itself(small: Profile):
    """Here on a CPU, in this process: every size gives a time, and more rows take longer."""
    found = calibration.measure_step_times(small)
    assert list(found)[:2] == ["1", "2"]
    assert all(of > 0 for of in found.values())


def test_another_backbone_or_batch_is_measured_anew(small: Profile):
    keys = [calibration._build_cache_key(one) for one in (
        small, replace(small, budget=replace(small.budget, batch_size=99)), replace(small, backbone=replace(small.backbone, dtype="mixed")),
    )]  # fmt: skip
    assert len({str(key) for key in keys}) == 3
