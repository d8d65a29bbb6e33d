"""Exactness on the device: the proof kit in fp32, and in bf16 at real size what the kit cannot bound to the bit.

In bf16 the same sums in another order differ; here by how much, against bounds that a wrong formula is far beyond
(a row that sees another slot, or padding, is off by about 1).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

import methods
from methods.base import Method
from methods.conformance import checks
from methods.conformance.fixtures import compute_row_states, make_batch, move_to_backbone
from methods.conformance.runner import FAILED, run_check
from methods.conformance.tiny_models import save_random_model
from methods.core.backbone import Backbone
from tasks.core.types import EncodedExample
from tests.gpu_acceptance.device import Device
from tests.gpu_acceptance.workload import Size, apart, items, ready

PROOFS = (
    "packed_equals_solo", "padding_changes_nothing", "a_cache_changes_nothing", "rows_get_their_own_slot",
    "absent_slots_keep_still", "the_lead_once_equals_every_row", "starts_as_the_backbone",
    "leaves_the_backbone_alone", "what_was_learned_is_all_there_is", "tasks_of_an_episode_meet_in_their_mean",
)  # fmt: skip
ROWS = (4, 2, 3)  # of the cells of a pack
FAR = 0.1  # relative distance of gradients; of hidden states half of it
GATED = ("llama_adapter", "ta_lora")  # what adds a second softmax to the attention
# and whether it is asked without a mask: with grouped keys the flash kernel takes none, the other one needs one
KERNELS = {"flash": (SDPBackend.FLASH_ATTENTION, True), "memory-efficient": (SDPBackend.EFFICIENT_ATTENTION, False)}
ABSENT = ("No available kernel", "No viable backend")  # how torch says it, on a GPU and on a CPU


# -------------------------------------------------------------------- the kit, fp32


def load_small(folder: Path, device: Device) -> Backbone:
    """A tiny random fp32 model on the device, of the architecture whose linears have biases."""
    return Backbone.load(str(save_random_model(folder / "qwen2", "qwen2")), device=str(device.place))


def proved(name: str, backbone: Backbone) -> dict[str, str]:
    """What each proof says of a method: `holds`, why it does not apply, or `fails: why`."""
    said = {}
    for proof in PROOFS:
        state, why = run_check(checks.CHECKS[proof], methods.load_method(name), backbone)
        said[proof] = f"{state}: {why}" if state == FAILED else why or state
    return said


# -------------------------------------------------------------------- bf16, real size


def distances(name: str, backbone: Backbone, size: Size) -> dict[str, float]:
    """How far bf16 takes a pack from its cells alone, padded rows from bare ones, and a cache from one pass."""
    kind = methods.load_method(name)
    slots = len(ROWS) if kind.is_packable else 1
    with ready(name, backbone, slots) as method:
        found = {"padding": padded(method, size), "cache": cached(method, size)}
        if kind.is_packable:
            together = gradients(method, size, range(slots))
            states = [
                {key: value.clone() for key, value in method.slot_state_dict(slot).items()} for slot in range(slots)
            ]
    if kind.is_packable:
        with ready(name, backbone, 1) as method:
            found["pack"] = max(alone(method, size, slot, states[slot], together[slot]) for slot in range(slots))
    return found


def gradients(method: Method, size: Size, slots: range) -> list[torch.Tensor]:
    """The gradient of each slot [p], from one pass of all."""
    of = [items(ROWS[slot], slot, size, method.backbone.config.vocab_size) for slot in slots]
    rows = make_batch([item for own in of for item in own], [slot for slot in slots for _ in of[slot]])
    method.compute_batch_losses(move_to_backbone(method, rows)).sum().backward()
    found = [flat(method, slot) for slot in slots]
    method.zero_grad()
    return found


def alone(method: Method, size: Size, slot: int, state: dict[str, torch.Tensor], wanted: torch.Tensor) -> float:
    """How far a cell's gradient is from the one it had in the pack."""
    method.load(state)
    rows = make_batch(items(ROWS[slot], slot, size, method.backbone.config.vocab_size), [0] * ROWS[slot])
    method.compute_batch_losses(move_to_backbone(method, rows)).sum().backward()
    found = flat(method, 0)
    method.zero_grad()
    return apart(found, wanted)


