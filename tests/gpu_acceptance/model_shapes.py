"""Backbones of real shape with random weights, made on the device: nothing is downloaded or read but a tokenizer."""

import torch
from transformers import AutoModelForCausalLM

from methods.core.architecture import QWEN2_5_SHAPES, ModelShape
from methods.core.backbone import Backbone, load_tokenizer
from methods.core.backbone_folder import resolve_backbone_folder
from methods.core.meta_backbone import build_model_config

SHAPES = QWEN2_5_SHAPES | {"tiny": ModelShape(64, 2, 4, 2, 96, 2070)}
SEED = 20


def made(name: str, device: torch.device) -> Backbone:
    """A random backbone of this shape in bf16, with the embedded tokenizer: its ids are the first of the vocabulary."""
    torch.manual_seed(SEED)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(
            build_model_config(SHAPES[name]), dtype=torch.bfloat16, attn_implementation="sdpa"
        )
    model = model.to(device)  # buffers that were made elsewhere
    for key, parameter in model.named_parameters():
        if key.endswith("bias"):  # these begin as zeros, where a lost bias would pass
            torch.nn.init.normal_(parameter, std=model.config.initializer_range)
    return Backbone(model, load_tokenizer(resolve_backbone_folder("tiny"), "tiny"), f"random {name}")
