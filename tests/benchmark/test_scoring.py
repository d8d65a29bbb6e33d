"""One pass is exact: equal to scoring each answer on its own, and to the library's own greedy decoding."""

import pytest
import torch

from benchmark.evaluation.answer_tree import build_answer_tree
from benchmark.evaluation.scoring import compute_log_likelihoods, decode_answers, predict
from methods import load_method
from methods.base import Method
from methods.conformance.fixtures import compute_row_states
from methods.conformance.tiny_models import save_random_model
from methods.core.backbone import Backbone
from methods.core.instantiate import generate_examples, instantiate_method
from methods.lora import LoRA
from methods.prompt import Prompt
from tasks.core.types import EncodedExample, Example, UsageError

ANSWERS = ((5, 6), (5, 7, 9), (8,), (5, 6, 3, 30), (40, 41))  # shared beginnings, one inside another, unequal lengths


def asked(count: int, stream: int, choices=ANSWERS, lead: int = 10) -> list[EncodedExample]:
    words = tuple(f"w{i}" for i in range(len(choices)))
    return [
        item._replace(example=Example(f"{stream}:{i}", "t", "", (words[0],), words), choice_ids=choices)
        for i, item in enumerate(generate_examples(count, stream, prefix_length=lead))
    ]


def one_by_one(method: Method, item: EncodedExample, slot: int) -> list[float]:
    """Each answer in a forward pass of its own."""
    found = []
    for answer in item.choice_ids:
        with torch.no_grad():
            scores = method.backbone.compute_logits(
                compute_row_states(method, item.prompt_ids + answer, slot)
            ).log_softmax(-1)
        start = len(item.prompt_ids) - 1
        found.append(sum(scores[start + i, token].item() for i, token in enumerate(answer)))
    return found


@pytest.mark.parametrize("tokens", [1, 200, 10_000])
def test_one_pass_equals_one_pass_per_answer(backbone: Backbone, method_name: str, tokens: int):
    method = instantiate_method(load_method(method_name), backbone)
    mixed = asked(7, 1) + asked(2, 2, ((9,), (10, 11))) + asked(2, 3, lead=0) + asked(1, 4, ((9,), (10,)))
    slots = [(2 * i + 1) % method.num_slots for i in range(len(mixed))]
    if not method.can_share_prefix:
        pytest.skip("virtual tokens depend on the row: `run` on prompt and answer would show them the answer")
    for item, slot, scores in zip(
        mixed, slots, compute_log_likelihoods(method, mixed, slots, tokens_per_pass=tokens), strict=True
    ):
        assert scores == pytest.approx(one_by_one(method, item, slot), abs=2e-4)


