"""Which due cells share their passes, and in which order they run.

Cells of one method pack where they differ in task or seed only: same options, budget and shots, resting on the same
cells. What a number means does not change: a packed cell learns what it would learn alone. What changes is the time: a
step launches as many operations for a pack as for one cell, so packs pay until a step is heavy. Rows of a pack are
padded to its longest, so cells alike in length go together, as far as the padding costs less than another step.

Measured on one CPU core, embedded backbone, 16 shots, batches of 8, seconds per step of a cell against alone: seeds of
one task x1.2 in twos, x1.3 in threes, x1.5 in fours, x1.65 in eights; tasks of like length x1.4 in fours, of any x1.03.
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

# What a step costs whatever its size, in parameters x tokens that pass in that time: on a CPU core as measured above
# (some 12 ms of the embedded backbone); on a GPU a rough figure, of some 30 ms, until `benchmark.scheduling.calibration` knows it.
STEP_OVERHEAD = {"cpu": 8e7, "cuda": 2e12}
MAX_STEP_PER_OVERHEAD = 48  # a pack grows until what is left of that cost is 1/48 of a cell's step
MAX_PACK_SIZE = {"cpu": 8, "cuda": 32}  # cells: larger packs gain little, and lose more when a process dies
MIN_PACKS_PER_WORKER = (
    4  # packs for each process at the least, where there are as many cells: so that all processes end together
)


def build_packs(
    profile: Profile,
    due_cells: Sequence[PlannedCell],
    estimated_seconds: Mapping[str, float],
    *,
    device: str,
    num_workers: int,
) -> list[Pack]:
    """The due cells in packs, in the order to run them: an interrupted grid has all methods of the tasks it reached.

    `due` in the plan's order. Of cells that are on a par the longest comes first, so that all processes end together.
    """
    most = -(-len(due_cells) // (MIN_PACKS_PER_WORKER * num_workers))
    kinds: dict[tuple, list[PlannedCell]] = defaultdict(list)
    for planned in due_cells:
        kinds[_build_pack_key(planned)].append(planned)
    found = [pack for kind in kinds.values() for pack in _split_into_packs(profile, kind, device, most)]
    place, rounds = {planned.identity: index for index, planned in enumerate(due_cells)}, _number_rounds(due_cells)

    def turn(pack: Pack) -> tuple[int, float, int]:
        first = min(place[planned.identity] for planned in pack)
        return rounds[first], -sum(estimated_seconds[planned.identity] for planned in pack), first

    return sorted(found, key=turn)


def _number_rounds(due_cells: Sequence[PlannedCell]) -> list[int]:
    """The round of each due cell: all methods for one (task, shots, seed), and what they are the first to rest on."""
    rests_on, found, number = {parent for planned in due_cells for parent in planned.dependencies}, [], 0
    last: tuple = ()
    for planned in reversed(due_cells):
        cell = planned.cell
        own = last if planned.identity in rests_on else (cell.task, cell.shots, cell.seed)
        number += own != last
        last = own
        found.append(-number)
    return found[::-1]


def _build_pack_key(planned_cell: PlannedCell) -> tuple:
    """What cells of one pack have in common; for a cell that runs alone, itself."""
    if not is_packable(planned_cell):
        return (planned_cell.identity,)
    cell, values = (
        planned_cell.cell,
        dumps([planned_cell.options, planned_cell.identity_inputs["budget"]], sort_keys=True),
    )
    return cell.method, cell.shots, planned_cell.dependencies, values


def is_packable(planned_cell: PlannedCell) -> bool:
    """Not what several share anyway, and not where noise is drawn for a whole pass: it would depend on the company."""
    facts = specs.get_method_spec(planned_cell.cell.method)
    noisy = any(value for name, value in planned_cell.options.items() if "dropout" in name)
    return facts.is_packable and facts.uses_gradient_descent and planned_cell.cell.stage == TARGET_STAGE and not noisy


def _split_into_packs(
    profile: Profile, compatible_cells: Sequence[PlannedCell], device: str, max_cells: int
) -> list[Pack]:
    """Packs of cells alike in length: those that take least time together."""
    if len(compatible_cells) == 1 or profile.pack == 1:
        return [(planned,) for planned in compatible_cells]
    lengths = _get_prompt_lengths(profile, compatible_cells)
    compatible_cells = sorted(
        compatible_cells, key=lambda planned: (lengths[planned.cell.task][1], planned.cell.task, planned.cell.seed)
    )
    rows, sizes = (
        compatible_cells[0].identity_inputs["budget"]["batch_size"],
        [lengths[planned.cell.task] for planned in compatible_cells],
    )
    curve = calibration.get_cached_curve(profile) if device == "cuda" else None
    fixed = (
        curve.overhead_tokens if curve else STEP_OVERHEAD[device] / parse_parameter_count(profile.backbone.name)
    )  # in tokens
    if isinstance(profile.pack, int):
        max_cells = profile.pack
    else:
        step = rows * fmean(whole for whole, _ in sizes)
        max_cells = max(
            1,
            min(
                max_cells,
                curve.max_cells if curve else MAX_PACK_SIZE[device],
                round(MAX_STEP_PER_OVERHEAD * fixed / step),
            ),
        )
        max_cells = _limit_pack_by_memory(profile, compatible_cells[0], max_cells) if device == "cuda" else max_cells
    return [tuple(compatible_cells[first:end]) for first, end in _choose_cuts(sizes, rows, fixed, max_cells)]


def _limit_pack_by_memory(profile: Profile, planned_cell: PlannedCell, max_cells: int) -> int:
    """As many cells as a step has room for at once: one that goes in parts saves nothing by being larger."""
    if parse_parameter_count(profile.backbone.name) <= LARGE_MODEL_PARAMETERS:
        return max_cells
    while (
        max_cells > 1
        and (need := memory_model.estimate_memory(profile, planned_cell, max_cells))
        and need.num_micro_batches > 1
    ):
        max_cells -= max(1, max_cells // 4)
    return max_cells


def _choose_cuts(
    prompt_lengths: Sequence[tuple[float, float]], rows_per_cell: int, overhead_tokens: float, max_cells: int
) -> list[tuple[int, int]]:
    """[first, end) of each pack of cells in order of length, (whole, rest): the cuts with the least sum of costs."""
    best: list[tuple[float, int]] = [(0.0, 0)]  # of the first n cells: their cost, and where the last pack begins
    for end in range(1, len(prompt_lengths) + 1):
        each, firsts = rows_per_cell * prompt_lengths[end - 1][1], range(max(0, end - max_cells), end)
        best.append(min((best[first][0] + overhead_tokens + each * (end - first), first) for first in firsts))
    found, end = [], len(prompt_lengths)
    while end:
        found.append((best[end][1], end))
        end = best[end][1]
    return found[::-1]


def _get_prompt_lengths(profile: Profile, compatible_cells: Sequence[PlannedCell]) -> dict[str, tuple[float, float]]:
    """Task -> characters of its prompts: whole on the mean, and the longest of a batch after their constant start.

    The same for all where the records would have to be fetched first: a plan needs no network.
    """
    names = dict.fromkeys(planned.cell.task for planned in compatible_cells)
    if profile.source == "hub":
        return dict.fromkeys(names, (TOKENS_PER_EXAMPLE, TOKENS_PER_EXAMPLE))
    found = {name: dataset_stats.measure_prompt_lengths(name, profile.source, profile.data_dir) for name in names}
    return {name: (mean, longest) for name, (mean, longest) in found.items()}
