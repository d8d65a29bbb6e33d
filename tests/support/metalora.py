"""MeTA-LoRA in its stage of episodes."""

from benchmark.proofs.material import move
from methods.backbone import Backbone
from methods.meta_lora import MetaLoRA

SOURCE = MetaLoRA.stages[0]


def meta(backbone: Backbone, slots: int = 3, **options: object) -> MetaLoRA:
    """In its source stage, away from its start; the outer gradient is not clipped."""
    method = MetaLoRA(backbone, {"clip": 0.0, **options})
    method.enter(SOURCE, [0] * slots)
    move(method)
    return method