def test_eager_attention_scores_the_same(tmp_path):
    folder = str(save_random_model(tmp_path, "qwen2"))
    found = []
    for attention in ("sdpa", "eager"):
        found.append(compute_log_likelihoods(Method(Backbone.load(folder, attention=attention)), asked(5, 1), [0] * 5))
    for one, other in zip(*found, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


def test_the_first_token_alone_is_another_measure(qwen3: Backbone):
    """What the exact sum is there for: the two disagree on many rows."""
    method, many = Method(qwen3), asked(40, 5, ((5, 6), (7, 8), (9, 10)))
    whole = [row.index(max(row)) for row in compute_log_likelihoods(method, many, [0] * 40)]
    first = compute_log_likelihoods(method, [item._replace(choice_ids=((5,), (7,), (9,))) for item in many], [0] * 40)
    assert sum(a != row.index(max(row)) for a, row in zip(whole, first, strict=True)) > 4


def test_the_likeliest_choice_is_answered_per_sum_or_per_token(qwen3: Backbone):
    method, item = Method(qwen3), asked(1, 6, ((9,), (10, 11, 12, 13)))[0]
    row = predict(method, [item])[0]
    mean = predict(method, [item], normalise="mean")[0]
    assert row.scores == pytest.approx(one_by_one(method, item, 0), abs=1e-4)
    assert row.text == item.example.choices[row.scores.index(max(row.scores))]
    assert mean.scores == pytest.approx((row.scores[0], row.scores[1] / 4))
    with pytest.raises(UsageError, match="sum, mean"):
        predict(method, [item], normalise="max")


def test_beginnings_shared_by_answers_are_passed_once():
    made = build_answer_tree(ANSWERS)
    assert sorted(made.token_ids.tolist()) == [3, 5, 6, 7, 40]  # 5 | 5 6 | 5 6 3 | 5 7 | 40
    assert build_answer_tree(((5,), (6,))).token_ids.shape == (0,)


@pytest.mark.parametrize(("tokens", "leads"), [(10_000, [(2, 10)]), (100, [(1, 10), (1, 10)])])
def test_the_constant_start_is_passed_once_per_slot(qwen3: Backbone, monkeypatch: pytest.MonkeyPatch, tokens, leads):
    """Slots whose items fit one pass share theirs, and answer as each alone."""
    method, sizes, right = instantiate_method(LoRA, qwen3), [], qwen3.compute_hidden_states
    every, slots = asked(20, 7), [0, 1] * 10
    alone = [compute_log_likelihoods(method, [item], [slot])[0] for item, slot in zip(every, slots, strict=True)]

    def counted(**given):
        sizes.append(tuple(given["input_ids"].shape))
        return right(**given)

    monkeypatch.setattr(qwen3, "compute_hidden_states", counted)
    found = compute_log_likelihoods(method, every, slots, tokens_per_pass=tokens)
    assert [size for size in sizes if size[1] == 10] == leads
    for one, other in zip(found, alone, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


def test_what_does_not_fit_the_memory_passes_in_halves(qwen3: Backbone, monkeypatch: pytest.MonkeyPatch):
    method, right = instantiate_method(LoRA, qwen3), qwen3.compute_hidden_states
    free = [item._replace(choice_ids=()) for item in asked(7, 12)]
    mixed, slots = asked(7, 12) + free, [0, 1, 0, 1, 0, 1, 2] * 2
    want = predict(method, mixed, slots, max_new_tokens=4)

    def small(**given):
        if len(given["input_ids"]) > 3:
            raise torch.OutOfMemoryError("too many rows")
        return right(**given)

    monkeypatch.setattr(qwen3, "compute_hidden_states", small)
    for one, other in zip(predict(method, mixed, slots, max_new_tokens=4), want, strict=True):
        assert one.text == other.text
        assert one.scores == pytest.approx(other.scores, abs=1e-4)
    monkeypatch.setattr(qwen3, "compute_hidden_states", lambda **given: small(input_ids=range(4)))
    with pytest.raises(torch.OutOfMemoryError):
        predict(method, mixed, slots)


def test_every_item_ends_at_its_own_limit(qwen3: Backbone):
    method = Method(qwen3)
    free = [item._replace(choice_ids=()) for item in asked(4, 13)]
    found = [row.text for row in predict(method, free, max_new_tokens=[2, 6, 4, 6])]
    assert found == [
        predict(method, [item], max_new_tokens=n)[0].text for item, n in zip(free, [2, 6, 4, 6], strict=True)
    ]
    assert found != [row.text for row in predict(method, free, max_new_tokens=6)]


@pytest.mark.parametrize("architecture_method", ["lora", "prompt", "zero_shot"])
def test_decoding_equals_generate(backbone: Backbone, architecture_method: str):
    """Rows end at different steps (the end token is made likely), in a batch that is padded, from a cached start."""
    method = instantiate_method(load_method(architecture_method), backbone)
    free = [item._replace(choice_ids=()) for item in asked(9, 8)]
    bias = torch.zeros(backbone.config.vocab_size)
    bias[1] = 3.0
    right = backbone.compute_logits
    backbone.compute_logits = lambda hidden: right(hidden) + bias
    found = decode_answers(method, free, [1 % method.num_slots] * 9, tokens_per_pass=90, max_new_tokens=12)
    backbone.compute_logits = right
    want = []
    for item in free:
        ids = list(item.prompt_ids)
        for _ in range(12):
            with torch.no_grad():
                token = int((right(compute_row_states(method, ids, 1 % method.num_slots)[-1:]) + bias).argmax())
            if token == 1:
                break
            ids.append(token)
        want.append(backbone.tokenizer.decode(ids[len(item.prompt_ids) :], skip_special_tokens=True).strip())
    assert found == want
    assert len({len(text) for text in found}) > 1


def test_decoding_equals_the_librarys_own(backbone: Backbone):
    method = Method(backbone)
    free = [item._replace(choice_ids=()) for item in asked(4, 9)]
    want = []
    for item in free:
        ids = torch.tensor([item.prompt_ids])
        made = backbone.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False, pad_token_id=1
        )
        want.append(backbone.tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True).strip())
    assert [row.text for row in predict(method, free, max_new_tokens=8)] == want


def test_choices_and_spans_come_back_in_order(qwen3: Backbone):
    method = Method(qwen3)
    mixed = [item._replace(choice_ids=() if i % 2 else ANSWERS) for i, item in enumerate(asked(6, 10))]
    found = predict(method, mixed, max_new_tokens=3)
    assert [bool(row.scores) for row in found] == [True, False] * 3
    for item, row in zip(mixed, found, strict=True):
        assert predict(method, [item], max_new_tokens=3)[0].text == row.text


def test_scoring_leaves_the_mode_and_no_gradient(qwen3: Backbone):
    method = instantiate_method(Prompt, qwen3).train()
    predict(method, asked(2, 11))
    assert method.training
    assert all(p.grad is None for p in method.parameters())


@pytest.mark.parametrize("score", [compute_log_likelihoods, decode_answers])
def test_training_mode_is_restored_when_scoring_raises(qwen3: Backbone, monkeypatch: pytest.MonkeyPatch, score):
    method = instantiate_method(LoRA, qwen3).train()

    def fail(**_: object) -> None:
        assert not method.training
        raise RuntimeError("no room")

    monkeypatch.setattr(qwen3, "compute_hidden_states", fail)
    with pytest.raises(RuntimeError, match="no room"):
        score(method, generate_examples(2, 0), [0, 0])
    assert method.training
