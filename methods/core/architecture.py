"""Dimensions of a decoder and its parameter counts, without loading a model. Imports no torch."""

import json
import re
from functools import cache
from typing import NamedTuple

from methods.core.backbone_folder import resolve_backbone_folder


class ModelShape(NamedTuple):
    """Dimensions of a decoder, named as in a transformers configuration."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    intermediate_size: int
    vocab_size: int
    tie_word_embeddings: bool = True
    head_dim: int = 0  # 0: hidden_size / num_attention_heads
    model_type: str = "qwen2"

    @property
    def attention_width(self) -> int:
        """Total width h of the query heads."""
        return self.num_attention_heads * (self.head_dim or self.hidden_size // self.num_attention_heads)

    @property
    def num_linear_parameters(self) -> int:
        """Parameters of the linear maps in all layers (attention and MLP)."""
        d = self.hidden_size
        h = self.attention_width
        key_value_width = h * self.num_key_value_heads // self.num_attention_heads
        return self.num_hidden_layers * (2 * d * h + 2 * d * key_value_width + 3 * d * self.intermediate_size)

    @property
    def num_embedding_parameters(self) -> int:
        """Parameters of the token embedding."""
        return self.hidden_size * self.vocab_size

    @property
    def num_parameters(self) -> int:
        """Parameters of the model, without biases and head norms (about 0.1 %)."""
        norms = (2 * self.num_hidden_layers + 1) * self.hidden_size
        return (
            self.num_linear_parameters + norms + self.num_embedding_parameters * (1 if self.tie_word_embeddings else 2)
        )

    @property
    def max_gathered_parameters(self) -> float:
        """Parameters of the largest module that FSDP gathers at a time."""
        return max(
            self.num_linear_parameters / self.num_hidden_layers,
            0 if self.tie_word_embeddings else self.num_embedding_parameters,
        )

    def parameters_per_device(self, num_devices: int) -> float:
        """Parameters that each device stores under FSDP; tied embeddings are replicated."""
        replicated = self.num_embedding_parameters if self.tie_word_embeddings else 0
        return replicated + (self.num_parameters - replicated) / num_devices


QWEN2_5_SHAPES = {
    "0.5B": ModelShape(896, 24, 14, 2, 4864, 151936),
    "1.5B": ModelShape(1536, 28, 12, 2, 8960, 151936),
    "3B": ModelShape(2048, 36, 16, 2, 11008, 151936),
    "7B": ModelShape(3584, 28, 28, 4, 18944, 152064, tie_word_embeddings=False),
    "14B": ModelShape(5120, 48, 40, 8, 13824, 152064, tie_word_embeddings=False),
}


@cache
def find_model_shape(backbone_name: str) -> ModelShape | None:
    """Shape of a backbone, from its local config.json or from a Qwen2.5 name; None if neither is available."""
    folder = resolve_backbone_folder(backbone_name)
    if (folder / "config.json").is_file():
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return ModelShape(**{field: config[field] for field in ModelShape._fields if config.get(field) is not None})
    match = re.search(r"Qwen2\.5-(\d+(?:\.\d+)?B)", backbone_name)
    return QWEN2_5_SHAPES.get(match[1]) if match else None
