"""Predictions: exact log-likelihoods of choices in one forward pass, greedy decoding of spans.

The shared prefix of a task's prompts (virtual tokens, instruction, label words) passes the backbone once per slot. The
rest of each prompt and the tokens of all its answers follow in one row: the answers form a prefix tree after the
prompt, in which a token attends to the prompt and to its own prefix only. Every answer thus gets its full
log-likelihood, for any number of answers of any length, and no keys or values are repeated per answer. Slots with few
items share forward passes.

Shapes: b rows, r prompt tokens after a shared prefix of p tokens, m nodes of the answer trees, n answers of up to j
tokens, vocabulary v.
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

TOKENS_PER_PASS = {"cuda": 1 << 15}  # tokens per forward pass by device type; 4096 elsewhere
MAX_LOGITS_PER_BLOCK = 1 << 26  # entries of one block of logits: 256 MiB in fp32
NORMALISATIONS = ("sum", "mean")


class Prediction(NamedTuple):
    """Predicted answer; for choices also the score of each, in their order: its log-likelihood, or that per token."""

    text: str
    scores: tuple[float, ...] = ()


class ScoringItem(NamedTuple):
    """One item to score: its prompt is `shared_prefix + prompt_rest`."""

    position: int  # index of the item in the input
    slot: int
    shared_prefix: tuple[int, ...]  # token ids
    prompt_rest: tuple[int, ...]  # token ids
    answers: Answers


class PrefixCache(NamedTuple):
    """Keys and values of a shared prefix, for each of k slots."""

    key_values: list[tuple[Tensor, Tensor]]  # per layer, [k, H_kv, p, d_h] each
    row_by_slot: dict[int, int]  # slot -> index of its keys and values


def predict(
    method: Method,
    items: Sequence[EncodedExample],
    slots: Sequence[int] | int = 0,
    *,
    max_new_tokens: Sequence[int] | int = 32,
    normalise: str = "sum",
) -> list[Prediction]:
    """Predict an answer for every item, in order: the choice with the highest score, or a decoded span.

    The score of a choice is its log-likelihood, divided by its number of tokens if `normalise` is "mean". `slots` and
    `max_new_tokens` are single values or lists with a value per item. Raises UsageError for an unknown `normalise`.
    """
    if normalise not in NORMALISATIONS:
        raise UsageError(f"no normalise {normalise!r}; there are: {', '.join(NORMALISATIONS)}")
    slots = [slots] * len(items) if isinstance(slots, int) else list(slots)
    if (texts := method.predict_without_scoring(items, slots)) is not None:
        return [Prediction(text) for text in texts]
    choice_indices = [i for i, item in enumerate(items) if item.choice_ids]
    log_likelihoods = compute_log_likelihoods(
        method, [items[i] for i in choice_indices], [slots[i] for i in choice_indices]
    )
    predictions: dict[int, Prediction] = {}
    for i, scores in zip(choice_indices, log_likelihoods, strict=True):
        if normalise == "mean":
            scores = tuple(score / len(answer) for score, answer in zip(scores, items[i].choice_ids, strict=True))
        predictions[i] = Prediction(items[i].example.choices[scores.index(max(scores))], scores)
    span_indices = [i for i, item in enumerate(items) if not item.choice_ids]
    limits = max_new_tokens if isinstance(max_new_tokens, int) else [max_new_tokens[i] for i in span_indices]
    spans = decode_answers(
        method, [items[i] for i in span_indices], [slots[i] for i in span_indices], max_new_tokens=limits
    )
    predictions |= {i: Prediction(text) for i, text in zip(span_indices, spans, strict=True)}
    return [predictions[i] for i in range(len(items))]


@torch.inference_mode()
def compute_log_likelihoods(
    method: Method, items: Sequence[EncodedExample], slots: Sequence[int], *, tokens_per_pass: int | None = None
) -> list[tuple[float, ...]]:
    """Log-likelihood of each choice of an item given its prompt, summed over tokens.

    `tokens_per_pass`: tokens per forward pass; by default a number that suits the device.
    """
    log_likelihoods: list[tuple[float, ...]] = [()] * len(items)
    blocks: list[tuple[list[ScoringItem], Tensor]] = []
    with _evaluation_mode(method):
        for prefix_cache, block in _iterate_blocks(
            method,
            items,
            slots,
            tokens_per_pass,
            lambda item: len(item.prompt_rest) + len(build_answer_tree(item.answers).token_ids),
        ):
            blocks += _run_with_smaller_blocks(block, partial(_score_block, method, prefix_cache))
    for block, scores in blocks:  # the first synchronisation with the device
        for item, row in zip(block, scores.tolist(), strict=True):
            log_likelihoods[item.position] = tuple(row[: len(item.answers)])
    return log_likelihoods


@torch.inference_mode()
def decode_answers(
    method: Method,
    items: Sequence[EncodedExample],
    slots: Sequence[int],
    *,
    tokens_per_pass: int | None = None,
    max_new_tokens: Sequence[int] | int = 32,
) -> list[str]:
    """Greedy continuation of each prompt, up to the end token or `max_new_tokens` (one number, or one per item)."""
    texts = [""] * len(items)
    limits = [max_new_tokens] * len(items) if isinstance(max_new_tokens, int) else max_new_tokens
    with _evaluation_mode(method):
        for prefix_cache, block in _iterate_blocks(
            method, items, slots, tokens_per_pass, lambda item: len(item.prompt_rest)
        ):
            max_limit = max(limits[item.position] for item in block)
            continuations = _run_with_smaller_blocks(
                block, partial(_decode_block, method, prefix_cache, limit=max_limit)
            )
            for item, ids in zip(block, continuations, strict=True):
                ids = ids[: limits[item.position]]
                texts[item.position] = method.backbone.tokenizer.decode(ids, skip_special_tokens=True).strip()
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
    """Run a block; if it exceeds the device's memory, run its halves instead (recursively)."""
    try:
        return run_block(block)
    except torch.OutOfMemoryError:
        if len(block) == 1:
            raise
    middle = len(block) // 2  # outside the handler, whose traceback keeps the failed pass's tensors alive
    return _run_with_smaller_blocks(block[:middle], run_block) + _run_with_smaller_blocks(block[middle:], run_block)


