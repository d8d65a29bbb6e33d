"""Activation checkpointing: the same losses and gradients from a second pass, and less kept for the way back."""

from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from methods import NAMES, load_method
from methods.base import Method
from methods.conformance.fixtures import make_batch
from methods.core.backbone import Backbone
from methods.core.instantiate import generate_examples, instantiate_method
from tasks.core.types import UsageError

CACHED = ("prefix",)
LEARN = [name for name in NAMES if load_method(name).stages and name not in CACHED]


@pytest.fixture(scope="module")
def pair(model_folders: dict[str, Path]) -> tuple[Backbone, Backbone]:
    folder = str(model_folders["qwen3"])
    return Backbone.load(folder), Backbone.load(folder, checkpointing=True)


def gradients(name: str, backbone: Backbone) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Of two passes whose rows are of other slots, so that the second pass of the first comes when those are known."""
    method = instantiate_method(load_method(name), backbone).train()
    every = generate_examples(6, 5)
    slots = [0, 1, 2, 0, 1, 2] if method.num_slots > 2 else [0] * 6
    losses = [
        method.compute_batch_losses(make_batch(every[:4], slots[:4])),
        method.compute_batch_losses(make_batch(every[4:], slots[4:])),
    ]
    total = torch.cat(losses)
    total.sum().backward()
    found = {key: p.grad.clone() for key, p in method.named_parameters() if p.grad is not None}
    method.zero_grad()
    backbone.detach()
    return total.detach(), found


@pytest.mark.parametrize("name", [name for name in LEARN if name not in ("zero_shot", "majority", "head_only")])
def test_losses_and_gradients_are_those_of_one_pass(name: str, pair: tuple[Backbone, Backbone]):
    (losses, want), (again, found) = gradients(name, pair[0]), gradients(name, pair[1])
    assert_close(again, losses, rtol=1e-5, atol=1e-6)
    assert want
    assert want.keys() == found.keys()
    for key in want:
        assert_close(found[key], want[key], rtol=1e-3, atol=1e-5)


def kept(backbone: Backbone) -> int:
    """Bytes that a pass keeps for its way back, parameters aside."""
    method, sizes = instantiate_method(load_method("lora"), backbone).train(), {}
    own = {p.data_ptr() for p in [*method.parameters(), *backbone.model.parameters()]}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in own:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = method.compute_batch_losses(make_batch(generate_examples(6, 5), [0] * 6))
        total = sum(sizes.values())
    del loss
    backbone.detach()
    return total


def test_less_is_kept(pair: tuple[Backbone, Backbone]):
    assert kept(pair[1]) < 0.5 * kept(pair[0])


def test_noise_that_a_second_pass_would_not_draw_again_is_refused(pair: tuple[Backbone, Backbone]):
    with pytest.raises(UsageError, match="dropout is not supported with checkpointing"):
        load_method("lora")(pair[1], {"dropout": 0.1})


def test_a_prefix_is_refused_when_it_trains(pair: tuple[Backbone, Backbone]):
    with pytest.raises(UsageError, match="cannot be recomputed with checkpointing"):
        gradients("prefix", pair[1])
    pair[1].detach()


def test_a_pass_with_a_cache_is_never_computed_twice(pair: tuple[Backbone, Backbone]):
    method: Method = instantiate_method(load_method("lora"), pair[1]).train()
    ids = torch.tensor([[5, 6, 7]])
    with pytest.raises(UsageError, match="cannot be recomputed with checkpointing"):
        method.compute_hidden_states(ids, torch.ones_like(ids), (0,), pair[1].create_cache())
    with torch.no_grad():
        method.compute_hidden_states(ids, torch.ones_like(ids), (0,), pair[1].create_cache())
    pair[1].detach()