def flat(method: Method, slot: int) -> torch.Tensor:
    own = method.trainable_by_slot()
    parameters = own.get(slot, own.get(0, {})).values()
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])


def padded(method: Method, size: Size) -> float:
    """Rows of unequal length padded on the left, against each on its own."""
    of = [item._replace(answer_ids=()) for item in items(4, 6, size, method.backbone.config.vocab_size)]
    slots = [i % method.num_slots for i in range(len(of))]
    given = move_to_backbone(method, make_batch(of, slots, "left"))
    with torch.no_grad():
        found = method.compute_hidden_states(given.input_ids, given.attention_mask, given.slots)[:, -1]
    return max(apart(found[i], compute_row_states(method, item.prompt_ids, slots[i])[-1]) for i, item in enumerate(of))


def cached(method: Method, size: Size) -> float:
    """The last tokens one by one from a cache, against one pass."""
    ids = items(1, 8, size, method.backbone.config.vocab_size)[0].prompt_ids
    given, slot, cache, found = len(ids) - 4, method.num_slots - 1, method.backbone.create_cache(), []
    with torch.no_grad():
        for first, last in ((0, given), *((i, i + 1) for i in range(given, len(ids)))):
            row = move_to_backbone(method, torch.tensor([ids[first:last]]))
            seen = move_to_backbone(method, torch.ones(1, last, dtype=torch.long))
            found.append(method.compute_hidden_states(row, seen, (slot,), cache)[0])
    return apart(torch.cat(found)[given:], compute_row_states(method, ids, slot, given)[given:])


# -------------------------------------------------------------------- the attention's seam


def kernels(backbone: Backbone, size: Size) -> dict[str, dict[str, Any]]:
    """The gated second softmax under each attention kernel: g = 0 is the backbone to the bit, g moved as in plain math."""
    found: dict[str, dict[str, Any]] = {}
    for name in GATED:
        for kernel, (kind, even) in KERNELS.items():
            of = [item._replace(answer_ids=()) for item in items(4, 6, size, backbone.config.vocab_size, even=even)]
            found[f"{name}, {kernel}"] = there(lambda name=name, of=of, kind=kind: seam(name, backbone, of, kind))
    return found


def there(do: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What is found, or that this device has no such kernel."""
    try:
        return do()
    except RuntimeError as error:
        if not str(error).startswith(ABSENT):
            raise
        return {"skipped": "no such kernel on this device"}


def seam(name: str, backbone: Backbone, of: Sequence[EncodedExample], kernel: SDPBackend) -> dict[str, Any]:
    """One method under one kernel."""
    options = {"length": 0} if name == "ta_lora" else {}  # without its prompt, which changes the input
    with ready(name, backbone, 1, away=False, options=options) as method, torch.no_grad():
        at_start = passed(method, of, kernel)
    plain = Method(backbone)
    with torch.no_grad():
        unchanged = torch.equal(passed(plain, of, kernel), at_start)
    plain.close()
    with ready(name, backbone, 2) as method:
        for key, bank in method.slot_parameters().items():
            if key.split(".")[-1] == "g" or key.startswith("gates."):
                for gate in bank.tensors:
                    gate.data.fill_(1.0)
        found, weigh = (
            [],
            move_to_backbone(method, torch.randn(backbone.hidden_size, generator=torch.Generator().manual_seed(1))),
        )
        for kind in (kernel, SDPBackend.MATH):
            hidden = passed(method, of, kind)
            (hidden.float() * weigh).sum().backward()  # any functional but the norm, which the last norm holds fixed
            gradient = torch.cat([p.grad.flatten() for p in method.parameters() if p.grad is not None])
            found.append((hidden.detach(), gradient))
            method.zero_grad()
    far, grad = (apart(one, plain) for one, plain in zip(*found, strict=True))
    return {"g = 0 is the backbone": unchanged, "distance": far, "gradient": grad}


def passed(method: Method, of: Sequence[EncodedExample], kernel: SDPBackend) -> torch.Tensor:
    """Hidden states of all real tokens [n, d]."""
    given = move_to_backbone(method, make_batch(of, [i % method.num_slots for i in range(len(of))]))
    with sdpa_kernel([kernel]):
        hidden = method.compute_hidden_states(given.input_ids, given.attention_mask, given.slots)
    return hidden[given.attention_mask.bool()]