# -------------------------------------------------------------------- shared prefix, once per slot


def _iterate_blocks(
    method: Method,
    items: Sequence[EncodedExample],
    slots: Sequence[int],
    tokens_per_pass: int | None,
    count_tokens: Callable[[ScoringItem], int],
) -> Iterator[tuple[PrefixCache, list[ScoringItem]]]:
    """Blocks of items of similar length, one per forward pass, each with its prefix cache; slots share blocks."""
    tokens_per_pass = tokens_per_pass or TOKENS_PER_PASS.get(method.backbone.device.type, 1 << 12)
    groups: dict[tuple[int, ...], dict[int, list[ScoringItem]]] = {}
    for position, (item, slot) in enumerate(zip(items, slots, strict=True)):
        prefix_length = 0
        if method.can_share_prefix:  # without the prompt's last token, which predicts the answer
            prefix_length = min(item.prefix_length, len(item.prompt_ids) - 1)
        prefix_ids = item.prompt_ids[:prefix_length]
        scoring_item = ScoringItem(position, slot, prefix_ids, item.prompt_ids[prefix_length:], item.choice_ids)
        groups.setdefault(prefix_ids, {}).setdefault(slot, []).append(scoring_item)
    for prefix_ids, items_by_slot in groups.items():
        slot_groups: list[list[ScoringItem]] = [[]]  # items of slots that share forward passes
        for slot_items in items_by_slot.values():
            if slot_groups[-1] and sum(len(i.prompt_rest) for i in slot_groups[-1] + slot_items) > tokens_per_pass:
                slot_groups.append([])
            slot_groups[-1] += slot_items
        for scoring_items in slot_groups:
            prefix_cache = _encode_prefix(method, prefix_ids, scoring_items)
            for indices in group_by_length([count_tokens(item) for item in scoring_items], tokens_per_pass):
                yield prefix_cache, [scoring_items[i] for i in indices]


