"""TODO."""

from torch import Tensor, nn
from torch.nn import functional as F


def project_keys_values(attention: nn.Module, prompt: Tensor) -> tuple[Tensor, Tensor]:
    """K_a and V_a [k, H_kv, K, d_h] of prompts [k, K, d], one of each slot present"""
    prompt = prompt.to(attention.k_proj.weight.dtype)
    key, value = (
        project(prompt).unflatten(-1, (-1, attention.head_dim)) for project in (attention.k_proj, attention.v_proj)
    )
    if hasattr(attention, "k_norm"):
        key = attention.k_norm(key)
    return key.transpose(1, 2), value.transpose(1, 2)


def compute_gated_attention(attention: nn.Module, q: Tensor, key: Tensor, value: Tensor, gate: Tensor) -> Tensor:
    """q [b, H, s, d_h], keys and values [b or 1, H_kv, K, d_h], a factor [H] or [b, H] -> [b, s, H, d_h]"""
    b, heads = q.shape[:2]
    shared = heads // key.shape[1]  # query heads that share a key and a value head
    key, value = (part.repeat_interleave(shared, 1).expand(b, -1, -1, -1).to(q.dtype) for part in (key, value))
    seen = F.scaled_dot_product_attention(q, key, value, scale=attention.scaling)  # [b, H, s, d_h]
    return seen.transpose(1, 2) * gate.unflatten(-1, (1, heads, 1)).to(q.dtype)
