"""What every method is: learned tensors in banks, a last hidden state, and a loss per slot."""

from collections.abc import Mapping, Sequence
from functools import partial
from math import ceil, cos, pi
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Cache

from methods.backbone import Backbone
from methods.bank import Bank, Rows, stream
from methods.config import Config as Options
from methods.config import configure
from methods.learned import Learned
from methods.masks import given, widened
from methods.plan import Plan, divided, plan
from methods.stage import SOURCE, TARGET, Parent, Rate, Stage
from tasks.example import Batch, Encoded, UsageError

__all__ = ["SOURCE", "TARGET", "Bank", "Method", "Parent", "Rate", "Rows", "Stage", "stream"]


class Method(Learned):
    """Base of all methods; on its own it is the frozen backbone. A backbone carries one method at a time."""

    name: str = "backbone"
    paper: str = ""
    what: str = "nothing"  # what trains, in a few words
    stages: tuple[Stage, ...] = (TARGET,)
    parent: Parent | None = None  # what has to be trained on each source before; `inherit` receives it
    trains: bool = True  # by steps of gradient descent; where not, it is a control
    late: tuple[str, ...] = ()  # options that only the target stage reads: other values share the source stages
    fixed: bool = False  # the same number for any shots and seed: one cell per task
    forms: tuple[str, ...] = ("choice", "span")  # of task.form; on any other it has no score
    packable: bool = True  # several cells may share a forward pass
    mergeable: bool = False  # `merged` can fold what was learned into the backbone's weights
    shares_lead: bool = True  # False where virtual tokens depend on the row: no row can use another's keys and values
    betas: tuple[float, float] = (0.9, 0.999)
    virtual: int = 0  # tokens put in front of the text, as embeddings or as keys and values

    Config: TypeAlias = Options
    config: Options

    def __init__(self, backbone: Backbone, config: Options | Mapping[str, Any] | None = None) -> None:
        super().__init__()
        backbone.detach()
        self.backbone, self.rows, self._lease = backbone, Rows(), backbone.lease
        self.config = config if isinstance(config, self.Config) else self.configure(config or {})
        self.slots = 1
        self.stage: Stage | None = None  # the one at hand; None before the first and after `load`
        self.steps: list[int] = []  # of each slot, set before a fit; its schedule runs on its own
        self.parts = 1  # passes of a training step: more where the device has no room for all rows at once
        self.ranks = 1  # processes that take each step together, on the same batches: each its own rows of them
        self.shares_lead &= not (backbone.sharded or backbone.layers)  # else a gradient came by keys and values alone
        if getattr(self.config, "dropout", 0) and backbone.layers:
            raise UsageError(
                f"method {self.name}: with checkpointing a second pass would draw other noise; set dropout 0"
            )
        self.build()

    @classmethod
    def configure(cls, values: Mapping[str, Any]) -> Options:
        """Options by name -> Config; a name that does not exist, or a value of another type, is an error at once."""
        return configure(cls.Config, values, f"method {cls.name}")

    # ---------------------------------------------------------------- what a method writes

    def build(self) -> None:
        """Attach to the backbone. Called once, when no slot exists yet."""

    def start(self, draw: torch.Generator, train: Sequence[Encoded]) -> None:
        """Add one slot to every bank. `draw` is the slot's own stream, `train` its training examples."""

    def inherit(self, parents: Sequence[Mapping[str, Tensor]]) -> None:
        """Take over the `adapter` of the parent method on each source, in the order of the source slots."""

    def learns(self, bank: str) -> bool:
        """Whether this bank learns on the target after a source stage. If not, it stays one for all slots, frozen."""
        return True

    def front(self, embeds: Tensor, source: Tensor) -> Tensor | None:
        """Virtual tokens before the text, [l, d] or [b, l, d], from its embeddings [b, s, d]; given ones [b, s]."""

    def past(self) -> list[tuple[Tensor, Tensor]]:
        """Keys and values before the text, a pair [b, H_kv, l, d_h] per layer."""
        return []

    def share(self, stage: Stage) -> float:
        """Of the budget's steps, how many this stage takes; at 0 it is left out."""
        return 1.0

    def grouping(self, stage: Stage) -> dict[str, int]:
        """What this stage asks of the `Group` it trains on, past the budget."""
        return {}

    def rate(self, name: str) -> Rate:
        """How the parameter of this name learns. Give gates, scalars and norms no decay."""
        return Rate(self.config.lr, self.config.weight_decay)

    def guess(self, items: Sequence[Encoded], slots: Sequence[int]) -> list[str] | None:
        """Answers of a method that needs no scoring by the backbone; None: score as usual."""

    def inside(self, tasks: Sequence[str]) -> dict[str, Any]:
        """What sources taught, for people to look at: by title, a number per layer, or `tasks` x `tasks` of numbers."""
        return {}

    def merged(self, slot: int = 0) -> dict[str, Tensor]:
        """Backbone weights with this slot's adapter folded in, by name."""
        raise UsageError(f"method {self.name} cannot be merged into the backbone's weights")

    def peft_format(self, slot: int = 0) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """This slot as the peft library has it: its configuration, and tensors by name. None: it has no such method."""

    # ---------------------------------------------------------------- stages

    def enter(self, stage: Stage, seeds: Sequence[int], train: Sequence[Sequence[Encoded]] = ()) -> None:
        """Make room for a slot per seed: fresh ones in the first stage, spread from what was learned in a later one."""
        before = self.stages[self.stages.index(stage) - 1] if stage != self.stages[0] else None
        if before and self.stage not in (before, None) and not self.loaded:
            raise RuntimeError(f"method {self.name}: stage {stage.name} follows {before.name}; load its result first")
        self.slots, self.steps, self.stage, self.loaded = len(seeds), [], stage, False
        self.rows.see((), self.backbone.device)
        self.rows.noise = None
        banks = self.banks()
        if not before:
            for bank in banks.values():
                bank.fill([])
            for slot, seed in enumerate(seeds):
                self.start(stream(seed, stage.name, "start"), train[slot] if train else ())
        elif not all(len(bank.sets) for bank in banks.values()):
            raise UsageError(f"method {self.name}: stage {stage.name} needs {before.name} trained or loaded first")
        elif (before.on, stage.on) == ("sources", "target"):
            for name, bank in banks.items():
                learns = self.learns(name)
                bank.spread(len(seeds) if learns else 1)
                bank.requires_grad_(learns)
        self.to(self.backbone.device)

    def close(self) -> None:
        """Leave the backbone as it was loaded."""
        self.backbone.detach()

    # ---------------------------------------------------------------- forward

    def hidden(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        slots: tuple[int, ...],
        cache: Cache | None = None,
        *,
        positions: Tensor | None = None,
        source: Tensor | None = None,
        asked: Tensor | None = None,
    ) -> Tensor:
        """Last hidden states [b, s, d] at `input_ids` [b, s]; where only the places `asked` for matter [b, n], theirs.

        `attention_mask` [b, past + s] counts no virtual tokens; they enter with an empty cache (or none) and stay
        unseen. Positions come from the mask. For rows that are no plain sequence: who sees whom, bool [b, s, past + s],
        with `positions` [b, s]. `source` [b, s]: which tokens are given, where not all are (training).
        """
        if self.backbone.lease is not self._lease:
            raise RuntimeError(f"method {self.name} was closed: its backbone was detached or given to another method")
        self.rows.see(slots, input_ids.device)
        if self.backbone.layers:
            self.backbone.layers.moment = partial(self.rows.see, slots, input_ids.device)
        fresh = cache is None or cache.get_seq_length() == 0
        front = None
        if self.virtual:
            attention_mask = F.pad(attention_mask, (self.virtual, 0), value=1)
            if fresh:
                cache = self._fill(cache, len(slots))
                embeds = self.backbone.embed(input_ids)
                front = self.front(embeds, given(attention_mask, input_ids) if source is None else source)
        ahead = 0 if front is None else front.shape[-2]
        if attention_mask.dim() == 2:
            positions = (attention_mask.cumsum(-1) - 1).clamp(min=0)[:, -(input_ids.shape[1] + ahead) :]
        else:
            assert positions is not None  # who draws a mask of its own gives them too
            attention_mask, positions = widened(attention_mask, positions + self.virtual, ahead, self.virtual)
        text = {"input_ids": input_ids}
        if front is not None:
            text = {"inputs_embeds": torch.cat([front.to(embeds.dtype).expand(len(slots), -1, -1), embeds], dim=1)}
        asked = None if asked is None else asked + ahead
        hidden = self.backbone.hidden(
            **text, attention_mask=attention_mask, position_ids=positions, cache=cache, asked=asked
        )
        return hidden[:, ahead:] if ahead and asked is None else hidden

    def _fill(self, cache: Cache | None, rows: int) -> Cache | None:
        for layer, (key, value) in enumerate(self.past()):
            cache = self.backbone.cache() if cache is None else cache
            cache.update(key.expand(rows, -1, -1, -1), value.expand(rows, -1, -1, -1), layer)
        return cache

    def losses(self, plan: Plan) -> Tensor:
        """Mean cross-entropy of each present slot's own answer tokens [k]; nothing else passes the head.

        Their sum is the loss: in a mixture the tasks of a batch weigh alike, however many rows each has (our choice).
        """
        cache = None
        if plan.lead is not None:
            cache = self.backbone.cache()
            first = plan.lead.new_zeros(len(plan.lead), 1)
            self.hidden(plan.lead, plan.lead_mask, plan.present, cache, asked=first)
            cache.batch_select_indices(plan.owner)
        rows, seen = plan.input_ids, plan.attention_mask
        hidden = self.hidden(rows, seen, plan.slots, cache, source=plan.source, asked=plan.asked)
        logits = self.backbone.head(hidden.flatten(0, 1)[plan.among])
        loss = F.cross_entropy(logits, plan.target, reduction="none") * plan.weight
        return loss.new_zeros(len(plan.present)).index_add(0, plan.share, loss)

    def loss(self, batch: Batch | Plan) -> Tensor:
        """The losses [k] of a right-padded batch."""
        return self.losses(batch if isinstance(batch, Plan) else self.plan(batch))

    def plan(self, batch: Batch) -> Plan:
        return plan(batch, virtual=self.virtual, lead=self.shares_lead)

    # ---------------------------------------------------------------- Lightning

    def setup(self, stage: str) -> None:
        """In a plain Trainer nobody has entered a stage: then it is the last, with one slot for the task given."""
        if stage == "fit" and self.stage is None and not self.loaded:
            task = self.trainer.datamodule
            self.enter(self.stages[-1], [0], [task.encoded("train")] if task else ())

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        if not isinstance(batch, Batch):
            return batch
        return divided(batch, self.plan, self.parts, self.global_rank, self.ranks)

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """The loss of a batch, its plan or its passes, and for the curve each present slot's own and its tokens.

        Of several passes all but the last are taken back here, so that one at a time is in memory.
        """
        passes = batch if isinstance(batch, list) else [batch if isinstance(batch, Plan) else self.plan(batch)]
        found: dict[int, list[Any]] = {slot: [0.0, 0, 0] for one in passes for slot in one.present}
        if self.parts > 1:
            self.zero_grad()
        for one in passes:
            losses = self.losses(one)
            for slot, *own in zip(one.present, losses.detach(), one.tokens, one.padded, strict=True):
                found[slot] = [old + new for old, new in zip(found[slot], own, strict=True)]
            if one is not passes[-1]:
                losses.sum().backward()
        each, tokens, padded = zip(*found.values(), strict=True)
        return {
            "loss": losses.sum() * self.ranks,  # whose mean is taken of as many gradients
            "losses": torch.stack(each),
            "present": tuple(found),
            "tokens": tokens,
            "padded": padded,
        }

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
        """Lightning calls this after `training_step`, when a step in parts has most of its gradient already."""
        if self.parts == 1:
            optimizer.zero_grad()

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW with a group for each slot and rate; a slot's schedule runs on its own number of steps."""
        groups: dict[tuple[int | None, Rate], list[nn.Parameter]] = {}
        owned = self.owned()
        self._clipped = [list(parameters.values()) for parameters in owned.values()]
        for slot, parameters in owned.items():
            for name, parameter in parameters.items():
                groups.setdefault((slot, self.rate(name)), []).append(parameter)
        steps = self.steps or [int(self.trainer.estimated_stepping_batches)] * self.slots
        totals = [max(steps) if slot is None else steps[slot] for slot, _ in groups]
        optimizer = torch.optim.AdamW(
            [{"params": p, "lr": rate.lr, "weight_decay": rate.weight_decay} for (_, rate), p in groups.items()],
            betas=self.betas,
            fused=True,
        )
        paces = [
            lambda done, total=total, rests=rate.rests: self.pace(done, total, rests)
            for total, (_, rate) in zip(totals, groups, strict=True)
        ]
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, paces)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def pace(self, done: int, total: int, rests: bool = False) -> float:
        """Share of the full learning rate after `done` of `total` steps."""
        warm = ceil(self.config.warmup * total)
        if done < warm:
            return 0.0 if rests else (done + 1) / (warm + 1)
        share = min(1.0, (done - warm) / max(1, total - warm))
        return {"linear": 1 - share, "cosine": (1 + cos(pi * share)) / 2, "constant": 1.0}[self.config.schedule]

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """Each slot alone, so that its step does not depend on who shares the batch."""
        if not self.config.clip:
            return
        for parameters in self._clipped:
            found = [p for p in parameters if p.grad is not None]
            if found:
                nn.utils.clip_grad_norm_(found, self.config.clip, foreach=True)
