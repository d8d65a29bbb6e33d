"""Encoding of examples as token ids, truncation of long prompts, and padded batches."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha1
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch

from tasks.core.types import Batch, EncodedExample, Example, UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# tokenizer -> {(limits, examples): (number of tokens, encoded examples)}
ENCODING_CACHE: WeakKeyDictionary = WeakKeyDictionary()
MAX_CACHED_SETS = 128  # per tokenizer
MAX_CACHED_TOKENS = 2**25  # per tokenizer; a token takes 20 to 40 bytes


@dataclass(frozen=True)
class EncodingSpec:
    """How the examples of a task become tokens. `max_length` limits prompt and answer together, in tokens."""

    task_name: str  # for error messages
    tokenizer: "PreTrainedTokenizerBase"
    max_length: int
    answer_tokens: int  # limit of a span answer
    form: str  # "choice" or "span"


def tokenize_texts(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], return_offsets: bool = False) -> list:
    """Return the token ids of each text, or the [start, end) characters of its tokens, without special tokens."""
    if not texts:
        return []
    encoding = tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=return_offsets, verbose=False)
    return encoding["offset_mapping" if return_offsets else "input_ids"]


def get_bos_ids(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Return the begin-of-sequence id if the tokenizer adds one to a text (Llama), else an empty list (Qwen)."""
    bos = tokenizer.bos_token_id
    return [bos] if bos is not None and tokenizer("a")["input_ids"][:1] == [bos] else []


def get_pad_token_id(tokenizer: "PreTrainedTokenizerBase") -> int:
    """Return the padding id, or the end-of-sequence id if the tokenizer has none."""
    return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id


def tokenize_label_words(
    task_name: str, tokenizer: "PreTrainedTokenizerBase", label_words: Sequence[str]
) -> dict[str, tuple[int, ...]]:
    """Return label word -> token ids. Raises UsageError if a word has no tokens or two words have the same tokens."""
    if len(set(label_words)) < len(label_words):
        raise UsageError(f"{task_name}: duplicate label word among {', '.join(label_words)}; choose another word")
    ids_by_word = dict(zip(label_words, map(tuple, tokenize_texts(tokenizer, label_words)), strict=True))
    word_by_ids: dict[tuple[int, ...], str] = {}
    for word, ids in ids_by_word.items():
        if not ids:
            raise UsageError(f"{task_name}: label word {word!r} has no tokens in this tokenizer; choose another word")
        if ids in word_by_ids:
            raise UsageError(
                f"{task_name}: label words {word_by_ids[ids]!r} and {word!r} have the same tokens {list(ids)}; "
                "choose other words"
            )
        word_by_ids[ids] = word
    return ids_by_word


def encode_cached(spec: EncodingSpec, examples: Sequence[Example], is_training: bool) -> list[EncodedExample]:
    """Call `encode_examples` with a cache keyed by content, because many cells of a grid use the same test set.

    The least recently used sets are evicted when a tokenizer has too many sets or tokens.
    """
    cache: OrderedDict[tuple, tuple[int, list[EncodedExample]]]
    cache = ENCODING_CACHE.setdefault(spec.tokenizer, OrderedDict())
    key = (spec.max_length, spec.answer_tokens, is_training and spec.form == "span", tuple(examples))
    if key not in cache:
        encoded = encode_examples(spec, examples, is_training)
        cache[key] = sum(len(item.prompt_ids) + len(item.answer_ids) for item in encoded), encoded
        while len(cache) > MAX_CACHED_SETS or (
            len(cache) > 1 and sum(size for size, _ in cache.values()) > MAX_CACHED_TOKENS
        ):
            cache.popitem(last=False)
    cache.move_to_end(key)
    return list(cache[key][1])


def encode_examples(spec: EncodingSpec, examples: Sequence[Example], is_training: bool = False) -> list[EncodedExample]:
    """Encode examples with at most `spec.max_length` tokens for prompt and answer together.

    The segments of a prompt (shared prefix, text before the truncatable field, field, rest) are tokenized separately,
    so that the shared prefix has the same ids in all examples and only the field is truncated. A span answer longer
    than `spec.answer_tokens` is truncated to that length and has no end-of-sequence token.
    """
    tokenizer = spec.tokenizer
    if tokenizer.eos_token_id is None:
        raise UsageError(f"{spec.task_name}: this tokenizer has no end-of-sequence token, which must end every answer")
    texts = dict.fromkeys(
        text for example in examples for text in (*split_prompt(example), example.answers[0], *example.choices)
    )
    ids = dict(zip(texts, tokenize_texts(tokenizer, list(texts)), strict=True))
    label_ids = {
        choices: tokenize_label_words(spec.task_name, tokenizer, choices) for choices in {e.choices for e in examples}
    }
    bos_ids = get_bos_ids(tokenizer)
    encoded = []
    for example in examples:
        choice_ids = tuple(label_ids[example.choices].values())
        answer_ids = (*ids[example.answers[0]], tokenizer.eos_token_id)
        max_answer = max(map(len, choice_ids)) + 1 if choice_ids else spec.answer_tokens
        prefix, before, field, after = (ids[text] for text in split_prompt(example))
        prefix = bos_ids + prefix
        max_rest = spec.max_length - max_answer - len(prefix)  # tokens for before, field and after
        if max_rest < 1:
            raise UsageError(
                f"{spec.task_name}: max_length {spec.max_length} is too short: the instruction takes {len(prefix)} tokens"
            )
        length = len(before) + len(field) + len(after)
        if length > max_rest:
            field = truncate_field(example, tokenizer, field, max(0, max_rest - len(before) - len(after)), is_training)
        rest = [*before, *field, *after][-max_rest:]  # the cue is kept even if question and options are too long
        num_cut = length - len(rest)
        encoded.append(
            EncodedExample(example, (*prefix, *rest), answer_ids[:max_answer], choice_ids, len(prefix), num_cut)
        )
    return encoded


