"""The plain tuples that pass between tasks, methods and harness. Light: imports no torch, so anyone may import it."""

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class UsageError(ValueError):
    """Bad input, in one line: what is wrong, where, and what to do."""


class Example(NamedTuple):
    """One labelled item, readable as text: a prompt that ends where the answer begins, and the accepted answers."""

    uid: str  # task name + hash of the item's own text: the same under another template or label word
    task_name: str
    prompt: str
    answers: tuple[str, ...]  # the first is trained on, all are accepted
    choices: tuple[str, ...] = ()  # empty: free text
    truncatable_span: tuple[int, int] = (0, 0)  # prompt[field[0]:field[1]] is the text that may be cut when too long
    group_id: str = ""  # items of one sentence or document stay in one split; "" is a group of its own
    prefix_length: int = 0  # prompt[:prefix] is the same for all examples of the task


class EncodedExample(NamedTuple):
    """An example as token ids."""

    example: Example
    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]  # ends in the end-of-sequence token
    choice_ids: tuple[tuple[int, ...], ...]  # without it
    prefix_length: int  # leading ids that all prompts of the task share
    num_cut_tokens: int = 0  # tokens of the prompt that were left out


class Batch(NamedTuple):
    """What passes through the backbone. A NamedTuple, because Lightning refuses to move a frozen dataclass."""

    input_ids: "Tensor"  # [b, s]
    attention_mask: "Tensor"  # [b, s]
    labels: "Tensor"  # [b, s], -100 off the answer
    slots: tuple[int, ...]  # whose row each row is
    examples: tuple[Example, ...]


class Episode(NamedTuple):
    """One step of meta-learning: n tasks, each with batches to adapt to it by, and one of other examples to judge by."""

    # batches, and once they are planned, the passes of each
    support: tuple[tuple[Any, ...], ...]  # [n][k]
    query: tuple[Any, ...]  # [n]
