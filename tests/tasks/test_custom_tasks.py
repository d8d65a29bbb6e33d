"""Where a task of one's own has its records, and what its class may have wrong."""

import sys
from pathlib import Path

import pytest

import tasks
from tasks.base import Task, UsageError
from tasks.core.formats import parse_json_lines
from tasks.core.sources import File, Hub


class Mine(Task):
    name, template, words = "mine", "选。\n{}\n答：", {"0": "坏", "1": "好"}
    files = (File("train", ("rows.jsonl",), parse_json_lines),)

    def read_examples(self, split):
        for row in self.read_records(split):
            yield self.make_example([row["text"]], [self.get_label_word(row["label"])], self.words.values())


def write(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = "".join(f'{{"text": "第{i}条", "label": {i % 2}}}\n' for i in range(20))
    (folder / "rows.jsonl").write_text(rows)
    return folder


@pytest.mark.parametrize("source", ["sample", "local", "hub"])
def test_a_task_with_a_home_reads_it_whatever_the_source(tmp_path, source):
    kind = type("Mine", (Mine,), {"home": write(tmp_path / "beside")})
    task = kind(data_source=source, data_dir=tmp_path)
    task.setup()
    assert task.report["rows"] == {"train": 20}
    assert "beside" in task.report["source"]


def test_a_hub_that_is_asked_for_goes_before_the_home(tmp_path):
    hub = Hub("a/b", None, "12ab", {"train": "train"})
    kind = type("Mine", (Mine,), {"home": write(tmp_path), "hub": hub})
    assert "huggingface.co" in kind(data_source="hub").record_source.title
    assert "own files" in kind(data_source="local", data_dir=tmp_path).record_source.title


def test_without_a_home_it_is_where_the_profile_says(tmp_path):
    write(tmp_path / "mine")
    task = Mine(data_source="local", data_dir=tmp_path)
    task.setup()
    assert task.report["rows"] == {"train": 20}


@pytest.mark.parametrize(("source", "said"), [("sample", "no sample records"), ("hub", "names no hub data set")])
def test_without_records_it_says_what_to_do(source, said):
    with pytest.raises(UsageError, match=f"mine: .*{said}.*home"):
        Mine(data_source=source).setup()


def hubbed(source: str) -> Task:
    return type("Mine", (Mine,), {"hub": Hub("a/b", None, "12ab", {"train": "train"})})(data_source=source)


def test_a_task_with_a_hub_alone_is_sent_there():
    with pytest.raises(UsageError, match="no sample records are generated for it; use --source hub"):
        hubbed("sample").setup()


WRONG = [  # an attribute, and what is said of it
    ({"name": None}, "has no name; set it as a class attribute"),
    ({"template": ["{}"]}, "has no template"),
    ({"template": "{text}"}, "has a template without a placeholder"),
    ({"form": "spans"}, "has form 'spans'; there are: choice, span"),
    ({"metric": "f1"}, "has metric 'f1'; form choice has accuracy, macro_f1, micro_f1"),
    ({"metrics": ("accuracy", "bleu")}, "has metric 'bleu'"),
    ({"metrics": ("macro_f1",)}, "has metric 'accuracy', which is not among its metrics macro_f1"),
    ({"form": "span", "metric": "f1", "metrics": ("f1",)}, "has words; form span has none"),
    ({"words": ["坏", "好"]}, "write a word for each raw label"),
    ({"words": {0: "坏", 1: "好"}}, "has words with 0: '坏'; both must be texts"),
    ({"words": {"0": "好", "1": "好"}}, "has words with '好' twice"),
    ({"words": {"0": " no", "1": " yes"}}, "a word is not empty and has no space at its ends"),
    ({"files": ()}, "has neither files nor a hub"),
    ({"files": Mine.files[0]}, "has files that are not a tuple of File"),
    ({"files": (File("train", "rows.jsonl", parse_json_lines),)}, "with paths 'rows.jsonl'; write a tuple"),
    (
        {"files": (File("trian", ("rows.jsonl",), parse_json_lines),)},
        "has File('trian'); the parts are train, dev, test",
    ),
]


@pytest.mark.parametrize(("fault", "said"), WRONG, ids=[said for _, said in WRONG])
def test_a_wrong_class_is_one_line_before_anything_is_read(monkeypatch, fault, said):
    monkeypatch.setattr(sys.modules[__name__], "Faulty", type("Faulty", (Mine,), fault), raising=False)
    with pytest.raises(UsageError) as caught:
        tasks.load_task(f"{__name__}:Faulty")
    assert str(caught.value).startswith(f"task '{__name__}:Faulty' has ")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("values", "answers"), [("第一条", ["坏"]), (["第一条"], "坏"), (["第一条"], [])], ids=["values", "answers", "none"]
)
def test_an_example_of_a_text_that_is_no_list_says_where(values, answers):
    task = Mine()
    task.record_location = "mine/rows.jsonl:7"
    with pytest.raises(UsageError, match="mine/rows.jsonl:7: values and answers of an example are lists of texts"):
        task.make_example(values, answers, ["坏", "好"])
