"""TODO."""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from methods.core.backbone import Backbone
from methods.core.seeding import create_generator
from tasks.core.types import EncodedExample

MAX_FREQUENT_TOKENS = (
    5000  # rows to sample from, as in Lester et al.; there the vocabulary's first, here training's commonest
)


def initialize_common_prompt(backbone: Backbone, length: int) -> Tensor:
    """One draw [l, d] for all tasks."""
    return initialize_prompt(backbone, length, (), create_generator("prompt", "common start"))


def initialize_prompt(
    backbone: Backbone, length: int, train: Sequence[EncodedExample], generator: torch.Generator
) -> Tensor:
    """Embeddings of real tokens [l, d]."""
    tokenizer = backbone.tokenizer
    ids = select_initial_tokens(train, length, len(tokenizer), set(tokenizer.all_special_ids), generator)
    rows = [backbone.embed(torch.tensor(word, device=backbone.device)).mean(0) for word in ids]
    return torch.stack(rows).detach().float()


def select_initial_tokens(
    train: Sequence[EncodedExample], length: int, vocab_size: int, special_ids: set[int], generator: torch.Generator
) -> list[tuple[int, ...]]:
    """What the prompt starts from, an entry per virtual token: label words (averaged over their tokens), the tokens of
    the instruction, then tokens drawn without replacement from the commonest of the training texts (or from all).
    """
    labels, instruction = select_task_tokens(train, special_ids)
    words = [*labels, *((token,) for token in instruction)]
    counts = Counter(token for item in train for token in item.prompt_ids if token not in special_ids)
    pool = [token for token, _ in counts.most_common(MAX_FREQUENT_TOKENS)]
    if len(words) + len(pool) < length:
        pool = [token for token in range(vocab_size) if token not in special_ids]
    order = torch.randperm(len(pool), generator=generator).tolist()
    words += [(pool[i],) for i in order]
    return [words[i % len(words)] for i in range(length)]


def select_task_tokens(
    train: Sequence[EncodedExample], special_ids: set[int]
) -> tuple[list[tuple[int, ...]], list[int]]:
    """Label words, unless every item brings its own options, and the tokens of the instruction."""
    if not train:
        return [], []
    first = train[0]
    fixed = all(item.choice_ids == first.choice_ids for item in train)
    instruction = [token for token in first.prompt_ids[: first.prefix_length] if token not in special_ids]
    return list(dict.fromkeys(first.choice_ids)) if fixed else [], instruction
