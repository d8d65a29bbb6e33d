"""Any configuration of the `peft` library for causal language models, as a method: one task at a time, not packed.

    method: peft, config: {peft_type: IA3, lr: 1e-3, target_modules: [k_proj, v_proj, down_proj], ...}
    method: peft, config: {file: path/to/adapter_config.json}

`peft` rewrites modules, and some of its starts rewrite weights, so it gets a copy of the backbone: the loaded one is
never touched. What peft puts inside the model runs as it is; virtual tokens, be they embeddings or keys and values, are
taken from peft and go through our own positions, masks and cache. The loss is the task's, whatever the type.
"""

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import chain
from typing import Any

import torch
from peft import get_peft_model
from peft.tuners.poly.layer import PolyLayer
from torch import Tensor, nn
from transformers import Cache

from methods.base import Method, Stage, stream
from methods.peft_options import read, settings
from methods.plan import Plan, plan
from tasks.example import Batch, Encoded, UsageError


class Peft(Method):
    name = "peft"
    paper = "the peft library, https://github.com/huggingface/peft"
    what = "what peft_type says"
    packable = False

    @dataclass(frozen=True)
    class Config(Method.Config):
        peft_type: str = "LORA"
        file: str = ""  # an adapter_config.json, in place of peft_type
        options: Mapping[str, Any] = field(default_factory=dict)  # of peft's own configuration

    config: Config

    @classmethod
    def configure(cls, values: Mapping[str, Any]) -> Config:
        """Our options by name; every other one is peft's."""
        own = {option.name for option in fields(cls.Config)} - {"options"}
        config: Any = super().configure({key: value for key, value in values.items() if key in own})
        others = {key: value for key, value in values.items() if key not in own and key != "options"}
        kind, options = read(config.peft_type, config.file, {**values.get("options", {}), **others})
        settings(kind, options)  # a wrong one is an error now
        return replace(config, peft_type=kind, options=options, file="")  # a cell is known by what the file says

    def build(self) -> None:
        c = self.config
        self.original, self.settings = self.backbone, settings(*read(c.peft_type, c.file, c.options))
        self.backbone = copy.copy(self.original)  # the same in all but the model
        self.original.undo(self._release)
        self.noise = torch.Generator()
        self._inject(0)

    def _inject(self, seed: int) -> None:
        """A fresh copy of the model with a fresh adapter, drawn from a stream of its own."""
        self.backbone.model = model = copy.deepcopy(self.original.model)
        loaded = {id(part): part for part in chain(model.parameters(), model.buffers(), model.modules())}
        with torch.random.fork_rng(), warnings.catch_warnings():
            torch.manual_seed(seed)
            warnings.simplefilter("ignore", FutureWarning)  # of transformers, at how peft asks it things
            try:
                adapted = get_peft_model(model, copy.deepcopy(self.settings)).to(self.original.device)
            except (ValueError, TypeError, ImportError, NotImplementedError) as error:
                reason = str(error).strip().splitlines()[0]
                raise UsageError(f"method peft: {self.settings.peft_type.value} cannot be used: {reason}") from error
        self.adapted: tuple[Any, ...] = (adapted,)  # no submodule of ours: what is saved and moved is `weights` alone
        self.added = [module for module in adapted.modules() if id(module) not in loaded]
        named = chain(adapted.named_parameters(), adapted.named_buffers())
        self.own = {name: part for name, part in named if part.requires_grad or id(part) not in loaded}
        weights = {name: part for name, part in self.own.items() if isinstance(part, nn.Parameter)}
        self.weights = nn.ParameterDict({name.replace(".", "/"): part for name, part in weights.items()})
        self.virtual = getattr(self.settings, "num_virtual_tokens", 0)
        for module in self.added:
            if isinstance(module, PolyLayer):
                module.register_forward_pre_hook(_task_zero, with_kwargs=True)
        self.train(self.training)

    def _release(self) -> None:
        self.backbone.model, self.backbone.lease, self.adapted = self.original.model, object(), ()

    def close(self) -> None:
        self.original.detach()

    def start(self, draw: torch.Generator, train: Sequence[Encoded]) -> None:
        self._inject(draw.initial_seed())

    def enter(self, stage: Stage, seeds: Sequence[int], train: Sequence[Sequence[Encoded]] = ()) -> None:
        if len(seeds) > 1:
            raise UsageError(f"method peft trains one cell at a time, found {len(seeds)}")
        super().enter(stage, seeds, train)
        self.noise = stream(seeds[0], stage.name, "noise")

    def train(self, mode: bool = True) -> "Peft":
        """Dropout and the like in what peft added; the backbone stays in evaluation mode."""
        super().train(mode)
        self.backbone.model.eval()
        for module in self.added:
            module.training = mode
        return self

    def front(self, embeds: Tensor, source: Tensor) -> Tensor | None:
        found = self._virtual()
        return found if isinstance(found, Tensor) else None  # [1, l, d]

    def past(self) -> list[tuple[Tensor, Tensor]]:
        found = self._virtual() if self.virtual else None
        if not isinstance(found, Cache):
            return []
        dtype = self.backbone.autocast_dtype or self.backbone.model.dtype
        return [(layer.keys.to(dtype), layer.values.to(dtype)) for layer in found.layers]

    def _virtual(self) -> Tensor | Cache:
        """Embeddings [1, l, d] or keys and values in front of the text."""
        task = torch.zeros(1, dtype=torch.long, device=self.backbone.device)
        return self.adapted[0].get_prompt(batch_size=1, task_ids=task)

    def plan(self, batch: Batch) -> Plan:
        """Every row whole: noise that a type draws per pass must not differ between a row's parts."""
        return plan(batch, virtual=self.virtual, lead=False)

    def losses(self, plan: Plan) -> Tensor:
        if not self.training:
            return super().losses(plan)
        with torch.random.fork_rng():  # peft draws from torch's one stream, on which others would depend
            torch.manual_seed(int(torch.randint(2**62, (), generator=self.noise)))
            return super().losses(plan)

    def learned(self) -> dict[str, Tensor]:
        return {name: part.detach() for name, part in self.own.items()}

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        if wrong := self.own.keys() ^ state.keys():
            raise UsageError(f"method peft: this state is not its own; they differ in {sorted(wrong)[:3]}")
        for name, part in self.own.items():
            part.copy_(state[name])


def _task_zero(_layer: nn.Module, inputs: tuple, given: dict) -> tuple[tuple, dict]:
    """POLY asks in every layer of which task each row is."""
    return inputs, {**given, "task_ids": torch.zeros(len(inputs[0]), dtype=torch.long, device=inputs[0].device)}
