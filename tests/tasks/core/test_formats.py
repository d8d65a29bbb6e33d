"""The traps of the original files, each in a small invented one (the folder's README numbers them)."""

import pytest

from tasks.core.types import UsageError

CHNSENT = "label\ttext_a\n" + "".join(f"{i % 2}\t评论{i}很长\n" for i in range(30))


def test_a_quote_in_a_tab_file_swallows_no_lines(local):
    task = local("chnsent", {"train.tsv": CHNSENT + '1\t"开头有引号\n0\t下一行\n', "test.tsv": CHNSENT})
    examples = list(task.read_examples("train"))
    assert len(examples) == 32
    assert '评论："开头有引号\n' in examples[30].prompt


def test_bq_needs_real_quoting_and_starts_with_a_byte_order_mark(local):
    rows = "\ufeffsentence1,sentence2,label\n" + '"借款,能否取消",取消吗,1\n贷, 取消吗 ,0\n'
    first, second = local("bq", {"dev.csv": rows, "test.csv": rows}).read_examples("test")
    assert "借款,能否取消\n" in first.prompt
    assert first.answers == ("一致",)
    assert "\n问法二：取消吗\n" in second.prompt  # edge spaces are no text


@pytest.mark.parametrize("bad", ["一\t二\n", "一\t二\t三\t0\n"])
def test_a_line_with_the_wrong_columns_is_an_error_with_its_number(local, bad, pair_lines):
    task = local("afqmc", {"train.txt": pair_lines(3) + bad, "dev.txt": pair_lines(3)})
    with pytest.raises(UsageError, match="afqmc/train.txt:4: "):
        list(task.read_examples("train"))


def test_blank_lines_and_carriage_returns_are_no_text(local):
    rows = "甲\t乙\t合作\t甲与乙合作\r\n\r\n乙\t甲\t合作\t甲与乙合作\r\n\r\n"
    examples = list(local("finre", {"train.txt": rows, "test.txt": rows}).read_examples("train"))
    assert len(examples) == 2
    assert "\r" not in examples[0].prompt
    assert examples[0].group_id == examples[1].group_id != ""


def test_only_a_line_feed_ends_a_record(local, pair_lines):
    lines = "甲\u2028一\t乙\x85二\t0\n" + pair_lines(2)
    assert len(list(local("lcqmc", {"dev.txt": lines, "test.txt": lines}).read_examples("test"))) == 3


def test_ocnli_rows_without_an_agreed_label_are_dropped_and_counted(local):
    rows = '{"sentence1": "一", "sentence2": "二", "label": "-"}\n{"sentence1": "一", "sentence2": "三", "label": "neutral"}'
    task = local("ocnli", {"train.10k.json": rows, "dev.json": rows})
    assert [example.answers for example in task.read_examples("train")] == [("中立",)]
    assert task.report["rows"]["train"] == 2
    assert task.report["dropped"]["train"] == {"no agreed label": 1}


def test_the_largest_ocnli_file_is_read_once(local):
    rows = '{"sentence1": "一", "sentence2": "二", "label": "neutral"}\n'
    task = local("ocnli", {"train.10k.json": rows, "train.50k.json": rows + rows, "dev.json": rows})
    assert len(list(task.read_examples("train"))) == 2


LABELS = '{"label_des": "教育", "label": "0"}\n{"label_des": "股票", "label": "14"}\n'


def test_tnews_ids_are_taken_by_meaning(local):
    dataclue = '{"label": "0", "sentence": "甲"}\n{"label": "14", "sentence": "乙", "label_des": "stock"}\n'
    task = local("tnews", {"labels.json": LABELS, "train.json": dataclue, "dev.json": dataclue})
    assert [example.answers[0] for example in task.read_examples("train")] == ["教育", "股票"]


def test_tnews_codes_of_clue_are_strings_or_numbers(local):
    clue = '{"label": "100", "sentence": "甲"}\n{"label": 114, "sentence": "乙"}\n'
    task = local("tnews", {"train.json": clue, "dev.json": clue})
    assert [example.answers[0] for example in task.read_examples("train")] == ["故事", "股票"]


def test_tnews_ids_without_a_list_of_names_are_refused(local):
    rows = '{"label": "0", "sentence": "甲"}\n'
    with pytest.raises(UsageError, match="label '0' is unknown"):
        list(local("tnews", {"train.json": rows, "dev.json": rows}).read_examples("train"))


def test_thucnews_ids_are_the_lines_of_class_txt(local):
    files = {"class.txt": "sports\nfinance", "train.txt": "甲\t1\n乙\t0\n", "test.txt": "丙\t0\n"}
    assert [example.answers[0] for example in local("thucnews", files).read_examples("train")] == ["财经", "体育"]


