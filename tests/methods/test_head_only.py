import pytest
import torch
from torch.testing import assert_close

from benchmark.evaluation.scoring import predict
from methods.base import TARGET_STAGE
from methods.head_only import HeadOnly, fit_logistic_regression
from tasks.core.types import EncodedExample, Example, UsageError


def item(seed: int, answer: int, options: int = 3) -> EncodedExample:
    """A random prompt whose last token gives the answer away."""
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(10, 40, (5 + seed % 4,), generator=draw).tolist()
    words = ("甲", "乙", "丙", "丁")[:options]
    example = Example(f"u{seed}", "toy", "", (words[answer],), words)
    return EncodedExample(example, (2, *ids, 5 + answer), (20 + answer, 1), tuple((20 + i,) for i in range(options)), 1)


def items(count: int, first: int, options: int = 3) -> list[EncodedExample]:
    return [item(first + i, i % options, options) for i in range(count)]


def test_the_fit_is_the_minimum_of_the_penalised_loss():
    """At the solution the gradient, written out per class, is 0; features at very different scales."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(40, 5, generator=draw, dtype=torch.double) * torch.tensor([1, 10, 1000, 0.01, 1]) + 3
    y = torch.randint(0, 3, (40,), generator=draw)
    options = torch.full((40,), 3)
    head = fit_logistic_regression(x, y, options, l2=0.7)
    z, spread = (x - x.mean(0)) / x.std(0, correction=0), x.std(0, correction=0)
    weight = head[:, :-1] * spread
    p = torch.softmax(x @ head[:, :-1].T + head[:, -1], 1)
    for i in range(3):
        error = p[:, i] - (y == i).double()
        assert_close(error @ z + 0.7 * weight[i], torch.zeros(5, dtype=torch.double), rtol=0, atol=1e-5)
        assert abs(error.sum()) < 1e-5


def test_options_that_an_item_does_not_have_take_no_share():
    """Half of the items have two options, half have four: the gradient of every class's bias is 0 over those it is in."""
    x, options = torch.randn(40, 4, generator=torch.Generator().manual_seed(0), dtype=torch.double), [2, 4] * 20
    y = torch.tensor([i % 2 if i % 4 < 2 else i // 4 % options[i] for i in range(40)])
    head, error = fit_logistic_regression(x, y, torch.tensor(options), 1.0), torch.zeros(4, dtype=torch.double)
    for one, answer, n in zip(x, y, options, strict=True):
        error[:n] += torch.softmax(head[:n, :-1] @ one + head[:n, -1], 0)
        error[answer] -= 1
    assert error.abs().max() < 1e-5


def test_it_reads_the_last_position_of_each_prompt_whatever_the_batch(backbone):
    method, of = HeadOnly(backbone), items(6, 0)
    found = method.extract_features(of)
    for row, one in zip(found, of, strict=True):
        with torch.no_grad():
            alone = backbone.model.model(torch.tensor([one.prompt_ids])).last_hidden_state[0, -1]
        assert_close(row, alone, rtol=1e-4, atol=1e-5)


def test_it_answers_and_packed_equals_solo(backbone):
    cells, test = [items(240, 0), items(30, 400)], items(12, 900)
    packed = HeadOnly(backbone)
    packed.begin_stage(TARGET_STAGE, [0, 1], cells)
    answers, others = ([row.text for row in predict(packed, test, slot)] for slot in (0, 1))
    gold = [one.example.answers[0] for one in test]
    assert sum(a == b for a, b in zip(answers, gold, strict=True)) >= 10
    second, state = (
        packed.slot_state_dict(1)["head.tensors.0"].clone(),
        {k: v.clone() for k, v in packed.slot_state_dict(0).items()},
    )
    assert packed.count_trained_parameters() == 3 * (32 + 1)
    solo = HeadOnly(backbone)
    solo.begin_stage(TARGET_STAGE, [7], cells[1:])
    assert torch.equal(solo.slot_state_dict()["head.tensors.0"], second)
    assert [row.text for row in predict(solo, test, 0)] == others != answers
    solo.load(state)
    assert [row.text for row in predict(solo, test, 0)] == answers


def test_items_with_options_of_their_own_get_one_of_those(qwen3):
    method = HeadOnly(qwen3)
    method.begin_stage(TARGET_STAGE, [0], [[*items(10, 0, 4), *items(10, 50, 2)]])
    for one, row in zip(items(8, 90, 2), predict(method, items(8, 90, 2), 0), strict=True):
        assert row.text in one.example.choices


def test_nothing_learns_by_gradient(qwen3):
    method = HeadOnly(qwen3)
    method.begin_stage(TARGET_STAGE, [0], [items(6, 0)])
    assert not method.trainable_by_slot()
    assert not method.uses_gradient_descent


def test_free_text_is_an_error_that_names_the_task(qwen3):
    span = item(0, 0)._replace(choice_ids=(), example=Example("u", "drcd", "", ("台北",)))
    with pytest.raises(UsageError, match="choices, and drcd gives none"):
        HeadOnly(qwen3).begin_stage(TARGET_STAGE, [0], [[span]])
    assert HeadOnly.supported_forms == ("choice",)
