"""A grid is of one suite: it names the tasks, their roles, the folder, and every result says it."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmark import grid, profile, report
from benchmark.__main__ import entry
from benchmark.page import again
from benchmark.store import Store
from benchmark.table import board
from tasks.example import UsageError
from tasks.suites import CHINESE, MULTILINGUAL


def test_a_suite_brings_its_tasks_and_sources_and_a_folder_of_its_own():
    plain, other = profile.load("smoke"), profile.load("smoke", {"suite": "multilingual"})
    assert (plain.tasks, plain.sources, plain.folder) == (CHINESE.tasks, CHINESE.sources, Path("results/smoke"))
    assert (other.tasks, other.sources) == (MULTILINGUAL.tasks, MULTILINGUAL.sources)
    assert other.folder == Path("results/smoke-multilingual")
    assert (plain.flags, other.flags) == ("--profile smoke", "--profile smoke --suite multilingual")


@pytest.mark.parametrize("suite", [CHINESE, MULTILINGUAL])
def test_sources_and_targets_are_words_for_the_suites(suite):
    assert profile.load("transfer", {"suite": suite.name}).tasks == suite.targets
    assert profile.load("demo", {"suite": suite.name, "tasks": ["sources"]}).tasks == suite.sources


def test_cells_rest_on_sources_of_their_suite_alone():
    found = profile.load(
        "smoke", {"suite": "multilingual", "methods": ["shared_lora"], "tasks": ["xnli_de", "xnli_en"]}
    )
    members = {one.cell.key: one.members for one in grid.plan(found)}
    assert members["shared_lora.source/sources/full/0"] == MULTILINGUAL.sources
    assert members["shared_lora.source/sources-xnli_en/full/0"] == ("xnli_zh", "paws_en", "paws_zh")


OWN = "methods: [lora]\nsuite: {sources: [bq, 'tasks.topic:TNews'], targets: [ocnli], about: two of mine}\n"


def test_a_suite_of_ones_own_is_declared_in_the_profile_and_says_the_roles(tmp_path: Path):
    (tmp_path / "mine.yaml").write_text(OWN)
    found = profile.load(str(tmp_path / "mine.yaml"))
    assert (found.suite.name, found.suite.about, found.folder) == ("mine", "two of mine", Path("results/mine"))
    assert found.tasks == ("bq", "tasks.topic:TNews", "ocnli")
    assert [grid.role(found, name) for name in found.tasks] == ["source", "source", "target"], (
        "TNews is a target at home"
    )
    assert board(found, []).groups["source tasks"] == ("bq", "tasks.topic:TNews")


BAD = [
    ({"suite": "multilingaul"}, "did you mean 'multilingual'"),
    ({"tasks": ["xnli_de"]}, "task xnli_de is of suite multilingual, not chinese"),
    ({"suite": "multilingual", "tasks": ["ocnli"]}, "task ocnli is of suite chinese, not multilingual"),
    ({"suite": "multilingual", "sources": ["xnli_de"]}, "can only be a target"),
    ({"suite": {"name": "chinese", "targets": ["ocnli"]}}, "give yours another name"),
    ({"suite": {"name": "a/b", "targets": ["ocnli"]}}, "suite name 'a/b'"),
    ({"suite": {"sources": ["bq"], "targets": ["bq"]}}, "bq is a source and a target"),
    ({"suite": {"targets": ["ocnil"]}}, "did you mean 'ocnli'"),
    ({"suite": {}}, "has no tasks"),
    ({"suite": {"source": ["bq"]}}, "did you mean 'sources'"),
    ({"suite": 3}, "suite takes fields"),
]


@pytest.mark.parametrize(("changes", "said"), BAD)
def test_bad_suites_are_one_line_that_says_what_and_where(changes: dict, said: str):
    with pytest.raises(UsageError) as caught:
        profile.load("smoke", changes)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_takes_the_results_of_one_suite(small, fake, capsys):
    fake(small, grid.plan(small)[0], 0.5)
    assert Store(small.folder).results()[0]["suite"] == "chinese"
    words = ["plan", "--profile", "smoke", "--results", str(small.folder), "--methods", "lora"]
    assert entry(words) == 0
    capsys.readouterr()
    assert entry([*words, "--suite", "multilingual"]) == 2
    assert "holds results of suite chinese, not multilingual; name another" in capsys.readouterr().err


def test_the_report_says_the_suite_and_the_page_how_to_run_it_again(small):
    notes = list(report.remarks(board(small, []), [], 0, False))
    assert notes[0] == f"Suite chinese: {CHINESE.about}."
    other = profile.load("demo", {"suite": "multilingual", "methods": ["lora"], "tasks": ["xnli_de"]})
    assert again.command(other) == "python -m benchmark run --profile demo --suite multilingual --results results/again"
    own = replace(other, suite=replace(MULTILINGUAL, name="mine"))
    assert "--set 'suite={about: " in again.command(own)


def test_suites_are_listed_and_their_tasks(capsys):
    assert entry(["list", "suites"]) == 0
    assert {"chinese", "multilingual", "xnli_de", "sanwen"} <= set(capsys.readouterr().out.split())
    assert entry(["list", "tasks", "--suite", "multilingual"]) == 0
    out = set(capsys.readouterr().out.split())
    assert "xnli_de" in out
    assert "sanwen" not in out
