"""Tasks in YAML alone: what they read, and every way to write one wrong."""

from collections.abc import Callable
from pathlib import Path

import pytest

import tasks
from tasks.base import UsageError
from tasks.core.yaml_task import load_yaml_task
from tests.support.declaration import PLAIN, declare


@pytest.fixture
def declared(tmp_path: Path) -> Callable[..., str]:
    """`declared(yaml, rows)`: the path of a declaration beside its records."""
    return lambda *given, **more: str(declare(tmp_path, *given, **more))


def first(path: str):
    task = load_yaml_task(path)()
    return next(task.read_examples("train")), task


def test_a_choice_is_declared_with_columns_template_and_words(declared):
    example, task = first(declared(PLAIN + "metric: macro_f1\nlicence: mine\nabout: Two kinds.\n"))
    assert example.prompt == "选坏或好。\n第0条评论\n答："
    assert (example.answers, example.choices) == (("坏",), ("坏", "好"))
    assert example.prompt[slice(*example.truncatable_span)] == "第0条评论"
    assert (task.name, task.role, task.form) == ("mine", "target", "choice")
    assert (task.metric, task.metrics) == ("macro_f1", ("macro_f1", "accuracy"))
    assert (type(task).__doc__, task.licence) == ("Two kinds.", "mine")


def test_it_splits_draws_and_scores_as_any_task(declared, tokenizer):
    task = tasks.load_task(declared())(tokenizer, shots=2)
    task.setup()
    assert [len(examples) for examples in task.examples.values()] == [4, 2, 6]
    assert len(next(iter(task.train_dataloader())).examples) == 4
    assert task.score_predictions({e.uid: e.answers[0] for e in task.examples["test"]})["accuracy"] == 1


def test_the_same_file_is_the_same_class_until_it_changes(declared):
    path = declared()
    kind = load_yaml_task(path)
    assert load_yaml_task(path) is kind
    declared(PLAIN.replace("坏", "差"))
    assert load_yaml_task(path).words["0"] == "差"


OPTIONS = """
form: options
files: {train: rows.jsonl}
columns: {options: [a, b, c], answer: right}
template: "选字母。\\n{text}\\n{options}\\n答："
"""


@pytest.mark.parametrize(
    ("row", "more", "answers"),
    [({"right": "乙"}, "", ("B",)), ({"right": "C"}, "", ("C",)), ({"right": 2}, "words: {1: A, 2: B, 3: C}", ("B",)),
     ({"right": "甲", "c": "甲"}, "", ("A", "C"))],
)  # fmt: skip
def test_options_of_a_records_own_are_answered_by_letter(declared, row, more, answers):
    row = {"text": "谁", "a": "甲", "b": "乙", "c": "丙"} | row
    example, _ = first(declared(OPTIONS + more, [row]))
    assert f"\n谁\nA：甲\nB：乙\nC：{row['c']}\n答：" in example.prompt
    assert example.answers == answers
    assert example.choices == ("A", "B", "C")
    assert example.group_id


def test_options_may_be_a_list_and_an_answer_none_of_them(declared):
    rows = [{"text": "谁", "a": ["甲", "乙"], "right": "甲"}, {"text": "谁", "a": ["甲", "乙"], "right": "丁"}]
    example, task = first(declared(OPTIONS.replace("[a, b, c]", "a"), rows))
    assert (example.answers, example.choices) == (("A",), ("A", "B"))
    assert len(list(task.read_examples("train"))) == 1
    assert task.report["dropped"]["train"] == {"answer is none of the options": 1}


def test_options_are_never_what_is_cut(declared):
    row = {"text": "谁", "a": "甲", "b": "乙", "c": "丙", "right": "乙"}
    example, _ = first(declared(OPTIONS.replace("{text}\\n{options}", "{options}\\n{text}"), [row]))
    assert example.prompt[slice(*example.truncatable_span)] == "谁"
    for more, said in (("cut: options", "cut: options cannot be truncated"), ("words: {1: AB}", "found 'AB'")):
        with pytest.raises(UsageError, match=said):
            load_yaml_task(declared(OPTIONS + more, [row]))


