"""Examples as token ids: what is cut when too long, the check of the label words, and padded batches."""

from collections import OrderedDict
from collections.abc import Sequence
from hashlib import sha1
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch

from tasks.example import Batch, Encoded, Example, UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tasks.base import Task

CACHE: WeakKeyDictionary = WeakKeyDictionary()  # tokenizer -> {(limits, examples): (their tokens, Encoded of each)}
SETS = 128  # most that are kept for a tokenizer
TOKENS = 2**25  # a token takes 20 to 40 bytes


def tokens(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], offsets: bool = False) -> list:
    """Ids of each text (or its [start, end) characters), with no special tokens."""
    if not texts:
        return []
    found = tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=offsets, verbose=False)
    return found["offset_mapping" if offsets else "input_ids"]


def opening(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """The begin token, for tokenizers that put one before a text (Llama does, Qwen does not)."""
    bos = tokenizer.bos_token_id
    return [bos] if bos is not None and tokenizer("a")["input_ids"][:1] == [bos] else []


def pad_token(tokenizer: "PreTrainedTokenizerBase") -> int:
    return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id


def answer_ids(
    task: "Task", tokenizer: "PreTrainedTokenizerBase", choices: Sequence[str]
) -> dict[str, tuple[int, ...]]:
    """Label word -> its tokens. Two words with the same tokens could not be told apart, so they are refused."""
    if len(set(choices)) < len(choices):
        raise UsageError(f"{task.name}: a label word twice among {', '.join(choices)}; choose another word")
    found = dict(zip(choices, map(tuple, tokens(tokenizer, choices)), strict=True))
    owner: dict[tuple[int, ...], str] = {}
    for word, ids in found.items():
        if not ids:
            raise UsageError(f"{task.name}: label word {word!r} has no tokens in this tokenizer; choose another word")
        if ids in owner:
            both = f"{owner[ids]!r} and {word!r}"
            raise UsageError(f"{task.name}: label words {both} have the same tokens {list(ids)}; choose other words")
        owner[ids] = word
    return found


def cached_encodings(task: "Task", examples: Sequence[Example], training: bool) -> list[Encoded]:
    """`encode`, remembered by content: a grid asks for the same test set once per cell. What was asked for longest ago
    goes first, so that the draws of many seeds take no more room than those of a few."""
    known: OrderedDict[tuple, tuple[int, list[Encoded]]] = CACHE.setdefault(task.tokenizer, OrderedDict())
    key = (task.max_length, task.answer_tokens, training and task.form == "span", tuple(examples))
    if key not in known:
        items = encode(task, task.tokenizer, task.max_length, examples, training)
        known[key] = sum(len(item.prompt) + len(item.answer) for item in items), items
        while len(known) > SETS or (len(known) > 1 and sum(size for size, _ in known.values()) > TOKENS):
            known.popitem(last=False)
    known.move_to_end(key)
    return list(known[key][1])


def encode(
    task: "Task",
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
    examples: Sequence[Example],
    training: bool = False,
) -> list[Encoded]:
    """Token ids of at most `max_length` for prompt and answer together.

    The parts of a prompt (constant start, text before the field, field, rest) are tokenised apart, so that the
    constant start has the same ids everywhere and only the field is cut. A span's answer longer than
    `task.answer_tokens` is trained on up to there, without the end token.
    """
    if tokenizer.eos_token_id is None:
        raise UsageError(f"{task.name}: this tokenizer has no end-of-sequence token, which ends every answer")
    texts = {part: None for example in examples for part in (*parts(example), example.answers[0], *example.choices)}
    ids = dict(zip(texts, tokens(tokenizer, list(texts)), strict=True))
    answers = {choices: answer_ids(task, tokenizer, choices) for choices in {e.choices for e in examples}}
    begin = opening(tokenizer)
    found = []
    for example in examples:
        choices = tuple(answers[example.choices].values())
        answer = (*ids[example.answers[0]], tokenizer.eos_token_id)
        room = max(map(len, choices)) + 1 if choices else task.answer_tokens
        start, before, field, after = (ids[part] for part in parts(example))
        start = begin + start
        space = max_length - room - len(start)
        if space < 1:
            raise UsageError(f"{task.name}: max_length {max_length} is too short: the instruction takes {len(start)}")
        kept = field
        if len(before) + len(field) + len(after) > space:
            kept = fit(example, tokenizer, field, max(0, space - len(before) - len(after)), training)
        item = [*before, *kept, *after][-space:]  # the cue survives even where question and options are too long
        cut = len(before) + len(field) + len(after) - len(item)
        found.append(Encoded(example, (*start, *item), answer[:room], choices, len(start), cut))
    return found


def parts(example: Example) -> tuple[str, str, str, str]:
    """The prompt as constant start, text up to the field, the field, and the rest."""
    prompt, (left, right) = example.prompt, example.field
    return prompt[: example.prefix], prompt[example.prefix : left], prompt[left:right], prompt[right:]


def fit(
    example: Example, tokenizer: "PreTrainedTokenizerBase", field: list[int], space: int, training: bool
) -> list[int]:
    """`space` tokens of the field: its start for choices, a window for spans."""
    if example.choices or space == 0:
        return field[:space]
    text = parts(example)[2]
    places = tokens(tokenizer, [text], offsets=True)[0]
    start = answer_window(example, text, places, space) if training else None
    if start is None:
        start = question_window(example, text, places, space)
    return field[start : start + space]


def answer_window(example: Example, text: str, places: Sequence[tuple[int, int]], space: int) -> int | None:
    """First token of a window that holds the answer, at a place drawn from the uid so that none is typical."""
    left = text.find(example.answers[0])
    if left < 0:
        return None
    inside = [i for i, (a, b) in enumerate(places) if b > left and a < left + len(example.answers[0])]
    low, high = max(0, inside[-1] + 1 - space), min(inside[0], len(places) - space)
    if low > high:  # the answer alone is longer than the window: its start
        return inside[0]
    return low + int(sha1(f"window:{example.uid}".encode()).hexdigest(), 16) % (high - low + 1)


def question_window(example: Example, text: str, places: Sequence[tuple[int, int]], space: int) -> int:
    """First token of the window that shares most character pairs with the question; windows overlap by half.

    A choice that needs no model and no answer. It loses the answer where the question is worded differently.
    """
    question = pairs(parts(example)[3])
    last = len(places) - space
    starts = [*range(0, last, max(1, space // 2)), last]
    return max(starts, key=lambda i: len(question & pairs(text[places[i][0] : places[i + space - 1][1]])))


def lost(tokenizer: "PreTrainedTokenizerBase", items: Sequence[Encoded]) -> list[Encoded]:
    """Spans of which no accepted answer is in what was kept of the prompt: none can be answered right."""
    cut = [item for item in items if item.cut and not item.example.choices]
    kept = ((item, tokenizer.decode(item.prompt[item.prefix :])) for item in cut)
    return [item for item, text in kept if not any(answer in text for answer in item.example.answers)]


def pairs(text: str) -> set[str]:
    return {text[i : i + 2] for i in range(len(text) - 1)}


def collate(items: Sequence[Encoded], slots: Sequence[int], pad_id: int, side: str = "right") -> Batch:
    """Pad prompt + answer to one length; labels are -100 off the answer."""
    if side not in ("left", "right"):
        raise ValueError(f"no side {side!r}; there are: left, right")
    length = max(len(item.prompt) + len(item.answer) for item in items)
    ids = torch.full((len(items), length), pad_id, dtype=torch.long)  # [b, s]
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, -100)
    for row, item in enumerate(items):
        size = len(item.prompt) + len(item.answer)
        first = length - size if side == "left" else 0
        ids[row, first : first + size] = torch.tensor((*item.prompt, *item.answer))
        mask[row, first : first + size] = 1
        labels[row, first + len(item.prompt) : first + size] = torch.tensor(item.answer)
    return Batch(ids, mask, labels, tuple(slots), tuple(item.example for item in items))


def buckets(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Indices in batches of similar length, at most `tokens` with padding (or one item), longest first."""
    found: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        if not found or (len(found[-1]) + 1) * lengths[found[-1][0]] > tokens:
            found.append([])
        found[-1].append(index)
    return found
