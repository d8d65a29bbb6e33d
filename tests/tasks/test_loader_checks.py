"""Each trap fires where it is set, and nowhere else."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import pytest

import tasks
from tasks.base import Task
from tasks.core.formats import parse_csv, parse_json_lines, parse_tsv
from tasks.core.sources import File
from tasks.validation.findings import FAILED, PASSED, WARNING
from tasks.validation.loader_checks import check_loader

WORDS = {"0": "坏", "1": "好"}


class Rated(Task):
    """A task without a fault; each test gives it one."""

    name, template, words = "rated", "选坏或好。\n评论：{}\n答：", WORDS
    files = (File("train", ("train.tsv",), parse_tsv), File("test", ("test.tsv",), parse_tsv))

    def read_examples(self, split):
        for row in self.read_records(split):
            yield self.make_example([row["text"]], [self.get_label_word(row["label"])], self.words.values())


def table(count: int, start: int = 0, end: str = "\n", extra: str = "") -> str:
    rows = [f"第{i}条评论\t{i % 2}" for i in range(start, start + count)]
    return end.join(["text\tlabel", *rows]) + end + extra


@pytest.fixture
def found(tmp_path: Path, tokenizer) -> Callable[..., dict[str, tuple[str, str]]]:
    """`found(train=..., **attributes)`: check -> (state, what it says) of the task with this fault."""

    def make(train: str = table(30), test: str = table(10, 50), most: int = 512, given=tokenizer, kind=Rated, **fault):
        for name, text in (("train", train), ("test", test)):
            (tmp_path / f"{name}.tsv").write_bytes(text.encode())
        task = type("Faulty", (kind,), {"home": tmp_path} | fault)(given, max_length=most)
        return {finding.check_name: (finding.status, finding.message) for finding in check_loader(task)}

    return make


def test_a_task_without_a_fault_passes_everything(found):
    states = found()
    assert len(states) == 24
    assert {state for state, _ in states.values()} == {PASSED}
    assert states["records"][1] == "30 train, 10 test; in use: 27 train, 3 dev, 10 test"


TEXTS = [  # the fault in the files, the check that sees it, its state, what it says
    ({"train": "\ufeff" + table(30)}, "byte order mark", PASSED, "at the start of train.tsv; it is removed"),
    ({"train": table(30, extra="\ufeff第99条\t1\n")}, "byte order mark", WARNING, "1 files have one inside (concatenated files?); it is removed, first train.tsv:32"),
    ({"train": table(30, end="\r\n")}, "line ends", PASSED, "CRLF and LF; records end"),
    ({"train": table(30, extra="前\r后\t1\n")}, "line ends", WARNING, "first train.tsv:32"),
    ({"train": table(30, extra="前\r后\t1\n")}, "carriage returns", FAILED, "first rated/train.tsv:32"),
    ({"train": table(30, extra='"整句都在引号里"\t1\n')}, "quotes kept", WARNING, "first rated/train.tsv:32"),
    ({"train": table(30, extra="坏\ufffd字\t1\n")}, "damaged characters", WARNING, "first rated/train.tsv:32"),
    ({"train": table(30, extra="第3条评论\t1\n")}, "duplicates", WARNING, "rated/train.tsv:32, which repeats rated/train.tsv:5"),
    ({"train": table(30, extra="第3条评论\t0\n")}, "contradictions", WARNING, "rated/train.tsv:32, which repeats rated/train.tsv:5"),
    ({"test": table(10, 50, extra="第3条评论\t1\n")}, "test in train", WARNING, "1 test records; they are removed from train, first rated/test.tsv:12"),
    ({"test": table(10, 50, extra="第3条，评论！\t1\n")}, "near leaks", WARNING, "first rated/test.tsv:12"),
    ({"train": table(30, extra="\u200b\t1\n")}, "empty texts", FAILED, "first rated/train.tsv:32"),
    ({"train": table(30) .replace("\t1", "\t0")}, "labels trained", FAILED, "1 labels have no training example, first 好"),
    ({"test": table(10, 50).replace("\t1", "\t0")}, "labels tested", WARNING, "1 labels have no test example, first 好"),
    ({"train": table(30).replace("\t1", "\t0", 14)}, "balance", WARNING, "from 1 to 29 examples"),
    ({"train": table(30, extra="长" * 200 + "\t1\n")}, "length", WARNING, "1 of 41 examples are truncated to 200 tokens; the longest has 6"),
    ({"train": table(30, extra="没有标签\n")}, "records", FAILED, "rated/train.tsv:32: 1 columns between tabs"),
    ({"train": table(30, extra="别的标签\t2\n")}, "records", FAILED, "rated/train.tsv:32: label '2' is unknown"),
    ({"test": "text\tlabel\n"}, "records", FAILED, "no test examples left of 30 train and 0 test records"),
    ({"train": table(30, extra="不是") + "\udcff"}, "records", FAILED, "rated/train.tsv:32: not UTF-8"),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "name", "state", "said"), TEXTS, ids=[f"{row[1]}-{row[2]}" for row in TEXTS])
def test_a_trap_in_the_files(found, monkeypatch, fault, name, state, said):
    if any("\udcff" in text for text in fault.values()):
        monkeypatch.setattr(Path, "write_bytes", as_bytes(Path.write_bytes))
        fault = {key: text.replace("\udcff", "\x00") for key, text in fault.items()}
    states = found(**fault, most=200)
    assert states[name][0] == state
    assert said in states[name][1]


def as_bytes(write):
    """NUL as a byte that is no UTF-8."""
    return lambda path, data: write(path, data.replace(b"\x00", b"\xff"))


def reader(text: str, where: str):
    """What many write first: it takes a quote at the start of a text for the file's."""
    yield from csv.DictReader(io.StringIO(text, newline=""), delimiter="\t")


