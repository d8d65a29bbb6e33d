"""Any configuration of the `peft` library for causal language models, as a method; its cells are never packed.

    method: peft, config: {peft_type: IA3, lr: 1e-3, target_modules: [k_proj, v_proj, down_proj], ...}
    method: peft, config: {file: path/to/adapter_config.json}

`peft` replaces modules, and some of its initialisations change weights, so it works on a copy of the backbone. Modules
that peft adds inside the model run unchanged; virtual tokens, whether embeddings or keys and values, are computed by
peft and use our positions, masks and cache. The loss is always the task's.
"""

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PeftConfig, PromptLearningConfig, get_peft_model
from peft.tuners.poly.layer import PolyLayer
from torch import Tensor, nn
from transformers import Cache

from methods.base import Method, Stage, create_generator
from methods.core.config import MethodConfig
from methods.core.step_plan import StepPlan, build_step_plan
from tasks.core.types import Batch, EncodedExample, UsageError

PEFT_CONFIG_CLASSES = {kind.value: config for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}

# types and options that need code outside the model; without it the results would not be those of the method
UNSUPPORTED_TYPES = {
    "ADALORA": "its ranks are allocated between the steps, and it adds a loss of its own, in peft's training loop",
    "SHADOW": "it adds a loss of its own in peft's forward pass",
    "XLORA": "it mixes LoRA adapters that were trained before",
}
UNSUPPORTED_OPTIONS = (
    "use_asa", "alora_invocation_tokens", "eva_config", "corda_config", "lora_ga_config", "monteclora_config",
    "arrow_config",
)  # fmt: skip

COMMON_OPTIONS = [option.name for option in fields(MethodConfig)]  # options of every method
DEFAULT_VIRTUAL_TOKENS = 20  # where the configuration gives no number, as in `prompt`


