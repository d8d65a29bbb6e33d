import pytest
import torch

import tasks
from tasks.base import Example, UsageError
from tasks.core.encoding import EncodingSpec, collate, encode_examples, group_by_length, tokenize_label_words


@pytest.fixture
def choice():
    return tasks.load_task("chnsent")()


def spec_of(task, tokenizer, max_length):
    return EncodingSpec(task.name, tokenizer, max_length, task.answer_tokens, task.form)


def example(text, question="", answers=("正面",), choices=("负面", "正面"), start="说明："):
    prompt = f"{start}{text}{question}\n答："
    place = (len(start), len(start) + len(text))
    return Example(f"x:{text[:4]}", "x", prompt, answers, choices, place, "", len(start))


def read(tokenizer, ids):
    return tokenizer.decode(list(ids))


def test_prompt_and_answer_are_the_text_and_the_end(choice, tokenizer):
    (item,) = encode_examples(spec_of(choice, tokenizer, 512), [example("很好")])
    assert read(tokenizer, item.prompt_ids) == "说明：很好\n答："
    assert read(tokenizer, item.prompt_ids[: item.prefix_length]) == "说明："
    assert item.answer_ids == (*tokenizer("正面")["input_ids"], tokenizer.eos_token_id)
    assert item.choice_ids == tuple(tuple(tokenizer(word)["input_ids"]) for word in ("负面", "正面"))
    assert item.num_cut_tokens == 0


def test_the_end_of_the_field_is_cut_and_everything_else_survives(choice, tokenizer):
    long = example("a" * 300, "\n问：b？")
    (item,) = encode_examples(spec_of(choice, tokenizer, 100), [long])
    text = read(tokenizer, item.prompt_ids)
    assert text.startswith("说明：aaa")
    assert text.endswith("aaa\n问：b？\n答：")
    assert len(item.prompt_ids) + len(item.answer_ids) == 100
    assert item.num_cut_tokens == 300 - text.count("a")


def test_the_cue_survives_a_question_that_is_too_long(choice, tokenizer):
    (item,) = encode_examples(spec_of(choice, tokenizer, 60), [example("很好", "b" * 200)])
    text = read(tokenizer, item.prompt_ids)
    assert text.startswith("说明：bbb")
    assert text.endswith("bbb\n答：")
    assert len(item.prompt_ids) + len(item.answer_ids) <= 60


def test_an_instruction_that_leaves_no_room_is_an_error(choice, tokenizer):
    with pytest.raises(UsageError, match="max_length 12 is too short"):
        encode_examples(spec_of(choice, tokenizer, 12), [example("很好")])


def test_two_label_words_with_the_same_tokens_are_refused(choice, tokenizer):
    assert set(tokenize_label_words(choice.name, tokenizer, ("负面", "正面"))) == {"负面", "正面"}

    class Blind:
        """Knows no Chinese: every character is the unknown token."""

        def __call__(self, texts, **options):
            return {"input_ids": [[0] * len(text) for text in texts]}

    with pytest.raises(UsageError, match="'负面' and '正面' have the same tokens"):
        tokenize_label_words(choice.name, Blind(), ("负面", "正面"))


def test_a_label_word_twice_is_refused_and_not_one_choice(choice, tokenizer):
    with pytest.raises(UsageError, match="duplicate label word among 正面, 正面"):
        encode_examples(spec_of(choice, tokenizer, 512), [example("很好", choices=("正面", "正面"))])


def span(place, length=900):
    text = "".join(chr(ord("a") + i % 20) for i in range(length))
    text = text[:place] + "XYZ" + text[place:]
    return example(text, "\n问：?", answers=("XYZ",), choices=())


@pytest.mark.parametrize("place", [0, 5, 450, 890, 900])
def test_a_training_window_holds_the_answer(tokenizer, place):
    task = tasks.load_task("cote_bd")()
    (item,) = encode_examples(spec_of(task, tokenizer, 200), [span(place)], is_training=True)
    assert "XYZ" in read(tokenizer, item.prompt_ids)
    assert len(item.prompt_ids) + task.answer_tokens == 200


def test_a_test_window_follows_the_question_and_does_not_know_the_answer(tokenizer):
    task = tasks.load_task("drcd")()
    context = "无关内容" * 60 + "王先生出生在南京" + "别的事情" * 60
    shown = [
        encode_examples(spec_of(task, tokenizer, 300), [example(context, "\n问：王先生出生在哪？", (answer,), ())])[
            0
        ].prompt_ids
        for answer in ("南京", "别的事情")
    ]
    assert "出生在南京" in read(tokenizer, shown[0])
    assert shown[0] == shown[1]


def test_a_span_longer_than_its_cap_is_trained_on_up_to_there(tokenizer):
    task = tasks.load_task("cote_bd")()
    (item,) = encode_examples(spec_of(task, tokenizer, 512), [example("x" * 50, "", ("x" * 50,), ())], is_training=True)
    assert len(item.answer_ids) == task.answer_tokens
    assert tokenizer.eos_token_id not in item.answer_ids


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_masked_and_only_answers_are_labels(choice, tokenizer, side):
    items = encode_examples(spec_of(choice, tokenizer, 512), [example("很好"), example("不怎么好", answers=("负面",))])
    batch = collate(items, [1, 0], 7, side)
    assert batch.slots == (1, 0)
    for row, item in enumerate(items):
        real = batch.attention_mask[row].bool()
        assert tuple(batch.input_ids[row][real].tolist()) == item.prompt_ids + item.answer_ids
        assert tuple(batch.labels[row][batch.labels[row] != -100].tolist()) == item.answer_ids
        assert (batch.input_ids[row][~real] == 7).all()
        assert (batch.labels[row][~real] == -100).all()
    short = batch.attention_mask[0]
    assert torch.equal(short, short.sort(descending=side == "right").values)


def test_buckets_hold_everything_once_and_stay_below_the_limit():
    lengths = [5, 1, 9, 3, 30, 2, 2, 8]
    found = group_by_length(lengths, 20)
    assert sorted(i for bucket in found for i in bucket) == list(range(len(lengths)))
    assert all(len(b) == 1 or len(b) * max(lengths[i] for i in b) <= 20 for b in found)
    assert found[0] == [4]


def test_a_begin_token_comes_first_where_the_tokenizer_has_one(choice, tokenizer):
    class WithBegin:
        bos_token_id, eos_token_id = 256, tokenizer.eos_token_id

        def __call__(self, texts, add_special_tokens=True, **options):
            found = tokenizer(texts, add_special_tokens=False)["input_ids"]
            return {"input_ids": [256, *found] if isinstance(texts, str) else found}

    (item,) = encode_examples(spec_of(choice, WithBegin(), 512), [example("很好")])
    (plain,) = encode_examples(spec_of(choice, tokenizer, 512), [example("很好")])
    assert item.prompt_ids == (256, *plain.prompt_ids)
    assert item.prefix_length == plain.prefix_length + 1
