import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from methods.adapter import Adapter, Bottleneck
from methods.core.seeding import create_generator
from tasks.core.types import UsageError
from tests.support.single import entered, frozen, ids_of, logits, recorded, rows_of
from tests.support.stages import away


def bottleneck(*slots: int, act: str = "silu", norm: bool = False) -> Bottleneck:
    """Three slots, d 6, m 4, away from the start."""
    module = Bottleneck(6, 4, act, norm, rows_of(*slots))
    for slot in range(3):
        module.add_slot(create_generator(slot))
    return away(module)


def a(module: Bottleneck, slot: int, z: torch.Tensor) -> torch.Tensor:
    """The adapter of one slot on one position, z [d], written out."""
    down, up = module.down.tensors[slot], module.up.tensors[slot]
    inner = torch.stack([down[i] @ z + module.down_bias.tensors[slot][0, i] for i in range(4)])
    inner = inner / (1 + torch.exp(-inner))  # swish
    return torch.stack([up[i] @ inner + module.up_bias.tensors[slot][0, i] for i in range(6)])


def test_each_row_is_the_paper_written_out():
    slots, s = (2, 0, 2, 0), torch.randn(4, 7, 6)
    module = bottleneck(*slots)
    want = torch.stack([torch.stack([z + a(module, slot, z) for z in s[row]]) for row, slot in enumerate(slots)])
    assert_close(module(s, s), want)


def test_the_residual_input_and_the_norm_before_it():
    slots, s, h = (1, 2), torch.randn(2, 5, 6), torch.randn(2, 5, 6)
    module = bottleneck(*slots, norm=True)
    module.capture_residual(nn.Identity(), (h,))
    want = s.clone()
    for row, slot in enumerate(slots):
        for place in range(5):
            z = h[row, place] + s[row, place]
            want[row, place] += a(module, slot, z / (z.pow(2).mean() + 1e-6).sqrt() * module.norm.tensors[slot][0])
    assert_close(module(s, s), want)
    assert module.residual is None  # used once


def test_with_the_identity_inside_the_mlp_adapter_is_a_factor_of_the_down_projection(backbone):
    method, ids = entered(Adapter, backbone, placement="pfeiffer", activation="identity", bottleneck=4), ids_of()
    with torch.no_grad():
        for adapter in method.adapters.values():
            adapter.down_bias.tensors[0].zero_()
            adapter.up_bias.tensors[0].zero_()
    got = logits(method, ids)
    factors = [torch.eye(32) + (m.up.tensors[0] @ m.down.tensors[0]).detach() for m in method.adapters.values()]
    method.close()
    weights = [layer.mlp.down_proj.weight for layer in backbone.model.model.layers]
    before = [weight.clone() for weight in weights]
    for weight, factor in zip(weights, factors, strict=True):
        weight.data = factor @ weight
    want = frozen(backbone, ids)
    for weight, old in zip(weights, before, strict=True):
        weight.data = old
    assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_houlsby_with_nothing_after_attention_is_pfeiffer(backbone):
    ids = ids_of()
    houlsby = entered(Adapter, backbone, activation="relu")
    assert list(houlsby.adapters) == ["0_o", "0_down", "1_o", "1_down"]
    with torch.no_grad():
        for key in ("0_o", "1_o"):
            houlsby.adapters[key].up.tensors[0].zero_()
            houlsby.adapters[key].up_bias.tensors[0].zero_()
    got, state = logits(houlsby, ids), {n: t for n, t in houlsby.trained_state_dict().items() if "_down." in n}
    pfeiffer = Adapter(backbone, {"placement": "pfeiffer", "activation": "relu"})
    pfeiffer.load(state)
    assert_close(got, logits(pfeiffer, ids))


@pytest.mark.parametrize("placement", ["houlsby", "pfeiffer"])
def test_the_residual_input_is_the_stream_that_the_sublayer_adds_to(backbone, placement):
    """With identity, W_up W_down = 1 and no bias, a(h + s) = h + s: every sublayer gives 2 s + h."""
    ids = ids_of()
    options = {"placement": placement, "activation": "identity", "bottleneck": 32, "input": "residual"}
    method = entered(Adapter, backbone, **options)
    with torch.no_grad():
        for name, parameter in method.named_parameters():
            parameter.copy_(torch.zeros_like(parameter) if "bias" in name else torch.eye(32))
    got = recorded_with(method, ids)
    layer, attention = backbone.model.model.layers[0], got["attention"]
    h = backbone.embed(ids)
    if placement == "houlsby":
        assert_close(attention, 2 * recorded_frozen(backbone, ids)[0] + h)
    h = h + attention
    with torch.no_grad():
        s = F.linear(
            F.silu(F.linear(layer.post_attention_layernorm(h), layer.mlp.gate_proj.weight))
            * F.linear(layer.post_attention_layernorm(h), layer.mlp.up_proj.weight),
            layer.mlp.down_proj.weight,
        )
    assert_close(got["mlp"], 2 * s + h, rtol=1e-4, atol=1e-4)


def recorded_with(method: Adapter, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """What the first layer's sublayers give while the method is on."""
    found = {}
    layer = method.backbone.model.model.layers[0]
    handles = [
        layer.self_attn.register_forward_hook(lambda _m, _i, out: found.update(attention=out[0])),
        layer.mlp.register_forward_hook(lambda _m, _i, out: found.update(mlp=out)),
    ]
    logits(method, ids)
    for handle in handles:
        handle.remove()
    return found


def recorded_frozen(backbone, ids: torch.Tensor) -> list[torch.Tensor]:
    """The frozen attention outputs; the method's hooks are off meanwhile."""
    backbone.detach()
    return recorded(backbone, "self_attn.o_proj", ids)


@pytest.mark.parametrize(
    ("options", "adapters", "extra"), [({}, 4, 0), ({"placement": "pfeiffer"}, 2, 0), ({"ln_before": True}, 4, 32)]
)
def test_counts(backbone, options, adapters, extra):
    d = 32
    for m, size in ((d // 16, {}), (d // 4, {"reduction": 4}), (5, {"bottleneck": 5})):
        method = entered(Adapter, backbone, **options, **size)
        assert method.count_trained_parameters() == adapters * (2 * d * m + m + d + extra)


def test_each_placement_has_its_activation(qwen3):
    for placement, act in (("houlsby", F.silu), ("pfeiffer", F.relu)):
        found = entered(Adapter, qwen3, placement=placement).adapters
        assert {adapter.activation for adapter in found.values()} == {act}


def test_biases_and_norms_have_no_decay(qwen3):
    method = entered(Adapter, qwen3, ln_before=True, weight_decay=0.1, bottleneck=1)
    decayed = {name.split(".")[2] for name, _ in method.named_parameters() if method.optimizer_group(name).weight_decay}
    assert decayed == {"down", "up"}


@pytest.mark.parametrize(
    "wrong", [{"placement": "hulsby"}, {"activation": "swish"}, {"input": "stream"}, {"reduction": 0}]
)
def test_wrong_options_are_errors(qwen3, wrong):
    with pytest.raises(UsageError, match="adapter: "):
        Adapter(qwen3, wrong)
