"""Group the due cells into packs, which are trained together, and put the packs in order.

Cells of one method can share a pack if they differ in task or seed only: same options, budget, shots and dependencies.
Packing does not change scores: each cell learns the same as it would alone. It saves time, because a step launches as
many operations for a pack as for one cell, until the step is compute-bound. The rows of a pack are padded to the
longest, so cells with prompts of similar length are packed together if the padding costs less than another step.

Speed-up per cell and step over training alone, on one CPU core with the bundled tiny model, 16 shots and batch size 8:
seeds of one task 1.2 (packs of 2), 1.3 (3), 1.5 (4) and 1.65 (8); packs of 4 tasks 1.4 with prompts of similar length,
1.03 with prompts of any length.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from json import dumps
from statistics import fmean

from benchmark.config.model_size import parse_parameter_count
from benchmark.config.profile import Profile
from benchmark.grid import dataset_stats, specs
from benchmark.grid.cells import TARGET_STAGE, PlannedCell
from benchmark.scheduling import calibration, memory_model
from benchmark.scheduling.cost_model import LARGE_MODEL_PARAMETERS, TOKENS_PER_EXAMPLE

Pack = tuple[PlannedCell, ...]

# Fixed cost of a step, in parameters x tokens that are processed in the same time: on a CPU core as measured above
# (about 12 ms with the bundled tiny model); on a GPU a rough figure (about 30 ms), which is used until
# `benchmark.scheduling.calibration` has measured the device.
STEP_OVERHEAD = {"cpu": 8e7, "cuda": 2e12}
MAX_STEP_PER_OVERHEAD = 48  # a pack grows until each cell's share of the fixed cost is 1/48 of its step
MAX_PACK_SIZE = {"cpu": 8, "cuda": 32}  # cells; larger packs gain little, and more work is lost if a process dies
MIN_PACKS_PER_WORKER = 4  # minimum, if there are enough cells, so that all workers finish at about the same time


def build_packs(
    profile: Profile,
    due_cells: Sequence[PlannedCell],
    estimated_seconds: Mapping[str, float],
    *,
    device: str,
    num_workers: int,
) -> list[Pack]:
    """Group the due cells into packs, in the order to run them.

    Packs are ordered by round (see `_number_rounds`), so that an interrupted grid has all methods of the tasks that it
    reached. Within a round the longest pack comes first, so that all workers finish at about the same time.

    Args:
        due_cells: in the order of the grid.
        estimated_seconds: per cell, by identity.
        device: "cpu" or "cuda".
        num_workers: processes that run packs at the same time.
    """
    max_cells = -(-len(due_cells) // (MIN_PACKS_PER_WORKER * num_workers))
    compatible_groups: dict[tuple, list[PlannedCell]] = defaultdict(list)
    for planned in due_cells:
        compatible_groups[_build_pack_key(planned)].append(planned)
    packs: list[Pack] = []
    for compatible_cells in compatible_groups.values():
        packs += _split_into_packs(profile, compatible_cells, device, max_cells)
    indices = {planned.identity: index for index, planned in enumerate(due_cells)}
    rounds = _number_rounds(due_cells)

    def get_sort_key(pack: Pack) -> tuple[int, float, int]:
        first = min(indices[planned.identity] for planned in pack)
        return rounds[first], -sum(estimated_seconds[planned.identity] for planned in pack), first

    return sorted(packs, key=get_sort_key)


def _number_rounds(due_cells: Sequence[PlannedCell]) -> list[int]:
    """Return the round of each due cell: a round has all methods for one (task, shots, seed).

    A cell on which others depend belongs to the first round that needs it, i.e. to the cell that follows it.
    """
    dependencies = {parent for planned in due_cells for parent in planned.dependencies}
    rounds = []
    round_number = 0
    last_key: tuple = ()
    for planned in reversed(due_cells):
        cell = planned.cell
        key = last_key if planned.identity in dependencies else (cell.task, cell.shots, cell.seed)
        if key != last_key:
            round_number += 1
        last_key = key
        rounds.append(-round_number)
    return rounds[::-1]


def _build_pack_key(planned_cell: PlannedCell) -> tuple:
    """Return what the cells of a pack have in common; for a cell that must run alone, its identity."""
    if not is_packable(planned_cell):
        return (planned_cell.identity,)
    cell = planned_cell.cell
    options = dumps(planned_cell.options, sort_keys=True)
    return cell.method, cell.shots, planned_cell.dependencies, options, planned_cell.budget


def is_packable(planned_cell: PlannedCell) -> bool:
    """Return whether a cell can share a pack with others.

    Source stages cannot, because several cells share them already. Neither can cells with dropout: its noise is
    sampled for a whole forward pass, so it would depend on the other cells of the pack.
    """
    spec = specs.get_method_spec(planned_cell.cell.method)
    uses_dropout = any(value for name, value in planned_cell.options.items() if "dropout" in name)
    is_target_cell = planned_cell.cell.stage == TARGET_STAGE
    return spec.is_packable and spec.uses_gradient_descent and is_target_cell and not uses_dropout


def _split_into_packs(
    profile: Profile, compatible_cells: Sequence[PlannedCell], device: str, max_cells: int
) -> list[Pack]:
    """Split cells that can share a pack into packs of similar prompt length, with the least total time."""
    if len(compatible_cells) == 1 or profile.pack == 1:
        return [(planned,) for planned in compatible_cells]
    lengths = _get_prompt_lengths(profile, compatible_cells)
    compatible_cells = sorted(
        compatible_cells, key=lambda planned: (lengths[planned.cell.task][1], planned.cell.task, planned.cell.seed)
    )
    rows_per_cell = compatible_cells[0].budget.batch_size
    cell_lengths = [lengths[planned.cell.task] for planned in compatible_cells]
    curve = calibration.get_cached_curve(profile) if device == "cuda" else None
    if curve:
        overhead_tokens = curve.overhead_tokens
        max_pack_size = curve.max_cells
    else:
        overhead_tokens = STEP_OVERHEAD[device] / parse_parameter_count(profile.backbone.name)
        max_pack_size = MAX_PACK_SIZE[device]
    if isinstance(profile.pack, int):
        max_cells = profile.pack
    else:
        step_tokens = rows_per_cell * fmean(mean_length for mean_length, _ in cell_lengths)
        max_useful_cells = round(MAX_STEP_PER_OVERHEAD * overhead_tokens / step_tokens)
        max_cells = max(1, min(max_cells, max_pack_size, max_useful_cells))
        if device == "cuda":
            max_cells = _limit_pack_by_memory(profile, compatible_cells[0], max_cells)
    cuts = _choose_cuts(cell_lengths, rows_per_cell, overhead_tokens, max_cells)
    return [tuple(compatible_cells[first:end]) for first, end in cuts]


def _limit_pack_by_memory(profile: Profile, planned_cell: PlannedCell, max_cells: int) -> int:
    """Return the size of the largest pack whose training step fits in memory without micro-batches.

    Only for large models; a larger pack that needs micro-batches saves no time.
    """
    if parse_parameter_count(profile.backbone.name) <= LARGE_MODEL_PARAMETERS:
        return max_cells
    while max_cells > 1:
        estimate = memory_model.estimate_memory(profile, planned_cell, max_cells)
        if estimate is None or estimate.num_micro_batches == 1:
            break
        max_cells -= max(1, max_cells // 4)
    return max_cells


def _choose_cuts(
    prompt_lengths: Sequence[tuple[float, float]], rows_per_cell: int, overhead_tokens: float, max_cells: int
) -> list[tuple[int, int]]:
    """Choose the packs [first, end) with the least total cost by dynamic programming.

    `prompt_lengths` has (mean, longest without the shared prefix) per cell, ordered by the second. A pack costs the
    fixed overhead of a step plus its rows, padded to the longest, in tokens.
    """
    best: list[tuple[float, int]] = [(0.0, 0)]  # for the first n cells: least cost, and the first cell of the last pack
    for end in range(1, len(prompt_lengths) + 1):
        tokens_per_cell = rows_per_cell * prompt_lengths[end - 1][1]
        firsts = range(max(0, end - max_cells), end)
        best.append(
            min((best[first][0] + overhead_tokens + tokens_per_cell * (end - first), first) for first in firsts)
        )
    cuts = []
    end = len(prompt_lengths)
    while end:
        first = best[end][1]
        cuts.append((first, end))
        end = first
    return cuts[::-1]


def _get_prompt_lengths(profile: Profile, compatible_cells: Sequence[PlannedCell]) -> dict[str, tuple[float, float]]:
    """Return per task the prompt lengths in characters: mean, and longest of a batch without the shared prefix.

    If the data would have to be downloaded first, all tasks get the same length: planning needs no network.
    """
    names = dict.fromkeys(planned.cell.task for planned in compatible_cells)
    if profile.source == "hub":
        return dict.fromkeys(names, (TOKENS_PER_EXAMPLE, TOKENS_PER_EXAMPLE))
    lengths = {}
    for name in names:
        mean, longest = dataset_stats.measure_prompt_lengths(name, profile.source, profile.data_dir)
        lengths[name] = (mean, longest)
    return lengths