def test_a_quote_that_swallows_lines_is_seen(found):
    files = (File("train", ("train.tsv",), reader), File("test", ("test.tsv",), parse_tsv))
    states = found(train=table(30, extra='"开头\t1\n中间\t0\n结尾"\t1\n'), files=files)
    assert states["quoting"][0] == FAILED
    assert "includes columns too" in states["quoting"][1]
    assert states["records"][1].startswith("31 train")


def test_a_text_over_several_lines_is_a_warning(found, tmp_path):
    (tmp_path / "train.csv").write_text(
        'text,label\n"一行\n又一行",1\n' + table(20).partition("\n")[2].replace("\t", ",")
    )
    states = found(files=(File("train", ("train.csv",), parse_csv), File("test", ("test.tsv",), parse_tsv)))
    assert states["quoting"] == (WARNING, "1 texts span several lines; probably an unclosed quote, "
                                          "first rated/train.csv:3")  # fmt: skip


def by_number(self, split):
    for place, row in enumerate(self.read_records(split)):
        yield self.make_example(
            [row["text"]], [self.get_label_word(row["label"])], self.words.values(), identity_values=[f"{split}{place}"]
        )


def test_two_of_one_item_under_other_keys_are_a_leak(found):
    states = found(test=table(10, 50, extra="第3条评论\t1\n"), read_examples=by_number)
    assert states["test in train"][0] == PASSED
    assert states["leaks"][0] == FAILED
    assert "first rated/test.tsv:12" in states["leaks"][1]


def pairs(self, split):
    for row in self.read_records(split):
        yield self.make_example([row["text"], split], [self.get_label_word(row["label"])], self.words.values())


def test_a_document_in_train_and_test_is_a_warning(found):
    states = found(
        test=table(10, 50, extra="第3条评论\t1\n"), read_examples=pairs, template="选坏或好。\n{}\n问{}\n答："
    )
    assert states["shared texts"] == (WARNING, "1 test examples share their main text with train; `group_text` keeps a "
                                               "document in one split, first rated/test.tsv:12")  # fmt: skip


def some(self, split):
    for row in self.read_records(split):
        if row["label"] == "0":
            self.count_dropped(split, "too bad")
        else:
            yield self.make_example([row["text"]], ["坏"], self.words.values())


def test_what_a_loader_leaves_out_is_said(found):
    assert found(read_examples=some)["left out"] == (WARNING, "5 test records: too bad, first rated/test.tsv:2")


def test_a_loader_that_draws_anew_is_found(found):
    draws = iter(range(10**6))

    def changing(self, split):
        for row in self.read_records(split):
            yield self.make_example(
                [f"{row['text']}{next(draws)}"], [self.get_label_word(row["label"])], self.words.values()
            )

    assert found(read_examples=changing)["determinism"][0] == FAILED


ATTRIBUTES = [
    ({"words": {"0": "不好", "1": "不好吗"}}, "label beginnings", FAILED, "1 label words begin another"),
    (
        {"words": {"0": "差", "1": "棒"}},
        "template",
        WARNING,
        "2 label words are not named in the instruction, first 差",
    ),
    ({"template": "选坏或好。\n评论：{}\n答： "}, "template", WARNING, "ends in a space"),
]


