"""Activation checkpointing: keep only layer inputs and recompute the rest in the backward pass (arXiv:1604.06174).

A forward pass then keeps one hidden state per layer and token instead of about thirty numbers per unit of width, at the
cost of a second forward pass during the backward pass. transformers' own option acts only on models in training mode,
which a frozen backbone never is. What a method computes at a layer depends on the slot of each row, so this context is
restored before a layer is recomputed.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from tasks.core.types import UsageError


class CheckpointedLayers:
    """The layers of one model under checkpointing.

    A method sets `restore_context` in every forward pass to a callback that restores its context of that pass.
    """

    def __init__(self, layers: nn.ModuleList) -> None:
        self.restore_context: Callable[[], object] = lambda: None
        for layer in layers:
            layer.forward = partial(self.run_layer, layer.forward)

    def run_layer(self, layer_forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Forward pass of a layer, checkpointed if gradients are enabled. Raises UsageError if there is a cache."""
        if not torch.is_grad_enabled():
            return layer_forward(*args, **kwargs)
        if kwargs.get("past_key_values") is not None:
            raise UsageError(
                "keys and values in front of the text cannot be recomputed with checkpointing; turn off checkpointing"
            )
        restore_context = self.restore_context  # the callback of this forward pass: later ones replace the attribute

        def restore_and_run(*args: Any) -> Any:
            restore_context()
            return layer_forward(*args, **kwargs)

        return checkpoint(restore_and_run, *args, use_reentrant=False)
