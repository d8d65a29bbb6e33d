"""Skip the last layer's MLP at positions whose hidden state is not needed (exact).

After the attention of the last layer, no position influences another. Of about 60 tokens of a row two or three predict
an answer token; the others are skipped in the forward and the backward pass, with identical results. This saves a fifth
of all matrix products with 4 layers and a thirtieth with 24.
"""

from types import MethodType
from typing import Any

from torch import Tensor, nn


def install_sparse_forward(layer: nn.Module) -> None:
    """Make the last decoder layer continue with the `query_positions` only after its attention."""
    layer.forward = MethodType(_sparse_forward, layer)  # bound, so that a deep copy of the layer gets its own method


def _sparse_forward(
    layer: nn.Module, hidden_states: Tensor, query_positions: Tensor | None = None, **kwargs: Any
) -> Tensor:
    """Output [b, n, d] at the query positions [b, n], as in the decoder layers of Llama, Qwen2 and Qwen3."""
    if query_positions is None:
        return type(layer).forward(layer, hidden_states, **kwargs)
    attended, _ = layer.self_attn(hidden_states=layer.input_layernorm(hidden_states), **kwargs)
    index = query_positions[..., None].expand(-1, -1, hidden_states.shape[-1])
    residual = (hidden_states + attended).gather(1, index)
    return residual + layer.mlp(layer.post_attention_layernorm(residual))