def _encode_prefix(method: Method, prefix_ids: tuple[int, ...], scoring_items: list[ScoringItem]) -> PrefixCache:
    """Keys and values of the prefix for each slot of these items; empty without a prefix."""
    slots = tuple(dict.fromkeys(item.slot for item in scoring_items))
    row_by_slot = {slot: i for i, slot in enumerate(slots)}
    if not prefix_ids:
        return PrefixCache([], row_by_slot)
    cache = method.backbone.create_cache()
    input_ids = torch.tensor([prefix_ids] * len(slots), device=method.backbone.device)
    query_positions = input_ids.new_zeros(len(input_ids), 1)  # only keys and values are needed
    method.compute_hidden_states(input_ids, torch.ones_like(input_ids), slots, cache, query_positions=query_positions)
    return PrefixCache([(layer.keys, layer.values) for layer in cache.layers], row_by_slot)


def _build_cache(method: Method, prefix_cache: PrefixCache, block: list[ScoringItem]) -> DynamicCache:
    """A new cache that contains the shared prefix of each item of the block."""
    cache = method.backbone.create_cache()
    rows = [prefix_cache.row_by_slot[item.slot] for item in block]
    index = torch.tensor(rows, device=method.backbone.device) if len(set(rows)) > 1 else None
    for layer, pair in enumerate(prefix_cache.key_values):
        if index is None:  # a single slot: expanded without a copy
            key, value = (tensor[rows[0]].expand(len(rows), -1, -1, -1) for tensor in pair)
        else:
            key, value = (tensor[index] for tensor in pair)
        cache.update(key, value, layer)
    return cache


# -------------------------------------------------------------------- choices


def _score_block(
    method: Method, prefix_cache: PrefixCache, block: list[ScoringItem]
) -> list[tuple[list[ScoringItem], Tensor]]:
    """The block and its scores [b, n]. In every row the prompt ends in column r, and the nodes of its tree follow."""
    device = method.backbone.device
    trees = [build_answer_tree(item.answers) for item in block]
    lengths = [len(item.prompt_rest) for item in block]
    b = len(block)
    r = max(lengths)
    m = max(len(tree.token_ids) for tree in trees)
    p = len(block[0].shared_prefix)
    padding = r - torch.tensor(lengths)[:, None]  # [b, 1] left padding
    input_ids = torch.zeros(b, r + m, dtype=torch.long)
    position_ids = torch.zeros(b, r + m, dtype=torch.long)
    prompt_mask = torch.zeros(b, r + m, dtype=torch.bool)
    pattern = torch.ones(b, r + m, p + r + m, dtype=torch.bool)  # all tokens attend to the shared prefix
    prompt_mask[:, :r] = torch.arange(r) >= padding
    pattern[:, :, p : p + r] = prompt_mask[:, None, :r]
    pattern[:, :r, p:] &= torch.ones(r, r + m, dtype=torch.bool).tril()
    pattern[:, r:, p + r :] = False
    position_ids[:, :r] = (torch.arange(r) - padding).clamp(min=0) + p
    for row, (item, tree) in enumerate(zip(block, trees, strict=True)):
        end = r + len(tree.token_ids)
        input_ids[row, r - lengths[row] : end] = torch.cat([torch.tensor(item.prompt_rest), tree.token_ids])
        position_ids[row, r:end] = tree.depth + p + lengths[row]
        pattern[row, r:end, p + r : p + end] = tree.attention_mask
    # padding attends to itself: a fully masked row would give NaN in the softmax
    pattern[:, torch.arange(r + m), torch.arange(p, p + r + m)] = True
    hidden_states = method.compute_hidden_states(
        input_ids.to(device),
        pattern.to(device),
        tuple(item.slot for item in block),
        _build_cache(method, prefix_cache, block) if prefix_cache.key_values else None,
        position_ids=position_ids.to(device),
        prompt_mask=prompt_mask.to(device),
        query_positions=torch.arange(r - 1, r + m, device=device).expand(b, -1),
    )  # [b, 1 + m, d]: the prompt's last token and every node
    context_node, answer_ids, answer_mask = (
        _stack_padded([getattr(tree, name) for tree in trees]).to(device)
        for name in ("context_node", "answer_ids", "answer_mask")
    )
    return [(block, _sum_answer_log_probs(method, hidden_states, context_node, answer_ids, answer_mask))]


