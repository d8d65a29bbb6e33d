"""A backbone without weights: what methods attach to and count on, of any size, in no memory and no time."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, Cache

import methods
from benchmark.proofs.material import built
from benchmark.scheduling.memory_model import Shape
from methods.backbone import Backbone, load_tokenizer
from methods.base import Method
from methods.files import SITES
from tasks.example import UsageError

SIGMA = 0.02  # of the embedding's entries; no count depends on it


class Skeleton(Backbone):
    """The modules of a shape on the meta device, and zeros for whatever a method reads of the model at its start."""

    def __init__(self, shape: Shape, device: str) -> None:
        config = configuration(shape)
        with torch.device("meta"):
            self.model = AutoModelForCausalLM.from_config(config).requires_grad_(False).eval()
        self.tokenizer = load_tokenizer(methods.backbone_folder("tiny"), "tiny")
        self.name, self.fingerprint = "skeleton", ""
        self.config, self.width, self.sigma = self.model.config, shape.hidden_size, SIGMA
        self.sites, self.autocast_dtype = SITES[self.config.model_type], None
        self.sharded, self.layers = False, None
        self.lease, self._undo, self._kept, self.place = object(), [], {}, torch.device(device)

    @property
    def device(self) -> torch.device:
        return self.place

    def embed(self, ids: Tensor) -> Tensor:
        return torch.zeros(*ids.shape, self.width, device=self.place)

    def hidden(
        self,
        *,
        input_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        cache: Cache | None = None,
        **given: Any,
    ) -> Tensor:
        rows, size = (input_ids if inputs_embeds is None else inputs_embeds).shape[:2]
        heads, layers = self.config.num_key_value_heads, self.config.num_hidden_layers
        d_h = getattr(self.config, "head_dim", None) or self.width // self.config.num_attention_heads
        for layer in range(layers if cache is not None else 0):
            cache.update(*(torch.zeros(rows, heads, size, d_h, device=self.place) for _ in range(2)), layer)
        return torch.zeros(rows, size, self.width, device=self.place)


def configuration(shape: Shape) -> Any:
    """The shape as transformers has it."""
    values = shape._asdict()
    kind = values.pop("model_type")
    if not values["head_dim"]:
        values.pop("head_dim")
    return AutoConfig.for_model(kind, **values, attn_implementation="sdpa")


def counted(name: str, options: Mapping[str, Any], shape: Shape) -> dict[str, Any] | None:
    """Numbers that learn, for all slots and for each, by stage; how many of them are the model's own weights; whether
    the method copies the model; how many virtual tokens it adds. None where a method cannot do without weights.
    """
    kind = methods.load(name)
    for device in (
        "cpu",
        "meta",
    ):  # on the CPU a method's own tensors are real; what moves the model itself, needs meta
        backbone = Skeleton(shape, device)
        stages: dict[str, tuple[int, int]] = {}

        def look(method: Method, stages: dict[str, tuple[int, int]] = stages) -> None:
            sizes = {slot: sum(p.numel() for p in named.values()) for slot, named in method.owned().items()}
            stages[method.stage.name] = sizes.get(None, 0), sizes.get(0, 0)

        try:
            with torch.no_grad():
                method = built(kind, backbone, 1, away=False, config=kind.configure(options), then=look)
        except (RuntimeError, UsageError):
            continue
        model = {id(p) for p in backbone.model.parameters()}
        own = sum(p.numel() for p in method.parameters() if p.requires_grad and id(p) in model)
        copies = method.backbone.model is not backbone.model
        return {"stages": stages, "weights": own, "copies": copies, "virtual": method.virtual}
    return None
