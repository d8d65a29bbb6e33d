"""Every method a few steps in bf16, alone and packed: seconds, tokens per second, memory, and what stays in fp32."""

from dataclasses import replace
from math import isfinite
from typing import Any

import torch

import methods
from benchmark.scheduling.memory_model import estimate_activation_bytes
from methods.base import Method
from methods.core.backbone import Backbone
from tests.gpu_acceptance.device import Device
from tests.gpu_acceptance.model_shapes import SHAPES
from tests.gpu_acceptance.workload import Size, plans, ready, trained

SLACK = 16 * 2**20  # bytes that may be held beyond what a method learned: rounding, source prompts, workspaces


def names() -> list[str]:
    return [name for name in methods.NAMES if methods.load_method(name).uses_gradient_descent]


def measure(device: Device, backbone: Backbone, name: str, shape: str, size: Size) -> dict[str, Any]:
    """One method alone, then packed where it can be; `wrong`: what should not be."""
    kind, found = methods.load_method(name), {"wrong": []}
    if why := no_room(device, backbone, name):
        return found | {"skipped": why}
    device.tidy()
    base = device.held()
    found["solo"] = one(device, backbone, name, 1, shape, size, found)
    if kind.is_packable and size.pack > 1:
        found["packed"] = one(device, backbone, name, size.pack, shape, size, found)
        found["worth"] = size.pack * found["solo"]["seconds"] / found["packed"]["seconds"]
    device.tidy()
    if base is not None:
        found["left_bytes"] = device.held() - base
        if found["left_bytes"] > SLACK:
            found["wrong"].append(f"{found['left_bytes'] / 2**20:.0f} MiB stay after it was closed")
    if any(p.dtype != torch.bfloat16 or p.requires_grad for p in backbone.model.parameters()):
        found["wrong"].append("the backbone is not as it was")
    return found


def no_room(device: Device, backbone: Backbone, name: str) -> str:
    """Why a method that trains the weights themselves is left out: gradient, moments, best and pretrained beside them."""
    weights = sum(p.numel() * p.element_size() for p in backbone.model.parameters())
    needed = 6 * weights if name == "full" else 0
    if device.size() and needed > device.size():
        return f"needs {needed / 1e9:.0f} GB for weights, gradients and moments; there are {device.size() / 1e9:.0f}"
    return ""


def one(
    device: Device, backbone: Backbone, name: str, slots: int, shape: str, size: Size, found: dict[str, Any]
) -> dict[str, Any]:
    """Steps of so many cells; notes the numbers that learn, and what is wrong, in `found`."""
    device.tidy()
    base = device.held()
    with ready(name, backbone, slots, away=name != "full") as method:
        device.tidy()
        held = None if base is None else device.held() - base
        if held is not None and held > allowed(method, backbone):
            found["wrong"].append(f"{slots} slots hold {held / 2**20:.0f} MiB, more than what they learned")
        found["trained"] = method.count_trained_parameters() if slots == 1 else found["trained"]
        given = plans(method, size, size.warm + size.steps)
        device.tidy()
        seconds, losses = trained(device, method, given, size.warm)
        top = None if base is None else device.peak() - base
        found["wrong"] += kinds(method, backbone, name)
        if not all(map(isfinite, losses)):
            found["wrong"].append(f"a loss of {slots} slots is not finite: {losses}")
        tokens = sum(sum(plan.num_tokens) for plan in given[size.warm :]) / max(1, len(given) - size.warm)
        passed = max(plan.input_ids.numel() for plan in given)
        said = {"seconds": seconds, "tokens_per_second": tokens / seconds, "cells_per_second": slots / seconds}
        return said | {
            "held_bytes": held,
            "peak_bytes": top,
            "expected_bytes": None
            if top is None
            else held + estimate_activation_bytes(SHAPES[shape], passed, 2, name == "full"),
        }


def allowed(method: Method, backbone: Backbone) -> int:
    """Bytes that a method may hold before its first step: what it learned, and a copy of the model where it has one."""
    learned = sum(tensor.numel() * tensor.element_size() + 512 for tensor in method.trained_state_dict().values())
    copied = method.backbone.model is not backbone.model
    weights = sum(p.numel() * p.element_size() for p in backbone.model.parameters())
    return learned + (weights if copied else 0) + SLACK


def kinds(method: Method, backbone: Backbone, name: str) -> list[str]:
    """Whatever learns is kept in fp32 on a backbone in bf16, unless it is the backbone itself."""
    own = {id(p) for p in backbone.model.parameters()}
    wide = [key for key, p in method.named_parameters() if id(p) not in own and p.dtype != torch.float32]
    return [f"not in fp32: {', '.join(wide[:3])}"] if wide else []


def small(size: Size) -> Size:
    """For a backbone that fills the device with fewer cells."""
    return replace(size, pack=min(size.pack, 4))
