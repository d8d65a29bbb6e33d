"""The page in headless Chromium, where there is one."""

import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmark.reporting.html import charts
from benchmark.reporting.html.page_records import CrossingRecord
from benchmark.reporting.html.render import escape_script
from tests.support.browser import browser, found
from tests.support.pages import METHODS, TRAP, data_of


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
    script = f"<script>{escape_script(charts.load_vega_script())}</script>"
    place = path.with_name("whole.html")
    place.write_text(text.replace("<script>", f"{script}<script>", 1))
    return place


ROWS = "selectAll('#t-board tbody tr').map(row => row.dataset.method)"


def test_it_loads_without_a_complaint_and_draws_its_charts(tab, whole):
    tab.complaints.clear()
    tab.asked.clear()
    tab.open(whole, "#task=ocnli")
    drawn = "Promise.all(selectAll('[data-chart]').map(drawChart)).then(() => selectAll('[data-chart]').map(one => selectAll('svg', one).length))"
    assert tab.ask(drawn) == [1] * 10  # trade-off, shots, ranks, time, and two of each task
    assert tab.complaints == []
    assert all(url.startswith(("file:", "data:", "about:")) for url in tab.asked)
    assert tab.ask("window.caught") is None  # the trap has not gone off
    assert TRAP in tab.ask("selectOne('.example pre').textContent") + tab.ask("selectOne('.example').textContent")


@pytest.mark.parametrize("width", [360, 1440])
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone_and_a_desk(tab, whole, width, dark):
    tab.open(whole, "#task=ocnli", width=width, dark=dark)
    tab.ask("Promise.all(selectAll('[data-chart]').filter(one => one.clientWidth).map(drawChart))")
    assert tab.ask("innerWidth") == width
    assert tab.ask("document.documentElement.scrollWidth") <= width
    paper = tab.ask("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", paper)[:3])) < 200) == dark


def test_it_sorts_by_keyboard_and_says_which_way(tab, whole):
    tab.open(whole)
    state = "selectOne('#t-board th[data-key=trained]').getAttribute('aria-sort')"
    tab.ask("selectOne('#t-board th[data-key=trained] button').focus()")
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
    for name, value in (("role", "target"), ("shots", "16"), ("method_b", "prompt")):
        tab.ask(f"({choose.format()})({name!r}, {value!r})")
    tab.open(whole, tab.ask("location.hash"))  # somebody else follows the link
    assert tab.ask("state.role + state.shots + state.method_b") == "target16prompt"
    mean = tab.ask("selectOne('#t-board tr[data-method=lora] [data-field=score]').textContent")
    score = small["scores"]["16"]["target tasks"]["lora"]
    assert mean == f"{score['mean']:.1f} ±{score['half_width']:.1f}"
    assert tab.ask("selectOne('#t-board tr[data-method=prompt] [data-field=score]').textContent") == ""
    assert tab.ask("selectAll('#t-heat th[data-key]').filter(one => !one.hidden).map(one => one.dataset.key)") == [
        "method",
        "chnsent",
        "ocnli",
    ]
    assert tab.ask("selectAll('details.task').filter(one => !one.hidden).length") == 2
    tab.open(whole, "#role=source&family=sentiment&shots=nonsense&a=nobody")
    assert tab.ask("selectOne('#selection').textContent").startswith("no task matches")
    assert tab.ask("state.method_a") == "lora"


def test_its_numbers_end_in_the_digit_that_the_report_shows(tab, whole):
    values = [87.25, 87.75, -0.25, 0.75, 12.35, 0.05, 99.9999, -2.25, 3.2501]
    tab.open(whole)
    assert tab.ask(f"{values}.map(formatTenths)") == [f"{value:.1f}" for value in values]


def test_ranks_and_crossings_are_those_of_the_filter(tab, whole):
    small = data_of(whole.read_text())
    tab.open(whole, "#role=target")
    found = small["rank_diagrams"]["4"]["target tasks"]
    assert found["num_tasks"] == 2
    assert tab.ask("rowBuilders.ranks().map(row => row.rank)") == found["mean_ranks"]
    assert tab.ask("selectAll('#t-ranks tbody tr').length") == len(found["methods"])
    tab.open(whole, "#role=target&family=sentiment")  # a single task has no ranks
    assert tab.ask("rowBuilders.ranks()") == []
    tab.open(whole, "#role=target&a=prompt&b=lora")
    crossing = CrossingRecord("target tasks", "lora", "prompt", 4, 16, 8.4, True, False)
    tab.ask(f"data.crossings = {json.dumps([asdict(crossing)])}; fillTexts()")
    text = tab.ask("selectOne('#crossings').textContent")
    assert text.startswith(
        "lora overtakes prompt between 4 shots and 16 shots, at about 8, over these 2 tasks; the difference"
    )
    tab.ask("changeState({ role: 'choice' })")
    assert "do not cross over these 3 tasks" in tab.ask("selectOne('#crossings').textContent")


def test_examples_without_their_texts_show_who_was_right(tab, whole):
    tab.open(whole, "#task=ocnli&a=lora&b=prompt&shots=16")
    tab.ask("data.examples.ocnli.examples.forEach(one => { one.prompt = one.expected_answer = null })")
    tab.ask("Object.values(data.examples.ocnli.comparisons[16].answers).forEach(one => one.predictions.fill(null))")
    tab.ask("data.examples.ocnli.note = 'left out'; fillTaskSection(selectOne('details[open]'))")
    text = tab.ask("selectOne('details[open] [data-field=answers]').textContent")
    assert "left out" in text
    assert "ocnli:" in text
    assert "✗ wrong" in text
    assert "expected" not in text
    assert "null" not in text


def test_its_tables_go_into_files(tab, whole):
    small = data_of(whole.read_text())
    tab.open(whole)
    rows = [line.split(",") for line in tab.ask("formatCsv('t-board')").strip().split("\n")]
    assert {len(row) for row in rows} == {len(rows[0])}
    lora = dict(zip(rows[0], next(row for row in rows if row[0] == "lora"), strict=True))
    score = small["scores"]["4"]["choice tasks"]["lora"]
    assert float(lora["mean"]) == score["mean"]
    assert float(lora["high"]) - float(lora["low"]) == pytest.approx(2 * score["half_width"])
    latex = tab.ask("formatLatex('t-heat')")
    assert latex.count("\\\\") == 1 + len(METHODS)
    assert "zero\\_shot \\dag{}" in latex
    assert {line.count(" & ") for line in latex.splitlines() if line.endswith("\\\\")} == {3}


def test_errors_stand_side_by_side(tab, whole):
    tab.open(whole, "#task=ocnli&a=lora&b=prompt&shots=16")
    counts = tab.ask("selectAll('details[open] [data-field=answers] > dl dd').map(one => parseInt(one.textContent))")
    assert sum(counts) == 40
    assert tab.ask("selectAll('details[open] .example').every(one => one.querySelector('.wrong'))")
    command = tab.ask(
        "selectAll('details[open] [data-field=cells] tr[data-method=lora] code').map(one => one.textContent)"
    )
    assert len(command) == 3
    assert command[0].endswith("--methods lora --tasks ocnli --shots 16 --seeds 0")
