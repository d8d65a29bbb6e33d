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
weights at `slow` times the rate and P at rest in warm-up; `target`, from a copy of P, a_t as `start` says and g = 0.
Trained: l0 d + |S| (r d + m r) slow numbers and |S| (m r + H) for each task; few-shot, A_0 and B are left out.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from methods.bank import Memory
from methods.base import SOURCE, TARGET, Bank, Method, Rate, Rows, Stage
from methods.llama_adapter import gated_softmax, keys_values
from methods.prompt import common_start
from methods.spot import mean_loss
from methods.ta_lora_options import Options
from tasks.example import Encoded, UsageError

PROMPT = Stage("prompt", "sources")  # what is shared comes first, as plain prompt tuning
FAST = ("a", "g")
TRIED = 64  # training examples by which the nearest source is found


class TaskPrompt(nn.Module):
    """Delta_t [m, d] and g_t [H] of one layer: equations (2), (3), (6)."""

    def __init__(self, rows: Rows, options: Options, tokens: int, width: int, heads: int) -> None:
        super().__init__()
        self.options, self.tokens, self.width, self.heads = options, tokens, width, heads
        self.a0, self.a = Bank(rows, shared=True), Bank(rows)  # A_0 and a_t [m, r]
        if options.low_rank:
            self.b = Bank(rows, shared=True)  # B [r, d]
        if options.gate != "none":
            self.g = Bank(rows, shared=options.gate == "shared")  # g_t [H]

    def start(self, draw: torch.Generator) -> None:
        """Add one slot."""
        rank = self.options.rank if self.options.low_rank else self.width
        scale = rank**-0.5 if self.options.low_rank else 1.0  # either way Delta has entries of size 1
        self.a0.add(scale * torch.randn(self.tokens, rank, generator=draw))
        if self.options.low_rank:
            self.b.add(torch.randn(rank, self.width, generator=draw))
        self.a.add(torch.zeros_like((self.b if self.options.slow_factor == "A" else self.a0).sets[0].data))
        if self.options.gate != "none":
            self.g.add(torch.zeros(self.heads))

    def delta(self, of: Callable[[Bank], Tensor] = Bank.present) -> Tensor:
        """[k, m, d] of the slots present, or whatever `of` takes from a bank"""
        a0, a = of(self.a0), of(self.a)
        if not self.options.low_rank:
            return a0 + a
        return a0 @ (of(self.b) + a) if self.options.slow_factor == "A" else (a0 + a) @ of(self.b)

    def gate(self) -> Tensor:
        """tanh(g_t): [H] or [b, H]"""
        if self.options.gate == "none":
            return self.a0.sets[0].new_ones(self.heads)
        return self.g().tanh() if self.options.gate_fn == "tanh" else self.g()


