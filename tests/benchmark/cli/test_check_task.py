"""`benchmark check` on a task, and a task declared in YAML in a grid."""

from pathlib import Path

import pytest

from benchmark.cli.main import main
from benchmark.config import loading
from benchmark.grid import data_hash, identity, planner, specs
from tests.support.declaration import PLAIN, ROWS, declare


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    return declare(tmp_path)


def test_a_task_that_holds_exits_with_0(mine: Path, capsys):
    assert main(["check", str(mine), "--profile", "smoke"]) == 0
    out = capsys.readouterr().out
    assert "passed  records               30 train; in use: 22 train, 2 dev, 6 test" in out
    assert "mine.yaml on tiny, records own files: " in out
    assert "0 failed" in out


def test_a_task_that_fails_exits_with_1_and_says_where(mine: Path, capsys):
    declare(mine.parent, rows=[*ROWS, {"text": "评论", "label": 7}])
    assert main(["check", str(mine), "--profile", "smoke"]) == 1
    out = capsys.readouterr().out
    assert "failed  records               mine/rows.jsonl:31: label '7' is unknown" in out
    assert "1 failed" in out


@pytest.mark.parametrize(
    ("name", "said"),
    [("chnsnt", "did you mean 'chnsent'"), ("lroa", "did you mean 'lora'"), ("none.yaml", "task none.yaml: cannot be read")],
)  # fmt: skip
def test_a_name_of_nothing_is_one_line(name: str, said: str, capsys):
    assert main(["check", name, "--profile", "smoke"]) == 2
    assert said in capsys.readouterr().err


def test_a_bad_declaration_is_refused_before_anything_is_planned(mine: Path, capsys):
    declare(mine.parent, PLAIN.replace("words", "wrods"))
    assert main(["plan", "--profile", "smoke", "--tasks", str(mine)]) == 2
    err = capsys.readouterr().err
    assert "mine.yaml: no field 'wrods'; did you mean 'words'" in err
    assert len(err.splitlines()) == 1


def identity_of(mine: Path) -> str:
    for known in (specs.get_task_spec, data_hash.hash_records, identity._hash_tasks, identity._hash_records):
        known.cache_clear()
    found = loading.load_profile("smoke", {"methods": ["lora"], "tasks": [str(mine)]})
    (cell,) = planner.plan_grid(found)
    return cell.identity


def test_an_identity_changes_with_what_is_declared_and_with_the_records_alone(mine: Path):
    first = identity_of(mine)
    declare(mine.parent, "# a comment changes no number\n" + PLAIN)
    assert identity_of(mine) == first
    declare(mine.parent, other := PLAIN.replace("坏", "差"))
    assert (second := identity_of(mine)) != first
    declare(mine.parent, other, [{"text": "别的", "label": 1}])
    assert identity_of(mine) != second


def test_a_task_is_described_by_its_file(mine: Path, capsys):
    assert main(["describe", str(mine), "--profile", "smoke"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("mine: own, choice, target task; metrics accuracy, macro_f1")
    assert "own files" in out
