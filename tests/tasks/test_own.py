"""Where a task of one's own has its records."""

from pathlib import Path

import pytest

from tasks.base import Task, UsageError
from tasks.formats import json_lines
from tasks.source import File, Hub


class Mine(Task):
    name, template, words = "mine", "选。\n{}\n答：", {"0": "坏", "1": "好"}
    files = (File("train", ("rows.jsonl",), json_lines),)

    def read(self, split):
        for row in self.records(split):
            yield self.example([row["text"]], [self.word(row["label"])], self.words.values())


def write(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = "".join(f'{{"text": "第{i}条", "label": {i % 2}}}\n' for i in range(20))
    (folder / "rows.jsonl").write_text(rows)
    return folder


@pytest.mark.parametrize("source", ["sample", "local", "hub"])
def test_a_task_with_a_home_reads_it_whatever_the_source(tmp_path, source):
    kind = type("Mine", (Mine,), {"home": write(tmp_path / "beside")})
    task = kind(source=source, data_dir=tmp_path)
    task.setup()
    assert task.report["rows"] == {"train": 20}
    assert "beside" in task.report["source"]


def test_a_hub_that_is_asked_for_goes_before_the_home(tmp_path):
    hub = Hub("a/b", None, "12ab", {"train": "train"})
    kind = type("Mine", (Mine,), {"home": write(tmp_path), "hub": hub})
    assert "huggingface.co" in kind(source="hub").origin.title
    assert "own files" in kind(source="local", data_dir=tmp_path).origin.title


def test_without_a_home_it_is_where_the_profile_says(tmp_path):
    write(tmp_path / "mine")
    task = Mine(source="local", data_dir=tmp_path)
    task.setup()
    assert task.report["rows"] == {"train": 20}


@pytest.mark.parametrize(("source", "said"), [("sample", "no sample records"), ("hub", "names no hub data set")])
def test_without_records_it_says_what_to_do(source, said):
    with pytest.raises(UsageError, match=f"mine: .*{said}.*home"):
        Mine(source=source).setup()


def test_a_class_without_name_or_template_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "bare_task.py").write_text("from tasks.base import Task\n\nclass Bare(Task):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    import tasks

    with pytest.raises(UsageError, match="'bare_task:Bare' has no name and no template"):
        tasks.load("bare_task:Bare")
