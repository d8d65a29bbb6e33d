"""How a device's steps grow with the cells in them, measured once before the first pack: what decides how many pack.

A step of n cells takes about fixed + n x each. On a CPU core that was measured once and for all (`benchmark.packs`).
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

from benchmark import catalogue, hardware
from benchmark.price import TOKENS
from benchmark.profile import AUTO, Profile

if TYPE_CHECKING:
    from methods.backbone import Backbone

METHOD = "lora"
SIZES = (1, 2, 4, 8, 16, 32)  # cells
WARM = 2
STEPS = 4
GAIN = 0.03  # a pack twice as large has to save this share of a cell's step


class Curve(NamedTuple):
    """What was measured, as packs need it."""

    fixed: float  # tokens that pass in the time a step takes whatever its size
    most: int  # cells of the largest pack that still paid


def known(profile: Profile) -> Curve | None:
    """What was measured on this device and backbone, if it was."""
    try:
        return _curve(profile, catalogue.remembered(_key(profile), _nothing))
    except LookupError:
        return None


def measured(profile: Profile) -> Curve | None:
    """The same, measured now if it was not. None: not even one cell had room, and the cells will say so themselves."""

    def ask() -> dict[str, float]:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as child:
            return child.submit(measure, profile).result()

    return _curve(profile, catalogue.remembered(_key(profile), ask))


def measure(profile: Profile) -> dict[str, float]:
    """Cells of a pack -> seconds of a step."""
    import torch

    from methods.backbone import Backbone

    weights = profile.backbone
    device = weights.device if weights.device != AUTO else "cuda" if hardware.cuda(AUTO) else "cpu"
    backbone = Backbone.load(
        weights.name, revision=weights.revision, dtype=weights.dtype, device=device, attention=weights.attention
    )
    found: dict[str, float] = {}
    for cells in SIZES:
        try:
            found[str(cells)] = step(backbone, cells, _rows(profile))
        except torch.OutOfMemoryError:
            break
        finally:
            backbone.detach()
        if not _pays(found):
            break
    return found


def step(backbone: "Backbone", cells: int, rows: int) -> float:
    """Seconds of one step of so many cells with so many random rows each: the mean of `STEPS` after `WARM`."""
    import torch
    from lightning.fabric.utilities import move_data_to_device

    from methods import load
    from methods.base import TARGET
    from tasks.encode import collate
    from tasks.example import Encoded, Example

    example = Example("random", "random", "", ("",))
    ids = torch.randint(
        5, backbone.config.vocab_size, (cells * rows, TOKENS), generator=torch.Generator().manual_seed(0)
    )
    items = [Encoded(example, tuple(row), (5, 1), (), 0) for row in ids.tolist()]
    method = load(METHOD)(backbone)
    method.enter(TARGET, range(cells))
    method.train().steps = [WARM + STEPS] * cells
    batch = collate(items, [place // rows for place in range(len(items))], pad_id=1)
    plan = move_data_to_device(method.plan(batch), backbone.device)
    optimizer, start = method.configure_optimizers()["optimizer"], 0.0

    def clock() -> float:
        if backbone.device.type == "cuda":
            torch.cuda.synchronize(backbone.device)
        return perf_counter()

    for number in range(WARM + STEPS):
        start = clock() if number == WARM else start
        optimizer.zero_grad()
        method.training_step(plan, number)["loss"].backward()
        method.configure_gradient_clipping(optimizer)
        optimizer.step()
    return (clock() - start) / STEPS


def _pays(seconds: Mapping[str, float]) -> bool:
    """Whether the last size took less time for a cell than the one before it."""
    each = [of / int(cells) for cells, of in seconds.items()]
    return len(each) < 2 or each[-1] <= (1 - GAIN) * each[-2]


def _curve(profile: Profile, seconds: Mapping[str, float]) -> Curve | None:
    """The line through what was measured, up to the largest pack that paid."""
    if not seconds:
        return None
    points = [(int(cells), of) for cells, of in seconds.items()]
    if len(points) > 1 and not _pays(seconds):
        points = points[:-1]
    if len(points) == 1:
        return Curve(0.0, 1)
    slopes = [(b - a) / (n - m) for (m, a), (n, b) in pairwise(points)]
    each = max(slopes[-1], 1e-9)  # the largest packs tell best what a cell adds
    fixed = max(0.0, points[0][1] - each)
    return Curve(fixed / each * _rows(profile) * TOKENS, points[-1][0])


def _rows(profile: Profile) -> int:
    return profile.budget.batch_size


def _key(profile: Profile) -> list:
    weights = profile.backbone
    where = list(hardware.gpus()) or "cpu"
    code = catalogue.code_of(__name__, f"methods.{METHOD}")
    return ["steps", where, weights.name, weights.revision, weights.dtype, weights.attention, _rows(profile), code]


def _nothing() -> None:
    raise LookupError
