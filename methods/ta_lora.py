"""TA-LoRA: a shared prompt, and before it each task's own low-rank prompt behind a gate (arXiv:2505.00009).

**Our reconstruction**: title, abstract and index terms were at hand, but no equation, number or code of the paper.

  Z_t = [P ; E(x) ; E(y)]                                                                               (1)
  A_t = A_0 + a_t,   Delta_t = A_t B                        in each layer of S, as all that follows     (2) (3)
  K_t = Delta_t W_k^T (+ b_k),   V_t = Delta_t W_v^T (+ b_v)                                            (4)
  o^h = softmax(q K^T / sqrt(d_h) + mask) V + tanh(g_t^h) softmax(q K_t^T / sqrt(d_h)) V_t              (5)
  g_t = 0 at first                                                                                      (6)
  loss = cross-entropy of the answer tokens                                                             (7)

From the abstract: a prompt that keeps what tasks share and, as a prefix to it, a vector of each task; the vector's low
rank; slow weights for what is shared and fast ones for a task's own; attention that starts at zero, to spare the prompt
during warm-up. Ours: the form of (2) to (5), which weights are slow, stages, rates and starts.

Slow, one for all: P [l0, d], A_0 [m, r], B [r, d]. Fast, each task's: a_t [m, r], g_t [H]. W and b are frozen; K_t has
no rotation, but passes k_norm where there is one (Qwen3). P starts at real tokens, A_0 at N(0, 1/r), B at N(0, 1) (were
they 0, nothing but g would ever learn), a_t at 0. With g = 0 all logits are prompt tuning's with P, to the bit.

Stages: `prompt`, P alone on all sources, for the share `first` of the sources' budget; `source`, all of it, slow
weights at `slow_lr_multiplier` times the rate and P at rest in warm-up; `trainable_on_target`, from a copy of P, a_t as `start` says and g = 0.
Trained: l0 d + |S| (r d + m r) slow numbers and |S| (m r + H) for each task; few-shot, A_0 and B are left out.
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
from methods.core.tensor_cache import TensorVersionCache
from tasks.core.types import EncodedExample, UsageError

PROMPT_STAGE = Stage("prompt", "sources")  # what is shared comes first, as plain prompt tuning
FAST_PARAMETERS = ("a", "g")
PROBE_EXAMPLES = 64  # training examples by which the nearest source is found


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
    """`lr` is that of the fast weights a_t and g_t; `weight_decay` is on A_0 and B alone."""

    lr: float = 2e-3
    weight_decay: float = 0.02
    warmup: float = 0.1
    schedule: str = "cosine"
    prompt_lr: float = 0.3  # of P, in units of the embedding's standard deviation, as in `prompt`
    slow_lr_multiplier: float = 0.1  # rho: slow weights learn at this share of their rate
    slow_update_interval: int = 1  # K_s: on the sources they step every so often, on the mean of the gradients since
    freeze_prompt_in_warmup: bool = True  # P stays where it is while the sources' stage warms up
    prompt_stage_fraction: float = 1 / 3  # share of the sources' budget that trains P alone
    length: int = 20  # l0: 20 few-shot, 100 on full data; 0: no shared prompt
    tokens: int = 16  # m
    rank: int = 8  # r; 9 on Qwen2.5-7B
    layers: int = 0  # |S|, from the top; 0: all
    trainable_on_target: str = "prompt a g"  # what learns on the target; on full data all: "prompt a0 b a g"
    start: str = "mean"  # a_t of a target: mean of the sources', zero, or the source's that fits its examples best
    gate_start: str = "zero"  # g_t of a target; source: from where a_t comes
    # other readings
    low_rank: bool = True  # False: Delta_t = D_0 + d_t, free matrices [m, d]
    slow_factor: str = "B"  # A: Delta_t = A_0 (B + b_t), where each task has b_t [r, d] instead of a_t
    form: str = "additive"  # (5), or at the input only, with one gate and m = l0: P (1 + tanh(g_t) Delta_t) elementwise
    # (hadamard), or P + sigma tanh(g_t) Delta_t (input; sigma: the embedding's standard deviation)
    gate: str = "per_task"  # shared: one g for all tasks; none: 1 in place of tanh(g)
    gate_fn: str = "tanh"  # identity: g in place of tanh(g)
    norm: bool = False  # Delta_t passes the layer's frozen RMSNorm before the projections

    def __post_init__(self) -> None:
        super().__post_init__()
        validate_choices(self.trainable_on_target, PARAMETER_NAMES, "ta_lora: target")
        for name, known in OPTION_CHOICES.items():
            if (value := getattr(self, name)) not in known:
                raise UsageError(f"ta_lora: no {name} {value!r}; there are: {', '.join(known)}")
        if (
            min(self.tokens, self.rank, self.slow_update_interval) < 1
            or min(self.length, self.layers, self.slow_lr_multiplier) < 0
        ):
            found = f"{self.tokens}, {self.rank}, {self.slow_update_interval}, {self.length}, {self.layers}, {self.slow_lr_multiplier}"
            raise UsageError(f"ta_lora: tokens, rank, slow_every >= 1, length, layers, slow >= 0, found {found}")
        if not 0 <= self.prompt_stage_fraction < 1:
            raise UsageError(
                f"ta_lora: first is a share of the sources' budget, 0 <= prompt_stage_fraction < 1, found {self.prompt_stage_fraction}"
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
        self.config, self.num_tokens, self.width, self.num_heads = config, num_tokens, width, num_heads
        self.a0, self.a = SlotParameter(slot_context, is_shared=True), SlotParameter(slot_context)  # A_0 and a_t [m, r]
        if config.low_rank:
            self.b = SlotParameter(slot_context, is_shared=True)  # B [r, d]
        if config.gate != "none":
            self.g = SlotParameter(slot_context, is_shared=config.gate == "shared")  # g_t [H]

    def add_slot(self, generator: torch.Generator) -> None:
        """Add one slot."""
        rank = self.config.rank if self.config.low_rank else self.width
        scale = rank**-0.5 if self.config.low_rank else 1.0  # either way Delta has entries of size 1
        self.a0.add_slot(scale * torch.randn(self.num_tokens, rank, generator=generator))
        if self.config.low_rank:
            self.b.add_slot(torch.randn(rank, self.width, generator=generator))
        self.a.add_slot(torch.zeros_like((self.b if self.config.slow_factor == "A" else self.a0).tensors[0].data))
        if self.config.gate != "none":
            self.g.add_slot(torch.zeros(self.num_heads))

    def compute_delta(
        self, get_tensor: Callable[[SlotParameter], Tensor] = SlotParameter.stack_present_slots
    ) -> Tensor:
        """[k, m, d] of the slots present, or whatever `of` takes from a bank"""
        a0, a = get_tensor(self.a0), get_tensor(self.a)
        if not self.config.low_rank:
            return a0 + a
        return a0 @ (get_tensor(self.b) + a) if self.config.slow_factor == "A" else (a0 + a) @ get_tensor(self.b)

    def compute_gate(self) -> Tensor:
        """tanh(g_t): [H] or [b, H]"""
        if self.config.gate == "none":
            return self.a0.tensors[0].new_ones(self.num_heads)
        return self.g().tanh() if self.config.gate_fn == "tanh" else self.g()


class TALoRA(Method):
    name = "ta_lora"
    paper = "Zhang et al. 2025, arXiv:2505.00009 (our reconstruction from its abstract)"
    trained_part = "virtual tokens and low-rank directions, one for all sources, each task's mix of them behind a gate"
    stages = (PROMPT_STAGE, SOURCE_STAGE, TARGET_STAGE)
    target_only_options = ("trainable_on_target", "start", "gate_start")
    betas = (0.9, 0.95)

    Config = TALoRAConfig
    config: TALoRAConfig

    def build(self) -> None:
        c, shape = self.config, self.backbone.config
        if c.layers > shape.num_hidden_layers:
            raise UsageError(f"ta_lora: {c.layers} layers, but {self.backbone.name} has {shape.num_hidden_layers}")
        self.num_virtual_tokens = c.length
        if c.length:
            self.prompt = SlotParameter(self.slot_context, is_shared=True)  # P [l0, d]
        places, tokens, heads = ["input"], c.length, 1
        if c.form == "additive":
            top = range(shape.num_hidden_layers - (c.layers or shape.num_hidden_layers), shape.num_hidden_layers)
            places, tokens, heads = map(str, top), c.tokens, shape.num_attention_heads
        self.layers = nn.ModuleDict(
            {p: TaskPrompt(self.slot_context, c, tokens, self.backbone.hidden_size, heads) for p in places}
        )
        self.backbone.add_attention_term(self.compute_attention_term)
        self.key_value_cache = TensorVersionCache()  # K_t and V_t [1, H_kv, m, d_h] of layers and slots
        self.accumulated_gradients: dict[str, Tensor] = {}  # gradients of slow weights since they stepped
        self.stage_steps = 0  # steps of this stage

    def initialize_slot(self, generator: torch.Generator, train_examples: Sequence[EncodedExample]) -> None:
        if self.config.length:
            self.prompt.add_slot(initialize_common_prompt(self.backbone, self.config.length))
        for layer in self.layers.values():
            layer.add_slot(generator)

    # ---------------------------------------------------------------- forward

    def prompt_embeddings(self, text_embeddings: Tensor, prompt_mask: Tensor) -> Tensor:
        """P of (1); where `form` says so, with the task's part in it."""
        prompt = self.prompt()  # [l0, d] or [b, l0, d]
        if self.current_stage == PROMPT_STAGE or "input" not in self.layers:
            return prompt
        delta, gate = (
            self.slot_context.gather_rows(self.layers["input"].compute_delta()),
            self.layers["input"].compute_gate(),
        )
        return prompt + gate[..., None] * delta * (
            prompt if self.config.form == "hadamard" else self.backbone.embedding_std
        )

    def compute_attention_term(self, attention: nn.Module, q: Tensor) -> Tensor | None:
        """q [b, H, s, d_h] -> the second part of (5) [b, s, H, d_h]"""
        layer = str(attention.layer_idx)
        if self.current_stage == PROMPT_STAGE or layer not in self.layers:
            return None
        key, value = map(self.slot_context.gather_rows, self.compute_keys_values(attention, layer))
        return compute_gated_attention(attention, q, key, value, self.layers[layer].compute_gate())

    def compute_keys_values(self, attention: nn.Module, layer: str) -> tuple[Tensor, Tensor]:
        """(4) of the slots present [k, H_kv, m, d_h]; where nothing learns, each task's are made once and kept."""
        own, norm = self.layers[layer], nn.Identity()
        if self.config.norm:
            norm = self.backbone.model.model.layers[attention.layer_idx].input_layernorm

        def made(of: Callable[[SlotParameter], Tensor] = SlotParameter.stack_present_slots) -> tuple[Tensor, Tensor]:
            return project_keys_values(attention, norm(own.compute_delta(of)))

        if torch.is_grad_enabled():
            self.key_value_cache.entries.clear()  # an optimiser may follow
            return made()
        found = []
        for slot in self.slot_context.present_slots:
            alone = partial(made, partial(select_slot, slot))
            found.append(self.key_value_cache((layer, slot), [bank.for_slot(slot) for bank in own.children()], alone))
        return tuple(torch.cat(parts) for parts in zip(*found, strict=True))

    @torch.no_grad()
    def begin_stage(
        self, stage: Stage, seeds: Sequence[int], train_examples: Sequence[Sequence[EncodedExample]] = ()
    ) -> None:
        sources = {
            name: list(bank.tensors)
            for name, bank in self.slot_parameters().items()
            if extract_short_name(name) in FAST_PARAMETERS
        }
        super().begin_stage(stage, seeds, train_examples)
        self.key_value_cache, self.accumulated_gradients, self.stage_steps = TensorVersionCache(), {}, 0
        for name, bank in self.slot_parameters().items() if stage != TARGET_STAGE else ():
            bank.requires_grad_(stage == SOURCE_STAGE or name == "prompt")
        for slot in range(len(seeds)) if stage == TARGET_STAGE else ():
            self.initialize_target_slot(slot, sources, train_examples[slot] if train_examples else ())

    def initialize_target_slot(
        self, slot: int, source_tensors: dict[str, list[Tensor]], train: Sequence[EncodedExample]
    ) -> None:
        """a_t and g_t of a target from those of the sources; it starts with their means."""
        c, own = self.config, {name: self.slot_parameters()[name].for_slot(slot) for name in source_tensors}

        def take(source: int) -> None:
            for name, sets in source_tensors.items():
                own[name].copy_(sets[source if len(sets) > 1 else 0])

        if c.start == "nearest":
            if not train:
                raise UsageError("ta_lora: start nearest needs the target's training examples")
            misfits = []
            for source in range(max(map(len, source_tensors.values()))):
                take(source)
                misfits.append(compute_mean_loss(self, slot, train[:PROBE_EXAMPLES]))
            take(misfits.index(min(misfits)))
        for name, tensor in own.items():
            if (c.start if extract_short_name(name) == "a" else c.gate_start) == "zero":
                tensor.zero_()

    def is_trainable_on_target(self, parameter_name: str) -> bool:
        return extract_short_name(parameter_name) in self.config.trainable_on_target.split()

    def budget_fraction(self, stage: Stage) -> float:
        first = self.config.prompt_stage_fraction if self.config.length else 0.0
        return {PROMPT_STAGE: first, SOURCE_STAGE: 1 - first}.get(stage, 1.0)

    # ---------------------------------------------------------------- to look at

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """With the mean size of each layer's gates beside the losses."""
        found = super().training_step(batch, batch_idx)
        if self.current_stage == SOURCE_STAGE:
            gates = {f"gate, layer {name}": layer.compute_gate().detach() for name, layer in self.layers.items()}
            found["watched"] = {name: gate.abs().mean() for name, gate in gates.items()}
        return found

    @torch.no_grad()
    def source_diagnostics(self, source_tasks: Sequence[str]) -> dict[str, Any]:
        """How alike the fast weights of two tasks are, and how much of Delta_t the slow ones give, by layer."""
        if self.current_stage == PROMPT_STAGE:
            return {}
        fast = torch.stack([
            torch.cat([layer.a.for_slot(slot).flatten() for layer in self.layers.values()]) for slot in range(len(source_tasks))
        ])  # fmt: skip
        shares = []
        for layer in self.layers.values():
            own = torch.stack(
                [layer.compute_delta(lambda bank, slot=slot: bank.for_slot(slot)) for slot in range(len(source_tasks))]
            )
            slow = layer.compute_delta(lambda bank, layer=layer: bank.for_slot(0) * (bank is not layer.a))
            shares.append(1 - float((own - slow).square().sum() / own.square().sum()))
        alike = F.cosine_similarity(fast[:, None], fast[None], dim=-1)
        return {
            "cosine of a_t between tasks": alike.tolist(),
            "share of Delta_t that the slow weights give (a_t = 0), by layer": shares,
        }

    # ---------------------------------------------------------------- two speeds

    def optimizer_group(self, parameter_name: str) -> OptimizerGroup:
        c, bank = self.config, extract_short_name(parameter_name)
        if bank == "prompt":
            slow = 1.0 if self.current_stage == PROMPT_STAGE else c.slow_lr_multiplier
            return OptimizerGroup(
                slow * c.prompt_lr * self.backbone.embedding_std,
                frozen_during_warmup=c.freeze_prompt_in_warmup and self.current_stage == SOURCE_STAGE,
            )
        return (
            OptimizerGroup(c.lr)
            if bank in FAST_PARAMETERS
            else OptimizerGroup(c.slow_lr_multiplier * c.lr, c.weight_decay)
        )

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Hold the gradients of slow weights back until their K_s-th step."""
        every, self.stage_steps = self.config.slow_update_interval, self.stage_steps + 1
        for name, parameter in self.named_parameters() if every > 1 and self.current_stage == SOURCE_STAGE else ():
            if parameter.grad is not None and extract_short_name(name) not in FAST_PARAMETERS:
                self.accumulated_gradients[name] = self.accumulated_gradients.get(name, 0) + parameter.grad / every
                parameter.grad = None if self.stage_steps % every else self.accumulated_gradients.pop(name)


def select_slot(slot: int, bank: SlotParameter) -> Tensor:
    """A slot's own as the only one: [1, ...]"""
    return bank.for_slot(slot)[None]


def extract_short_name(parameter_name: str) -> str:
    """Of a bank or a set of it: `layers.3.a0` or `layers.3.a0.tensors.1` -> a0"""
    return parameter_name.partition(".tensors.")[0].rpartition(".")[2]
