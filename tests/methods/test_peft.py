import json
from pathlib import Path

import peft
import pytest
import torch
from torch.testing import assert_close

from benchmark.evaluation.scoring import compute_log_likelihoods
from methods.base import TARGET_STAGE, Method
from methods.peft import PEFT_CONFIG_CLASSES, UNSUPPORTED_TYPES, Peft
from tasks.core.types import EncodedExample, Example, UsageError
from tests.support.single import ids_of
from tests.support.stages import batch_of, step

# what the published defaults need where a linear has 32 inputs, or what a type cannot do without
OPTIONS = {
    "ADAPTION_PROMPT": {"adapter_len": 4, "adapter_layers": 2},
    "C3A": {"block_size": 8},
    "CPT": {"cpt_token_ids": [5, 6, 7], "cpt_mask": [1] * 3, "cpt_tokens_type_mask": [1, 2, 3]},
    "FOURIERFT": {"n_frequency": 20},
    "MISS": {"r": 4},
    "PSOFT": {"r": 4},
    "ROAD": {"group_size": 8},
    "SHIRA": {"r": 2},
    "TRAINABLE_TOKENS": {"token_indices": list(range(40))},
    "VBLORA": {"vector_length": 8, "num_vectors": 16},
    "WAVEFT": {"n_frequency": 20},
}
FAILS = {
    "ADAMSS": "scikit-learn",  # a package that we do not depend on
    "ADAPTION_PROMPT": "Unsupported model type",  # Llama only
}


def made(backbone, kind: str = "LORA", **options: object) -> Peft:
    method = Peft(backbone, {"peft_type": kind, "lr": 0.01, **OPTIONS.get(kind, {}), **options})
    method.begin_stage(TARGET_STAGE, [0])
    return method.eval()


@torch.no_grad()
def logits(method: Method, ids: torch.Tensor) -> torch.Tensor:
    return method.backbone.compute_logits(method.compute_hidden_states(ids, torch.ones_like(ids), (0,) * len(ids)))


@torch.no_grad()
def by_peft(method: Peft, ids: torch.Tensor) -> torch.Tensor:
    """What peft's own forward pass gives for the text."""
    kind, rows = method.peft_config.peft_type, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if kind in ("POLY", "MULTITASK_PROMPT_TUNING"):
        rows["task_ids"] = torch.zeros(len(ids), dtype=torch.long)
    if kind == "CPT":  # it asks which token is what, for its loss
        rows["input_type_mask"] = torch.ones_like(ids)
    return method.peft_model_holder[0](**rows).logits[:, -ids.shape[1] :]


def proved(kind: str, backbone) -> str:
    """Run one step of a type; the reason where it cannot be used."""
    before = {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}
    try:
        method = made(backbone, kind)
    except UsageError as error:
        return str(error)
    ids, batch = ids_of(), batch_of(0, 0, 0)
    assert_close(logits(method, ids), by_peft(method, ids), rtol=1e-4, atol=1e-4)
    start = {name: tensor.clone() for name, tensor in method.trained_state_dict().items()}
    step(method.train(), batch, lr=0.05)
    moved = {
        name for name, tensor in method.eval().trained_state_dict().items() if not torch.equal(tensor, start[name])
    }
    assert moved, "nothing moved"
    assert method.count_trained_parameters() == sum(
        p.numel() for p in method.peft_model_holder[0].parameters() if p.requires_grad
    )
    given = EncodedExample(Example("u", "toy", "", ("a",), ("a", "b")), (3, 4, 5, 6), (7, 1), ((7,), (8, 9)), 2)
    scored = compute_log_likelihoods(method, [given], [0])[0]
    row = torch.tensor([[3, 4, 5, 6, 8]])
    own = by_peft(method, row)[0].log_softmax(-1)
    assert_close(torch.tensor(scored), torch.stack([own[3, 7], own[3, 8] + own[4, 9]]), rtol=1e-3, atol=1e-3)
    step(method.train(), batch)  # after scoring it still trains
    want, state = (
        logits(method.eval(), ids),
        {name: tensor.clone() for name, tensor in method.trained_state_dict().items()},
    )
    again = made(backbone, kind)
    again.begin_stage(TARGET_STAGE, [1])  # of another seed: what it rests on comes with the state
    again.load(state)
    assert torch.equal(logits(again, ids), want)
    again.close()
    for name, tensor in backbone.model.state_dict().items():
        assert torch.equal(before[name], tensor), name
    return ""


