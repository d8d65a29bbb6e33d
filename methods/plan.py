"""What one training step computes, worked out on the CPU before the batch moves: no step waits for the device.

Rows of one slot mostly begin alike (instruction and label words). That lead passes the backbone once per slot instead
of once per row, its keys and values are handed to the rows, and the gradient flows back through them: the same sums in
another order (loss within 2e-6, gradients 7e-6), up to twice as fast where the lead or a soft prompt is long. Slots may
be cells of different tasks: each has a lead of its own length, and its rows go on where that ends.
"""

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from tasks.example import Batch

WORTH = 0.2  # a second, small forward pays once it saves this share of the positions


class Plan(NamedTuple):
    """k slots present, b rows of s tokens, n answer tokens. `lead` [k, p] is None where it would not pay."""

    lead: Tensor | None
    lead_mask: Tensor | None  # [k, p] right-padded
    owner: Tensor  # [b] each row's place among the slots present
    input_ids: Tensor  # [b, s] what follows the lead
    attention_mask: Tensor  # [b, p + s]
    source: Tensor  # [b, s] bool: given tokens, neither answer nor padding
    at: Tensor  # [n] places in the flattened [b * s] whose next token is an answer token
    asked: Tensor  # [b, m] the same by row; a row that has fewer names its first place for the rest
    among: Tensor  # [n] where each of `at` lies in the flattened [b * m]
    target: Tensor  # [n] that token
    share: Tensor  # [n] whose answer it is, among the slots present
    weight: Tensor  # [n] 1 / number of answer tokens of that slot, in all passes of the step
    text: Tensor  # [k] 1 / number of real tokens of each slot, likewise
    slots: tuple[int, ...]  # [b]
    present: tuple[int, ...]  # [k]
    tokens: tuple[int, ...]  # [k] real tokens of each slot
    padded: tuple[int, ...]  # [k] the same with padding


class Rows(NamedTuple):
    """The rows of a batch, whole or from the end of their slot's lead on."""

    ids: Tensor  # [b, s]
    mask: Tensor  # [b, s]
    answer: Tensor  # [b, s] bool


def plan(batch: Batch, *, virtual: int = 0, lead: bool = True) -> Plan:
    """Right-padded rows -> plan. `virtual`: tokens a method adds in front, which are saved along with the lead."""
    present = tuple(sorted(set(batch.slots)))
    owner = torch.tensor([present.index(slot) for slot in batch.slots], device=batch.input_ids.device)
    rows, k = Rows(batch.input_ids, batch.attention_mask, batch.labels != -100), len(present)
    seen, leads = rows.mask, _leads(rows, owner, k, virtual) if lead else None
    shared: dict[str, Tensor | None] = {"lead": None, "lead_mask": None}
    if leads is not None:
        columns = torch.arange(int(leads.max()), device=owner.device)
        given = (columns < leads[:, None]).to(seen.dtype)  # [k, p]
        first = torch.stack([(owner == slot).int().argmax() for slot in range(k)])
        # a slot without a lead has a token there that sees itself and that none of its rows sees
        shared = {"lead": rows.ids[first][:, columns], "lead_mask": given.index_fill(1, columns[:1], 1)}
        rows = _after(rows, leads[owner])
        seen = torch.cat([given[owner], rows.mask], dim=1)
    row, column = rows.answer.nonzero(as_tuple=True)
    share, count = owner[row], owner.bincount(minlength=k)
    among = rows.answer.cumsum(1)[row, column] - 1
    asked = torch.zeros(len(owner), int(among.max()) + 1, dtype=torch.long, device=owner.device)
    asked[row, among] = column - 1
    length = rows.ids.shape[1] if leads is None else rows.ids.shape[1] + leads
    tokens = owner.bincount(seen.sum(1), minlength=k)
    return Plan(
        **shared,
        owner=owner,
        input_ids=rows.ids,
        attention_mask=seen,
        source=rows.mask.bool() & ~rows.answer,
        at=row * rows.ids.shape[1] + column - 1,
        asked=asked,
        among=row * asked.shape[1] + among,
        target=rows.ids[row, column],
        share=share,
        weight=1 / share.bincount(minlength=k)[share],
        text=(1 / tokens).float(),
        slots=batch.slots,
        present=present,
        tokens=tuple(tokens.int().tolist()),
        padded=tuple((count * length).tolist()),
    )


