"""Scores against the definitions, counted by hand or written out slowly."""

from random import Random

import pytest

from tasks.core.metrics import (
    ChoiceMetric,
    SpanMetric,
    compute_metrics,
    compute_overlap_f1,
    find_longest_run_length,
    normalise_text,
    segment_text,
)
from tasks.core.types import Example


def test_segments_are_chinese_characters_and_words_of_anything_else():
    assert segment_text("《战国无双3》由ω-force于2009.5开发 Open Source。") == [
        *"战国无双", "3", "由", "ωforce", "于", "2009.5", "开", "发", "open", "source",
    ]  # fmt: skip
    assert normalise_text("  A-B：《甲》 ") == "ab甲"


def test_f1_comes_from_the_longest_contiguous_run():
    # 光荣和 is common: 3 of 4 predicted, 3 of 5 wanted
    assert compute_overlap_f1("光荣和甲", "乙光荣和丙") == pytest.approx(2 * 3 / (4 + 5))
    # a subsequence would have 3 in common, the longest run has 1
    assert compute_overlap_f1("甲一乙二丙", "甲三乙四丙") == pytest.approx(2 * 1 / 10)
    assert compute_overlap_f1("", "甲") == 0.0
    assert compute_overlap_f1("。", "甲") == 0.0


def test_longest_run_equals_trying_all_slices():
    rng = Random(0)
    for _ in range(200):
        a, b = ("".join(rng.choices("abc", k=rng.randint(0, 9))) for _ in range(2))
        slices = {a[i:j] for i in range(len(a)) for j in range(i, len(a) + 1)} | {""}
        assert find_longest_run_length(a, b) == max(len(piece) for piece in slices if piece in b)


def test_the_best_reference_counts_and_rows_are_averaged():
    metric = SpanMetric()
    metric.update(["光荣", "不对"], [["光荣公司", "《光荣》"], ["甲"]])
    found = metric.compute()
    assert float(found["f1"]) == 0.5
    assert float(found["exact_match"]) == 0.5


def rows(pairs, choices=("未知", "合作", "持股")):
    return [(guess, Example(f"x:{i}", "x", "", truth, choices)) for i, (guess, truth) in enumerate(pairs)]


WORDS = {"unknown": "未知", "a": "合作", "b": "持股"}


def test_accuracy_and_f1_by_hand():
    pairs = [("合作", ("合作",)), ("合作", ("未知",)), ("未知", ("持股",)), ("未知", ("未知",))]
    found = compute_metrics(rows(pairs), ("accuracy", "macro_f1", "micro_f1"), WORDS)
    assert found["accuracy"] == pytest.approx(2 / 4)
    # 合作: 1 hit, 1 false; 未知: 1 hit, 1 false, 1 missed; 持股: 1 missed
    assert found["macro_f1"] == pytest.approx((2 / 3 + 2 / 4 + 0) / 3)
    assert found["micro_f1"] == pytest.approx(2 * 1 / (2 * 1 + 1 + 1))


def test_any_accepted_answer_is_right():
    assert compute_metrics(rows([("持股", ("合作", "持股"))]), ("accuracy", "micro_f1"), WORDS) == {
        "accuracy": 1,
        "micro_f1": 1,
    }


def test_a_text_that_is_no_label_is_wrong_and_no_class():
    found = compute_metrics(rows([("啊", ("合作",)), (" 合作 ", ("合作",))]), ("accuracy", "macro_f1"), WORDS)
    assert found == {"accuracy": 0.5, "macro_f1": pytest.approx(2 / 3)}


def test_scores_add_up_over_updates():
    once, twice = (ChoiceMetric(["甲", "乙"]) for _ in range(2))
    once.update(["甲", "乙", "乙"], [["甲"], ["甲"], ["乙"]])
    twice.update(["甲"], [["甲"]])
    twice.update(["乙", "乙"], [["甲"], ["乙"]])
    assert once.compute() == twice.compute()
