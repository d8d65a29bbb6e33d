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

from benchmark import calibration, catalogue, contents, memory
from benchmark.grid import TARGET, Planned
from benchmark.price import LARGE, TOKENS, parameters
from benchmark.profile import Profile

Pack = tuple[Planned, ...]

# What a step costs whatever its size, in parameters x tokens that pass in that time: on a CPU core as measured above
# (some 12 ms of the embedded backbone); on a GPU a rough figure, of some 30 ms, until `benchmark.calibration` knows it.
FIXED = {"cpu": 8e7, "cuda": 2e12}
WORTH = 48  # a pack grows until what is left of that cost is 1/48 of a cell's step
MOST = {"cpu": 8, "cuda": 32}  # cells: larger packs gain little, and lose more when a process dies
SHARE = 4  # packs for each process at the least, where there are as many cells: so that all processes end together


def packs(
    profile: Profile, due: Sequence[Planned], prices: Mapping[str, float], *, device: str, workers: int
) -> list[Pack]:
    """The due cells in packs, in the order to run them: an interrupted grid has all methods of the tasks it reached.

    `due` in the plan's order. Of cells that are on a par the longest comes first, so that all processes end together.
    """
    most = -(-len(due) // (SHARE * workers))
    kinds: dict[tuple, list[Planned]] = defaultdict(list)
    for planned in due:
        kinds[_kind(planned)].append(planned)
    found = [pack for kind in kinds.values() for pack in _split(profile, kind, device, most)]
    place, rounds = {planned.identity: index for index, planned in enumerate(due)}, _rounds(due)

    def turn(pack: Pack) -> tuple[int, float, int]:
        first = min(place[planned.identity] for planned in pack)
        return rounds[first], -sum(prices[planned.identity] for planned in pack), first

    return sorted(found, key=turn)


def _rounds(due: Sequence[Planned]) -> list[int]:
    """The round of each due cell: all methods for one (task, shots, seed), and what they are the first to rest on."""
    rests_on, found, number = {parent for planned in due for parent in planned.parents}, [], 0
    last: tuple = ()
    for planned in reversed(due):
        cell = planned.cell
        own = last if planned.identity in rests_on else (cell.task, cell.shots, cell.seed)
        number += own != last
        last = own
        found.append(-number)
    return found[::-1]


def _kind(planned: Planned) -> tuple:
    """What cells of one pack have in common; for a cell that runs alone, itself."""
    if not packable(planned):
        return (planned.identity,)
    cell, values = planned.cell, dumps([planned.options, planned.parts["budget"]], sort_keys=True)
    return cell.method, cell.shots, planned.parents, values


def packable(planned: Planned) -> bool:
    """Not what several share anyway, and not where noise is drawn for a whole pass: it would depend on the company."""
    facts = catalogue.method(planned.cell.method)
    noisy = any(value for name, value in planned.options.items() if "dropout" in name)
    return facts["packable"] and facts["trains"] and planned.cell.stage == TARGET and not noisy


def _split(profile: Profile, kind: Sequence[Planned], device: str, most: int) -> list[Pack]:
    """Packs of cells alike in length: those that take least time together."""
    if len(kind) == 1 or profile.pack == 1:
        return [(planned,) for planned in kind]
    lengths = _lengths(profile, kind)
    kind = sorted(kind, key=lambda planned: (lengths[planned.cell.task][1], planned.cell.task, planned.cell.seed))
    rows, sizes = kind[0].parts["budget"]["batch_size"], [lengths[planned.cell.task] for planned in kind]
    curve = calibration.known(profile) if device == "cuda" else None
    fixed = curve.fixed if curve else FIXED[device] / parameters(profile.backbone.name)  # in tokens
    if isinstance(profile.pack, int):
        most = profile.pack
    else:
        step = rows * fmean(whole for whole, _ in sizes)
        most = max(1, min(most, curve.most if curve else MOST[device], round(WORTH * fixed / step)))
        most = _room(profile, kind[0], most) if device == "cuda" else most
    return [tuple(kind[first:end]) for first, end in _cuts(sizes, rows, fixed, most)]


def _room(profile: Profile, planned: Planned, most: int) -> int:
    """As many cells as a step has room for at once: one that goes in parts saves nothing by being larger."""
    if parameters(profile.backbone.name) <= LARGE:
        return most
    while most > 1 and (need := memory.of(profile, planned, most)) and need.parts > 1:
        most -= max(1, most // 4)
    return most


def _cuts(sizes: Sequence[tuple[float, float]], rows: int, fixed: float, most: int) -> list[tuple[int, int]]:
    """[first, end) of each pack of cells in order of length, (whole, rest): the cuts with the least sum of costs."""
    best: list[tuple[float, int]] = [(0.0, 0)]  # of the first n cells: their cost, and where the last pack begins
    for end in range(1, len(sizes) + 1):
        each, firsts = rows * sizes[end - 1][1], range(max(0, end - most), end)
        best.append(min((best[first][0] + fixed + each * (end - first), first) for first in firsts))
    found, end = [], len(sizes)
    while end:
        found.append((best[end][1], end))
        end = best[end][1]
    return found[::-1]


def _lengths(profile: Profile, kind: Sequence[Planned]) -> dict[str, tuple[float, float]]:
    """Task -> characters of its prompts: whole on the mean, and the longest of a batch after their constant start.

    The same for all where the records would have to be fetched first: a plan needs no network.
    """
    names = dict.fromkeys(planned.cell.task for planned in kind)
    if profile.source == "hub":
        return dict.fromkeys(names, (TOKENS, TOKENS))
    found = {name: contents.lengths(name, profile.source, profile.data_dir) for name in names}
    return {name: (mean, longest) for name, (mean, longest) in found.items()}
