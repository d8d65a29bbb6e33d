"""Activation checkpointing: a layer's inputs are kept for the way back, the rest is computed anew (arXiv:1604.06174).

A pass then keeps one hidden state per layer and token where it kept some thirty numbers per unit of width, for a second
forward pass on the way back. transformers' own switch acts on models in training mode only, and a frozen backbone never
is. What a method does at a layer depends on which slot a row is of: the second pass has to find that as the first did.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from tasks.core.types import UsageError


class CheckpointedLayers:
    """The layers of one model under checkpointing. `moment`: brings back what a method knew of the pass at hand."""

    def __init__(self, layers: nn.ModuleList) -> None:
        self.restore_context: Callable[[], object] = lambda: None
        for layer in layers:
            layer.forward = partial(self.run_layer, layer.forward)

    def run_layer(self, layer_forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """A layer's pass. Where no gradient will be asked for, as in scoring, nothing is kept anyway."""
        if not torch.is_grad_enabled():
            return layer_forward(*args, **kwargs)
        if kwargs.get("past_key_values") is not None:
            raise UsageError(
                "keys and values before the text lie in a cache, which no second pass can fill; turn off checkpointing"
            )
        moment = self.restore_context

        def again(*args: Any) -> Any:
            moment()
            return layer_forward(*args, **kwargs)

        return checkpoint(again, *args, use_reentrant=False)
