"""Initial values of soft prompts: embeddings of label words, instruction and frequent tokens (arXiv:2104.08691)."""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from methods.core.backbone import Backbone
from methods.core.seeding import create_generator
from tasks.core.types import EncodedExample

# tokens to sample from: the vocabulary's first 5000 in Lester et al., here the most frequent of the training texts
MAX_FREQUENT_TOKENS = 5000


def initialize_common_prompt(backbone: Backbone, length: int) -> Tensor:
    """Initial prompt [l, d] that is the same for all tasks and seeds."""
    return initialize_prompt(backbone, length, (), create_generator("prompt", "common start"))


def initialize_prompt(
    backbone: Backbone, length: int, train: Sequence[EncodedExample], generator: torch.Generator
) -> Tensor:
    """Initial prompt [l, d] from embeddings of the tokens that `select_initial_tokens` returns."""
    tokenizer = backbone.tokenizer
    words = select_initial_tokens(train, length, len(tokenizer), set(tokenizer.all_special_ids), generator)
    rows = [backbone.embed(torch.tensor(word, device=backbone.device)).mean(0) for word in words]
    return torch.stack(rows).detach().float()


def select_initial_tokens(
    train: Sequence[EncodedExample], length: int, vocab_size: int, special_ids: set[int], generator: torch.Generator
) -> list[tuple[int, ...]]:
    """Select the token ids of each virtual token's initial embedding, which is their mean.

    In this order: the label words, the tokens of the instruction, then tokens sampled without replacement from the most
    frequent ones of the training texts (from the whole vocabulary if these are too few).
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
    """Label words (none if examples have different choices) and the tokens of the instruction."""
    if not train:
        return [], []
    first = train[0]
    has_fixed_choices = all(item.choice_ids == first.choice_ids for item in train)
    instruction = [token for token in first.prompt_ids[: first.prefix_length] if token not in special_ids]
    labels = list(dict.fromkeys(first.choice_ids)) if has_fixed_choices else []
    return labels, instruction
