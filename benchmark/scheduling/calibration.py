"""Calibration: measures how the time of a training step grows with the number of cells in a pack.

A step of n cells takes about a + n x b seconds. For a CPU core, a and b are constants (`benchmark.scheduling.packing`).
On a GPU they depend on the device, the backbone and its dtype. So before the first pack a separate process trains LoRA
on random rows, in packs of growing size, until the time per cell stops falling or the memory is full. The times are
cached on disk for `plan` and later runs. This module imports no torch; the measuring process does.
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
from methods import load_method
from tasks.core.types import EncodedExample, Example

if TYPE_CHECKING:
    from methods.core.backbone import Backbone

CALIBRATION_METHOD = "lora"
PACK_SIZES = (1, 2, 4, 8, 16, 32)  # cells
NUM_WARMUP_STEPS = 2
NUM_TIMED_STEPS = 4
MIN_RELATIVE_GAIN = 0.03  # a pack twice as large must reduce the step time per cell by this fraction


class StepTimeCurve(NamedTuple):
    """Step times of a device in the form that packing needs."""

    overhead_tokens: float  # fixed time of a step, in tokens that are processed in that time
    max_cells: int  # size of the largest pack that was still faster per cell


def get_cached_curve(profile: Profile) -> StepTimeCurve | None:
    """Return the cached measurement for this device and backbone; None if there is none."""
    try:
        return _fit_curve(profile, disk_cache.load_or_compute(_build_cache_key(profile), _raise_not_cached))
    except LookupError:
        return None


def get_or_measure_curve(profile: Profile) -> StepTimeCurve | None:
    """Return the cached measurement, or measure now.

    None if not even one cell fits in memory: the cells will then fail with the error of the device.
    """

    def measure() -> dict[str, float]:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
            return executor.submit(measure_step_times, profile).result()

    return _fit_curve(profile, disk_cache.load_or_compute(_build_cache_key(profile), measure))


def measure_step_times(profile: Profile) -> dict[str, float]:
    """Return the seconds of a step by pack size, for sizes up to the first that does not pay or does not fit."""
    import torch

    from methods.core.backbone import Backbone

    weights = profile.backbone
    device = weights.device
    if device == AUTO:
        device = "cuda" if hardware.is_cuda_device(AUTO) else "cpu"
    backbone = Backbone.load(
        weights.name, revision=weights.revision, dtype=weights.dtype, device=device, attention=weights.attention
    )
    step_seconds: dict[str, float] = {}
    for num_cells in PACK_SIZES:
        try:
            step_seconds[str(num_cells)] = time_step(backbone, num_cells, _rows_per_cell(profile))
        except torch.OutOfMemoryError:
            break
        finally:
            backbone.detach()
        if not _is_faster_per_cell(step_seconds):
            break
    return step_seconds


def time_step(backbone: "Backbone", num_cells: int, rows_per_cell: int) -> float:
    """Measure the seconds of a training step: mean over NUM_TIMED_STEPS after NUM_WARMUP_STEPS, on random rows."""
    import torch
    from lightning.fabric.utilities import move_data_to_device

    from methods.base import TARGET_STAGE
    from tasks.core.encoding import collate

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
    batch = collate(items, [row // rows_per_cell for row in range(len(items))], pad_id=1)
    plan = move_data_to_device(method.plan_step(batch), backbone.device)
    optimizer = method.configure_optimizers()["optimizer"]
    start = 0.0

    def clock() -> float:
        if backbone.device.type == "cuda":
            torch.cuda.synchronize(backbone.device)
        return perf_counter()

    for step in range(NUM_WARMUP_STEPS + NUM_TIMED_STEPS):
        if step == NUM_WARMUP_STEPS:
            start = clock()
        optimizer.zero_grad()
        method.training_step(plan, step)["loss"].backward()
        method.configure_gradient_clipping(optimizer)
        optimizer.step()
    return (clock() - start) / NUM_TIMED_STEPS


def _is_faster_per_cell(seconds: Mapping[str, float]) -> bool:
    """Return whether the last pack size took less time per cell than the one before it."""
    per_cell = [step_seconds / int(num_cells) for num_cells, step_seconds in seconds.items()]
    return len(per_cell) < 2 or per_cell[-1] <= (1 - MIN_RELATIVE_GAIN) * per_cell[-2]


def _fit_curve(profile: Profile, seconds: Mapping[str, float]) -> StepTimeCurve | None:
    """Fit a + n x b to the step times, up to the largest pack that was faster per cell."""
    if not seconds:
        return None
    points = [(int(num_cells), step_seconds) for num_cells, step_seconds in seconds.items()]
    if len(points) > 1 and not _is_faster_per_cell(seconds):
        points = points[:-1]
    if len(points) == 1:
        return StepTimeCurve(0.0, 1)
    slopes = [(after - before) / (large - small) for (small, before), (large, after) in pairwise(points)]
    seconds_per_cell = max(slopes[-1], 1e-9)  # the largest packs give the best estimate
    fixed_seconds = max(0.0, points[0][1] - seconds_per_cell)
    return StepTimeCurve(fixed_seconds / seconds_per_cell * _rows_per_cell(profile) * TOKENS_PER_EXAMPLE, points[-1][0])


def _rows_per_cell(profile: Profile) -> int:
    return profile.budget.batch_size


def _build_cache_key(profile: Profile) -> list:
    weights = profile.backbone
    device = list(hardware.get_gpu_memory_mib()) or "cpu"
    code = code_hash.hash_code(__name__, f"methods.{CALIBRATION_METHOD}")
    return [
        "steps",
        device,
        weights.name,
        weights.revision,
        weights.dtype,
        weights.attention,
        _rows_per_cell(profile),
        code,
    ]


def _raise_not_cached() -> None:
    raise LookupError
