import peft
import pytest
import torch
from torch.testing import assert_close

from methods.base import TARGET_STAGE
from methods.conformance.fixtures import compute_row_states, make_batch
from methods.core.backbone import Backbone
from methods.core.instantiate import generate_examples
from methods.core.prompt_initialization import select_initial_tokens
from methods.prompt import Prompt
from tasks.core.types import UsageError


def prompted(backbone: Backbone, tokens: torch.Tensor) -> Prompt:
    method = Prompt(backbone, {"length": len(tokens)})
    method.begin_stage(TARGET_STAGE, [0])
    method.prompt.tensors[0].data.copy_(backbone.embed(tokens))
    return method


def test_real_embeddings_are_the_hard_prompt(backbone: Backbone):
    tokens, ids = torch.randint(5, 250, (7,)), generate_examples(1, 1)[0].prompt_ids
    found = compute_row_states(prompted(backbone, tokens), ids)
    whole = torch.cat([tokens, torch.tensor(ids)])[None]
    with torch.no_grad():
        want = backbone.model.model(input_ids=whole).last_hidden_state[0, 7:]
    assert_close(found, want, rtol=1e-5, atol=1e-6)


def test_peft_computes_the_same(backbone: Backbone):
    tokens, ids = torch.randint(5, 250, (6,)), generate_examples(1, 2)[0].prompt_ids
    method = prompted(backbone, tokens)
    torch.nn.init.normal_(method.prompt.tensors[0], std=0.3)
    with torch.no_grad():
        want = backbone.compute_logits(compute_row_states(method, ids))
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=6)
    theirs = peft.get_peft_model(backbone.model, config)
    theirs.prompt_encoder["default"].embedding.weight.data.copy_(method.prompt.tensors[0])
    with torch.no_grad():
        found = theirs(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long)).logits[
            0, 6:
        ]
    assert_close(found, want, rtol=1e-4, atol=1e-5)


def test_count(backbone: Backbone):
    method = Prompt(backbone, {"length": 11})
    method.begin_stage(TARGET_STAGE, [0, 1])
    assert method.count_trained_parameters() == 11 * backbone.hidden_size
    assert {name: tensor.shape for name, tensor in method.slot_state_dict(1).items()} == {
        "prompt.tensors.0": (11, backbone.hidden_size)
    }


def test_it_starts_from_label_words_then_the_instruction_then_common_tokens(qwen3: Backbone):
    train = generate_examples(5, 3)
    method = Prompt(qwen3, {"length": 20})
    method.begin_stage(TARGET_STAGE, [0], [train])
    rows = method.prompt.tensors[0].detach()
    words = train[0].choice_ids
    for row, word in zip(rows, words, strict=False):
        assert_close(row, qwen3.embed(torch.tensor(word)).mean(0))
    assert torch.equal(rows[3 : 3 + 12], qwen3.embed(torch.tensor(train[0].prompt_ids[:12])))
    seen = qwen3.embed(torch.tensor(sorted({token for item in train for token in item.prompt_ids})))
    assert all(any(torch.equal(row, known) for known in seen) for row in rows[15:])


def test_options_of_single_items_are_no_label_words():
    one, two = generate_examples(1, 4)[0], generate_examples(1, 4)[0]
    two = two._replace(choice_ids=two.choice_ids[:2])
    assert select_initial_tokens([one, two], 3, 300, {0, 1}, torch.Generator())[0] == one.prompt_ids[:1]


def test_special_tokens_are_never_drawn():
    drawn = select_initial_tokens((), 298, 300, {0, 1}, torch.Generator().manual_seed(0))
    assert sorted(drawn) == [(token,) for token in range(2, 300)]


def test_the_rate_counts_in_deviations_of_the_embedding(qwen3: Backbone):
    assert Prompt(qwen3, {"lr": 0.5}).optimizer_group("prompt.tensors.0").lr == pytest.approx(0.5 * qwen3.embedding_std)


def test_the_prompt_is_passed_once_per_slot_where_the_rows_begin_alike(qwen3: Backbone):
    method = Prompt(qwen3)
    method.begin_stage(TARGET_STAGE, [0, 1])
    plan = method.plan_step(make_batch(generate_examples(8, 5), [0, 1] * 4))
    assert plan.shared_prefix.shape == (2, 12)
    assert plan.input_ids.shape[1] + 12 == plan.attention_mask.shape[1]


def test_no_length_no_prompt(qwen3: Backbone):
    with pytest.raises(UsageError, match="at least 1"):
        Prompt(qwen3, {"length": 0})