class TALoRA(Method):
    name = "ta_lora"
    paper = "Zhang et al. 2025, arXiv:2505.00009 (our reconstruction from its abstract)"
    what = "virtual tokens and low-rank directions, one for all sources, each task's mix of them behind a gate"
    stages = (PROMPT, SOURCE, TARGET)
    late = ("target", "start", "gate_start")
    betas = (0.9, 0.95)

    Config = Options
    config: Options

    def build(self) -> None:
        c, shape = self.config, self.backbone.config
        if c.layers > shape.num_hidden_layers:
            raise UsageError(f"ta_lora: {c.layers} layers, but {self.backbone.name} has {shape.num_hidden_layers}")
        self.virtual = c.length
        if c.length:
            self.prompt = Bank(self.rows, shared=True)  # P [l0, d]
        places, tokens, heads = ["input"], c.length, 1
        if c.form == "additive":
            top = range(shape.num_hidden_layers - (c.layers or shape.num_hidden_layers), shape.num_hidden_layers)
            places, tokens, heads = map(str, top), c.tokens, shape.num_attention_heads
        self.layers = nn.ModuleDict({p: TaskPrompt(self.rows, c, tokens, self.backbone.width, heads) for p in places})
        self.backbone.attend(self.term)
        self.memory = Memory()  # K_t and V_t [1, H_kv, m, d_h] of layers and slots
        self.held: dict[str, Tensor] = {}  # gradients of slow weights since they stepped
        self.passed = 0  # steps of this stage

    def start(self, draw: torch.Generator, train: Sequence[Encoded]) -> None:
        if self.config.length:
            self.prompt.add(common_start(self.backbone, self.config.length))
        for layer in self.layers.values():
            layer.start(draw)

    # ---------------------------------------------------------------- forward

    def front(self, embeds: Tensor, source: Tensor) -> Tensor:
        """P of (1); where `form` says so, with the task's part in it."""
        prompt = self.prompt()  # [l0, d] or [b, l0, d]
        if self.stage == PROMPT or "input" not in self.layers:
            return prompt
        delta, gate = self.rows.each(self.layers["input"].delta()), self.layers["input"].gate()
        return prompt + gate[..., None] * delta * (prompt if self.config.form == "hadamard" else self.backbone.sigma)

    def term(self, attention: nn.Module, q: Tensor) -> Tensor | None:
        """q [b, H, s, d_h] -> the second part of (5) [b, s, H, d_h]"""
        layer = str(attention.layer_idx)
        if self.stage == PROMPT or layer not in self.layers:
            return None
        key, value = map(self.rows.each, self.keys_values(attention, layer))
        return gated_softmax(attention, q, key, value, self.layers[layer].gate())

    def keys_values(self, attention: nn.Module, layer: str) -> tuple[Tensor, Tensor]:
        """(4) of the slots present [k, H_kv, m, d_h]; where nothing learns, each task's are made once and kept."""
        own, norm = self.layers[layer], nn.Identity()
        if self.config.norm:
            norm = self.backbone.model.model.layers[attention.layer_idx].input_layernorm

        def made(of: Callable[[Bank], Tensor] = Bank.present) -> tuple[Tensor, Tensor]:
            return keys_values(attention, norm(own.delta(of)))

        if torch.is_grad_enabled():
            self.memory.kept.clear()  # an optimiser may follow
            return made()
        found = []
        for slot in self.rows.present:
            alone = partial(made, partial(only, slot))
            found.append(self.memory((layer, slot), [bank.of(slot) for bank in own.children()], alone))
        return tuple(torch.cat(parts) for parts in zip(*found, strict=True))

    @torch.no_grad()
    def enter(self, stage: Stage, seeds: Sequence[int], train: Sequence[Sequence[Encoded]] = ()) -> None:
        sources = {name: list(bank.sets) for name, bank in self.banks().items() if part(name) in FAST}
        super().enter(stage, seeds, train)
        self.memory, self.held, self.passed = Memory(), {}, 0
        for name, bank in self.banks().items() if stage != TARGET else ():
            bank.requires_grad_(stage == SOURCE or name == "prompt")
        for slot in range(len(seeds)) if stage == TARGET else ():
            self.settle(slot, sources, train[slot] if train else ())

    def settle(self, slot: int, sources: dict[str, list[Tensor]], train: Sequence[Encoded]) -> None:
        """a_t and g_t of a target from those of the sources; it starts with their means."""
        c, own = self.config, {name: self.banks()[name].of(slot) for name in sources}

        def take(source: int) -> None:
            for name, sets in sources.items():
                own[name].copy_(sets[source if len(sets) > 1 else 0])

        if c.start == "nearest":
            if not train:
                raise UsageError("ta_lora: start nearest needs the target's training examples")
            misfits = []
            for source in range(max(map(len, sources.values()))):
                take(source)
                misfits.append(mean_loss(self, slot, train[:TRIED]))
            take(misfits.index(min(misfits)))
        for name, tensor in own.items():
            if (c.start if part(name) == "a" else c.gate_start) == "zero":
                tensor.zero_()

    def learns(self, bank: str) -> bool:
        return part(bank) in self.config.target.split()

    def share(self, stage: Stage) -> float:
        first = self.config.first if self.config.length else 0.0
        return {PROMPT: first, SOURCE: 1 - first}.get(stage, 1.0)

    # ---------------------------------------------------------------- to look at

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """With the mean size of each layer's gates beside the losses."""
        found = super().training_step(batch, batch_idx)
        if self.stage == SOURCE:
            gates = {f"gate, layer {name}": layer.gate().detach() for name, layer in self.layers.items()}
            found["watched"] = {name: gate.abs().mean() for name, gate in gates.items()}
        return found

    @torch.no_grad()
    def inside(self, tasks: Sequence[str]) -> dict[str, Any]:
        """How alike the fast weights of two tasks are, and how much of Delta_t the slow ones give, by layer."""
        if self.stage == PROMPT:
            return {}
        fast = torch.stack([
            torch.cat([layer.a.of(slot).flatten() for layer in self.layers.values()]) for slot in range(len(tasks))
        ])  # fmt: skip
        shares = []
        for layer in self.layers.values():
            own = torch.stack([layer.delta(lambda bank, slot=slot: bank.of(slot)) for slot in range(len(tasks))])
            slow = layer.delta(lambda bank, layer=layer: bank.of(0) * (bank is not layer.a))
            shares.append(1 - float((own - slow).square().sum() / own.square().sum()))
        alike = F.cosine_similarity(fast[:, None], fast[None], dim=-1)
        return {
            "cosine of a_t between tasks": alike.tolist(),
            "share of Delta_t that the slow weights give (a_t = 0), by layer": shares,
        }

    # ---------------------------------------------------------------- two speeds

    def rate(self, name: str) -> Rate:
        c, bank = self.config, part(name)
        if bank == "prompt":
            slow = 1.0 if self.stage == PROMPT else c.slow
            return Rate(slow * c.prompt_lr * self.backbone.sigma, rests=c.rest and self.stage == SOURCE)
        return Rate(c.lr) if bank in FAST else Rate(c.slow * c.lr, c.weight_decay)

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Hold the gradients of slow weights back until their K_s-th step."""
        every, self.passed = self.config.slow_every, self.passed + 1
        for name, parameter in self.named_parameters() if every > 1 and self.stage == SOURCE else ():
            if parameter.grad is not None and part(name) not in FAST:
                self.held[name] = self.held.get(name, 0) + parameter.grad / every
                parameter.grad = None if self.passed % every else self.held.pop(name)


def only(slot: int, bank: Bank) -> Tensor:
    """A slot's own as the only one: [1, ...]"""
    return bank.of(slot)[None]


def part(name: str) -> str:
    """Of a bank or a set of it: `layers.3.a0` or `layers.3.a0.sets.1` -> a0"""
    return name.partition(".sets.")[0].rpartition(".")[2]
