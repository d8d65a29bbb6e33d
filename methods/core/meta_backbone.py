"""Backbone of any size without weights (meta device), for counting a method's parameters at no cost."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, Cache

import methods
from methods.base import Method
from methods.core.architecture import ModelShape
from methods.core.backbone import Backbone, load_tokenizer
from methods.core.backbone_files import SITES_BY_MODEL_TYPE
from methods.core.backbone_folder import resolve_backbone_folder
from methods.core.instantiate import instantiate_method
from tasks.core.types import UsageError

EMBEDDING_STD = 0.02  # no parameter count depends on this value


class MetaBackbone(Backbone):
    """Model of this shape on the meta device; its embeddings, hidden states, keys and values are zeros on `device`."""

    def __init__(self, shape: ModelShape, device: str) -> None:
        config = build_model_config(shape)
        with torch.device("meta"):
            self.model = AutoModelForCausalLM.from_config(config).requires_grad_(False).eval()
        self.tokenizer = load_tokenizer(resolve_backbone_folder("tiny"), "tiny")
        self.name = "skeleton"
        self.fingerprint = ""
        self.config = self.model.config
        self.hidden_size = shape.hidden_size
        self.embedding_std = EMBEDDING_STD
        self.site_modules = SITES_BY_MODEL_TYPE[self.config.model_type]
        self.autocast_dtype = None
        self.is_sharded = False
        self.checkpointed_layers = None
        self.attachment_token = object()
        self._undo_callbacks = []
        self._pretrained_values = {}
        self.target_device = torch.device(device)

    @property
    def device(self) -> torch.device:
        """Device of the zeros and of a method's own tensors."""
        return self.target_device

    def embed(self, input_ids: Tensor) -> Tensor:
        """Zeros [..., d]."""
        return torch.zeros(*input_ids.shape, self.hidden_size, device=self.target_device)

    def compute_hidden_states(
        self,
        *,
        input_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        cache: Cache | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Zeros [b, s, d]; a cache is extended by zeros."""
        b, s = (input_ids if inputs_embeds is None else inputs_embeds).shape[:2]
        if cache is not None:
            num_heads = self.config.num_key_value_heads
            d_h = getattr(self.config, "head_dim", None) or self.hidden_size // self.config.num_attention_heads
            for layer in range(self.config.num_hidden_layers):
                key, value = (torch.zeros(b, num_heads, s, d_h, device=self.target_device) for _ in range(2))
                cache.update(key, value, layer)
        return torch.zeros(b, s, self.hidden_size, device=self.target_device)


def build_model_config(shape: ModelShape) -> Any:
    """The transformers configuration of a shape."""
    values = shape._asdict()
    model_type = values.pop("model_type")
    if not values["head_dim"]:
        values.pop("head_dim")
    return AutoConfig.for_model(model_type, **values, attn_implementation="sdpa")


def count_parameters_by_stage(method_name: str, options: Mapping[str, Any], shape: ModelShape) -> dict[str, Any] | None:
    """Count a method's trainable parameters on a backbone of this shape; None if the method needs real weights.

    Keys of the result: "stages", by stage name the numbers of parameters that all slots share and of each slot;
    "weights", how many of them are the backbone's own; "copies", whether the method copies the model; "virtual", the
    number of virtual tokens.
    """
    method_class = methods.load_method(method_name)
    for device in ("cpu", "meta"):  # "cpu" has real tensors for the method; one that moves the model needs "meta"
        backbone = MetaBackbone(shape, device)
        stages: dict[str, tuple[int, int]] = {}

        def record_sizes(method: Method, stages: dict[str, tuple[int, int]] = stages) -> None:
            sizes = {slot: sum(p.numel() for p in named.values()) for slot, named in method.trainable_by_slot().items()}
            stages[method.current_stage.name] = sizes.get(None, 0), sizes.get(0, 0)

        try:
            with torch.no_grad():
                method = instantiate_method(
                    method_class,
                    backbone,
                    1,
                    perturb=False,
                    config=method_class.parse_config(options),
                    after_stage_begin=record_sizes,
                )
        except (RuntimeError, UsageError):
            continue
        backbone_ids = {id(p) for p in backbone.model.parameters()}
        num_weights = sum(p.numel() for p in method.parameters() if p.requires_grad and id(p) in backbone_ids)
        copies = method.backbone.model is not backbone.model
        return {"stages": stages, "weights": num_weights, "copies": copies, "virtual": method.num_virtual_tokens}
    return None
