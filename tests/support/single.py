"""Small things that tests of single-stage methods share."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from methods.base import TARGET_STAGE, Method
from methods.core.backbone import Backbone
from methods.core.slot_parameters import SlotContext


def rows_of(*slots: int) -> SlotContext:
    rows = SlotContext()
    rows.activate(slots, torch.device("cpu"))
    return rows


@torch.no_grad()
def away(module: nn.Module, spread: float = 0.5) -> nn.Module:
    """Every parameter away from its start, where a wrong formula would pass."""
    draw = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        parameter += torch.empty_like(parameter).normal_(0, spread, generator=draw)
    return module


def entered(kind: type[Method], backbone: Backbone, slots: int = 1, spread: float = 0.5, **options: object) -> Method:
    """With as many slots, all away from their start."""
    method = kind(backbone, options)
    method.begin_stage(TARGET_STAGE, list(range(slots)))
    return away(method, spread).eval()


@torch.no_grad()
def logits(method: Method, ids: Tensor, slots: tuple[int, ...] | None = None) -> Tensor:
    """ids [b, s] -> [b, s, v]"""
    hidden = method.compute_hidden_states(ids, torch.ones_like(ids), slots or (0,) * len(ids))
    return method.backbone.compute_logits(hidden)


@torch.no_grad()
def frozen(backbone: Backbone, ids: Tensor) -> Tensor:
    """The backbone's own logits [b, s, v]."""
    return backbone.model(input_ids=ids).logits


def recorded(backbone: Backbone, path: str, ids: Tensor) -> list[Tensor]:
    """Outputs [b, s, out] of a module of every layer in the frozen model."""
    found: list[Tensor] = []
    hook: Callable = lambda _module, _inputs, y: found.append(y)  # noqa: E731
    handles = [layer.get_submodule(path).register_forward_hook(hook) for layer in backbone.model.model.layers]
    frozen(backbone, ids)
    for handle in handles:
        handle.remove()
    return found


def ids_of(rows: int = 3, length: int = 9, seed: int = 0) -> Tensor:
    return torch.randint(2, 40, (rows, length), generator=torch.Generator().manual_seed(seed))
