"""The last layer's feed-forward part, at those places only whose hidden state somebody asks for.

What follows the attention of the last layer feeds no other place. Of some 60 tokens of a row two or three predict an
answer: the others are left out of it, forward and back, and the same numbers come out. In a backbone of 4 layers that
is a fifth of all matrix products, in one of 24 a thirtieth.
"""

from types import MethodType
from typing import Any

from torch import Tensor, nn


def install_sparse_forward(layer: nn.Module) -> None:
    """Let the last decoder layer go on with the places `asked` for, once its attention is done."""
    layer.forward = MethodType(_sparse_forward, layer)  # a copy of the layer then has its own


def _sparse_forward(
    layer: nn.Module, hidden_states: Tensor, query_positions: Tensor | None = None, **kwargs: Any
) -> Tensor:
    """hidden_states [b, s, d], asked [b, n] -> [b, n, d], in the order of transformers' Llama, Qwen2 and Qwen3."""
    if query_positions is None:
        return type(layer).forward(layer, hidden_states, **kwargs)
    attended, _ = layer.self_attn(hidden_states=layer.input_layernorm(hidden_states), **kwargs)
    stream = (hidden_states + attended).gather(1, query_positions[..., None].expand(-1, -1, hidden_states.shape[-1]))
    return stream + layer.mlp(layer.post_attention_layernorm(stream))