SPAN = """
form: span
files: {train: rows.jsonl}
columns: {answer: place}
template: "哪里？\\n{text}\\n问{ask}\\n答："
"""


@pytest.mark.parametrize(
    ("place", "answers"),
    [("家", ("家",)), (["学校", "家"], ("家", "学校")), ({"text": ["家"], "answer_start": [1]}, ("家",))],
)
def test_a_span_is_one_answer_or_several(declared, place, answers):
    example, task = first(declared(SPAN, [{"text": "在家见", "ask": "地点", "place": place}]))
    assert example.answers == answers
    assert example.choices == ()
    assert (task.metric, task.form) == ("f1", "span")
    assert example.group_id, "a text stays in one split, with all its questions"


def test_an_answer_that_is_not_in_the_text_is_left_out_and_counted(declared):
    task = load_yaml_task(declared(SPAN, [{"text": "在家见", "ask": "地点", "place": "学校"}]))()
    assert list(task.read_examples("train")) == []
    assert task.report["dropped"]["train"] == {"no answer is in the text": 1}


@pytest.mark.parametrize(
    ("name", "text"),
    [("rows.csv", 'text,label\n"一,二",1\n三,0\n'), ("rows.tsv", '﻿text\tlabel\r\n一,二\t1\r\n"三\t0\r\n'),
     ("rows.json", '[{"text": "一,二", "label": 1.0}, {"text": "三", "label": 0}]'),
     ("rows.json", '{"text": "一,二", "label": "1"}\n{"text": "三", "label": "0"}\n')],
)  # fmt: skip
def test_the_ending_says_how_a_file_is_read(declared, name, text):
    path = declared(PLAIN.replace("rows.jsonl", name), text, name)
    one, two = load_yaml_task(path)().read_examples("train")
    assert (one.answers, two.answers) == (("好",), ("坏",))
    assert "\n一,二\n" in one.prompt


def test_which_value_is_cut_and_which_keeps_a_document_together(declared):
    example, _ = first(declared(PLAIN.replace("{text}", "{n} {text}") + "cut: text\ngroup: text\n"))
    assert example.prompt[slice(*example.truncatable_span)] == "第0条评论"
    assert example.group_id


def test_an_empty_text_is_left_out_and_counted(declared):
    task = load_yaml_task(declared(PLAIN, [{"text": " ", "label": 0}, {"text": None, "label": 1}]))()
    assert list(task.read_examples("train")) == []
    assert task.report["dropped"]["train"] == {"empty text": 2}


def test_a_hub_copy_is_declared_with_its_revision(declared):
    hub = "hub: {id: a/b, revision: '12ab', config: zh, splits: {train: train, test: validation}}"
    kind = load_yaml_task(declared(PLAIN.replace("files: {train: rows.jsonl}", hub)))
    assert tuple(kind.hub[:4]) == ("a/b", "zh", "12ab", {"train": "train", "test": "validation"})
    assert kind.home is None


def test_what_braces_hold_is_a_name_and_never_run(declared):
    """`str.format` would follow dots and brackets from any value to the interpreter's globals."""
    for place in ("{text.__class__}", "{text[0]}", "{text!r}", "{text:>9}", "{0}}", "{}", "{text", "{ text }"):
        with pytest.raises(UsageError, match="is not a column name in braces"):
            load_yaml_task(declared(PLAIN.replace("{text}", f"{{text}} {place}")))
    example, _ = first(declared(rows=[{"text": "{label} {text.__class__} {}", "label": 1}]))
    assert "\n{label} {text.__class__} {}\n" in example.prompt


def test_what_yaml_could_run_is_refused(declared, tmp_path):
    with pytest.raises(UsageError, match="not YAML"):
        load_yaml_task(declared(PLAIN + f"about: !!python/object/apply:os.mkdir ['{tmp_path}/ran']\n"))
    assert not (tmp_path / "ran").exists()


