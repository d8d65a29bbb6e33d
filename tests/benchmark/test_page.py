"""The page: its numbers are the report's, its texts stay texts, and a browser finds it in order."""

import io
import json
import re
import shlex
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from browser import browser, found
from rich.console import Console

from benchmark import grid, profile, report, table, verbs
from benchmark.__main__ import parser
from benchmark.environment import now
from benchmark.page import again, charts, closed, embedded, examples, selection
from benchmark.profile import Profile
from benchmark.result import hashed, header
from benchmark.store import Store

TRAP = "<script>window.caught = 1</script><img src=x onerror='window.caught = 1'>\u2028"
METHODS = ("zero_shot", "majority", "full", "lora", "prompt")
SKILL = {"zero_shot": 0.3, "majority": 0.1, "full": 0.9, "lora": 0.7, "prompt": 0.65}
SECONDS = {"load": 0.1, "tokenise": 0.1, "train": 1.0, "dev": 0.2, "test": 0.5, "save": 0.1, "rest": 0.0}
VOID = {"meta", "link", "img", "br", "input", "option"}


@pytest.fixture(scope="module")
def shown(tmp_path_factory, model_folders) -> tuple[Profile, Path, str]:
    """A grid of five methods, three tasks, two numbers of shots and three seeds, with a trap in every text."""
    folder = tmp_path_factory.mktemp("page")
    changes = {"methods": list(METHODS), "tasks": ["afqmc", "chnsent", "ocnli"], "shots": [4, 16], "seeds": [0, 1, 2],
               "results": str(folder / "results"), "backbone": {"name": str(model_folders["qwen3"])}}  # fmt: skip
    small = profile.load("smoke", changes)
    prompts = {task: [(f"{task} {i} {TRAP}", "对") for i in range(40)] for task in small.tasks}
    with pytest.MonkeyPatch.context() as patch:
        texts = {f"{task}:{i}": [text, [word]] for task, own in prompts.items() for i, (text, word) in enumerate(own)}
        patch.setattr(examples, "prompts", lambda profile, task, uids: {uid: texts[uid] for uid in uids})
        patch.setattr(examples.catalogue, "remembered", lambda key, make: make())
        patch.setattr(charts, "script", lambda: "")
        fill(small, prompts)
        report.make(small, Console(file=io.StringIO(), width=120))
    page = folder / "results" / "report" / "index.html"
    return small, page, page.read_text()


def fill(small: Profile, prompts: dict) -> None:
    """Finished cells with answers, but one that failed."""
    draw, store = np.random.default_rng(0), Store(small.folder)
    for planned in grid.plan(small):
        cell, asked = planned.cell, prompts[planned.cell.task]
        result = header(planned, small, now(), 2.0) | {
            "data": {},
            "environment": {"commit": "c0ffee", "packages": {"torch": "2"}},
        }
        if cell.key == "prompt/ocnli/16/2":
            store.save(
                planned,
                result
                | {
                    "state": "failed",
                    "metrics": {},
                    "cost": {},
                    "error": {"reason": f"no room {TRAP}", "traceback": ""},
                },
            )
            continue
        right = draw.random(len(asked)) < SKILL[cell.method] + 0.05 * (cell.shots == 16)
        kept = {"uid": [f"{cell.task}:{i}" for i in range(len(asked))], "asked": [hashed(*one) for one in asked],
                "group": [""] * len(asked), "target": [word for _, word in asked], "correct": right.tolist(),
                "predicted": ["对" if ok else f"错 {TRAP}" for ok in right], "score": right.astype(float).tolist()}  # fmt: skip
        store.save(planned, result | {
            "state": "done", "metrics": {"test": {"accuracy": float(right.mean())}, "dev": {"accuracy": 0.5}},
            "training": {"steps": 4, "best": 4, "stopped": 0, "loss": [[1, 2.0], [2, 1.0]], "dev": [[2, 0.5, 1.0], [4, 0.6, 0.9]]},
            "cost": {"trained_parameters": {"full": 10**6, "lora": 3000, "prompt": 200}.get(cell.method, 0), "adapter_bytes": 1,
                     "seconds": SECONDS, "pack": 1, "tokens": 9, "tokens_per_second": 9.0, "padded_share": 0.1, "peak_bytes": 2**20},
            "predictions": store.save_predictions(planned, kept)})  # fmt: skip