def _stack_padded(tensors: list[Tensor]) -> Tensor:
    """Stack tensors [n_i, j_i], padded with zeros, to [b, n, j]."""
    if all(tensor is tensors[0] for tensor in tensors):  # usually all items of a task have the same choices
        return tensors[0].expand(len(tensors), -1, -1)
    n, j = (max(tensor.shape[axis] for tensor in tensors) for axis in (0, 1))
    return torch.stack([F.pad(tensor, (0, j - tensor.shape[1], 0, n - tensor.shape[0])) for tensor in tensors])


def _sum_answer_log_probs(
    method: Method, hidden: Tensor, context_node: Tensor, answer_ids: Tensor, answer_mask: Tensor
) -> Tensor:
    """Log-probability of each answer, summed over its tokens [b, n], from hidden states [b, 1 + m, d]."""
    vocab_size = method.backbone.model.config.vocab_size
    block_size = max(1, MAX_LOGITS_PER_BLOCK // (hidden.shape[1] * vocab_size))
    answer_log_probs = []
    for start in range(0, len(hidden), block_size):
        rows = slice(start, start + block_size)
        logits = method.backbone.compute_logits(hidden[rows])  # [b', 1 + m, v]
        row = torch.arange(len(logits), device=logits.device)[:, None, None]
        log_probs = logits[row, context_node[rows], answer_ids[rows]] - logits.logsumexp(-1)[row, context_node[rows]]
        answer_log_probs.append(torch.where(answer_mask[rows], log_probs, 0).sum(-1))
    return torch.cat(answer_log_probs)


# -------------------------------------------------------------------- spans


def _decode_block(method: Method, prefix_cache: PrefixCache, block: list[ScoringItem], limit: int) -> list[list[int]]:
    """Token ids of each continuation, up to `limit`. Finished rows are removed from the batch."""
    device = method.backbone.device
    end_id = method.backbone.tokenizer.eos_token_id
    r = max(len(item.prompt_rest) for item in block)
    p = len(block[0].shared_prefix)
    input_ids = torch.zeros(len(block), r, dtype=torch.long)
    mask = torch.ones(len(block), p + r, dtype=torch.long)
    for row, item in enumerate(block):
        input_ids[row, r - len(item.prompt_rest) :] = torch.tensor(item.prompt_rest)
        mask[row, p : p + r - len(item.prompt_rest)] = 0
    input_ids = input_ids.to(device)
    mask = mask.to(device)
    cache = _build_cache(method, prefix_cache, block)
    output = torch.full((len(block), limit), end_id, device=device)
    unfinished = torch.arange(len(block), device=device)  # rows of `output` that are still in the batch
    slots = tuple(item.slot for item in block)
    for step in range(limit):
        query_positions = input_ids.new_full((len(input_ids), 1), input_ids.shape[1] - 1)
        hidden = method.compute_hidden_states(input_ids, mask, slots, cache, query_positions=query_positions)
        tokens = method.backbone.compute_logits(hidden[:, -1]).argmax(-1)
        output[unfinished, step] = tokens
        remaining = (tokens != end_id).nonzero().flatten()
        if len(remaining) == 0:
            break
        if len(remaining) < len(unfinished):
            unfinished = unfinished[remaining]
            tokens = tokens[remaining]
            mask = mask[remaining]
            slots = tuple(slots[row] for row in remaining.tolist())
            cache.batch_select_indices(remaining)
        input_ids = tokens[:, None]
        mask = F.pad(mask, (0, 1), value=1)
    return [row[: row.index(end_id)] if end_id in row else row for row in output.tolist()]
