"""Every method of the index, on every architecture, against every proof that applies to it."""

from collections.abc import Callable

import pytest

from methods import load_method
from methods.conformance.checks import CHECKS
from methods.conformance.gradients import check_step_gradient_with_config
from methods.core.backbone import Backbone


@pytest.mark.parametrize("proof", CHECKS.values(), ids=CHECKS)
def test_proof(proof: Callable, method_name: str, backbone: Backbone):
    if reason := proof(load_method(method_name), backbone):
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
    check_step_gradient_with_config(load_method(name), qwen3, load_method(name).parse_config(options))
