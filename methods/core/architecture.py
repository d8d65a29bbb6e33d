"""TODO."""

import json
import re
from functools import cache
from typing import NamedTuple

import methods


class ModelShape(NamedTuple):
    """The dimensions of a decoder, under the names a configuration has for them."""

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
        """h: width of all query heads."""
        return self.num_attention_heads * (self.head_dim or self.hidden_size // self.num_attention_heads)

    @property
    def num_linear_parameters(self) -> int:
        """Numbers in the layers' linears, which every token passes."""
        d, h = self.hidden_size, self.attention_width
        keys = h * self.num_key_value_heads // self.num_attention_heads
        return self.num_hidden_layers * (2 * d * h + 2 * d * keys + 3 * d * self.intermediate_size)

    @property
    def num_embedding_parameters(self) -> int:
        """Numbers of the embeddings."""
        return self.hidden_size * self.vocab_size

    @property
    def num_parameters(self) -> int:
        """P, less biases and norms of heads: a thousandth."""
        norms = (2 * self.num_hidden_layers + 1) * self.hidden_size
        return (
            self.num_linear_parameters + norms + self.num_embedding_parameters * (1 if self.tie_word_embeddings else 2)
        )

    @property
    def max_gathered_parameters(self) -> float:
        """Numbers of the largest part that fsdp has whole at a time."""
        return max(
            self.num_linear_parameters / self.num_hidden_layers,
            0 if self.tie_word_embeddings else self.num_embedding_parameters,
        )

    def parameters_per_device(self, num_devices: int) -> float:
        """Numbers that are at rest on each of several devices under fsdp."""
        whole = self.num_embedding_parameters if self.tie_word_embeddings else 0
        return whole + (self.num_parameters - whole) / num_devices


QWEN2_5_SHAPES = {
    "0.5B": ModelShape(896, 24, 14, 2, 4864, 151936),
    "1.5B": ModelShape(1536, 28, 12, 2, 8960, 151936),
    "3B": ModelShape(2048, 36, 16, 2, 11008, 151936),
    "7B": ModelShape(3584, 28, 28, 4, 18944, 152064, tie_word_embeddings=False),
    "14B": ModelShape(5120, 48, 40, 8, 13824, 152064, tie_word_embeddings=False),
}


@cache
def find_model_shape(backbone_name: str) -> ModelShape | None:
    """Of a backbone: from its folder, or of Qwen2.5 by name. None: not known without a network."""
    folder = methods.resolve_backbone_folder(backbone_name)
    if (folder / "config.json").is_file():
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return ModelShape(**{field: found[field] for field in ModelShape._fields if found.get(field) is not None})
    found = re.search(r"Qwen2\.5-(\d+(?:\.\d+)?B)", backbone_name)
    return QWEN2_5_SHAPES.get(found[1]) if found else None
