"""The page: its numbers are the report's, and its texts stay texts."""

import inspect
import io
import json
import re
import shlex
import shutil
import subprocess
from dataclasses import asdict, fields, is_dataclass, replace

import numpy as np
import pytest
from rich.console import Console

import tasks
from benchmark.analysis import leaderboard, load, shot_curves, task_groups
from benchmark.cli import session
from benchmark.cli.parser import build_parser
from benchmark.config import loading, validation
from benchmark.execution.record import build_data_record
from benchmark.grid import planner
from benchmark.grid.cells import Cell
from benchmark.reporting import build
from benchmark.reporting.html import context, examples, page_data, page_records, rerun_command
from benchmark.reporting.html.page_records import CrossingRecord, ScoreRecord
from benchmark.reporting.html.render import SCRIPT_FILES, TEMPLATE_FOLDER, embed_json
from benchmark.results.cell_result import CellResult
from benchmark.results.store import ResultStore
from benchmark.system.hashing import hash_prompt
from tests.support.pages import TRAP, Reader, data_of, decode_records


def test_the_page_needs_nothing_but_itself(shown):
    page = Reader(shown[2])
    links = [
        value
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in ("src", "href", "action", "srcset")
    ]
    assert links
    assert all(value.startswith(("#", "data:")) for value in links)
    (policy,) = (one["content"] for one in page.every("meta") if one.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    assert "connect-src" not in policy
    assert "url(" not in shown[2].partition("</style>")[0]


def test_a_text_with_a_script_in_it_stays_a_text(shown):
    _, _, text = shown
    page = Reader(text)
    assert TRAP not in text
    assert len(page.every("script")) == 2  # the data and what reads it; the charts' are left out here
    assert not [one for one in page.every("img") if one.get("src") == "x"]
    data = data_of(text)
    assert any(TRAP in one["prompt"] for one in data["examples"]["chnsent"]["examples"])  # it is in there, unharmed
    assert json.loads(embed_json({"a": "</script><!--\u2028"})) == {"a": "</script><!--\u2028"}
    assert "<" not in embed_json({"a": "</script>"})


def test_tables_are_for_screen_readers_too(shown):
    page, text = Reader(shown[2]), shown[2]
    assert page.unclosed == page.open == []
    assert text.count("<caption") == len(page.every("table")) > 5
    assert all(one.get("scope") in ("col", "row") for one in page.every("th"))
    assert all("alt" in one for one in page.every("img"))
    assert all(one.get("aria-label") for one in page.every("div") if one.get("role") == "img")
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    named = [value for _, attributes in page.tags if (value := attributes.get("aria-labelledby"))]
    assert set(named) <= set(ids)
    assert {one["href"][1:] for one in page.every("a")} <= set(ids)
    assert page.every("html")[0]["lang"] == "en"


def test_its_numbers_are_the_reports(shown):
    small, page, text = shown
    data = data_of(text)
    _, results, _ = load.collect_results(small, ResultStore(small.results_folder))
    board = leaderboard.build_leaderboard(small, results)
    for line in board.rows:
        scores = data["scores"][str(line.shots)]
        for name, figure in {**line.averages, **line.task_scores}.items():
            found = scores.get(name, {}).get(line.method)
            assert (found is None) == (figure is None)
            if figure:
                assert found["mean"] == round(100 * figure.mean, 4)
                assert found["half_width"] == (None if figure.half_width is None else round(100 * figure.half_width, 4))
                assert found["num_seeds"] == figure.num_seeds
    assert "prompt" not in data["scores"]["16"]["choice tasks"]  # one of its cells failed: no average with a hole
    assert "prompt" in data["scores"]["4"]["choice tasks"]
    assert data["scores"]["16"]["ocnli"]["prompt"]["num_seeds"] == 2
    assert "no room" in text  # and why it failed
    assert data["costs"]["4"]["lora"]["phase_seconds"]["train"] == 1.0
    assert "1 of 9 cells missing" in data["cautions"]["16"]["prompt"]


def test_records_keep_their_fields_through_the_payload():
    score = ScoreRecord(50.0, None, 1, -2.5, 1.0, 0.04, "ab", "")
    table = page_records.encode_table(ScoreRecord, {"4": {"ocnli": {"lora": score}}})
    assert decode_records(table) == {"4": {"ocnli": {"lora": asdict(score)}}}
    assert decode_records(page_records.encode_table(ScoreRecord, [score, score])) == [asdict(score)] * 2
    assert decode_records(page_records.encode_table(ScoreRecord, [])) == []
    assert table["columns"] == [field.name for field in fields(ScoreRecord)]


def test_the_scripts_decode_every_table_and_read_only_fields_that_exist():
    scripts = {name: (TEMPLATE_FOLDER / name).read_text() for name in SCRIPT_FILES}
    (tables,) = re.findall(r"^const TABLES = (\[.*\]);", scripts["state.js"], re.MULTILINE)
    assert json.loads(tables) == list(page_records.TABLES)
    records = [record for _, record in inspect.getmembers(page_records, is_dataclass)]
    names = {field.name for record in records for field in fields(record)}
    for name, script in scripts.items():
        read = set(re.findall(r"\b[a-z]+(?:_[a-z]+)+\b", script.replace("page_records.py", "")))
        assert read <= names | {"difference_low", "difference_high"}, name  # columns of saved files
        assert not re.findall(r"\w\??\.?\[\d+\]", script), name


@pytest.mark.skipif(not shutil.which("node"), reason="no Node.js on this machine")
def test_the_script_decodes_what_python_encodes():
    score = ScoreRecord(50.0, None, 1, -2.5, 1.0, 0.04, "ab", "")
    nested = {"4": {"ocnli": {"lora": score}}}
    tables = [page_records.encode_table(ScoreRecord, records) for records in ([score], [], nested)]
    script = (TEMPLATE_FOLDER / "state.js").read_text()
    (function,) = re.findall(r"^function decodeRecords.*?^}", script, re.MULTILINE | re.DOTALL)
    command = f"{function}\nconsole.log(JSON.stringify({json.dumps(tables)}.map(decodeRecords)))"
    output = subprocess.run(["node", "-e", command], capture_output=True, text=True, check=True).stdout
    assert json.loads(output) == [[asdict(score)], [], {"4": {"ocnli": {"lora": asdict(score)}}}]


def test_any_selection_of_tasks_has_numbers_of_its_own(shown):
    small, _, text = shown
    data = data_of(text)
    assert task_groups.select_tasks(small, "target", "sentiment") == ("chnsent",)
    assert data["group_names"]["target/sentiment"] == "chnsent"
    assert data["task_groups"]["target tasks"] == ["chnsent", "ocnli"]
    assert "source/sentiment" not in data["group_names"]
    assert (
        data["group_names"]["choice/any"] == data["group_names"]["all/any"] == "choice tasks"
    )  # the same set has one name
    for name in data["group_names"].values():
        assert "lora" in data["scores"]["4"][name]


def test_curves_cross_where_the_paired_differences_say_so_whatever_was_skipped(small, answered):
    found = replace(small, methods=("lora", "prompt", "prefix"), tasks=("afqmc", "chnsent"))
    right = {("lora", 4): 3, ("lora", 16): 9, ("prompt", 4): 6, ("prompt", 16): 6, ("prefix", 4): 2, ("prefix", 16): 3}
    for planned in planner.plan_grid(found):
        cell = planned.cell
        answered(found, planned, [float(i < right[cell.method, cell.shots] + cell.seed % 2) for i in range(10)])
    seen = load.load_results(found)
    crossed = page_data.build_crossings(seen.extended_leaderboard, seen.significance)
    assert {"choice tasks", "afqmc", "chnsent"} <= {crossing.group_name for crossing in crossed}
    assert len({crossing.group_name for crossing in crossed}) == len(crossed)  # each curve crosses once
    for crossing in crossed:
        assert (crossing.method_a, crossing.method_b) == ("lora", "prompt")
        assert (crossing.shots_before, crossing.shots_after) == (4, 16)
        assert crossing.crossing_shots == pytest.approx(8)  # differences of -3 and 3: in the middle of the logarithms
    tasks, kept = seen.extended_leaderboard.task_groups["choice tasks"], seen.significance.paired_scores
    gaps = {k: kept.compute_difference(("lora", (k,)), ("prompt", (k,)), tasks) for k in (4, 16)}
    expected = CrossingRecord("choice tasks", "lora", "prompt", *shot_curves.find_crossings(gaps)[0])
    assert [crossing for crossing in crossed if crossing.group_name == "choice tasks"] == [expected]


def test_the_page_says_what_one_method_alone_is_worth(small, answered):
    for seeds, said in (((0, 1), "no other method is ranked"), ((0,), "Other seeds may give another order")):
        found = replace(small, methods=("lora",), tasks=("afqmc", "chnsent"), shots=(4,), seeds=seeds)
        for planned in planner.plan_grid(found):
            answered(found, planned, [1.0, 0.0] * 5)
        seen = load.load_results(found)
        lines = leaderboard.sort_rows(seen.extended_leaderboard.get_rows(4))
        assert said in context.compose_headline(lines, seen.significance, 4, "choice tasks", seen.extended_leaderboard)


def test_pairs_and_examples_are_those_of_the_predictions(shown):
    small, _, text = shown
    found, kept = data_of(text)["examples"]["ocnli"], {}
    _, results, _ = load.collect_results(small, ResultStore(small.results_folder))
    for result in results:
        at = result.cell
        if at.task == "ocnli" and at.seed == 0 and at.shots in (0, 16):
            kept[at.method] = examples.load_answers(small, result).is_correct
    pairs = found["comparisons"]["16"]
    for i, a in enumerate(pairs["methods"]):
        for j, b in enumerate(pairs["methods"]):
            assert pairs["num_both_correct"][i][j] == sum(kept[a] & kept[b])
    for place, example in enumerate(found["examples"]):
        index = int(example["uid"].partition(":")[2])
        assert all(pairs["answers"][name]["is_correct"][place] == right[index] for name, right in kept.items())


def test_the_examples_shown_tell_every_pair_apart_where_some_do():
    right = np.random.default_rng(1).random((5, 200)) < 0.6
    chosen = examples.choose_examples(right, 12)
    assert len(set(chosen)) == 12
    for a in range(5):
        for b in range(5):
            assert a == b or any(right[a, i] and not right[b, i] for i in chosen)
    assert examples.choose_examples(np.ones((3, 2), bool), 12) == [0, 1]


def test_a_prompt_is_the_one_that_was_asked_or_none(shown, monkeypatch):
    small, _, _ = shown
    answers = examples.CellAnswers(
        ("a:1", "a:2"),
        (hash_prompt("one", "x"), hash_prompt("two", "y")),
        ("x", "y"),
        ("x", "x"),
        np.array([True, False]),
    )
    monkeypatch.setattr(examples.disk_cache, "load_or_compute", lambda key, make: make())
    monkeypatch.setattr(examples, "read_prompts", lambda *_: {"a:1": ["one", ["x"]], "a:2": ["other", ["y"]]})
    found, why = examples.load_prompt_texts(small, "afqmc", answers, [0, 1])
    assert found == {"a:1": "one"}
    assert "not shown" in why


def test_texts_of_other_data_sets_are_left_out_unless_they_are_asked_for(small, answered, monkeypatch):
    found = replace(small, tasks=("chnsent", "cote_bd"), shots=(4,), seeds=(0,), methods=("lora",))
    answers = ["正面", "它的名字"]
    columns = {"target": answers * 4, "predicted": answers * 4, "correct": [True, False] * 4}
    kept = [answered(found, planned, [1.0, 0.0] * 4, **columns) for planned in planner.plan_grid(found)]

    def with_origin(origin: str) -> dict[Cell, CellResult]:
        return {
            result.cell: replace(
                result, data={name: replace(record, origin=origin) for name, record in result.data.items()}
            )
            for result in kept
        }

    wide, asked = leaderboard.build_leaderboard(found, kept), []
    monkeypatch.setattr(examples, "load_prompt_texts", lambda *of: asked.append(of) or ({}, ""))

    def texts(origin: str = "sample", **more: bool) -> dict:
        return examples.collect_examples(found, wide, with_origin(origin), **more)

    assert {one.expected_answer for one in texts()["cote_bd"].examples} == set(answers)
    assert asked
    for origin in ("hub", "local", "own files"):
        asked.clear()
        left, own = texts(origin)["cote_bd"], texts(origin)["chnsent"]
        assert asked == []
        assert "--texts" in left.note
        assert {one.expected_answer for one in left.examples} == {one.prompt for one in left.examples} == {None}
        shown_answers = left.comparisons["4"].answers["lora"]
        assert shown_answers.predictions == [None] * 8
        assert sorted(shown_answers.is_correct) == [False] * 4 + [True] * 4
        assert {one.expected_answer for one in own.examples} == {
            "正面",
            None,
        }  # the task's own word is no text of a data set
        assert all(one.uid for one in left.examples)
        assert {one.expected_answer for one in texts(origin, include_texts=True)["cote_bd"].examples} == set(answers)


def test_a_result_says_where_its_records_are_from(tmp_path):
    def origin(**options) -> str:
        task = tasks.load_task("chnsent")(shots=2, **options)
        task.setup()
        return build_data_record(task).origin

    assert origin(data_source="sample") == examples.SYNTHETIC_ORIGIN
    local = tasks.load_task("chnsent")(data_source="sample").record_source.folder
    shutil.copytree(local, tmp_path / local.name)
    assert origin(data_source="local", data_dir=tmp_path) == "local"


def test_the_command_of_a_cell_plans_that_very_cell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = loading.load_profile("demo").config | {
        "lora": {"rank": 3, "sites": "q v"},
        "lora:wide": {"rank": 32, "lr": 0.5},
    }
    changed = replace(loading.load_profile("demo"), config=config, seed_streams=("split",), limit={"test": 20}, seeds=(1,),
                      methods=("lora:wide", "lora"), tasks=("ocnli",))  # fmt: skip
    planned = planner.plan_grid(validation.validate_profile(changed))
    assert "--results" in rerun_command.build_rerun_command(changed)
    for one in planned:
        words = shlex.split(rerun_command.build_rerun_command(changed))[3:]
        at = {"methods": one.cell.method, "tasks": one.cell.task, "shots": one.cell.shots, "seeds": one.cell.seed}
        words += [word for name, value in at.items() for word in (f"--{name}", str(value))]
        made = planner.plan_grid(session.build_validated_profile(build_parser().parse_args(words)))
        assert one.identity in {other.identity for other in made}


def test_a_page_of_nothing_says_so(small):
    build.build_report(small, Console(file=io.StringIO(), width=120))
    text = (small.results_folder / "report" / "index.html").read_text()
    assert "No method has all of its cells" in text
    assert Reader(text).unclosed == []
