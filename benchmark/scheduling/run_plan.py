"""The plan of a run: one frozen object, built once and shared by the console, the checks and the scheduler."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from benchmark.config.profile import Profile
from benchmark.grid.cells import PlannedCell
from benchmark.results.schema import CellStatus
from benchmark.scheduling.cost_model import CostModel
from benchmark.scheduling.packing import Pack, build_packs
from benchmark.system import hardware


class CellEstimate(NamedTuple):
    """Expected duration of a cell, and whether it comes from measured cells of the results folder."""

    seconds: float
    is_measured: bool


@dataclass(frozen=True)
class RunPlan:
    """What a run will do. Estimates exist for the cells that are due; `device` is "cpu" or "cuda"."""

    profile: Profile
    cells: tuple[PlannedCell, ...]
    statuses: tuple[CellStatus, ...]  # one per cell, in the same order
    packs: tuple[Pack, ...]  # due cells, in the order to run them
    estimates: Mapping[str, CellEstimate]  # by the identity of the cell
    num_workers: int
    device: str

    @property
    def due_cells(self) -> list[PlannedCell]:
        """Cells that have no valid result yet, in the order of the packs."""
        return [cell for pack in self.packs for cell in pack]

    @property
    def total_seconds(self) -> float:
        """Sum of the estimates of all due cells, as if one process ran them one after the other."""
        return sum(estimate.seconds for estimate in self.estimates.values())


def build_run_plan(
    profile: Profile, cells: Sequence[PlannedCell], statuses: Sequence[CellStatus], cost_model: CostModel
) -> RunPlan:
    """Pack the due cells and estimate how long they take."""
    due = [cell for cell, status in zip(cells, statuses, strict=True) if status.state != "done"]
    estimates = {cell.identity: CellEstimate(*cost_model.estimate_seconds(cell)) for cell in due}
    packs = build_packs(
        profile,
        due,
        {identity: estimate.seconds for identity, estimate in estimates.items()},
        device=cost_model.device,
        num_workers=hardware.choose_num_workers(profile, len(due)),
    )
    num_workers = hardware.choose_num_workers(profile, len(packs))
    return RunPlan(profile, tuple(cells), tuple(statuses), tuple(packs), estimates, num_workers, cost_model.device)