class Reader(HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.open, self.unclosed = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        while tag not in VOID and self.open and (last := self.open.pop()) != tag:
            self.unclosed.append(last)

    def every(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


def data_of(text: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])


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
    assert json.loads(embedded({"a": "</script><!--\u2028"})) == {"a": "</script><!--\u2028"}
    assert "<" not in embedded({"a": "</script>"})


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
    _, results, _ = report.collect(small, Store(small.folder))
    board = table.board(small, results)
    for line in board.lines:
        scores = data["scores"][str(line.shots)]
        for name, figure in {**line.averages, **line.tasks}.items():
            found = scores.get(name, {}).get(line.method)
            assert (found is None) == (figure is None)
            if figure:
                assert found[0] == round(100 * figure.mean, 2)
                assert found[1] == (None if figure.half is None else round(100 * figure.half, 2))
                assert found[2] == figure.seeds
    assert "prompt" not in data["scores"]["16"]["choice tasks"]  # one of its cells failed: no average with a hole
    assert "prompt" in data["scores"]["4"]["choice tasks"]
    assert data["scores"]["16"]["ocnli"]["prompt"][2] == 2
    assert "no room" in text  # and why it failed
    assert data["costs"]["4"]["lora"]["phases"]["train"] == 1.0
    assert "1 of 9 cells missing" in data["cautions"]["16"]["prompt"]


def test_any_selection_of_tasks_has_numbers_of_its_own(shown):
    small, _, text = shown
    data = data_of(text)
    assert selection.members(small, "target", "sentiment") == ("chnsent",)
    assert data["asked"]["target/sentiment"] == "chnsent"
    assert data["groups"]["target tasks"] == ["chnsent", "ocnli"]
    assert "source/sentiment" not in data["asked"]
    assert data["asked"]["choice/any"] == data["asked"]["all/any"] == "choice tasks"  # the same set has one name
    for name in data["asked"].values():
        assert "lora" in data["scores"]["4"][name]


def test_pairs_and_examples_are_those_of_the_predictions(shown):
    small, _, text = shown
    found, kept = data_of(text)["examples"]["ocnli"], {}
    _, results, _ = report.collect(small, Store(small.folder))
    for result in results:
        at = result["cell"]
        if at["task"] == "ocnli" and at["seed"] == 0 and at["shots"] in (0, 16):
            kept[at["method"]] = examples.read(small, result).right
    pairs = found["shots"]["16"]
    for i, a in enumerate(pairs["methods"]):
        for j, b in enumerate(pairs["methods"]):
            assert pairs["both"][i][j] == sum(kept[a] & kept[b])
    for place, example in enumerate(found["examples"]):
        index = int(example["uid"].partition(":")[2])
        assert all(pairs["said"][name][place][1] == right[index] for name, right in kept.items())


def test_the_examples_shown_tell_every_pair_apart_where_some_do():
    right = np.random.default_rng(1).random((5, 200)) < 0.6
    chosen = examples.telling(right, 12)
    assert len(set(chosen)) == 12
    for a in range(5):
        for b in range(5):
            assert a == b or any(right[a, i] and not right[b, i] for i in chosen)
    assert examples.telling(np.ones((3, 2), bool), 12) == [0, 1]


def test_a_prompt_is_the_one_that_was_asked_or_none(shown, monkeypatch):
    small, _, _ = shown
    answers = examples.Answers(
        ("a:1", "a:2"), (hashed("one", "x"), hashed("two", "y")), ("x", "y"), ("x", "x"), np.array([True, False])
    )
    monkeypatch.setattr(examples.catalogue, "remembered", lambda key, make: make())
    monkeypatch.setattr(examples, "prompts", lambda *_: {"a:1": ["one", ["x"]], "a:2": ["other", ["y"]]})
    found, why = examples.texts(small, "afqmc", answers, [0, 1])
    assert found == {"a:1": "one"}
    assert "not shown" in why


def test_the_command_of_a_cell_plans_that_very_cell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = profile.load("demo").config | {"lora": {"rank": 3, "sites": "q v"}, "lora:wide": {"rank": 32, "lr": 0.5}}
    changed = replace(profile.load("demo"), config=config, vary=("split",), limit={"test": 20}, seeds=(1,),
                      methods=("lora:wide", "lora"), tasks=("ocnli",))  # fmt: skip
    planned = grid.plan(profile.check(changed))
    assert "--results" in again.command(changed)
    for one in planned:
        words = shlex.split(again.command(changed))[3:]
        at = {"methods": one.cell.method, "tasks": one.cell.task, "shots": one.cell.shots, "seeds": one.cell.seed}
        words += [word for name, value in at.items() for word in (f"--{name}", str(value))]
        made = grid.plan(verbs.profile_of(parser().parse_args(words)))
        assert one.identity in {other.identity for other in made}


def test_a_page_of_nothing_says_so(small):
    report.make(small, Console(file=io.StringIO(), width=120))
    text = (small.folder / "report" / "index.html").read_text()
    assert "No method has all of its cells" in text
    assert Reader(text).unclosed == []


# -------------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    if not found():
        pytest.skip("no Chromium on this machine (Debian: apt install chromium)")
    with browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture(scope="module")
def whole(shown) -> Path:
    """The page with its charts."""
    _, path, text = shown
    script = f"<script>{closed(charts.script())}</script>"
    place = path.with_name("whole.html")
    place.write_text(text.replace("<script>", f"{script}<script>", 1))
    return place


ROWS = "all('#t-board tbody tr').map(row => row.dataset.method)"


def test_it_loads_without_a_complaint_and_draws_its_charts(tab, whole):
    tab.complaints.clear()
    tab.asked.clear()
    tab.open(whole, "#task=ocnli")
    drawn = "Promise.all(all('[data-chart]').map(draw)).then(() => all('[data-chart]').map(one => all('svg', one).length))"
    assert tab.ask(drawn) == [1] * 10  # trade-off, shots, ranks, time, and two of each task
    assert tab.complaints == []
    assert all(url.startswith(("file:", "data:", "about:")) for url in tab.asked)
    assert tab.ask("window.caught") is None  # the trap has not gone off
    assert TRAP in tab.ask("one('.example pre').textContent") + tab.ask("one('.example').textContent")


@pytest.mark.parametrize("width", [360, 1440])
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone_and_a_desk(tab, whole, width, dark):
    tab.open(whole, "#task=ocnli", width=width, dark=dark)
    tab.ask("Promise.all(all('[data-chart]').filter(one => one.clientWidth).map(draw))")
    assert tab.ask("innerWidth") == width
    assert tab.ask("document.documentElement.scrollWidth") <= width
    paper = tab.ask("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", paper)[:3])) < 200) == dark


