"""Examples as token ids: what is cut when too long, the check of the label words, and padded batches."""

from collections import OrderedDict
from collections.abc import Sequence
from hashlib import sha1
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch

from tasks.core.types import Batch, EncodedExample, Example, UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tasks.base import Task

ENCODING_CACHE: WeakKeyDictionary = (
    WeakKeyDictionary()
)  # tokenizer -> {(limits, examples): (their tokens, Encoded of each)}
MAX_CACHED_SETS = 128  # most that are kept for a tokenizer
MAX_CACHED_TOKENS = 2**25  # a token takes 20 to 40 bytes


def tokenize_texts(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], return_offsets: bool = False) -> list:
    """Ids of each text (or its [start, end) characters), with no special tokens."""
    if not texts:
        return []
    found = tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=return_offsets, verbose=False)
    return found["offset_mapping" if return_offsets else "input_ids"]


def get_bos_ids(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """The begin token, for tokenizers that put one before a text (Llama does, Qwen does not)."""
    bos = tokenizer.bos_token_id
    return [bos] if bos is not None and tokenizer("a")["input_ids"][:1] == [bos] else []


def get_pad_token_id(tokenizer: "PreTrainedTokenizerBase") -> int:
    return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id


def tokenize_label_words(
    task: "Task", tokenizer: "PreTrainedTokenizerBase", label_words: Sequence[str]
) -> dict[str, tuple[int, ...]]:
    """Label word -> its tokens. Two words with the same tokens could not be told apart, so they are refused."""
    if len(set(label_words)) < len(label_words):
        raise UsageError(f"{task.name}: a label word twice among {', '.join(label_words)}; choose another word")
    found = dict(zip(label_words, map(tuple, tokenize_texts(tokenizer, label_words)), strict=True))
    owner: dict[tuple[int, ...], str] = {}
    for word, ids in found.items():
        if not ids:
            raise UsageError(f"{task.name}: label word {word!r} has no tokens in this tokenizer; choose another word")
        if ids in owner:
            both = f"{owner[ids]!r} and {word!r}"
            raise UsageError(f"{task.name}: label words {both} have the same tokens {list(ids)}; choose other words")
        owner[ids] = word
    return found


def encode_cached(task: "Task", examples: Sequence[Example], is_training: bool) -> list[EncodedExample]:
    """`encode`, remembered by content: a grid asks for the same test set once per cell. What was asked for longest ago
    goes first, so that the draws of many seeds take no more room than those of a few."""
    known: OrderedDict[tuple, tuple[int, list[EncodedExample]]] = ENCODING_CACHE.setdefault(
        task.tokenizer, OrderedDict()
    )
    key = (task.max_length, task.answer_tokens, is_training and task.form == "span", tuple(examples))
    if key not in known:
        items = encode_examples(task, task.tokenizer, task.max_length, examples, is_training)
        known[key] = sum(len(item.prompt_ids) + len(item.answer_ids) for item in items), items
        while len(known) > MAX_CACHED_SETS or (
            len(known) > 1 and sum(size for size, _ in known.values()) > MAX_CACHED_TOKENS
        ):
            known.popitem(last=False)
    known.move_to_end(key)
    return list(known[key][1])


def encode_examples(
    task: "Task",
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
    examples: Sequence[Example],
    is_training: bool = False,
) -> list[EncodedExample]:
    """Token ids of at most `max_length` for prompt and answer together.

    The parts of a prompt (constant start, text before the field, field, rest) are tokenised apart, so that the
    constant start has the same ids everywhere and only the field is cut. A span's answer longer than
    `task.answer_tokens` is trained on up to there, without the end token.
    """
    if tokenizer.eos_token_id is None:
        raise UsageError(f"{task.name}: this tokenizer has no end-of-sequence token, which ends every answer")
    texts = {
        part: None for example in examples for part in (*split_prompt(example), example.answers[0], *example.choices)
    }
    ids = dict(zip(texts, tokenize_texts(tokenizer, list(texts)), strict=True))
    answers = {choices: tokenize_label_words(task, tokenizer, choices) for choices in {e.choices for e in examples}}
    begin = get_bos_ids(tokenizer)
    found = []
    for example in examples:
        choices = tuple(answers[example.choices].values())
        answer = (*ids[example.answers[0]], tokenizer.eos_token_id)
        room = max(map(len, choices)) + 1 if choices else task.answer_tokens
        start, before, field, after = (ids[part] for part in split_prompt(example))
        start = begin + start
        space = max_length - room - len(start)
        if space < 1:
            raise UsageError(f"{task.name}: max_length {max_length} is too short: the instruction takes {len(start)}")
        kept = field
        if len(before) + len(field) + len(after) > space:
            kept = truncate_field(example, tokenizer, field, max(0, space - len(before) - len(after)), is_training)
        item = [*before, *kept, *after][-space:]  # the cue survives even where question and options are too long
        cut = len(before) + len(field) + len(after) - len(item)
        found.append(EncodedExample(example, (*start, *item), answer[:room], choices, len(start), cut))
    return found


def split_prompt(example: Example) -> tuple[str, str, str, str]:
    """The prompt as constant start, text up to the field, the field, and the rest."""
    prompt, (left, right) = example.prompt, example.truncatable_span
    return prompt[: example.prefix_length], prompt[example.prefix_length : left], prompt[left:right], prompt[right:]


def truncate_field(
    example: Example, tokenizer: "PreTrainedTokenizerBase", field_ids: list[int], max_tokens: int, is_training: bool
) -> list[int]:
    """`space` tokens of the field: its start for choices, a window for spans."""
    if example.choices or max_tokens == 0:
        return field_ids[:max_tokens]
    text = split_prompt(example)[2]
    places = tokenize_texts(tokenizer, [text], return_offsets=True)[0]
    start = find_answer_window(example, text, places, max_tokens) if is_training else None
    if start is None:
        start = find_question_window(example, text, places, max_tokens)
    return field_ids[start : start + max_tokens]


def find_answer_window(example: Example, text: str, offsets: Sequence[tuple[int, int]], max_tokens: int) -> int | None:
    """First token of a window that holds the answer, at a place drawn from the uid so that none is typical."""
    left = text.find(example.answers[0])
    if left < 0:
        return None
    inside = [i for i, (a, b) in enumerate(offsets) if b > left and a < left + len(example.answers[0])]
    low, high = max(0, inside[-1] + 1 - max_tokens), min(inside[0], len(offsets) - max_tokens)
    if low > high:  # the answer alone is longer than the window: its start
        return inside[0]
    return low + int(sha1(f"window:{example.uid}".encode()).hexdigest(), 16) % (high - low + 1)


def find_question_window(example: Example, text: str, offsets: Sequence[tuple[int, int]], max_tokens: int) -> int:
    """First token of the window that shares most character pairs with the question; windows overlap by half.

    A choice that needs no model and no answer. It loses the answer where the question is worded differently.
    """
    question = get_bigrams(split_prompt(example)[3])
    last = len(offsets) - max_tokens
    starts = [*range(0, last, max(1, max_tokens // 2)), last]
    return max(starts, key=lambda i: len(question & get_bigrams(text[offsets[i][0] : offsets[i + max_tokens - 1][1]])))


def find_lost_answers(tokenizer: "PreTrainedTokenizerBase", items: Sequence[EncodedExample]) -> list[EncodedExample]:
    """Spans of which no accepted answer is in what was kept of the prompt: none can be answered right."""
    cut = [item for item in items if item.num_cut_tokens and not item.example.choices]
    kept = ((item, tokenizer.decode(item.prompt_ids[item.prefix_length :])) for item in cut)
    return [item for item, text in kept if not any(answer in text for answer in item.example.answers)]


def get_bigrams(text: str) -> set[str]:
    return {text[i : i + 2] for i in range(len(text) - 1)}


def collate(items: Sequence[EncodedExample], slots: Sequence[int], pad_id: int, padding_side: str = "right") -> Batch:
    """Pad prompt + answer to one length; labels are -100 off the answer."""
    if padding_side not in ("left", "right"):
        raise ValueError(f"no side {padding_side!r}; there are: left, right")
    length = max(len(item.prompt_ids) + len(item.answer_ids) for item in items)
    ids = torch.full((len(items), length), pad_id, dtype=torch.long)  # [b, s]
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, -100)
    for row, item in enumerate(items):
        size = len(item.prompt_ids) + len(item.answer_ids)
        first = length - size if padding_side == "left" else 0
        ids[row, first : first + size] = torch.tensor((*item.prompt_ids, *item.answer_ids))
        mask[row, first : first + size] = 1
        labels[row, first + len(item.prompt_ids) : first + size] = torch.tensor(item.answer_ids)
    return Batch(ids, mask, labels, tuple(slots), tuple(item.example for item in items))


def group_by_length(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Indices in batches of similar length, at most `tokens` with padding (or one item), longest first."""
    found: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        if not found or (len(found[-1]) + 1) * lengths[found[-1][0]] > max_tokens:
            found.append([])
        found[-1].append(index)
    return found