def squad(answers, context="\ufeff甲在北京出生。", question="甲在哪里出生？"):
    qa = {"question": question, "id": "1", "answers": [{"text": text, "answer_start": -1} for text in answers]}
    return {"version": "v1.0", "data": [{"paragraphs": [{"id": "1", "context": context, "qas": [qa]}]}]}


def test_offsets_are_not_trusted_and_an_answer_of_the_text_is_trained_on(local):
    files = {"squad-style-data/cmrc2018_dev.json": squad(["北平", "北京"])}
    task = local("cmrc2018", files)
    (example,) = task.read_examples("test")
    assert example.answers == ("北京", "北平")  # both are accepted
    assert task.report["dropped"]["test"] == {"references not in the text (kept for scoring)": 1}


@pytest.mark.parametrize(
    ("record", "reason"),
    [(squad(["上海"]), "no answer is in the text"), (squad(["北京"], question=" "), "empty question")],
)
def test_questions_that_cannot_be_answered_are_dropped_and_counted(local, record, reason):
    task = local("cmrc2018", {"squad-style-data/cmrc2018_dev.json": record})
    assert list(task.read_examples("test")) == []
    assert task.report["dropped"]["test"] == {reason: 1}


def test_the_original_cmrc_format_has_numbers_for_answers_and_gives_the_same_examples(local):
    original = [
        {
            "context_id": "1",
            "context_text": "甲生于147.0年。",
            "qas": [{"query_text": "何时？   ", "query_id": "2", "answers": [147.0]}],
        }
    ]
    (example,) = local("cmrc2018", {"data/cmrc2018_dev.json": original}).read_examples("test")
    files = {"squad-style-data/cmrc2018_dev.json": squad(["147.0"], "甲生于147.0年。", "何时？")}
    assert [example] == list(local("cmrc2018", files).read_examples("test"))


def test_drcd_stays_traditional(local):
    (example,) = local("drcd", {"DRCD_test.json": squad(["臺灣"], "甲在臺灣。", "甲在哪裡？")}).read_examples("test")
    assert example.answers == ("臺灣",)
    assert "甲在臺灣。" in example.prompt


def c3(parts, choice, answer):
    return [[parts, [{"question": "问？", "choice": choice, "answer": answer}], "1"]]


def test_c3_has_options_of_its_own_and_may_have_the_right_one_twice(local):
    dialogue = c3(["男：去哪？", "女：北京。"], ["北京", "上海"], "上海")
    mixed = c3(["一段\n文字"], ["甲", "乙", "甲"], "甲")
    first, second = local("c3", {"c3-m-test.json": mixed, "c3-d-test.json": dialogue}).read_examples("test")
    assert (first.answers, first.choices) == (("A", "C"), ("A", "B", "C"))
    assert (second.answers, second.choices) == (("B",), ("A", "B"))
    assert "男：去哪？\n女：北京。" in second.prompt
    assert second.prompt.endswith("\nA：北京\nB：上海\n选择：")


def test_edges_and_invisible_characters_go_from_text_and_target_alike(local):
    rows = '{"s": " \u200e乌镇\u00a0很美 ", "ot": "乌镇 "}\n{"s": "教授。", "ot": "老师"}\n'
    task = local("cote_bd", {"train.txt": rows, "test.txt": rows})
    (example,) = task.read_examples("train")
    assert (example.prompt[slice(*example.truncatable_span)], example.answers) == ("乌镇\u00a0很美", ("乌镇",))
    assert task.report["dropped"]["train"] == {"target not in the text": 1}


def test_damaged_titles_are_counted_and_kept(local):
    lines = "".join(f"标题{i}\ufffd\t0\n" for i in range(20))
    task = local("thucnews", {"class.txt": "finance", "train.txt": lines, "test.txt": "好标题\t0\n"})
    task.setup()
    assert task.report["damaged"] == 20


def test_a_file_that_is_not_json_says_where(local):
    task = local("ocnli", {"train.json": '{"sentence1": \n', "dev.json": "{}"})
    with pytest.raises(UsageError, match="ocnli/train.json:1: not JSON"):
        list(task.read_examples("train"))


def test_a_file_that_is_not_utf8_says_so(local, tmp_path, pair_lines):
    task = local("afqmc", {"train.txt": pair_lines(2), "dev.txt": ""})
    (tmp_path / "afqmc" / "dev.txt").write_bytes("甲\t乙\t1".encode("gbk"))
    with pytest.raises(UsageError, match="afqmc/dev.txt:[0-9]+: not UTF-8"):
        list(task.read_examples("test"))
