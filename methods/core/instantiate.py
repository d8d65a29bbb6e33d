"""Instantiate a method on synthetic examples in its target stage, for conformance checks and parameter counts."""

from collections.abc import Callable

import torch
from torch import Tensor

from methods import load_method
from methods.base import Method, Stage
from methods.core.backbone import Backbone
from methods.core.config import MethodConfig
from tasks.core.types import EncodedExample, Example

NUM_SLOTS = 3
SHARED_PREFIX_LENGTH = 12  # tokens


def generate_examples(
    num_examples: int, seed: int, *, prefix_length: int = SHARED_PREFIX_LENGTH, max_text_length: int = 24
) -> list[EncodedExample]:
    """Random prompts of different lengths with a common prefix, each with one of three answers of different lengths."""
    generator = torch.Generator().manual_seed(seed)

    def sample_ids(length: int) -> tuple[int, ...]:
        return tuple(torch.randint(5, 250, (length,), generator=generator).tolist())

    prefix = sample_ids(prefix_length)
    choices = (sample_ids(1), sample_ids(2), sample_ids(3))
    examples = []
    for i in range(num_examples):
        text_length = int(torch.randint(3, max_text_length, (1,), generator=generator))
        example = Example(f"toy:{seed}:{i}", "toy", "", ("abc"[i % 3],), ("a", "b", "c"))
        prompt_ids = prefix + sample_ids(text_length)
        examples.append(EncodedExample(example, prompt_ids, (*choices[i % 3], 1), choices, prefix_length))
    return examples


def instantiate_method(
    method_class: type[Method],
    backbone: Backbone,
    num_slots: int = NUM_SLOTS,
    *,
    perturb: bool = True,
    config: MethodConfig | None = None,
    after_stage_begin: Callable[[Method], object] | None = None,
) -> Method:
    """Instantiate a method and begin all of its stages; it is returned in its last stage, in evaluation mode.

    `perturb` adds noise to the trainable parameters in every stage: at the initial values (such as B = 0 in LoRA) a
    wrong formula often agrees with the right one. `after_stage_begin` is called in every stage.
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
    """Synthetic states of the method's dependency on two sources; empty if it has no dependency."""
    if method_class.dependency is None:
        return []
    dependency_class = load_method(method_class.dependency.method_name)
    options = method_class.dependency.resolve_options(config or method_class.Config())
    method = instantiate_method(dependency_class, backbone, 2, config=dependency_class.parse_config(options))
    return [{name: tensor.clone() for name, tensor in method.slot_state_dict(slot).items()} for slot in range(2)]


def begin_synthetic_stage(method: Method, stage: Stage, num_slots: int) -> None:
    """Begin a stage on synthetic examples, with two slots in a source stage and `num_slots` in a target stage."""
    count = 2 if stage.trained_on == "sources" else num_slots
    method.begin_stage(stage, list(range(count)), [generate_examples(6, 100 + i) for i in range(count)])


@torch.no_grad()
def perturb_parameters(method: Method, scale: float = 0.1) -> None:
    """Add reproducible normal noise with this standard deviation to all trainable parameters."""
    generator = torch.Generator().manual_seed(7)
    for parameter in method.parameters():
        if parameter.requires_grad:
            parameter += (scale * torch.randn(parameter.shape, generator=generator)).to(parameter.device)
