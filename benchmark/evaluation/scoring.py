"""Predictions: choices exactly and in one pass, spans by greedy decoding.

The constant start of a task's prompts (virtual tokens, instruction, label words) passes the backbone once per slot.
Then each item's remainder and the tokens of all its answers go through together, in one row: the answers form a tree
below the end of the prompt, in which a token sees the prompt and its own beginning only. So every answer gets its full
log-likelihood, for any number of answers of any length, and no key or value is repeated for an answer. Slots whose
items are few share their passes.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache

from benchmark.evaluation.answer_tree import Answers, build_answer_tree
from methods.base import Method
from tasks.core.encoding import group_by_length
from tasks.core.types import EncodedExample, UsageError

TOKENS_PER_PASS = {"cuda": 1 << 15}  # tokens of a pass where not 4096: a GPU wants more than a core's cache holds
MAX_LOGITS_PER_BLOCK = 1 << 26  # numbers of one block of logits: 256 MiB of fp32
NORMALISATIONS = ("sum", "mean")


class Prediction(NamedTuple):
    """What was answered; for choices the log-likelihood of each, in their order."""

    text: str
    scores: tuple[float, ...] = ()


class ScoringItem(NamedTuple):
    """One item to pass: where its result goes, whose it is, the shared start, and what follows."""

    position: int
    slot: int
    shared_prefix: tuple[int, ...]
    prompt_rest: tuple[int, ...]
    answers: Answers


class PrefixCache(NamedTuple):
    """Keys and values of a constant start, for each of k slots."""

    key_values: list[tuple[Tensor, Tensor]]  # [k, H_kv, p, d_h] each
    row_by_slot: dict[int, int]  # of a slot


def predict(
    method: Method,
    items: Sequence[EncodedExample],
    slots: Sequence[int] | int = 0,
    *,
    max_new_tokens: Sequence[int] | int = 32,
    normalise: str = "sum",
) -> list[Prediction]:
    """An answer for every item, in order: the likeliest choice (`mean`: per token), or a decoded span.

    `slots` and `max_new_tokens`: one for all, or each item's own.
    """
    if normalise not in NORMALISATIONS:
        raise UsageError(f"no normalise {normalise!r}; there are: {', '.join(NORMALISATIONS)}")
    slots = [slots] * len(items) if isinstance(slots, int) else list(slots)
    if (guessed := method.predict_without_scoring(items, slots)) is not None:
        return [Prediction(text) for text in guessed]
    chosen = [i for i, item in enumerate(items) if item.choice_ids]
    scores = compute_log_likelihoods(method, [items[i] for i in chosen], [slots[i] for i in chosen])
    found: dict[int, Prediction] = {}
    for i, row in zip(chosen, scores, strict=True):
        if normalise == "mean":
            row = tuple(score / len(answer) for score, answer in zip(row, items[i].choice_ids, strict=True))
        found[i] = Prediction(items[i].example.choices[row.index(max(row))], row)
    free = [i for i, item in enumerate(items) if not item.choice_ids]
    limits = max_new_tokens if isinstance(max_new_tokens, int) else [max_new_tokens[i] for i in free]
    spans = decode_answers(method, [items[i] for i in free], [slots[i] for i in free], max_new_tokens=limits)
    found |= {i: Prediction(text) for i, text in zip(free, spans, strict=True)}
    return [found[i] for i in range(len(items))]


@torch.inference_mode()
def compute_log_likelihoods(
    method: Method, items: Sequence[EncodedExample], slots: Sequence[int], *, tokens_per_pass: int | None = None
) -> list[tuple[float, ...]]:
    """Log-likelihood of each choice of an item given its prompt, summed over tokens. `tokens` of a pass: as suits."""
    found: list[tuple[float, ...]] = [()] * len(items)
    blocks: list[tuple[list[ScoringItem], Tensor]] = []
    with _evaluation_mode(method):
        for lead, block in _iterate_blocks(
            method,
            items,
            slots,
            tokens_per_pass,
            lambda job: len(job.prompt_rest) + len(build_answer_tree(job.answers).token_ids),
        ):
            blocks += _run_with_smaller_blocks(block, partial(_score_block, method, lead))
    for block, scores in blocks:  # only now wait for the device
        for job, row in zip(block, scores.tolist(), strict=True):
            found[job.position] = tuple(row[: len(job.answers)])
    return found


@torch.inference_mode()
def decode_answers(
    method: Method,
    items: Sequence[EncodedExample],
    slots: Sequence[int],
    *,
    tokens_per_pass: int | None = None,
    max_new_tokens: Sequence[int] | int = 32,
) -> list[str]:
    """Greedy continuation of each prompt, up to the end token or `limit` tokens (one number, or each item's own)."""
    texts = [""] * len(items)
    limits = [max_new_tokens] * len(items) if isinstance(max_new_tokens, int) else max_new_tokens
    with _evaluation_mode(method):
        for lead, block in _iterate_blocks(method, items, slots, tokens_per_pass, lambda job: len(job.prompt_rest)):
            most = max(limits[job.position] for job in block)
            found = _run_with_smaller_blocks(block, partial(_decode_block, method, lead, limit=most))
            for job, ids in zip(block, found, strict=True):
                own = ids[: limits[job.position]]
                texts[job.position] = method.backbone.tokenizer.decode(own, skip_special_tokens=True).strip()
    return texts


@contextmanager
def _evaluation_mode(method: Method) -> Iterator[None]:
    """Put the method in evaluation mode for the block, and restore its mode afterwards, also when the block raises."""
    was_training = method.training
    method.eval()
    try:
        yield
    finally:
        method.train(was_training)


def _run_with_smaller_blocks(
    block: list[ScoringItem], run_block: Callable[[list[ScoringItem]], list[Any]]
) -> list[Any]:
    """What `run` finds for a block; where it does not fit the device's memory, for its halves."""
    try:
        return run_block(block)
    except torch.OutOfMemoryError:
        if len(block) == 1:
            raise
    middle = len(block) // 2  # outside the handler, which would keep what the failed pass had allocated
    return _run_with_smaller_blocks(block[:middle], run_block) + _run_with_smaller_blocks(block[middle:], run_block)


# -------------------------------------------------------------------- the constant start, once per slot


def _iterate_blocks(
    method: Method,
    items: Sequence[EncodedExample],
    slots: Sequence[int],
    tokens_per_pass: int | None,
    count_tokens: Callable[[ScoringItem], int],
) -> Iterator[tuple[PrefixCache, list[ScoringItem]]]:
    """Items of like size, for a pass each, with the keys and values of their constant start; slots share passes."""
    tokens_per_pass = tokens_per_pass or TOKENS_PER_PASS.get(method.backbone.device.type, 1 << 12)
    groups: dict[tuple[int, ...], dict[int, list[ScoringItem]]] = {}
    for place, (item, slot) in enumerate(zip(items, slots, strict=True)):
        cut = (
            min(item.prefix_length, len(item.prompt_ids) - 1) if method.can_share_prefix else 0
        )  # its last token predicts the answer
        job = ScoringItem(place, slot, item.prompt_ids[:cut], item.prompt_ids[cut:], item.choice_ids)
        groups.setdefault(job.shared_prefix, {}).setdefault(slot, []).append(job)
    for ids, of_slots in groups.items():
        passes: list[list[ScoringItem]] = [[]]
        for own in of_slots.values():
            if passes[-1] and sum(len(job.prompt_rest) for job in passes[-1] + own) > tokens_per_pass:
                passes.append([])
            passes[-1] += own
        for jobs in passes:
            lead = _encode_prefix(method, ids, jobs)
            for indices in group_by_length([count_tokens(job) for job in jobs], tokens_per_pass):
                yield lead, [jobs[i] for i in indices]


def _encode_prefix(method: Method, prefix_ids: tuple[int, ...], scoring_items: list[ScoringItem]) -> PrefixCache:
    """The start once for each slot of these jobs."""
    slots = tuple(dict.fromkeys(job.slot for job in scoring_items))
    row = {slot: i for i, slot in enumerate(slots)}
    if not prefix_ids:
        return PrefixCache([], row)
    cache, rows = method.backbone.create_cache(), torch.tensor([prefix_ids] * len(slots), device=method.backbone.device)
    method.compute_hidden_states(
        rows, torch.ones_like(rows), slots, cache, query_positions=rows.new_zeros(len(rows), 1)
    )
    return PrefixCache([(layer.keys, layer.values) for layer in cache.layers], row)


def _build_cache(method: Method, prefix_cache: PrefixCache, block: list[ScoringItem]) -> DynamicCache:
    """A fresh cache that begins with each job's lead."""
    cache, rows = method.backbone.create_cache(), [prefix_cache.row_by_slot[job.slot] for job in block]
    index = torch.tensor(rows, device=method.backbone.device) if len(set(rows)) > 1 else None
    for layer, pair in enumerate(prefix_cache.key_values):
        cache.update(*(t[rows[0]].expand(len(rows), -1, -1, -1) if index is None else t[index] for t in pair), layer)
    return cache


# -------------------------------------------------------------------- choices


def _score_block(
    method: Method, prefix_cache: PrefixCache, block: list[ScoringItem]
) -> list[tuple[list[ScoringItem], Tensor]]:
    """A block with its scores [b, n]: prompts end in column r, below them stand the answers' trees."""
    trees, device = [build_answer_tree(job.answers) for job in block], method.backbone.device
    sizes, r = torch.tensor([len(job.prompt_rest) for job in block]), max(len(job.prompt_rest) for job in block)
    b, m, p = len(block), max(len(tree.token_ids) for tree in trees), len(block[0].shared_prefix)
    ids = torch.zeros(b, r + m, dtype=torch.long)
    positions = torch.zeros(b, r + m, dtype=torch.long)
    source = torch.zeros(b, r + m, dtype=torch.bool)
    sees = torch.ones(b, r + m, p + r + m, dtype=torch.bool)  # everybody sees the lead
    source[:, :r] = torch.arange(r) >= r - sizes[:, None]  # left padding
    sees[:, :, p : p + r] = source[:, None, :r]
    sees[:, :r, p:] &= torch.ones(r, r + m, dtype=torch.bool).tril()
    sees[:, r:, p + r :] = False
    positions[:, :r] = (torch.arange(r) - (r - sizes[:, None])).clamp(min=0) + p
    for row, (job, below) in enumerate(zip(block, trees, strict=True)):
        n = len(below.token_ids)
        ids[row, r - len(job.prompt_rest) : r + n] = torch.cat([torch.tensor(job.prompt_rest), below.token_ids])
        positions[row, r : r + n] = below.depth + p + len(job.prompt_rest)
        sees[row, r : r + n, p + r : p + r + n] = below.attention_mask
    sees[:, torch.arange(r + m), torch.arange(p, p + r + m)] = True  # padding sees itself: a row of nothing is NaN
    hidden = method.compute_hidden_states(
        ids.to(device),
        sees.to(device),
        tuple(job.slot for job in block),
        _build_cache(method, prefix_cache, block) if prefix_cache.key_values else None,
        position_ids=positions.to(device),
        prompt_mask=source.to(device),
        query_positions=torch.arange(r - 1, r + m, device=device).expand(b, -1),
    )  # [b, 1 + m, d]: the prompt's end and every beginning
    node, token, used = (
        _stack_padded([getattr(below, name) for below in trees])
        for name in ("context_node", "answer_ids", "answer_mask")
    )
    return [(block, _sum_answer_log_probs(method, hidden, node.to(device), token.to(device), used.to(device)))]


def _stack_padded(tensors: list[Tensor]) -> Tensor:
    """[n_i, j_i] tensors padded with zeros to one [b, n, j]."""
    if all(tensor is tensors[0] for tensor in tensors):  # mostly all items of a task have the same choices
        return tensors[0].expand(len(tensors), -1, -1)
    n, j = (max(tensor.shape[axis] for tensor in tensors) for axis in (0, 1))
    return torch.stack([F.pad(tensor, (0, j - tensor.shape[1], 0, n - tensor.shape[0])) for tensor in tensors])


def _sum_answer_log_probs(
    method: Method, hidden: Tensor, context_node: Tensor, answer_ids: Tensor, answer_mask: Tensor
) -> Tensor:
    """Sums of log p over each answer's tokens [b, n], from hidden states [b, 1 + m, d]."""
    vocabulary = method.backbone.model.config.vocab_size
    rows, found = max(1, MAX_LOGITS_PER_BLOCK // (hidden.shape[1] * vocabulary)), []
    for first in range(0, len(hidden), rows):
        part = slice(first, first + rows)
        logits = method.backbone.compute_logits(hidden[part])  # [b', 1 + m, v]
        row = torch.arange(len(logits), device=logits.device)[:, None, None]
        picked = logits[row, context_node[part], answer_ids[part]] - logits.logsumexp(-1)[row, context_node[part]]
        found.append(torch.where(answer_mask[part], picked, 0).sum(-1))
    return torch.cat(found)


# -------------------------------------------------------------------- spans


def _decode_block(method: Method, prefix_cache: PrefixCache, block: list[ScoringItem], limit: int) -> list[list[int]]:
    """Token ids of each continuation. Rows that are done leave the pass."""
    device, end = method.backbone.device, method.backbone.tokenizer.eos_token_id
    r, p = max(len(job.prompt_rest) for job in block), len(block[0].shared_prefix)
    ids, mask = torch.zeros(len(block), r, dtype=torch.long), torch.ones(len(block), p + r, dtype=torch.long)
    for row, job in enumerate(block):
        ids[row, r - len(job.prompt_rest) :] = torch.tensor(job.prompt_rest)
        mask[row, p : p + r - len(job.prompt_rest)] = 0
    ids, mask, cache = ids.to(device), mask.to(device), _build_cache(method, prefix_cache, block)
    out = torch.full((len(block), limit), end, device=device)
    left, slots = torch.arange(len(block), device=device), tuple(job.slot for job in block)  # rows not yet done
    for step in range(limit):
        hidden = method.compute_hidden_states(
            ids, mask, slots, cache, query_positions=ids.new_full((len(ids), 1), ids.shape[1] - 1)
        )
        token = method.backbone.compute_logits(hidden[:, -1]).argmax(-1)
        out[left, step] = token
        going = (token != end).nonzero().flatten()
        if len(going) == 0:
            break
        if len(going) < len(left):
            left, token, mask = left[going], token[going], mask[going]
            slots = tuple(slots[row] for row in going.tolist())
            cache.batch_select_indices(going)
        ids, mask = token[:, None], F.pad(mask, (0, 1), value=1)
    return [row[: row.index(end)] if end in row else row for row in out.tolist()]
