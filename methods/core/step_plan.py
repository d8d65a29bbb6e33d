"""Plan of a training step: index tensors and the shared prefix of each slot.

A plan is computed on the CPU before the batch moves, so that no step synchronises with the device.

The rows of a slot mostly start with the same tokens (instruction and label words). This shared prefix passes the
backbone once per slot instead of once per row; the rows reuse its keys and values, and the gradient flows back through
them. The result is the same up to the order of sums (loss within 2e-6, gradients within 7e-6), up to twice as fast with
a long prefix or soft prompt. Slots may be cells of different tasks, each with a prefix of its own length.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple, NotRequired, TypedDict

import torch
from torch import Tensor

from tasks.core.types import Batch

MIN_SAVED_FRACTION = 0.2  # a separate forward pass for the prefix pays off from this fraction of saved positions


class StepOutput(TypedDict):
    """What `training_step` returns: the loss for Lightning, and values of each present slot for the learning curves."""

    loss: NotRequired[Tensor]  # sum over slots; absent where the method takes the step itself
    losses: Tensor  # [k], one per present slot
    present: tuple[int, ...]  # slots with rows in this step
    tokens: tuple[int, ...]  # of each, without padding
    padded: tuple[int, ...]  # of each, with padding
    watched: NotRequired[dict[str, Any]]  # name -> scalar that the method reports


class StepPlan(NamedTuple):
    """Tensors of one step: k slots present, b rows of s tokens, n answer tokens, shared prefixes of p tokens."""

    shared_prefix: Tensor | None  # [k, p] right-padded; None where it would not pay off
    shared_prefix_mask: Tensor | None  # [k, p]
    slot_index: Tensor  # [b] index of each row's slot in `present_slots`
    input_ids: Tensor  # [b, s] tokens after the shared prefix
    attention_mask: Tensor  # [b, p + s]
    prompt_mask: Tensor  # [b, s] bool: prompt tokens, neither answer nor padding
    label_positions: Tensor  # [n] positions in the flattened [b * s] whose next token is an answer token
    query_positions: Tensor  # [b, m] the same per row; shorter rows are padded with position 0
    flat_index: Tensor  # [n] index of each label position in the flattened [b * m]
    label_ids: Tensor  # [n] the answer tokens
    label_slot_index: Tensor  # [n] index of each answer token's slot in `present_slots`
    label_weights: Tensor  # [n] 1 / number of answer tokens of that slot in all micro-batches of the step
    inv_token_count: Tensor  # [k] 1 / number of tokens of each slot without padding, in all micro-batches of the step
    slots: tuple[int, ...]  # [b] slot of each row
    present_slots: tuple[int, ...]  # [k] in ascending order
    num_tokens: tuple[int, ...]  # [k] tokens of each slot without padding
    num_padded_tokens: tuple[int, ...]  # [k] the same with padding


class BatchRows(NamedTuple):
    """The rows of a batch, complete or without their slot's shared prefix."""

    input_ids: Tensor  # [b, s]
    attention_mask: Tensor  # [b, s]
    answer_mask: Tensor  # [b, s] bool


def build_step_plan(batch: Batch, *, num_virtual_tokens: int = 0, share_prefix: bool = True) -> StepPlan:
    """Plan of a right-padded batch.

    `num_virtual_tokens`: tokens that the method prepends; a shared prefix includes them, which saves them as well.
    """
    present_slots = tuple(sorted(set(batch.slots)))
    k = len(present_slots)
    slot_index = torch.tensor([present_slots.index(slot) for slot in batch.slots], device=batch.input_ids.device)
    rows = BatchRows(batch.input_ids, batch.attention_mask, batch.labels != -100)
    attention_mask = rows.attention_mask
    shared_prefix = shared_prefix_mask = prefix_lengths = None
    if share_prefix:
        prefix_lengths = _measure_shared_prefixes(rows, slot_index, k, num_virtual_tokens)
    if prefix_lengths is not None:
        columns = torch.arange(int(prefix_lengths.max()), device=slot_index.device)
        prefix_mask = (columns < prefix_lengths[:, None]).to(attention_mask.dtype)  # [k, p]
        first_rows = torch.stack([(slot_index == slot).int().argmax() for slot in range(k)])
        shared_prefix = rows.input_ids[first_rows][:, columns]
        # a slot without a prefix keeps one token that attends to itself and is masked for all of its rows
        shared_prefix_mask = prefix_mask.index_fill(1, columns[:1], 1)
        rows = _drop_prefixes(rows, prefix_lengths[slot_index])
        attention_mask = torch.cat([prefix_mask[slot_index], rows.attention_mask], dim=1)
    row, column = rows.answer_mask.nonzero(as_tuple=True)
    label_slot_index = slot_index[row]
    rank_in_row = rows.answer_mask.cumsum(1)[row, column] - 1  # [n] j for the j-th answer token of its row
    query_positions = torch.zeros(
        len(slot_index), int(rank_in_row.max()) + 1, dtype=torch.long, device=slot_index.device
    )
    query_positions[row, rank_in_row] = column - 1
    padded_lengths = rows.input_ids.shape[1] if prefix_lengths is None else rows.input_ids.shape[1] + prefix_lengths
    num_tokens = slot_index.bincount(attention_mask.sum(1), minlength=k)
    return StepPlan(
        shared_prefix=shared_prefix,
        shared_prefix_mask=shared_prefix_mask,
        slot_index=slot_index,
        input_ids=rows.input_ids,
        attention_mask=attention_mask,
        prompt_mask=rows.attention_mask.bool() & ~rows.answer_mask,
        label_positions=row * rows.input_ids.shape[1] + column - 1,
        query_positions=query_positions,
        flat_index=row * query_positions.shape[1] + rank_in_row,
        label_ids=rows.input_ids[row, column],
        label_slot_index=label_slot_index,
        label_weights=1 / label_slot_index.bincount(minlength=k)[label_slot_index],
        inv_token_count=(1 / num_tokens).float(),
        slots=batch.slots,
        present_slots=present_slots,
        num_tokens=tuple(num_tokens.int().tolist()),
        num_padded_tokens=tuple((slot_index.bincount(minlength=k) * padded_lengths).tolist()),
    )


