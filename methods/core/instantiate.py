"""TODO."""

from collections.abc import Callable

import torch
from torch import Tensor

from methods import load_method
from methods.base import Method, Stage
from methods.core.backbone import Backbone
from methods.core.config import MethodConfig
from tasks.core.types import EncodedExample, Example

NUM_SLOTS = 3


SHARED_PREFIX_LENGTH = 12


def generate_examples(
    num_examples: int, seed: int, *, prefix_length: int = SHARED_PREFIX_LENGTH, max_text_length: int = 24
) -> list[EncodedExample]:
    """Random prompts of unequal length with a common lead, and one of three answers of unequal length."""
    draw = torch.Generator().manual_seed(seed)

    def ids(size: int) -> tuple[int, ...]:
        return tuple(torch.randint(5, 250, (size,), generator=draw).tolist())

    start, choices, found = ids(prefix_length), (ids(1), ids(2), ids(3)), []
    for i in range(num_examples):
        size, answer = int(torch.randint(3, max_text_length, (1,), generator=draw)), choices[i % 3]
        example = Example(f"toy:{seed}:{i}", "toy", "", ("abc"[i % 3],), ("a", "b", "c"))
        found.append(EncodedExample(example, start + ids(size), (*answer, 1), choices, prefix_length))
    return found


def instantiate_method(
    method_class: type[Method],
    backbone: Backbone,
    num_slots: int = NUM_SLOTS,
    *,
    perturb: bool = True,
    config: MethodConfig | None = None,
    after_stage_begin: Callable[[Method], object] | None = None,
) -> Method:
    """A method that has gone through its stages up to the target; `away`: its parameters moved from where they start.

    Away from the start, because a wrong formula often agrees with a right one where B = 0. `then`: done in every stage.
    """
    num_slots = num_slots if method_class.is_packable else 1
    states = create_source_states(method_class, backbone, config)
    method = method_class(backbone, config)
    if states:
        method.load_source_states(states)
    for stage in method_class.stages:
        begin_synthetic_stage(method, stage, num_slots)
        if perturb:
            perturb_parameters(method)
        if after_stage_begin:
            after_stage_begin(method)
    return method.eval()


def create_source_states(
    method_class: type[Method], backbone: Backbone, config: MethodConfig | None = None
) -> list[dict[str, Tensor]]:
    """What the method's parents learned on two sources."""
    if method_class.dependency is None:
        return []
    kind = load_method(method_class.dependency.method_name)
    found = instantiate_method(
        kind,
        backbone,
        2,
        config=kind.parse_config(method_class.dependency.resolve_options(config or method_class.Config())),
    )
    return [{name: tensor.clone() for name, tensor in found.slot_state_dict(slot).items()} for slot in range(2)]


def begin_synthetic_stage(method: Method, stage: Stage, num_slots: int) -> None:
    count = 2 if stage.trained_on == "sources" else num_slots
    method.begin_stage(stage, list(range(count)), [generate_examples(6, 100 + i) for i in range(count)])


@torch.no_grad()
def perturb_parameters(method: Method, scale: float = 0.1) -> None:
    draw = torch.Generator().manual_seed(7)
    for parameter in method.parameters():
        if parameter.requires_grad:
            parameter += (scale * torch.randn(parameter.shape, generator=draw)).to(parameter.device)