@pytest.mark.parametrize("kind", sorted(PEFT_CONFIG_CLASSES.keys() - UNSUPPORTED_TYPES.keys()))
def test_a_step_of_every_type_that_works_under_the_pinned_versions(qwen3, kind):
    """Our pass is peft's pass, a step moves its tensors and those only, scoring is exact, and a state can be loaded."""
    reason = proved(kind, qwen3)
    assert (FAILS[kind] in reason) if kind in FAILS else not reason, reason
    if reason:
        pytest.skip(reason)  # -rs prints it


def test_llama_adapter_of_peft_works_on_llama(loaded):
    assert not proved("ADAPTION_PROMPT", loaded["llama"])


@pytest.mark.parametrize("kind", sorted(UNSUPPORTED_TYPES))
def test_a_type_that_needs_its_own_training_loop_says_so(qwen3, kind):
    with pytest.raises(UsageError, match=f"{kind} does not fit here: {UNSUPPORTED_TYPES[kind]}"):
        Peft(qwen3, {"peft_type": kind})


def test_a_second_cell_starts_afresh_from_its_own_seed(qwen3):
    method = made(qwen3)
    first = {name: tensor.clone() for name, tensor in method.trained_state_dict().items()}
    step(method, batch_of(0, 0))
    draws = torch.get_rng_state()
    method.begin_stage(TARGET_STAGE, [0])
    assert all(torch.equal(tensor, first[name]) for name, tensor in method.trained_state_dict().items())
    method.begin_stage(TARGET_STAGE, [1])
    assert not all(torch.equal(tensor, first[name]) for name, tensor in method.trained_state_dict().items())
    assert torch.equal(torch.get_rng_state(), draws)


def test_dropout_is_on_in_training_only_and_draws_from_its_own_stream(qwen3):
    losses = []
    for _ in range(2):
        method = made(qwen3, lora_dropout=0.5, init_lora_weights=False).train()
        draws = torch.get_rng_state()
        with torch.no_grad():
            losses.append([method.compute_batch_losses(batch_of(0, 0)).item() for _ in range(3)])
        assert torch.equal(torch.get_rng_state(), draws)
        torch.rand(1)
    assert losses[0] == losses[1]
    assert len(set(losses[0])) == 3
    method.eval()
    with torch.no_grad():
        assert method.compute_batch_losses(batch_of(0, 0)) == method.compute_batch_losses(batch_of(0, 0))


def test_a_start_that_rewrites_weights_leaves_the_backbone_alone(qwen3):
    ids, before = ids_of(), {name: tensor.clone() for name, tensor in qwen3.model.state_dict().items()}
    plain = logits(Method(qwen3), ids)
    for start in ("olora", "pissa"):
        method = made(qwen3, init_lora_weights=start)
        assert_close(logits(method, ids), plain, rtol=1e-3, atol=1e-3)
        for name, tensor in qwen3.model.state_dict().items():
            assert torch.equal(before[name], tensor), name


def test_an_adapter_config_file(qwen3, tmp_path: Path):
    peft.LoraConfig(r=3, target_modules=["o_proj"], task_type="CAUSAL_LM").save_pretrained(tmp_path)
    method = Peft(qwen3, {"file": str(tmp_path / "adapter_config.json"), "lora_alpha": 5})
    method.begin_stage(TARGET_STAGE, [0])
    assert method.count_trained_parameters() == 2 * 3 * (32 + 32)
    assert method.peft_config.lora_alpha == 5
    assert (method.config.file, method.config.peft_type, method.config.options["r"]) == ("", "LORA", 3)
    (tmp_path / "other.json").write_text(json.dumps({"r": 3}))
    with pytest.raises(UsageError, match="no peft_type ''"):
        Peft(qwen3, {"file": str(tmp_path / "other.json")})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"peft_type": "LORRA"}, "no peft_type 'LORRA'"),
        ({"target_module": ["q_proj"]}, "LORA has no option 'target_module'; did you mean 'target_modules'"),
        ({"file": "nowhere.json"}, "no file nowhere.json"),
        ({"target_modules": ["nowhere"]}, "LORA cannot be used: Target modules"),
        ({"init_lora_weights": "eva"}, "LORA with eva_config does not fit here"),
        ({"alora_invocation_tokens": [5]}, "LORA with alora_invocation_tokens does not fit here"),
        ({"r": 0}, "LORA cannot be used: `r` should be a positive integer"),
    ],
)
def test_wrong_options_are_errors_of_one_line(qwen3, options, message):
    with pytest.raises(UsageError, match=message) as error:
        Peft(qwen3, options)
    assert "\n" not in str(error.value)


def test_when_closed_it_says_so(qwen3):
    method = made(qwen3)
    method.close()
    with pytest.raises(RuntimeError, match="was closed"):
        logits(method, ids_of())
