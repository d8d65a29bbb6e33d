"""A backbone without weights: what methods attach to and count on, of any size, in no memory and no time."""

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
from methods.core.instantiate import instantiate_method
from tasks.core.types import UsageError

EMBEDDING_STD = 0.02  # of the embedding's entries; no count depends on it


class MetaBackbone(Backbone):
    """The modules of a shape on the meta device, and zeros for whatever a method reads of the model at its start."""

    def __init__(self, shape: ModelShape, device: str) -> None:
        config = build_model_config(shape)
        with torch.device("meta"):
            self.model = AutoModelForCausalLM.from_config(config).requires_grad_(False).eval()
        self.tokenizer = load_tokenizer(methods.resolve_backbone_folder("tiny"), "tiny")
        self.name, self.fingerprint = "skeleton", ""
        self.config, self.hidden_size, self.embedding_std = self.model.config, shape.hidden_size, EMBEDDING_STD
        self.site_modules, self.autocast_dtype = SITES_BY_MODEL_TYPE[self.config.model_type], None
        self.is_sharded, self.checkpointed_layers = False, None
        self.attachment_token, self._undo_callbacks, self._pretrained_values, self.target_device = (
            object(),
            [],
            {},
            torch.device(device),
        )

    @property
    def device(self) -> torch.device:
        return self.target_device

    def embed(self, input_ids: Tensor) -> Tensor:
        return torch.zeros(*input_ids.shape, self.hidden_size, device=self.target_device)

    def compute_hidden_states(
        self,
        *,
        input_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        cache: Cache | None = None,
        **given: Any,
    ) -> Tensor:
        rows, size = (input_ids if inputs_embeds is None else inputs_embeds).shape[:2]
        heads, layers = self.config.num_key_value_heads, self.config.num_hidden_layers
        d_h = getattr(self.config, "head_dim", None) or self.hidden_size // self.config.num_attention_heads
        for layer in range(layers if cache is not None else 0):
            cache.update(*(torch.zeros(rows, heads, size, d_h, device=self.target_device) for _ in range(2)), layer)
        return torch.zeros(rows, size, self.hidden_size, device=self.target_device)


def build_model_config(shape: ModelShape) -> Any:
    """The shape as transformers has it."""
    values = shape._asdict()
    kind = values.pop("model_type")
    if not values["head_dim"]:
        values.pop("head_dim")
    return AutoConfig.for_model(kind, **values, attn_implementation="sdpa")


def count_parameters_by_stage(method_name: str, options: Mapping[str, Any], shape: ModelShape) -> dict[str, Any] | None:
    """Numbers that learn, for all slots and for each, by stage; how many of them are the model's own weights; whether
    the method copies the model; how many virtual tokens it adds. None where a method cannot do without weights.
    """
    kind = methods.load_method(method_name)
    for device in (
        "cpu",
        "meta",
    ):  # on the CPU a method's own tensors are real; what moves the model itself, needs meta
        backbone = MetaBackbone(shape, device)
        stages: dict[str, tuple[int, int]] = {}

        def look(method: Method, stages: dict[str, tuple[int, int]] = stages) -> None:
            sizes = {slot: sum(p.numel() for p in named.values()) for slot, named in method.trainable_by_slot().items()}
            stages[method.current_stage.name] = sizes.get(None, 0), sizes.get(0, 0)

        try:
            with torch.no_grad():
                method = instantiate_method(
                    kind, backbone, 1, perturb=False, config=kind.parse_config(options), after_stage_begin=look
                )
        except (RuntimeError, UsageError):
            continue
        model = {id(p) for p in backbone.model.parameters()}
        own = sum(p.numel() for p in method.parameters() if p.requires_grad and id(p) in model)
        copies = method.backbone.model is not backbone.model
        return {"stages": stages, "weights": own, "copies": copies, "virtual": method.num_virtual_tokens}
    return None