def load_peft_options(peft_type: str, file: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The type and its options, from the file where one is given; `options` override those of the file."""
    if not file:
        return peft_type.upper(), dict(options)
    if not Path(file).is_file():
        raise UsageError(f"method peft: no file {file}; give an adapter_config.json, or peft_type")
    merged = {**PeftConfig.from_json_file(file), **options}
    return merged.pop("peft_type", "").upper(), merged


def build_peft_config(peft_type: str, options: Mapping[str, Any]) -> PeftConfig:
    """Build peft's configuration. Raises UsageError on unknown or unsupported types and options."""
    if peft_type not in PEFT_CONFIG_CLASSES:
        raise UsageError(
            f"method peft: no peft_type {peft_type!r}; there are: {', '.join(sorted(PEFT_CONFIG_CLASSES))}"
        )
    if peft_type in UNSUPPORTED_TYPES:
        raise UsageError(f"method peft: {peft_type} does not fit here: {UNSUPPORTED_TYPES[peft_type]}")
    option_names = [option.name for option in fields(PEFT_CONFIG_CLASSES[peft_type])]
    for key in options:
        if key not in option_names:
            near = get_close_matches(key, [*option_names, *COMMON_OPTIONS], 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(option_names)}"
            raise UsageError(f"method peft: {peft_type} has no option {key!r}; {hint}")
    try:
        config = PEFT_CONFIG_CLASSES[peft_type](**{**options, "task_type": "CAUSAL_LM", "inference_mode": False})
    except (ValueError, TypeError, ImportError) as error:
        raise UsageError(f"method peft: {peft_type} cannot be used: {str(error).strip().splitlines()[0]}") from error
    for option in UNSUPPORTED_OPTIONS:
        if getattr(config, option, None):
            raise UsageError(
                f"method peft: {peft_type} with {option} does not fit here: it needs peft's own training loop"
            )
    if isinstance(config, PromptLearningConfig) and not config.num_virtual_tokens:
        config.num_virtual_tokens = DEFAULT_VIRTUAL_TOKENS
    return config


class Peft(Method):
    """Adapter of the `peft` library on a copy of the backbone."""

    name = "peft"
    paper = "the peft library, https://github.com/huggingface/peft"
    trained_part = "what peft_type says"
    is_packable = False

    @dataclass(frozen=True)
    class Config(Method.Config):
        peft_type: str = "LORA"
        file: str = ""  # path of an adapter_config.json, instead of peft_type
        options: Mapping[str, Any] = field(default_factory=dict)  # options of peft's configuration class

    config: Config

    @classmethod
    def parse_config(cls, option_values: Mapping[str, Any]) -> Config:
        """Split the values: options of this class by name, all others are peft's. Raises UsageError on unknown ones."""
        names = {option.name for option in fields(cls.Config)} - {"options"}
        config: Any = super().parse_config({key: value for key, value in option_values.items() if key in names})
        others = {key: value for key, value in option_values.items() if key not in names and key != "options"}
        kind, options = load_peft_options(config.peft_type, config.file, {**option_values.get("options", {}), **others})
        build_peft_config(kind, options)  # report invalid options now
        return replace(
            config, peft_type=kind, options=options, file=""
        )  # the cell's identity holds the file's contents, not its path

    def build(self) -> None:
        c = self.config
        self.original_backbone = self.backbone
        self.peft_config = build_peft_config(*load_peft_options(c.peft_type, c.file, c.options))
        self.backbone = copy.copy(self.original_backbone)  # shares everything but the model
        self.original_backbone.register_undo(self._restore_backbone)
        self.noise_generator = torch.Generator()
        self._inject_adapter(0)

    def _inject_adapter(self, seed: int) -> None:
        """Put a new adapter, initialised from `seed`, on a new copy of the model."""
        self.backbone.model = model = copy.deepcopy(self.original_backbone.model)
        original = {id(part): part for part in chain(model.parameters(), model.buffers(), model.modules())}
        with torch.random.fork_rng(), warnings.catch_warnings():
            torch.manual_seed(seed)
            warnings.simplefilter("ignore", FutureWarning)  # transformers warns about calls that peft makes
            try:
                adapted = get_peft_model(model, copy.deepcopy(self.peft_config)).to(self.original_backbone.device)
            except (ValueError, TypeError, ImportError, NotImplementedError) as error:
                reason = str(error).strip().splitlines()[0]
                raise UsageError(f"method peft: {self.peft_config.peft_type.value} cannot be used: {reason}") from error
        # a tuple, so that it is not a submodule: only `weights` is saved and moved
        self.peft_model_holder: tuple[Any, ...] = (adapted,)
        self.added_modules = [module for module in adapted.modules() if id(module) not in original]
        named = chain(adapted.named_parameters(), adapted.named_buffers())
        self.adapter_tensors = {name: part for name, part in named if part.requires_grad or id(part) not in original}
        weights = {name: part for name, part in self.adapter_tensors.items() if isinstance(part, nn.Parameter)}
        self.weights = nn.ParameterDict({name.replace(".", "/"): part for name, part in weights.items()})
        self.num_virtual_tokens = getattr(self.peft_config, "num_virtual_tokens", 0)
        for module in self.added_modules:
            if isinstance(module, PolyLayer):
                module.register_forward_pre_hook(_set_task_ids_to_zero, with_kwargs=True)
        self.train(self.training)

    def _restore_backbone(self) -> None:
        self.backbone.model = self.original_backbone.model
        self.backbone.attachment_token = object()
        self.peft_model_holder = ()

    def close(self) -> None:
        self.original_backbone.detach()

    def initialize_slot(self, generator: torch.Generator, train_examples: Sequence[EncodedExample]) -> None:
        self._inject_adapter(generator.initial_seed())

    def begin_stage(
        self, stage: Stage, seeds: Sequence[int], train_examples: Sequence[Sequence[EncodedExample]] = ()
    ) -> None:
        if len(seeds) > 1:
            raise UsageError(f"method peft trains one cell at a time, found {len(seeds)}")
        super().begin_stage(stage, seeds, train_examples)
        self.noise_generator = create_generator(seeds[0], stage.name, "noise")

    def train(self, mode: bool = True) -> "Peft":
        """Set the mode of the modules that peft added; the backbone stays in evaluation mode."""
        super().train(mode)
        self.backbone.model.eval()
        for module in self.added_modules:
            module.training = mode
        return self

    def prompt_embeddings(self, text_embeddings: Tensor, prompt_mask: Tensor) -> Tensor | None:
        prompt = self._compute_virtual_tokens()
        return prompt if isinstance(prompt, Tensor) else None  # [1, l, d]

    def prefix_key_values(self) -> list[tuple[Tensor, Tensor]]:
        cache = self._compute_virtual_tokens() if self.num_virtual_tokens else None
        if not isinstance(cache, Cache):
            return []
        dtype = self.backbone.autocast_dtype or self.backbone.model.dtype
        return [(layer.keys.to(dtype), layer.values.to(dtype)) for layer in cache.layers]

    def _compute_virtual_tokens(self) -> Tensor | Cache:
        """Embeddings [1, l, d], or a cache with keys and values, in front of the text."""
        task = torch.zeros(1, dtype=torch.long, device=self.backbone.device)
        return self.peft_model_holder[0].get_prompt(batch_size=1, task_ids=task)

    def plan_step(self, batch: Batch) -> StepPlan:
        """Plan whole rows: noise that is drawn once per forward pass must not differ within a row."""
        return build_step_plan(batch, num_virtual_tokens=self.num_virtual_tokens, share_prefix=False)

    def compute_slot_losses(self, step_plan: StepPlan) -> Tensor:
        if not self.training:
            return super().compute_slot_losses(step_plan)
        with torch.random.fork_rng():  # peft draws from torch's global generator: keep its state for all others
            torch.manual_seed(int(torch.randint(2**62, (), generator=self.noise_generator)))
            return super().compute_slot_losses(step_plan)

    def trained_state_dict(self) -> dict[str, Tensor]:
        return {name: part.detach() for name, part in self.adapter_tensors.items()}

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        if wrong := self.adapter_tensors.keys() ^ state.keys():
            raise UsageError(f"method peft: this state is not its own; they differ in {sorted(wrong)[:3]}")
        for name, part in self.adapter_tensors.items():
            part.copy_(state[name])


def _set_task_ids_to_zero(_layer: nn.Module, inputs: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """Forward pre-hook that sets the task of every row to 0, which POLY layers require."""
    return inputs, {**kwargs, "task_ids": torch.zeros(len(inputs[0]), dtype=torch.long, device=inputs[0].device)}
