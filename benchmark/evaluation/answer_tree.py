"""Prefix tree of a set of answers, in which all of them are scored in one row."""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

Answers = tuple[tuple[int, ...], ...]


class AnswerTree(NamedTuple):
    """Prefix tree of n answers with at most j tokens: each of the m distinct proper prefixes is a node.

    In `context_node`, 0 is the end of the prompt (the root) and i + 1 is node i.
    """

    token_ids: Tensor  # [m] last token of each prefix
    depth: Tensor  # [m] number of tokens between it and the prompt
    attention_mask: Tensor  # [m, m] bool: a node attends to itself and its own prefixes
    context_node: Tensor  # [n, j] the node after which the j-th token of answer n follows
    answer_ids: Tensor  # [n, j] the answer tokens
    answer_mask: Tensor  # [n, j] bool: False beyond the end of an answer


@lru_cache(maxsize=4096)
def build_answer_tree(answers: Answers) -> AnswerTree:
    """Build the prefix tree of the answers.

    Shared prefixes appear once; the last token of an answer is only a prediction target, never an input.
    """
    nodes: dict[tuple[int, ...], int] = {}
    for answer in answers:
        for end in range(1, len(answer)):
            nodes.setdefault(answer[:end], len(nodes))
    attention_mask = torch.tensor([[key == query[: len(key)] for key in nodes] for query in nodes], dtype=torch.bool)
    steps = [[(nodes[answer[:j]] + 1 if j else 0, answer[j]) for j in range(len(answer))] for answer in answers]
    padded = pad_sequence([torch.tensor(pairs) for pairs in steps], batch_first=True)  # [n, j, 2]
    lengths = torch.tensor([len(answer) for answer in answers])
    return AnswerTree(
        token_ids=torch.tensor([prefix[-1] for prefix in nodes], dtype=torch.long),
        depth=torch.tensor([len(prefix) - 1 for prefix in nodes], dtype=torch.long),
        attention_mask=attention_mask.reshape(len(nodes), len(nodes)),
        context_node=padded[..., 0],
        answer_ids=padded[..., 1],
        answer_mask=torch.arange(padded.shape[1]) < lengths[:, None],
    )
