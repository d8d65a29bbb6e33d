"""Data types shared by tasks, methods and the benchmark. Importing this module does not import torch."""

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class UsageError(ValueError):
    """Invalid input. The message is one line: location, problem and remedy."""


class Example(NamedTuple):
    """One labelled example as text: a prompt that ends where the answer begins, and the accepted answers."""

    uid: str  # task name + hash of the values; independent of template and label words
    task_name: str
    prompt: str
    answers: tuple[str, ...]  # all are accepted in scoring; the first is the training target
    choices: tuple[str, ...] = ()  # empty: the answer is free text
    truncatable_span: tuple[int, int] = (0, 0)  # [start, end) characters of the prompt that are truncated if needed
    group_id: str = ""  # examples of one sentence or document stay in one split; "": the example is its own group
    prefix_length: int = 0  # characters at the start of the prompt that all examples of the task share


class EncodedExample(NamedTuple):
    """An example as token ids."""

    example: Example
    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]  # with the end-of-sequence token, unless truncated
    choice_ids: tuple[tuple[int, ...], ...]  # without end-of-sequence token
    prefix_length: int  # number of leading ids that all prompts of the task share
    num_cut_tokens: int = 0  # number of prompt tokens that were truncated


class Batch(NamedTuple):
    """Input of the backbone: b rows of s tokens. A NamedTuple, because Lightning cannot move a frozen dataclass."""

    input_ids: "Tensor"  # [b, s]
    attention_mask: "Tensor"  # [b, s]
    labels: "Tensor"  # [b, s], -100 outside the answer
    slots: tuple[int, ...]  # [b], index of the task or cell that each row belongs to
    examples: tuple[Example, ...]


class Episode(NamedTuple):
    """One meta-learning step: n tasks, each with k support batches and one query batch of other examples."""

    # batches; after planning, the micro-batches of each batch
    support: tuple[tuple[Any, ...], ...]  # [n][k]
    query: tuple[Any, ...]  # [n]
