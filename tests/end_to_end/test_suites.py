"""A grid is of one suite: it names the tasks, their roles, the folder, and every result says it."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmark.analysis.leaderboard import build_leaderboard
from benchmark.cli.main import main
from benchmark.config import loading
from benchmark.grid import planner
from benchmark.reporting import build
from benchmark.reporting.html import rerun_command
from benchmark.results.store import ResultStore
from tasks.core.types import UsageError
from tasks.suites import CHINESE, MULTILINGUAL


def test_a_suite_brings_its_tasks_and_sources_and_a_folder_of_its_own():
    plain, other = loading.load_profile("smoke"), loading.load_profile("smoke", {"suite": "multilingual"})
    assert (plain.tasks, plain.sources, plain.results_folder) == (CHINESE.tasks, CHINESE.sources, Path("results/smoke"))
    assert (other.tasks, other.sources) == (MULTILINGUAL.tasks, MULTILINGUAL.sources)
    assert other.results_folder == Path("results/smoke-multilingual")
    assert (plain.cli_flags, other.cli_flags) == ("--profile smoke", "--profile smoke --suite multilingual")


@pytest.mark.parametrize("suite", [CHINESE, MULTILINGUAL])
def test_sources_and_targets_are_words_for_the_suites(suite):
    assert loading.load_profile("transfer", {"suite": suite.name}).tasks == suite.targets
    assert loading.load_profile("demo", {"suite": suite.name, "tasks": ["sources"]}).tasks == suite.sources


def test_cells_rest_on_sources_of_their_suite_alone():
    found = loading.load_profile(
        "smoke", {"suite": "multilingual", "methods": ["shared_lora"], "tasks": ["xnli_de", "xnli_en"]}
    )
    members = {one.cell.key: one.training_tasks for one in planner.plan_grid(found)}
    assert members["shared_lora.source/sources/full/0"] == MULTILINGUAL.sources
    assert members["shared_lora.source/sources-xnli_en/full/0"] == ("xnli_zh", "paws_en", "paws_zh")


OWN = "methods: [lora]\nsuite: {sources: [bq, 'tasks.topic:TNews'], targets: [ocnli], about: two of mine}\n"


def test_a_suite_of_ones_own_is_declared_in_the_profile_and_says_the_roles(tmp_path: Path):
    (tmp_path / "mine.yaml").write_text(OWN)
    found = loading.load_profile(str(tmp_path / "mine.yaml"))
    assert (found.suite.name, found.suite.about, found.results_folder) == ("mine", "two of mine", Path("results/mine"))
    assert found.tasks == ("bq", "tasks.topic:TNews", "ocnli")
    assert [planner.get_task_role(found, name) for name in found.tasks] == ["source", "source", "target"], (
        "TNews is a target at home"
    )
    assert build_leaderboard(found, []).task_groups["source tasks"] == ("bq", "tasks.topic:TNews")


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
        loading.load_profile("smoke", changes)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_takes_the_results_of_one_suite(small, fake, capsys):
    fake(small, planner.plan_grid(small)[0], 0.5)
    assert ResultStore(small.results_folder).load_results()[0].suite == "chinese"
    words = ["plan", "--profile", "smoke", "--results", str(small.results_folder), "--methods", "lora"]
    assert main(words) == 0
    capsys.readouterr()
    assert main([*words, "--suite", "multilingual"]) == 2
    assert "holds results of suite chinese, not multilingual; name another" in capsys.readouterr().err


def test_the_report_says_the_suite_and_the_page_how_to_run_it_again(small):
    notes = list(build.describe_leaderboard(build_leaderboard(small, []), [], 0, False))
    assert notes[0] == f"Suite chinese: {CHINESE.about}."
    other = loading.load_profile("demo", {"suite": "multilingual", "methods": ["lora"], "tasks": ["xnli_de"]})
    assert (
        rerun_command.build_rerun_command(other)
        == "python -m benchmark run --profile demo --suite multilingual --results results/again"
    )
    own = replace(other, suite=replace(MULTILINGUAL, name="mine"))
    assert "--set 'suite={about: " in rerun_command.build_rerun_command(own)


def test_suites_are_listed_and_their_tasks(capsys):
    assert main(["list", "suites"]) == 0
    assert {"chinese", "multilingual", "xnli_de", "sanwen"} <= set(capsys.readouterr().out.split())
    assert main(["list", "tasks", "--suite", "multilingual"]) == 0
    out = set(capsys.readouterr().out.split())
    assert "xnli_de" in out
    assert "sanwen" not in out