@pytest.mark.parametrize(("fault", "name", "state", "said"), ATTRIBUTES, ids=[row[1] + row[2] for row in ATTRIBUTES])
def test_a_trap_in_the_words(found, fault, name, state, said):
    states = found(**fault)
    assert states[name][0] == state
    assert said in states[name][1]


class Blind:
    """Knows no Chinese; two words of one length are the same to it, and any is unknown."""

    eos_token_id, bos_token_id, unk_token_id = 1, None, 0

    def __call__(self, texts, **options):
        return {"input_ids": [[0] * len(text) for text in texts]}


def test_words_that_the_tokenizer_cannot_tell_apart_or_does_not_know(found):
    assert found(given=Blind())["records"][0] == PASSED
    assert found(given=Blind(), words={"0": "坏", "1": "好"})["label words"][0] == FAILED
    states = found(given=Blind(), words={"0": "坏", "1": "很好"})
    assert states["label words"] == (FAILED, "2 label words are unknown to the tokenizer, first 坏")


class Asked(Rated):
    """Spans; `label` is the answer."""

    form, words, metric, metrics, answer_tokens = "span", {}, "f1", ("f1", "exact_match"), 8

    def read_examples(self, split):
        for row in self.read_records(split):
            yield self.make_example([row["text"]], [row["label"]])


def spans(count: int, start: int = 0, extra: str = "") -> str:
    return "text\tlabel\n" + "".join(f"在{i}号见面\t{i}号\n" for i in range(start, start + count)) + extra


@pytest.mark.parametrize(
    ("extra", "name", "state"),
    [("在家见面\t学校\n", "answer in the text", FAILED), ("很远" * 60 + "家\t家\n", "answers cut off", WARNING),
     ("在很远很远见面\t很远很远\n", "long answers", WARNING)],
)  # fmt: skip
def test_a_trap_of_spans(found, extra, name, state):
    fine, bad = (found(spans(20), spans(9, 50, more), most=120, kind=Asked)[name] for more in ("", extra))
    assert fine[0] == PASSED
    assert bad[0] == state
    assert bad[1].endswith("first rated/test.tsv:11")


def test_an_answer_that_is_none_of_the_choices(found):
    def read_examples(self, split):
        for row in self.read_records(split):
            yield self.make_example([row["text"]], ["丙" if row["text"] == "第3条评论" else "甲"], ["甲", "乙"])

    assert found(words={}, read_examples=read_examples)["answer among choices"][0] == FAILED


@pytest.mark.parametrize(("right", "state"), [("A", WARNING), ("AB", PASSED)])
def test_options_whose_place_tells_the_answer(found, right, state):
    def read_examples(self, split):
        for number, row in enumerate(self.read_records(split)):
            yield self.make_example([row["text"]], [right[number % len(right)]], "AB", group_text=row["text"])

    balance = found(words={}, read_examples=read_examples)["balance"]
    assert balance[0] == state
    assert ("from 0 to 30" in balance[1] and "the position of an option predicts" in balance[1]) == (state == WARNING)


def test_prompts_that_start_otherwise_are_no_constant_start(found):
    def read_examples(self, split):
        for row in self.read_records(split):
            yield (
                super(Rated, self)
                .make_example([row["text"]], ["好"], WORDS.values())
                ._replace(prefix_length=3 + (row["text"] == "第3条评论"))
            )

    assert found(read_examples=read_examples)["constant start"][0] == FAILED


@pytest.mark.parametrize("name", ["bq", "cote_bd"])
def test_the_tasks_of_the_suite_pass(name, tokenizer):
    """One of each form and file; `benchmark check` takes the others."""
    states = [
        finding
        for finding in check_loader(tasks.load_task(name)(tokenizer, max_length=2000))
        if finding.status == FAILED
    ]
    assert states == []


def test_json_lines_are_not_looked_at_for_columns(found, tmp_path):
    rows = "".join(f'{{"text": "一\\n二\\t{i}", "label": {i % 2}}}\n' for i in range(30))
    (tmp_path / "train.jsonl").write_text(rows)
    states = found(files=(File("train", ("train.jsonl",), parse_json_lines), File("test", ("test.tsv",), parse_tsv)))
    assert states["quoting"][0] == PASSED
