"""TA-LoRA: a shared prompt and, in front of it, a gated low-rank prompt of each task (arXiv:2505.00009).

**Our reconstruction**: we had title, abstract and index terms, but no equation, number or code of the paper.

  Z_t = [P ; E(x) ; E(y)]                                                                               (1)
  A_t = A_0 + a_t,   Delta_t = A_t B                        in each layer of S, as all that follows     (2) (3)
  K_t = Delta_t W_k^T (+ b_k),   V_t = Delta_t W_v^T (+ b_v)                                            (4)
  o^h = softmax(q K^T / sqrt(d_h) + mask) V + tanh(g_t^h) softmax(q K_t^T / sqrt(d_h)) V_t              (5)
  g_t = 0 at first                                                                                      (6)
  loss = cross-entropy of the answer tokens                                                             (7)

From the abstract: a shared prompt and, as a prefix to it, a low-rank vector of each task; slow weights for shared and
fast weights for task-specific knowledge; zero-initialised attention that protects the prompt during warm-up. Our
choices: the form of (2) to (5), which weights are slow, stages, learning rates and initialisation.

Slow, shared: P [l0, d], A_0 [m, r], B [r, d]. Fast, of each task: a_t [m, r], g_t [H]. W and b are frozen; K_t has no
rotary embedding, but the k_norm of models that have one (Qwen3). P is initialised to real tokens, A_0 from N(0, 1/r), B
from N(0, 1) (with 0 only g would be trained), a_t to 0. With g = 0 all logits equal prompt tuning's with P exactly.

Stages: `prompt` trains P alone on all sources, for the share `prompt_stage_fraction` of the sources' budget; `source`
trains everything, slow weights at `slow_lr_multiplier` times the rate and P frozen during warm-up; `target` trains
`trainable_on_target`, from a copy of P, a_t according to `start` and g = 0.
Trained: l0 d + |S| (r d + m r) slow numbers and |S| (m r + H) for each task; by default A_0 and B are frozen
on the target.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.base import SOURCE_STAGE, TARGET_STAGE, Method, OptimizerGroup, SlotContext, SlotParameter, Stage
from methods.core.attention import compute_gated_attention, project_keys_values
from methods.core.config import MethodConfig, validate_choices
from methods.core.losses import compute_mean_loss
from methods.core.prompt_initialization import initialize_common_prompt
from methods.core.step_plan import StepOutput
from methods.core.tensor_cache import TensorVersionCache
from tasks.core.types import EncodedExample, UsageError

PROMPT_STAGE = Stage("prompt", "sources")  # plain prompt tuning of the shared prompt
FAST_PARAMETERS = ("a", "g")
PROBE_EXAMPLES = 64  # training examples that select the nearest source


PARAMETER_NAMES = ("prompt", "a0", "b", "a", "g")


OPTION_CHOICES = {
    "form": ("additive", "hadamard", "input"),
    "gate": ("per_task", "shared", "none"),
    "gate_fn": ("tanh", "identity"),
    "slow_factor": ("A", "B"),
    "start": ("mean", "zero", "nearest"),
    "gate_start": ("zero", "source"),
}


@dataclass(frozen=True)
class TALoRAConfig(MethodConfig):
    """Options of TA-LoRA. `lr` is for the fast weights a_t and g_t; `weight_decay` applies to A_0 and B alone."""

    lr: float = 2e-3
    weight_decay: float = 0.02
    warmup: float = 0.1
    schedule: str = "cosine"
    prompt_lr: float = 0.3  # of P, in units of the embedding's standard deviation, as in `prompt`
    slow_lr_multiplier: float = 0.1  # rho: factor on the learning rate of slow weights
    slow_update_interval: int = 1  # K_s: slow weights step every K_s-th step of the source stage, on the mean gradient
    freeze_prompt_in_warmup: bool = True  # P is frozen during the warm-up of the source stage
    prompt_stage_fraction: float = 1 / 3  # share of the sources' budget that trains P alone
    length: int = 20  # l0: 20 few-shot, 100 on full data; 0: no shared prompt
    tokens: int = 16  # m
    rank: int = 8  # r; 9 on Qwen2.5-7B
    layers: int = 0  # |S|, from the top; 0: all
    trainable_on_target: str = "prompt a g"  # trained on the target; on full data all: "prompt a0 b a g"
    start: str = "mean"  # initial a_t of a target: mean of the sources, zero, or nearest (source with the lowest loss)
    gate_start: str = "zero"  # initial g_t of a target; source: from the same source as a_t
    # other readings of the abstract
    low_rank: bool = True  # False: Delta_t = D_0 + d_t, free matrices [m, d]
    slow_factor: str = "B"  # A: Delta_t = A_0 (B + b_t) with b_t [r, d] of each task instead of a_t
    form: str = "additive"  # (5), or at the input only, with one gate and m = l0: P (1 + tanh(g_t) Delta_t) elementwise
    # (hadamard), or P + sigma tanh(g_t) Delta_t (input; sigma: the embedding's standard deviation)
    gate: str = "per_task"  # shared: one g for all tasks; none: 1 in place of tanh(g)
    gate_fn: str = "tanh"  # identity: g in place of tanh(g)
    norm: bool = False  # apply the layer's frozen RMSNorm to Delta_t before the projections

    def __post_init__(self) -> None:
        super().__post_init__()
        validate_choices(self.trainable_on_target, PARAMETER_NAMES, "ta_lora: trainable_on_target")
        for name, choices in OPTION_CHOICES.items():
            if (value := getattr(self, name)) not in choices:
                raise UsageError(f"ta_lora: no {name} {value!r}; there are: {', '.join(choices)}")
        if (
            min(self.tokens, self.rank, self.slow_update_interval) < 1
            or min(self.length, self.layers, self.slow_lr_multiplier) < 0
        ):
            raise UsageError(
                "ta_lora: tokens, rank, slow_update_interval >= 1, length, layers, slow_lr_multiplier >= 0, "
                f"found {self.tokens}, {self.rank}, {self.slow_update_interval}, "
                f"{self.length}, {self.layers}, {self.slow_lr_multiplier}"
            )
        if not 0 <= self.prompt_stage_fraction < 1:
            raise UsageError(
                "ta_lora: a share of the sources' budget, 0 <= prompt_stage_fraction < 1, "
                f"found {self.prompt_stage_fraction}"
            )
        if self.form != "additive" and not self.length:
            raise UsageError(f"ta_lora: form {self.form} changes the shared prompt and needs length >= 1")
        if self.start == "nearest" and "a" not in self.trainable_on_target.split():
            raise UsageError(
                "ta_lora: start nearest gives each target an a_t of its own, so trainable_on_target must name a"
            )


class TaskPrompt(nn.Module):
    """Delta_t [m, d] and g_t [H] of one layer: equations (2), (3), (6)."""

    def __init__(
        self, slot_context: SlotContext, config: TALoRAConfig, num_tokens: int, width: int, num_heads: int
    ) -> None:
        super().__init__()
        self.config = config
        self.num_tokens = num_tokens
        self.width = width
        self.num_heads = num_heads
        self.a0 = SlotParameter(slot_context, is_shared=True)  # A_0 [m, r]
        self.a = SlotParameter(slot_context)  # a_t [m, r] of each slot
        if config.low_rank:
            self.b = SlotParameter(slot_context, is_shared=True)  # B [r, d]
        if config.gate != "none":
            self.g = SlotParameter(slot_context, is_shared=config.gate == "shared")  # g_t [H]

    def add_slot(self, generator: torch.Generator) -> None:
        """Add one slot, with all tensors at their initial values."""
        rank = self.config.rank if self.config.low_rank else self.width
        scale = rank**-0.5 if self.config.low_rank else 1.0  # entries of Delta have size 1 in both cases
        self.a0.add_slot(scale * torch.randn(self.num_tokens, rank, generator=generator))
        if self.config.low_rank:
            self.b.add_slot(torch.randn(rank, self.width, generator=generator))
        self.a.add_slot(torch.zeros_like((self.b if self.config.slow_factor == "A" else self.a0).tensors[0].data))
        if self.config.gate != "none":
            self.g.add_slot(torch.zeros(self.num_heads))

    def compute_delta(
        self, get_tensor: Callable[[SlotParameter], Tensor] = SlotParameter.stack_present_slots
    ) -> Tensor:
        """Equations (2), (3): Delta_t [k, m, d] of the slots present, or of what `get_tensor` returns."""
        a0 = get_tensor(self.a0)
        a = get_tensor(self.a)
        if not self.config.low_rank:
            return a0 + a
        return a0 @ (get_tensor(self.b) + a) if self.config.slow_factor == "A" else (a0 + a) @ get_tensor(self.b)

    def compute_gate(self) -> Tensor:
        """tanh(g_t): [H] or [b, H]."""
        if self.config.gate == "none":
            return self.a0.tensors[0].new_ones(self.num_heads)
        return self.g().tanh() if self.config.gate_fn == "tanh" else self.g()


class TALoRA(Method):
    """Shared prompt with gated low-rank prompts of the tasks, trained at two speeds."""

    name = "ta_lora"
    paper = "Zhang et al. 2025, arXiv:2505.00009 (our reconstruction from its abstract)"
    trained_part = "virtual tokens and low-rank directions, one for all sources, each task's mix of them behind a gate"
    stages = (PROMPT_STAGE, SOURCE_STAGE, TARGET_STAGE)
    target_only_options = ("trainable_on_target", "start", "gate_start")
    betas = (0.9, 0.95)

    Config = TALoRAConfig
    config: TALoRAConfig

    def build(self) -> None:
        c = self.config
        shape = self.backbone.config
        if c.layers > shape.num_hidden_layers:
            raise UsageError(f"ta_lora: {c.layers} layers, but {self.backbone.name} has {shape.num_hidden_layers}")
        self.num_virtual_tokens = c.length
        if c.length:
            self.prompt = SlotParameter(self.slot_context, is_shared=True)  # P [l0, d]
        width = self.backbone.hidden_size
        if c.form == "additive":
            first = shape.num_hidden_layers - (c.layers or shape.num_hidden_layers)
            heads = shape.num_attention_heads
            task_prompts = {
                str(layer): TaskPrompt(self.slot_context, c, c.tokens, width, heads)
                for layer in range(first, shape.num_hidden_layers)
            }
        else:
            task_prompts = {"input": TaskPrompt(self.slot_context, c, c.length, width, 1)}
        self.layers = nn.ModuleDict(task_prompts)
        self.backbone.add_attention_term(self.compute_attention_term)
        self.key_value_cache = TensorVersionCache()  # K_t and V_t [1, H_kv, m, d_h] by layer and slot
        self.accumulated_gradients: dict[str, Tensor] = {}  # of slow weights, since their last step
        self.stage_steps = 0  # steps taken in this stage

    def initialize_slot(self, generator: torch.Generator, train_examples: Sequence[EncodedExample]) -> None:
        if self.config.length:
            self.prompt.add_slot(initialize_common_prompt(self.backbone, self.config.length))
        for layer in self.layers.values():
            layer.add_slot(generator)

    # ---------------------------------------------------------------- forward

    def prompt_embeddings(self, text_embeddings: Tensor, prompt_mask: Tensor) -> Tensor:
        """P of (1) [l0, d]; with `form` hadamard or input modified for the task of each row [b, l0, d]."""
        prompt = self.prompt()  # [l0, d] or [b, l0, d]
        if self.current_stage == PROMPT_STAGE or "input" not in self.layers:
            return prompt
        delta = self.slot_context.gather_rows(self.layers["input"].compute_delta())
        gate = self.layers["input"].compute_gate()
        scale = prompt if self.config.form == "hadamard" else self.backbone.embedding_std
        return prompt + gate[..., None] * delta * scale

    def compute_attention_term(self, attention: nn.Module, q: Tensor) -> Tensor | None:
        """Second term of (5) for queries q [b, H, s, d_h] -> [b, s, H, d_h]; None in layers outside S."""
        layer = str(attention.layer_idx)
        if self.current_stage == PROMPT_STAGE or layer not in self.layers:
            return None
        key, value = map(self.slot_context.gather_rows, self.compute_keys_values(attention, layer))
        return compute_gated_attention(attention, q, key, value, self.layers[layer].compute_gate())

    def compute_keys_values(self, attention: nn.Module, layer: str) -> tuple[Tensor, Tensor]:
        """Equation (4): K_t and V_t [k, H_kv, m, d_h] of the slots present, cached by slot without gradients."""
        task_prompt = self.layers[layer]
        norm: nn.Module = nn.Identity()
        if self.config.norm:
            norm = self.backbone.model.model.layers[attention.layer_idx].input_layernorm

        def project(
            get_tensor: Callable[[SlotParameter], Tensor] = SlotParameter.stack_present_slots,
        ) -> tuple[Tensor, Tensor]:
            return project_keys_values(attention, norm(task_prompt.compute_delta(get_tensor)))

        if torch.is_grad_enabled():
            self.key_value_cache.entries.clear()  # an optimiser step may follow
            return project()
        pairs = []
        for slot in self.slot_context.present_slots:
            tensors = [parameter.for_slot(slot) for parameter in task_prompt.children()]
            project_slot = partial(project, partial(select_slot, slot))
            pairs.append(self.key_value_cache((layer, slot), tensors, project_slot))
        return tuple(torch.cat(tensors) for tensors in zip(*pairs, strict=True))

    @torch.no_grad()
    def begin_stage(
        self, stage: Stage, seeds: Sequence[int], train_examples: Sequence[Sequence[EncodedExample]] = ()
    ) -> None:
        sources = {
            name: list(parameter.tensors)
            for name, parameter in self.slot_parameters().items()
            if extract_short_name(name) in FAST_PARAMETERS
        }
        super().begin_stage(stage, seeds, train_examples)
        self.key_value_cache = TensorVersionCache()
        self.accumulated_gradients = {}
        self.stage_steps = 0
        if stage == TARGET_STAGE:
            for slot in range(len(seeds)):
                self.initialize_target_slot(slot, sources, train_examples[slot] if train_examples else ())
        else:
            for name, parameter in self.slot_parameters().items():
                parameter.requires_grad_(stage == SOURCE_STAGE or name == "prompt")

    def initialize_target_slot(
        self, slot: int, source_tensors: dict[str, list[Tensor]], train: Sequence[EncodedExample]
    ) -> None:
        """Set a_t and g_t of a target from those of the sources; on entry they hold the sources' means."""
        c = self.config
        target_tensors = {name: self.slot_parameters()[name].for_slot(slot) for name in source_tensors}

        def copy_from(source: int) -> None:
            for name, tensors in source_tensors.items():
                target_tensors[name].copy_(tensors[source if len(tensors) > 1 else 0])

        if c.start == "nearest":
            if not train:
                raise UsageError("ta_lora: start nearest needs the target's training examples")
            losses = []
            for source in range(max(map(len, source_tensors.values()))):
                copy_from(source)
                losses.append(compute_mean_loss(self, slot, train[:PROBE_EXAMPLES]))
            copy_from(losses.index(min(losses)))
        for name, tensor in target_tensors.items():
            start = c.start if extract_short_name(name) == "a" else c.gate_start
            if start == "zero":
                tensor.zero_()

    def is_trainable_on_target(self, parameter_name: str) -> bool:
        return extract_short_name(parameter_name) in self.config.trainable_on_target.split()

    def budget_fraction(self, stage: Stage) -> float:
        prompt_fraction = self.config.prompt_stage_fraction if self.config.length else 0.0
        return {PROMPT_STAGE: prompt_fraction, SOURCE_STAGE: 1 - prompt_fraction}.get(stage, 1.0)

    # ---------------------------------------------------------------- diagnostics

    def training_step(self, batch: Any, batch_idx: int) -> StepOutput:
        """Take a step; in the source stage also report the mean absolute gate of each layer."""
        output = super().training_step(batch, batch_idx)
        if self.current_stage == SOURCE_STAGE:
            gates = {f"gate, layer {name}": layer.compute_gate().detach() for name, layer in self.layers.items()}
            output["watched"] = {name: gate.abs().mean() for name, gate in gates.items()}
        return output

    @torch.no_grad()
    def source_diagnostics(self, source_tasks: Sequence[str]) -> dict[str, Any]:
        """Cosines of a_t between tasks, and by layer the share of Delta_t that the slow weights give."""
        if self.current_stage == PROMPT_STAGE:
            return {}
        slots = range(len(source_tasks))
        layers = self.layers.values()
        fast = torch.stack([torch.cat([layer.a.for_slot(slot).flatten() for layer in layers]) for slot in slots])
        shares = []
        for layer in self.layers.values():
            delta = torch.stack([layer.compute_delta(lambda p, slot=slot: p.for_slot(slot)) for slot in slots])
            slow_delta = layer.compute_delta(lambda p, layer=layer: p.for_slot(0) * (p is not layer.a))
            shares.append(1 - float((delta - slow_delta).square().sum() / delta.square().sum()))
        cosines = F.cosine_similarity(fast[:, None], fast[None], dim=-1)
        return {
            "cosine of a_t between tasks": cosines.tolist(),
            "share of Delta_t that the slow weights give (a_t = 0), by layer": shares,
        }

    # ---------------------------------------------------------------- slow and fast weights

    def optimizer_group(self, parameter_name: str) -> OptimizerGroup:
        c = self.config
        short_name = extract_short_name(parameter_name)
        if short_name == "prompt":
            multiplier = 1.0 if self.current_stage == PROMPT_STAGE else c.slow_lr_multiplier
            return OptimizerGroup(
                multiplier * c.prompt_lr * self.backbone.embedding_std,
                frozen_during_warmup=c.freeze_prompt_in_warmup and self.current_stage == SOURCE_STAGE,
            )
        if short_name in FAST_PARAMETERS:
            return OptimizerGroup(c.lr)
        return OptimizerGroup(c.slow_lr_multiplier * c.lr, c.weight_decay)

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Accumulate the gradients of slow weights and apply their mean every K_s-th step."""
        interval = self.config.slow_update_interval
        self.stage_steps += 1
        if interval == 1 or self.current_stage != SOURCE_STAGE:
            return
        for name, parameter in self.named_parameters():
            if parameter.grad is not None and extract_short_name(name) not in FAST_PARAMETERS:
                self.accumulated_gradients[name] = self.accumulated_gradients.get(name, 0) + parameter.grad / interval
                parameter.grad = None if self.stage_steps % interval else self.accumulated_gradients.pop(name)


def select_slot(slot: int, parameter: SlotParameter) -> Tensor:
    """The tensor of one slot with a leading dimension of 1: [1, ...]."""
    return parameter.for_slot(slot)[None]


def extract_short_name(parameter_name: str) -> str:
    """Last name of a slot parameter or of one of its tensors: `layers.3.a0` or `layers.3.a0.tensors.1` -> a0."""
    return parameter_name.partition(".tensors.")[0].rpartition(".")[2]
