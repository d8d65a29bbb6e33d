"""Tokens per second of training and of scoring, and which share of the device's bf16 peak that is.

Operations counted are those that nobody could leave out: a token passes every linear of the layers, but for the last
one's MLP (`methods.core.sparse_last_layer`), forwards (2 per number) and, where adapters learn on a frozen backbone, once backwards (2
more: no gradient of a weight); attention adds 2 x 2 h for each token that a token sees, and twice that backwards.
Adapters, norms, the head and padding are not counted, so a share is a lower bound of what the device did.
"""

from collections.abc import Sequence
from typing import Any

import torch

from benchmark.evaluation.scoring import compute_log_likelihoods
from methods.core.architecture import ModelShape
from methods.core.backbone import Backbone
from tests.gpu_acceptance.device import Device, timed
from tests.gpu_acceptance.model_shapes import SHAPES
from tests.gpu_acceptance.workload import Size, items, plans, ready, trained


def forwards(shape: ModelShape, tokens: float, seen: float) -> float:
    """Operations of a forward pass of so many tokens, each of which sees so many on the mean."""
    passed = shape.num_linear_parameters - 3 * shape.hidden_size * shape.intermediate_size
    return tokens * (2 * passed + shape.num_hidden_layers * 4 * shape.attention_width * seen)


def training(
    device: Device, backbone: Backbone, name: str, shape: str, sizes: Sequence[Size], top: float
) -> dict[str, Any]:
    """At the first of these sizes for which there is room."""
    for size in sizes:
        try:
            return trained_at(device, backbone, name, SHAPES[shape], size, top)
        except torch.OutOfMemoryError:
            if size is sizes[-1]:
                raise
        device.tidy()  # outside the handler, which would keep what the failed step had allocated
    raise ValueError("no size was given")


def trained_at(
    device: Device, backbone: Backbone, name: str, shape: ModelShape, size: Size, top: float
) -> dict[str, Any]:
    with ready(name, backbone, 1) as method:
        given = plans(method, size, size.warm + size.steps, even=True)
        device.tidy()
        seconds, _ = trained(device, method, given, size.warm)
        tokens = given[0].num_tokens[0]
        seen = (size.length + method.num_virtual_tokens) / 2
        done = 2 * forwards(shape, tokens, seen) + shape.num_hidden_layers * 4 * shape.attention_width * seen * tokens
        return {
            "rows": size.rows, "length": size.length, "seconds": seconds, "tokens_per_second": tokens / seconds,
            "share": done / seconds / top, "peak_bytes": device.peak(),
        }  # fmt: skip


def scoring(
    device: Device, backbone: Backbone, name: str, shape: str, size: Size, blocks: Sequence[int], top: float
) -> dict[str, Any]:
    """Choices of so many rows, in passes of so many tokens."""
    found = {}
    with ready(name, backbone, 1) as method:
        of = items(size.rows, 3, size, backbone.config.vocab_size, even=True)
        tokens = sum(len(item.prompt_ids) for item in of)
        for block in blocks:
            device.tidy()
            do = lambda block=block: compute_log_likelihoods(method, of, [0] * len(of), tokens_per_pass=block)  # noqa: E731
            seconds = timed(device, do, repeat=size.steps, warm=1)
            done = forwards(SHAPES[shape], tokens, size.length / 2)
            found[str(block)] = {
                "rows": size.rows, "length": size.length, "seconds": seconds, "tokens_per_second": tokens / seconds,
                "rows_per_second": len(of) / seconds, "share": done / seconds / top, "peak_bytes": device.peak(),
            }  # fmt: skip
    return found