BAD = [
    (("template:", "tamplate:"), "no field 'tamplate'; did you mean 'template'"),
    (('template: "选坏或好。\\n{text}\\n答："', ""), "template is missing"),
    (("{text}", "评论"), "template: no placeholder for a value"),
    (("{text}", "{text}{answer}"), "template: {answer} would show the answer"),
    (("{text}", "{text}{options}"), "template: {options} is required with form: options"),
    (
        ("{answer: label}", "{answer: label, txet: body}"),
        "columns.txet: the template has no {txet}; did you mean 'text'",
    ),
    (("{answer: label}", "{answer: label, text: [a, b]}"), "columns.text takes one column"),
    (("words: {0: 坏, 1: 好}", ""), "words: form choice needs two or more"),
    (("1: 好", "1: 坏"), "words with '坏' twice; each label needs a different word"),
    (("0: 坏", "0: ' 坏'"), "words with '0': ' 坏'; a word is not empty and has no space at its ends"),
    (("0: 坏", "no: 坏"), "words: False is not a text in YAML; put yes, no"),
    (("0: 坏", "0: 坏, 0: 差"), "duplicate key '0'"),
    (("words:", "form: span\nwords:"), "words: form span has none"),
    (("words:", "form: spam\nwords:"), "form takes one of choice, options, span"),
    (("words:", "metric: f1\nwords:"), "metric: form choice has accuracy, macro_f1, micro_f1, found 'f1'"),
    (("words:", "cut: txet\nwords:"), "cut and group take a name of the template, found 'txet'; did you mean 'text'"),
    (("words:", "answer_tokens: 0\nwords:"), "answer_tokens takes 1 or more"),
    (("words:", "answer_tokens: many\nwords:"), "answer_tokens takes a whole number"),
    (("words:", "name: ../x\nwords:"), "name: '../x' is used in file names"),
    (("words:", "role: both\nwords:"), "role takes one of source, target"),
    (("files: {train: rows.jsonl}", ""), "files or hub is missing"),
    (
        ("{train: rows.jsonl}", "{train: rows.jsonl, test: none.jsonl}"),
        "files.test: no file none.jsonl; paths are relative to",
    ),
    (("{train: rows.jsonl}", "{tset: rows.jsonl}"), "one of train, dev, test"),
    (
        ("rows.jsonl", "rows.parquet"),
        "files.train: unknown format of rows.parquet; the name must end in one of .jsonl, .json, .csv, .tsv",
    ),
    (("files: {train: rows.jsonl}", "hub: {id: a/b}"), "hub.revision is missing; it takes a text"),
    (("files: {train: rows.jsonl}", "hub: {id: a/b, revision: 12}"), "hub.revision takes a text, found 12; put it in"),
    (("files: {train: rows.jsonl}", "hub: {id: a/b, revision: c, splits: {tst: x}}"), "hub.splits: no part 'tst'"),
    (("files: {train: rows.jsonl}", "hub: {id: a/b, revision: c, splits: {}}"), "hub.splits is empty"),
]


@pytest.mark.parametrize(("change", "said"), BAD, ids=[said[:40] for _, said in BAD])
def test_a_bad_declaration_is_one_line_with_its_file_and_field(declared, change, said):
    assert change[0] in PLAIN
    with pytest.raises(UsageError) as caught:
        load_yaml_task(declared(PLAIN.replace(*change)))
    assert str(caught.value).startswith("task ")
    assert "mine.yaml: " in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "said"),
    [([{"text": "一"}], "mine/rows.jsonl:1: no field 'label'; there are: text (see `columns`)"),
     ([{"text": "一", "label": 7}], "mine/rows.jsonl:1: label '7' is unknown; there are: 0, 1"),
     ("text\n", "mine/rows.jsonl:1: not JSON")],
)  # fmt: skip
def test_a_bad_record_is_one_line_with_its_place(declared, rows, said):
    with pytest.raises(UsageError) as caught:
        first(declared(rows=rows))
    assert said in str(caught.value)


def test_a_file_that_is_not_there_is_one_line():
    with pytest.raises(UsageError, match="task none/mine.yaml: cannot be read"):
        tasks.load_task("none/mine.yaml")
