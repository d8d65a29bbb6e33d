"""MeTA-LoRA in its stage of episodes."""

from methods.core.backbone import Backbone
from methods.core.instantiate import perturb_parameters
from methods.meta_lora import MetaLoRA

SOURCE = MetaLoRA.stages[0]


def meta(backbone: Backbone, slots: int = 3, **options: object) -> MetaLoRA:
    """In its source stage, away from its start; the outer gradient is not clipped."""
    method = MetaLoRA(backbone, {"clip": 0.0, **options})
    method.begin_stage(SOURCE, [0] * slots)
    perturb_parameters(method)
    return method
