"""Every method of the index, on every architecture, against every proof that applies to it."""

from collections.abc import Callable

import pytest

from benchmark.proofs.kit import PROOFS
from benchmark.proofs.step import followed
from methods import load
from methods.backbone import Backbone


@pytest.mark.parametrize("proof", PROOFS.values(), ids=PROOFS)
def test_proof(proof: Callable, method_name: str, backbone: Backbone):
    if reason := proof(load(method_name), backbone):
        pytest.skip(reason)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ta_lora", {"slow_factor": "A", "gate": "shared", "norm": True}),
        ("ta_lora", {"low_rank": False, "gate": "none"}),
        ("ta_lora", {"form": "hadamard"}),
        ("ta_lora", {"form": "input", "gate_fn": "identity"}),
        ("mpt", {"rank": 2, "distillation_weight": 0.0}),
        ("moe_lora", {"gate": "per_linear"}),
        ("adapter", {"input": "residual", "ln_before": True}),
        ("prefix", {"mlp": 7}),
    ],
    ids=str,
)
def test_a_step_follows_the_gradient_under_other_options_too(name: str, options: dict, qwen3: Backbone):
    followed(load(name), qwen3, load(name).configure(options))
