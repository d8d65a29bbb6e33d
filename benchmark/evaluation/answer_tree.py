"""TODO."""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

Answers = tuple[tuple[int, ...], ...]


class AnswerTree(NamedTuple):
    """The beginnings of a set of answers, each once: m nodes below the end of the prompt, which is node 0 of `node`."""

    token_ids: Tensor  # [m] token of each beginning's end
    depth: Tensor  # [m] tokens between it and the prompt
    attention_mask: Tensor  # [m, m] itself and its own beginning
    context_node: Tensor  # [n, j] after which beginning (0: the prompt) comes the j-th token of answer n
    answer_ids: Tensor  # [n, j] that token
    answer_mask: Tensor  # [n, j] false past an answer's end


@lru_cache(maxsize=4096)
def build_answer_tree(answers: Answers) -> AnswerTree:
    """Beginnings shared by several answers appear once; the last token of an answer is never fed, only predicted."""
    nodes: dict[tuple[int, ...], int] = {}
    for answer in answers:
        for end in range(1, len(answer)):
            nodes.setdefault(answer[:end], len(nodes))
    sees = torch.tensor([[to == of[: len(to)] for to in nodes] for of in nodes], dtype=torch.bool)
    steps = [[(nodes[answer[:j]] + 1 if j else 0, answer[j]) for j in range(len(answer))] for answer in answers]
    padded = pad_sequence([torch.tensor(pairs) for pairs in steps], batch_first=True)  # [n, j, 2]
    size = torch.tensor([len(answer) for answer in answers])
    return AnswerTree(
        token_ids=torch.tensor([beginning[-1] for beginning in nodes], dtype=torch.long),
        depth=torch.tensor([len(beginning) - 1 for beginning in nodes], dtype=torch.long),
        attention_mask=sees.reshape(len(nodes), len(nodes)),
        context_node=padded[..., 0],
        answer_ids=padded[..., 1],
        answer_mask=torch.arange(padded.shape[1]) < size[:, None],
    )
