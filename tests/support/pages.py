"""A page of a grid made by hand, with a trap in every text, and what to read it with."""

import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from benchmark.config import loading
from benchmark.config.profile import Profile
from benchmark.execution.record import build_result
from benchmark.grid import planner
from benchmark.reporting import build
from benchmark.reporting.html import charts, examples, page_records
from benchmark.results.schema import CurvePoint, DevScore, Metrics
from benchmark.results.store import ResultStore
from benchmark.system.hashing import hash_prompt
from benchmark.system.redaction import FailureDescription
from tests.support import result_fixtures
from tests.support.result_fixtures import COSTS, EMPTY_DATA

TRAP = "<script>window.caught = 1</script><img src=x onerror='window.caught = 1'>\u2028"
METHODS = ("zero_shot", "majority", "full", "lora", "prompt")
SKILL = {"zero_shot": 0.3, "majority": 0.1, "full": 0.9, "lora": 0.7, "prompt": 0.65}
TRAINING = replace(
    result_fixtures.TRAINING,
    loss=(CurvePoint(1, 2.0), CurvePoint(2, 1.0)),
    dev=(DevScore(2, 0.5, 1.0), DevScore(4, 0.6, 0.9)),
)
ENVIRONMENT = replace(result_fixtures.ENVIRONMENT, commit="c0ffee", packages={"torch": "2"})
VOID = {"meta", "link", "img", "br", "input", "option"}


def built(folder: Path, backbone: Path) -> tuple[Profile, Path, str]:
    """Five methods, three tasks, two numbers of shots and three seeds -> (profile, page, its text without the plots)."""
    changes = {"methods": list(METHODS), "tasks": ["afqmc", "chnsent", "ocnli"], "shots": [4, 16], "seeds": [0, 1, 2],
               "results": str(folder / "results"), "backbone": {"name": str(backbone)}}  # fmt: skip
    small = loading.load_profile("smoke", changes)
    prompts = {task: [(f"{task} {i} {TRAP}", "对") for i in range(40)] for task in small.tasks}
    with pytest.MonkeyPatch.context() as patch:
        texts = {f"{task}:{i}": text for task, own in prompts.items() for i, (text, _) in enumerate(own)}
        patch.setattr(examples, "load_prompt_texts", lambda profile, task, answers, places: (texts, ""))
        patch.setattr(charts, "load_vega_script", lambda: "")
        fill(small, prompts)
        build.build_report(small, Console(file=io.StringIO(), width=120))
    page = folder / "results" / "report" / "index.html"
    return small, page, page.read_text()


def fill(small: Profile, prompts: dict) -> None:
    """Finished cells with answers, but one that failed."""
    draw, store = np.random.default_rng(0), ResultStore(small.results_folder)
    for planned in planner.plan_grid(small):
        cell, asked = planned.cell, prompts[planned.cell.task]
        result = build_result(planned, small, training=TRAINING, environment=ENVIRONMENT)
        result = replace(result, times=replace(result.times, seconds=2.0))
        if cell.key == "prompt/ocnli/16/2":
            store.save_result(planned, replace(result, error=FailureDescription(f"no room {TRAP}")))
            continue
        right = draw.random(len(asked)) < SKILL[cell.method] + 0.05 * (cell.shots == 16)
        kept = {"uid": [f"{cell.task}:{i}" for i in range(len(asked))], "asked": [hash_prompt(*one) for one in asked],
                "group": [""] * len(asked), "target": [word for _, word in asked], "correct": right.tolist(),
                "predicted": ["对" if ok else f"错 {TRAP}" for ok in right], "score": right.astype(float).tolist()}  # fmt: skip
        parameters = {"full": 10**6, "lora": 3000, "prompt": 200}.get(cell.method, 0)
        result = replace(
            result,
            metrics=Metrics({"accuracy": float(right.mean())}, {cell.task: 0.5}, {}),
            data={cell.task: EMPTY_DATA},
            costs=replace(COSTS, trained_parameters=parameters),
            predictions=store.save_predictions(planned, kept),
        )
        store.save_result(planned, result)


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
    """The data of the page, its tables decoded as `decodeRecords` of state.js does."""
    payload = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])
    return payload | {name: decode_records(payload[name]) for name in page_records.TABLES}


def decode_records(table: dict) -> list | dict:
    def decode_level(level: list | dict) -> dict:
        if isinstance(level, list):
            return dict(zip(table["columns"], level, strict=True))
        return {key: decode_level(part) for key, part in level.items()}

    rows = table["rows"]
    return [decode_level(row) for row in rows] if isinstance(rows, list) else decode_level(rows)
