"""TA-LoRA at the start of any stage, and what its banks hold."""

import torch

from methods.base import SOURCE_STAGE, TARGET_STAGE
from methods.core.backbone import Backbone
from methods.core.instantiate import generate_examples
from methods.ta_lora import TALoRA, extract_short_name
from tests.support.stages import away as anywhere

SMALL = {"length": 4, "tokens": 5, "rank": 2}


def ready(backbone: Backbone, stage=SOURCE_STAGE, slots=3, sources=3, **options) -> TALoRA:
    """Brought to the start of a stage; what the sources learned is made up."""
    method = TALoRA(backbone, SMALL | options)
    for own in TALoRA.stages[: TALoRA.stages.index(stage) + 1]:
        count = slots if own == TARGET_STAGE else sources
        if own == TARGET_STAGE:
            anywhere(method)
        method.begin_stage(own, list(range(count)), [generate_examples(6, 100 + i) for i in range(count)])
    return method


def away(method: TALoRA) -> TALoRA:
    return anywhere(method).eval()


def bank(method: TALoRA, name: str, layer: int = 0):
    return method.prompt if name == "prompt" else getattr(method.layers[str(layer)], name)


def named(method: TALoRA, *parts: str) -> dict[str, torch.Tensor]:
    """A copy of what these banks hold."""
    return {name: t.clone() for name, t in method.trained_state_dict().items() if extract_short_name(name) in parts}
