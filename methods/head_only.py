"""Head only: a logistic regression on the frozen model's last hidden state of the prompt.

It measures what a task gains without any change inside the model. The features are the last hidden state h [d] at the
final prompt position, each standardised over the training examples; p(i) = softmax_i(W h + b) minimises sum of -log p +
l2 / 2 |W|^2 (convex: one solution for every seed). A class is an index among the choices: the label word, or for C3,
whose items have different options, the option's letter; the softmax covers only the options that an item has. Tasks
with free-text answers (spans) have no classes, so this control has no score there.

Fitted: n (d + 1) numbers for n choices.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from methods.base import Method, SlotParameter, Stage
from tasks.core.encoding import group_by_length
from tasks.core.types import EncodedExample, UsageError

TOKENS_PER_BATCH = 8192  # padded tokens in one forward pass


class HeadOnly(Method):
    """Control: a linear classifier on the frozen features."""

    name = "head_only"
    trained_part = "a logistic regression on the last hidden state"
    uses_gradient_descent = False  # fitted in `begin_stage`, not by steps
    supported_forms = ("choice",)

    @dataclass(frozen=True)
    class Config(Method.Config):
        l2: float = 1.0

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.l2 <= 0:
                raise UsageError(f"head_only: l2 is above 0 (without it there is no one solution), found {self.l2}")

    config: Config

    def build(self) -> None:
        self.head = SlotParameter(self.slot_context)  # [W | b] [n, d + 1] of each slot

    def begin_stage(
        self, stage: Stage, seeds: Sequence[int], train_examples: Sequence[Sequence[EncodedExample]] = ()
    ) -> None:
        for items in train_examples or [()]:
            if not items or not all(item.choice_ids for item in items):
                task = items[0].example.task_name if items else "no task"
                raise UsageError(f"method head_only fits on training examples with choices, and {task} gives none")
        super().begin_stage(stage, seeds, train_examples)

    def initialize_slot(self, generator: torch.Generator, train_examples: Sequence[EncodedExample]) -> None:
        answers = [item.example.choices.index(item.example.answers[0]) for item in train_examples]
        options = torch.tensor([len(item.choice_ids) for item in train_examples])
        self.head.add_slot(
            fit_logistic_regression(
                self.extract_features(train_examples).double(), torch.tensor(answers), options, self.config.l2
            ).float()
        )
        self.head.requires_grad_(False)  # not trained by gradient descent

    def load(self, state: Mapping[str, Tensor]) -> None:
        super().load(state)
        self.head.requires_grad_(False)

    @torch.no_grad()
    def extract_features(self, items: Sequence[EncodedExample]) -> Tensor:
        """Last hidden state at the end of each prompt [len(items), d], on the CPU."""
        device = self.backbone.device
        features = torch.empty(len(items), self.backbone.hidden_size)
        for block in group_by_length([len(item.prompt_ids) for item in items], TOKENS_PER_BATCH):
            rows = [torch.tensor(items[i].prompt_ids) for i in block]
            ids = pad_sequence(rows, batch_first=True).to(device)
            size = torch.tensor([len(row) for row in rows], device=device)
            mask = (torch.arange(ids.shape[1], device=device) < size[:, None]).long()
            hidden = self.compute_hidden_states(ids, mask, (0,) * len(block), query_positions=size[:, None] - 1)
            features[block] = hidden[:, 0].float().cpu()
        return features

    def predict_without_scoring(self, examples: Sequence[EncodedExample], slots: Sequence[int]) -> list[str]:
        heads = [self.head.for_slot(slot).detach().cpu() for slot in slots]
        answers = []
        for item, head, h in zip(examples, heads, self.extract_features(examples), strict=True):
            logits = head[: len(item.choice_ids), :-1] @ h + head[: len(item.choice_ids), -1]
            answers.append(item.example.choices[int(logits.argmax())])
        return answers

    def count_trained_parameters(self, slots: int = 1) -> int:
        return slots * sum(head.numel() for head in self.head.tensors[:1])


def fit_logistic_regression(x: Tensor, y: Tensor, num_options: Tensor, l2: float) -> Tensor:
    """Fit [W | b] [n, d + 1] for unstandardised features: x [m, d], classes y [m], options per item [m]."""
    mean = x.mean(0)
    spread = x.std(0, correction=0).clamp(min=1e-6)
    z = (x - mean) / spread
    n = int(num_options.max())
    absent = torch.arange(n) >= num_options[:, None]  # [m, n]
    weight, bias = (torch.zeros(n, size, dtype=x.dtype, requires_grad=True) for size in (x.shape[1], 1))
    solver = torch.optim.LBFGS(
        [weight, bias], max_iter=1000, tolerance_grad=1e-8, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        solver.zero_grad()
        logits = (z @ weight.T + bias[:, 0]).masked_fill(absent, -torch.inf)
        value = F.cross_entropy(logits, y, reduction="sum") + l2 / 2 * weight.pow(2).sum()
        value.backward()
        return value

    solver.step(loss)
    weight = weight.detach() / spread
    return torch.cat([weight, bias.detach() - weight @ mean[:, None]], 1)
