"""TA-LoRA and MeTA-LoRA on their sources at real size: memory and speed of each stage, and what TA-LoRA's cache saves."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import lightning as L
from torch import Tensor

import methods
from benchmark.evaluation.scoring import compute_log_likelihoods
from methods.base import Method, Stage
from methods.conformance.fixtures import make_batch, run_trainer
from methods.core.backbone import Backbone
from methods.core.tensor_cache import TensorVersionCache
from tasks.core.types import Batch, Episode
from tests.gpu_acceptance.device import Device, timed
from tests.gpu_acceptance.workload import Size, items, ready

NAMES = ("ta_lora", "meta_lora")
SOURCES = 8


class Forgetful(TensorVersionCache):
    """Makes everything anew each time it is asked."""

    def __call__(self, key: Hashable, tensors: Sequence[Tensor], make: Callable[[], Any]) -> Any:
        return make()


class Times(L.Callback):
    """When each step ended."""

    def __init__(self, device: Device) -> None:
        self.device, self.at = device, [device.clock()]

    def on_train_batch_end(self, *given: Any) -> None:
        self.at.append(self.device.clock())


def stages(device: Device, backbone: Backbone, name: str, size: Size) -> dict[str, Any]:
    """Every stage on the sources, through a Trainer."""
    found = {}
    method = methods.load_method(name)(backbone)
    try:
        for stage in method.stages[:-1]:
            device.tidy()
            base = device.held()
            method.begin_stage(stage, list(range(SOURCES)))
            found[stage.name] = stage_of(device, method, stage, size)
            if base is not None:
                found[stage.name]["peak_bytes"] = device.peak() - base
    finally:
        method.close()
    return found


def stage_of(device: Device, method: Method, stage: Stage, size: Size) -> dict[str, Any]:
    count = size.warm + size.steps
    method.slot_steps = [count] * method.num_slots
    given = [step(method, stage, size, number) for number in range(count)]
    times = Times(device)
    run_trainer(method, given, times)
    seconds = (times.at[-1] - times.at[size.warm]) / size.steps
    tokens = sum(map(real, given[size.warm :])) / size.steps
    return {
        "trained": method.count_trained_parameters(SOURCES),
        "seconds": seconds,
        "tokens_per_second": tokens / seconds,
        "rows": sum(len(one.slots) for one in batches(given[-1])),
    }


def step(method: Method, stage: Stage, size: Size, number: int) -> Batch | Episode:
    """A mixed batch over the sources, or an episode as the method asks for."""
    vocabulary = method.backbone.config.vocab_size

    def rows(slot: int, part: int) -> Batch:
        return make_batch(items(size.rows, 1000 * number + 10 * slot + part, size, vocabulary), [slot] * size.rows)

    if stage.batch_mode != "episodes":
        of = items(size.rows, number, size, vocabulary)
        return make_batch(of, sorted(i % SOURCES for i in range(len(of))))
    asked = method.batching_options(stage)
    slots = [(number + i) % SOURCES for i in range(asked["tasks"])]
    support = tuple(tuple(rows(slot, 1 + part) for part in range(asked["support"])) for slot in slots)
    return Episode(support, tuple(rows(slot, 0) for slot in slots))


def batches(given: Batch | Episode) -> list[Batch]:
    if isinstance(given, Batch):
        return [given]
    return [*given.query, *(one for part in given.support for one in part)]


def real(given: Batch | Episode) -> int:
    """Tokens without padding."""
    return sum(int(one.attention_mask.sum()) for one in batches(given))


def cache(device: Device, backbone: Backbone, size: Size) -> dict[str, float]:
    """Seconds of scoring short rows with TA-LoRA's keys and values of each task kept, and made in every pass."""
    found = {}
    with ready("ta_lora", backbone, 4) as method:
        of = items(8 * size.rows, 5, size, backbone.config.vocab_size)
        slots = [i % method.num_slots for i in range(len(of))]
        do = lambda: compute_log_likelihoods(method, of, slots, tokens_per_pass=size.rows * size.length)  # noqa: E731
        for name, memory in (("kept", TensorVersionCache()), ("made anew", Forgetful())):
            method.memory = memory
            found[name] = timed(device, do, repeat=size.steps, warm=1)
    return found | {"times": found["made anew"] / found["kept"]}
