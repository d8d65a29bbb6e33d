"""Every method of the index, on every architecture, against every proof that applies to it."""

from collections.abc import Callable

import pytest

from benchmark.proofs.kit import PROOFS
from methods import load
from methods.backbone import Backbone


@pytest.mark.parametrize("proof", PROOFS.values(), ids=PROOFS)
def test_proof(proof: Callable, method_name: str, backbone: Backbone):
    if reason := proof(load(method_name), backbone):
        pytest.skip(reason)