def split_prompt(example: Example) -> tuple[str, str, str, str]:
    """Split a prompt into shared prefix, text before the truncatable field, the field, and the rest."""
    prompt = example.prompt
    left, right = example.truncatable_span
    return prompt[: example.prefix_length], prompt[example.prefix_length : left], prompt[left:right], prompt[right:]


def truncate_field(
    example: Example, tokenizer: "PreTrainedTokenizerBase", field_ids: list[int], max_tokens: int, is_training: bool
) -> list[int]:
    """Truncate the field to `max_tokens`: keep its start for choices, and a window for spans."""
    if example.choices or max_tokens == 0:
        return field_ids[:max_tokens]
    text = split_prompt(example)[2]
    offsets = tokenize_texts(tokenizer, [text], return_offsets=True)[0]
    start = find_answer_window(example, text, offsets, max_tokens) if is_training else None
    if start is None:
        start = find_question_window(example, text, offsets, max_tokens)
    return field_ids[start : start + max_tokens]


def find_answer_window(example: Example, text: str, offsets: Sequence[tuple[int, int]], max_tokens: int) -> int | None:
    """Return the first token of a window that contains the answer; None if the text does not contain it.

    The answer's position in the window is sampled (seed: the uid), so that a model cannot learn a typical position.
    """
    left = text.find(example.answers[0])
    if left < 0:
        return None
    inside = [i for i, (a, b) in enumerate(offsets) if b > left and a < left + len(example.answers[0])]
    low = max(0, inside[-1] + 1 - max_tokens)
    high = min(inside[0], len(offsets) - max_tokens)
    if low > high:  # the answer is longer than the window: keep its start
        return inside[0]
    return low + int(sha1(f"window:{example.uid}".encode()).hexdigest(), 16) % (high - low + 1)


def find_question_window(example: Example, text: str, offsets: Sequence[tuple[int, int]], max_tokens: int) -> int:
    """Return the first token of the window that shares most character bigrams with the question.

    Windows overlap by half. The heuristic uses neither a model nor the answer, so it can lose the answer if the
    question is worded differently from the text.
    """
    question = get_bigrams(split_prompt(example)[3])
    last = len(offsets) - max_tokens
    starts = [*range(0, last, max(1, max_tokens // 2)), last]
    return max(starts, key=lambda i: len(question & get_bigrams(text[offsets[i][0] : offsets[i + max_tokens - 1][1]])))


def find_lost_answers(tokenizer: "PreTrainedTokenizerBase", items: Sequence[EncodedExample]) -> list[EncodedExample]:
    """Return the truncated span examples whose remaining prompt contains no accepted answer."""
    truncated = [item for item in items if item.num_cut_tokens and not item.example.choices]
    texts = ((item, tokenizer.decode(item.prompt_ids[item.prefix_length :])) for item in truncated)
    return [item for item, text in texts if not any(answer in text for answer in item.example.answers)]


def get_bigrams(text: str) -> set[str]:
    """Return all pairs of adjacent characters."""
    return {text[i : i + 2] for i in range(len(text) - 1)}


def collate(items: Sequence[EncodedExample], slots: Sequence[int], pad_id: int, padding_side: str = "right") -> Batch:
    """Pad b rows of prompt and answer to the longest, s tokens; labels are -100 outside the answer.

    slots: [b], the task or cell of each row.
    """
    if padding_side not in ("left", "right"):
        raise ValueError(f"unknown padding_side {padding_side!r}; there are: left, right")
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
    """Group indices by length into batches of at most `max_tokens` with padding (or one item), longest first."""
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        if not batches or (len(batches[-1]) + 1) * lengths[batches[-1][0]] > max_tokens:
            batches.append([])
        batches[-1].append(index)
    return batches
