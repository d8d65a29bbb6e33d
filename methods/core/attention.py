"""Attention to a trained prompt inside an attention layer, as in LLaMA-Adapter (arXiv:2303.16199)."""

from torch import Tensor, nn
from torch.nn import functional as F


def project_keys_values(attention: nn.Module, prompt: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values [k, H_kv, K, d_h] of the prompts [k, K, d] of k slots, by the layer's own projections."""
    prompt = prompt.to(attention.k_proj.weight.dtype)
    key, value = (
        project(prompt).unflatten(-1, (-1, attention.head_dim)) for project in (attention.k_proj, attention.v_proj)
    )
    if hasattr(attention, "k_norm"):
        key = attention.k_norm(key)
    return key.transpose(1, 2), value.transpose(1, 2)


def compute_gated_attention(attention: nn.Module, q: Tensor, key: Tensor, value: Tensor, gate: Tensor) -> Tensor:
    """Attention of the queries to the keys and values, multiplied by a gate per head -> [b, s, H, d_h].

    q [b, H, s, d_h], key and value [b or 1, H_kv, K, d_h], gate [H] or [b, H].
    """
    b, num_heads = q.shape[:2]
    group_size = num_heads // key.shape[1]  # query heads that share a key and a value head
    key, value = (heads.repeat_interleave(group_size, 1).expand(b, -1, -1, -1).to(q.dtype) for heads in (key, value))
    output = F.scaled_dot_product_attention(q, key, value, scale=attention.scaling)  # [b, H, s, d_h]
    return output.transpose(1, 2) * gate.unflatten(-1, (1, num_heads, 1)).to(q.dtype)
