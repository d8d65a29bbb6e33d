from benchmark.evaluation.scoring import predict
from methods.base import TARGET_STAGE
from methods.baselines import Majority
from methods.core.backbone import Backbone
from tasks.core.types import EncodedExample, Example


def item(answer: str, choices: tuple[str, ...]) -> EncodedExample:
    return EncodedExample(
        Example("u", "t", "", (answer,), choices), (5, 6), (7, 1), tuple((i,) for i in range(len(choices))), 0
    )


def test_majority_answers_with_each_slots_commonest(qwen3: Backbone):
    words = ("好", "坏")
    method = Majority(qwen3)
    method.begin_stage(TARGET_STAGE, [0, 1, 2], [
        [item("坏", words), item("坏", words), item("好", words)],
        [item("坏", words), item("好", words)],
        [item("乙", ()), item("甲", ()), item("乙", ())],
    ])  # fmt: skip
    asked = [item("好", words), item("好", words), item("甲", ())]
    assert [row.text for row in predict(method, asked, [0, 1, 2])] == ["坏", "好", "乙"]


def test_between_equals_the_order_of_the_examples_does_not_decide(qwen3: Backbone):
    method, words = Majority(qwen3), [item("乙", ()), item("甲", ())]
    method.begin_stage(TARGET_STAGE, [0, 1], [words, words[::-1]])
    one, other = predict(method, [item("丙", ())] * 2, [0, 1])
    assert one.text == other.text


def test_majority_keeps_to_the_options_of_an_item(qwen3: Backbone):
    method = Majority(qwen3)
    method.begin_stage(TARGET_STAGE, [0], [[item("D", ("A", "B", "C", "D"))] * 3 + [item("B", ("A", "B"))]])
    assert predict(method, [item("A", ("A", "B"))])[0].text == "B"