def test_it_sorts_by_keyboard_and_says_which_way(tab, whole):
    tab.open(whole)
    state = "one('#t-board th[data-key=trained]').getAttribute('aria-sort')"
    tab.ask("one('#t-board th[data-key=trained] button').focus()")
    tab.press("Enter")
    assert tab.ask(ROWS)[:3] == ["full", "lora", "prompt"]
    assert tab.ask(state) == "descending"
    tab.press("Enter")
    assert tab.ask(ROWS)[:3] == ["prompt", "lora", "full"]
    assert tab.ask(state) == "ascending"
    assert "sort=trained" in tab.ask("location.hash")
    assert tab.ask("document.activeElement.closest('th').dataset.key") == "trained"


def test_it_filters_and_the_address_keeps_it(tab, whole):
    _, small = None, data_of(whole.read_text())
    tab.open(whole)
    choose = "(name, value) => {{ const at = filters.elements[name]; at.value = value; at.dispatchEvent(new Event('change', {{bubbles: true}})) }}"
    for name, value in (("role", "target"), ("shots", "16"), ("b", "prompt")):
        tab.ask(f"({choose.format()})({name!r}, {value!r})")
    tab.open(whole, tab.ask("location.hash"))  # somebody else follows the link
    assert tab.ask("state.role + state.shots + state.b") == "target16prompt"
    mean = tab.ask("one('#t-board tr[data-method=lora] [data-f=points]').textContent")
    assert (
        mean
        == f"{small['scores']['16']['target tasks']['lora'][0]:.1f} ±{small['scores']['16']['target tasks']['lora'][1]:.1f}"
    )
    assert tab.ask("one('#t-board tr[data-method=prompt] [data-f=points]').textContent") == ""
    assert tab.ask("all('#t-heat th[data-key]').filter(one => !one.hidden).map(one => one.dataset.key)") == [
        "method",
        "chnsent",
        "ocnli",
    ]
    assert tab.ask("all('details.task').filter(one => !one.hidden).length") == 2
    tab.open(whole, "#role=source&family=sentiment&shots=nonsense&a=nobody")
    assert tab.ask("one('#said').textContent").startswith("no task is both")
    assert tab.ask("state.a") == "lora"


def test_its_tables_go_into_files(tab, whole):
    small = data_of(whole.read_text())
    tab.open(whole)
    rows = [line.split(",") for line in tab.ask("csv('t-board')").strip().split("\n")]
    assert {len(row) for row in rows} == {len(rows[0])}
    lora = dict(zip(rows[0], next(row for row in rows if row[0] == "lora"), strict=True))
    score = small["scores"]["4"]["choice tasks"]["lora"]
    assert float(lora["mean"]) == score[0]
    assert float(lora["high"]) - float(lora["low"]) == pytest.approx(2 * score[1])
    latex = tab.ask("tex('t-heat')")
    assert latex.count("\\\\") == 1 + len(METHODS)
    assert "zero\\_shot \\dag{}" in latex
    assert {line.count(" & ") for line in latex.splitlines() if line.endswith("\\\\")} == {3}


def test_errors_stand_side_by_side(tab, whole):
    tab.open(whole, "#task=ocnli&a=lora&b=prompt&shots=16")
    counts = tab.ask("all('details[open] [data-f=errors] > dl dd').map(one => parseInt(one.textContent))")
    assert sum(counts) == 40
    assert tab.ask("all('details[open] .example').every(one => one.querySelector('.wrong'))")
    command = tab.ask("all('details[open] [data-f=cells] tr[data-method=lora] code').map(one => one.textContent)")
    assert len(command) == 3
    assert command[0].endswith("--methods lora --tasks ocnli --shots 16 --seeds 0")
