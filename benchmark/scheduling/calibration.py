"""How a device's steps grow with the cells in them, measured once before the first pack: what decides how many pack.

A step of n cells takes about fixed + n x each. On a CPU core that was measured once and for all (`benchmark.scheduling.packing`).
On a GPU it depends on the device, the backbone and its type, so a process of its own trains LoRA on random rows, alone
and in ever larger packs, until a cell's share of a step stops falling or the device is full. What it finds is kept in
the cache, for `plan` and for later runs. This module imports no torch; the process that measures does.
"""

from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

from benchmark.config.profile import AUTO, Profile
from benchmark.grid import code_hash
from benchmark.scheduling.cost_model import TOKENS_PER_EXAMPLE
from benchmark.system import disk_cache, hardware

if TYPE_CHECKING:
    from methods.core.backbone import Backbone

CALIBRATION_METHOD = "lora"
PACK_SIZES = (1, 2, 4, 8, 16, 32)  # cells
NUM_WARMUP_STEPS = 2
NUM_TIMED_STEPS = 4
MIN_RELATIVE_GAIN = 0.03  # a pack twice as large has to save this share of a cell's step


class StepTimeCurve(NamedTuple):
    """What was measured, as packs need it."""

    overhead_tokens: float  # tokens that pass in the time a step takes whatever its size
    max_cells: int  # cells of the largest pack that still paid


def get_cached_curve(profile: Profile) -> StepTimeCurve | None:
    """What was measured on this device and backbone, if it was."""
    try:
        return _fit_curve(profile, disk_cache.load_or_compute(_build_cache_key(profile), _raise_not_cached))
    except LookupError:
        return None


def get_or_measure_curve(profile: Profile) -> StepTimeCurve | None:
    """The same, measured now if it was not. None: not even one cell had room, and the cells will say so themselves."""

    def ask() -> dict[str, float]:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as child:
            return child.submit(measure_step_times, profile).result()

    return _fit_curve(profile, disk_cache.load_or_compute(_build_cache_key(profile), ask))


def measure_step_times(profile: Profile) -> dict[str, float]:
    """Cells of a pack -> seconds of a step."""
    import torch

    from methods.core.backbone import Backbone

    weights = profile.backbone
    device = weights.device if weights.device != AUTO else "cuda" if hardware.is_cuda_device(AUTO) else "cpu"
    backbone = Backbone.load(
        weights.name, revision=weights.revision, dtype=weights.dtype, device=device, attention=weights.attention
    )
    found: dict[str, float] = {}
    for cells in PACK_SIZES:
        try:
            found[str(cells)] = time_step(backbone, cells, _rows_per_cell(profile))
        except torch.OutOfMemoryError:
            break
        finally:
            backbone.detach()
        if not _is_faster_per_cell(found):
            break
    return found


def time_step(backbone: "Backbone", num_cells: int, rows_per_cell: int) -> float:
    """Seconds of one step of so many cells with so many random rows each: the mean of `STEPS` after `WARM`."""
    import torch
    from lightning.fabric.utilities import move_data_to_device

    from methods import load_method
    from methods.base import TARGET_STAGE
    from tasks.core.encoding import collate
    from tasks.core.types import EncodedExample, Example

    example = Example("random", "random", "", ("",))
    ids = torch.randint(
        5,
        backbone.config.vocab_size,
        (num_cells * rows_per_cell, TOKENS_PER_EXAMPLE),
        generator=torch.Generator().manual_seed(0),
    )
    items = [EncodedExample(example, tuple(row), (5, 1), (), 0) for row in ids.tolist()]
    method = load_method(CALIBRATION_METHOD)(backbone)
    method.begin_stage(TARGET_STAGE, range(num_cells))
    method.train().slot_steps = [NUM_WARMUP_STEPS + NUM_TIMED_STEPS] * num_cells
    batch = collate(items, [place // rows_per_cell for place in range(len(items))], pad_id=1)
    plan = move_data_to_device(method.plan_step(batch), backbone.device)
    optimizer, start = method.configure_optimizers()["optimizer"], 0.0

    def clock() -> float:
        if backbone.device.type == "cuda":
            torch.cuda.synchronize(backbone.device)
        return perf_counter()

    for number in range(NUM_WARMUP_STEPS + NUM_TIMED_STEPS):
        start = clock() if number == NUM_WARMUP_STEPS else start
        optimizer.zero_grad()
        method.training_step(plan, number)["loss"].backward()
        method.configure_gradient_clipping(optimizer)
        optimizer.step()
    return (clock() - start) / NUM_TIMED_STEPS


def _is_faster_per_cell(seconds: Mapping[str, float]) -> bool:
    """Whether the last size took less time for a cell than the one before it."""
    each = [of / int(cells) for cells, of in seconds.items()]
    return len(each) < 2 or each[-1] <= (1 - MIN_RELATIVE_GAIN) * each[-2]


def _fit_curve(profile: Profile, seconds: Mapping[str, float]) -> StepTimeCurve | None:
    """The line through what was measured, up to the largest pack that paid."""
    if not seconds:
        return None
    points = [(int(cells), of) for cells, of in seconds.items()]
    if len(points) > 1 and not _is_faster_per_cell(seconds):
        points = points[:-1]
    if len(points) == 1:
        return StepTimeCurve(0.0, 1)
    slopes = [(b - a) / (n - m) for (m, a), (n, b) in pairwise(points)]
    each = max(slopes[-1], 1e-9)  # the largest packs tell best what a cell adds
    fixed = max(0.0, points[0][1] - each)
    return StepTimeCurve(fixed / each * _rows_per_cell(profile) * TOKENS_PER_EXAMPLE, points[-1][0])


def _rows_per_cell(profile: Profile) -> int:
    return profile.budget.batch_size


def _build_cache_key(profile: Profile) -> list:
    weights = profile.backbone
    where = list(hardware.get_gpu_memory_mib()) or "cpu"
    code = code_hash.hash_code(__name__, f"methods.{CALIBRATION_METHOD}")
    return [
        "steps",
        where,
        weights.name,
        weights.revision,
        weights.dtype,
        weights.attention,
        _rows_per_cell(profile),
        code,
    ]


def _raise_not_cached() -> None:
    raise LookupError