def plan_micro_batches(batch: Batch, num_micro_batches: int, build_plan: Callable[[Batch], StepPlan]) -> list[StepPlan]:
    """Split a step into at most `num_micro_batches` plans, whose losses and gradients add up to those of the whole."""
    plans: list[StepPlan] = []
    for rows in torch.arange(len(batch.slots)).tensor_split(min(num_micro_batches, len(batch.slots))):
        length = int(batch.attention_mask[rows].sum(1).max())
        tensors = (tensor[rows, :length] for tensor in batch[:3])
        row_values = (tuple(values[row] for row in rows.tolist()) for values in batch[3:])
        plans.append(build_plan(Batch(*tensors, *row_values)))
    label_counts = Counter[int]()
    token_counts = Counter[int]()
    for plan in plans:
        label_counts.update(plan.present_slots[index] for index in plan.label_slot_index.tolist())
        token_counts.update(dict(zip(plan.present_slots, plan.num_tokens, strict=True)))
    return [_rescale_weights(plan, label_counts, token_counts) for plan in plans]


def _rescale_weights(plan: StepPlan, label_counts: Counter[int], token_counts: Counter[int]) -> StepPlan:
    """The plan of a micro-batch with weights from the answer tokens and tokens of each slot in the whole step."""
    inv_label_count, inv_token_count = (
        plan.inv_token_count.new_tensor([1 / counts[slot] for slot in plan.present_slots])
        for counts in (label_counts, token_counts)
    )
    return plan._replace(label_weights=inv_label_count[plan.label_slot_index], inv_token_count=inv_token_count)


def partition_step(
    batch: Batch,
    build_plan: Callable[[Batch], StepPlan],
    num_micro_batches: int = 1,
    rank: int = 0,
    world_size: int = 1,
) -> StepPlan | list[StepPlan]:
    """The work of this process in a step.

    A single process gets one plan or a list of micro-batch plans; with several processes each gets the plan of its own
    rows.
    """
    if world_size == 1:
        return build_plan(batch) if num_micro_batches == 1 else plan_micro_batches(batch, num_micro_batches, build_plan)
    plans = plan_micro_batches(batch, world_size, build_plan)
    if rank < len(plans):
        return plans[rank]
    plan = plans[0]  # fewer rows than processes: this one repeats the first plan with zero weights
    zeros = (0,) * len(plan.present_slots)
    return plan._replace(
        label_weights=torch.zeros_like(plan.label_weights),
        inv_token_count=torch.zeros_like(plan.inv_token_count),
        num_tokens=zeros,
        num_padded_tokens=zeros,
    )


def _measure_shared_prefixes(
    rows: BatchRows, slot_index: Tensor, num_slots: int, num_virtual_tokens: int
) -> Tensor | None:
    """Length [k] of the prefix that all rows of each slot share before any answer; None if sharing does not pay off."""
    b, s = rows.input_ids.shape
    first_rows = torch.stack([(slot_index == slot).int().argmax() for slot in range(num_slots)])[slot_index]
    is_equal = (rows.input_ids == rows.input_ids[first_rows]) & rows.attention_mask.bool()
    max_lengths = rows.answer_mask.int().argmax(1) - 1  # the prompt's last token predicts an answer token: not shared
    common_lengths = is_equal.int().cumprod(1).sum(1).minimum(max_lengths)  # [b]
    prefix_lengths = common_lengths.new_full((num_slots,), s).scatter_reduce(0, slot_index, common_lengths, "amin")
    prefix_lengths = prefix_lengths.where(slot_index.bincount(minlength=num_slots) > 1, 0)  # a single row saves nothing
    p = int(prefix_lengths.max())
    rest_length = int((rows.attention_mask.sum(1) - prefix_lengths[slot_index]).max())
    num_saved = b * (s + num_virtual_tokens) - num_slots * (p + num_virtual_tokens) - b * rest_length
    return prefix_lengths if p and num_saved >= MIN_SAVED_FRACTION * b * (s + num_virtual_tokens) else None


def _drop_prefixes(rows: BatchRows, prefix_lengths: Tensor) -> BatchRows:
    """The rows without their first `prefix_lengths` [b] tokens, again right-padded."""
    lengths = rows.attention_mask.sum(1) - prefix_lengths
    columns = torch.arange(int(lengths.max()), device=prefix_lengths.device)
    is_token = columns < lengths[:, None]
    source_columns = (columns + prefix_lengths[:, None]).clamp(max=rows.input_ids.shape[1] - 1)
    return BatchRows(
        rows.input_ids.gather(1, source_columns),
        is_token.to(rows.attention_mask.dtype),
        rows.answer_mask.gather(1, source_columns) & is_token,
    )