def parts(batch: Batch, count: int, plan: Callable[[Batch], Plan]) -> list[Plan]:
    """One step in `count` passes, for a device that has no room for one: losses and gradients add up to the whole's."""
    found: list[Plan] = []
    for rows in torch.arange(len(batch.slots)).tensor_split(min(count, len(batch.slots))):
        length = int(batch.attention_mask[rows].sum(1).max())
        tensors = (tensor[rows, :length] for tensor in batch[:3])
        found.append(plan(Batch(*tensors, *(tuple(values[row] for row in rows.tolist()) for values in batch[3:]))))
    answers, tokens = Counter[int](), Counter[int]()
    for made in found:
        answers.update(made.present[place] for place in made.share.tolist())
        tokens.update(dict(zip(made.present, made.tokens, strict=True)))
    return [_weighed(made, answers, tokens) for made in found]


def _weighed(made: Plan, answers: Counter[int], tokens: Counter[int]) -> Plan:
    """By how much each slot has of these in the whole step."""
    weight, text = (made.text.new_tensor([1 / whole[slot] for slot in made.present]) for whole in (answers, tokens))
    return made._replace(weight=weight[made.share], text=text)


def divided(
    batch: Batch, plan: Callable[[Batch], Plan], count: int = 1, rank: int = 0, ranks: int = 1
) -> Plan | list[Plan]:
    """A step in `count` passes, or, of one that several processes take together, this one's pass."""
    if ranks == 1:
        return plan(batch) if count == 1 else parts(batch, count, plan)
    found = parts(batch, ranks, plan)
    if rank < len(found):
        return found[rank]
    idle = found[0]  # fewer rows than processes: all take the step, and of this one nothing counts
    none = (0,) * len(idle.present)
    nothing = {"weight": torch.zeros_like(idle.weight), "text": torch.zeros_like(idle.text)}
    return idle._replace(**nothing, tokens=none, padded=none)


def _leads(rows: Rows, owner: Tensor, k: int, virtual: int) -> Tensor | None:
    """How many leading tokens [k] all rows of each slot share, before any answer; None where it would not pay."""
    b, s = rows.ids.shape
    first = torch.stack([(owner == slot).int().argmax() for slot in range(k)])[owner]
    same = (rows.ids == rows.ids[first]) & rows.mask.bool()
    most = rows.answer.int().argmax(1) - 1  # the last place that may be cut before: it predicts an answer token
    common = same.int().cumprod(1).sum(1).minimum(most)  # [b]
    leads = common.new_full((k,), s).scatter_reduce(0, owner, common, "amin")
    leads = leads.where(owner.bincount(minlength=k) > 1, 0)  # a row alone saves nothing
    p, rest = int(leads.max()), int((rows.mask.sum(1) - leads[owner]).max())
    saved = b * (s + virtual) - k * (p + virtual) - b * rest
    return leads if p and saved >= WORTH * b * (s + virtual) else None


def _after(rows: Rows, cut: Tensor) -> Rows:
    """The rows from their own `cut` [b] on."""
    sizes = rows.mask.sum(1) - cut
    places = torch.arange(int(sizes.max()), device=cut.device)
    own, at = places < sizes[:, None], (places + cut[:, None]).clamp(max=rows.ids.shape[1] - 1)
    return Rows(rows.ids.gather(1, at), own.to(rows.mask.dtype), rows.answer.gather(1, at) & own)
