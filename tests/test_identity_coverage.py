"""Every module that runs while a cell trains and scores is part of its identity, or is known not to matter."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmark.config import loading
from benchmark.config.profile import Profile
from benchmark.grid import code_hash, data_hash, identity, planner, specs

RUN = """
import json, sys
from benchmark.config import loading
from benchmark.execution.cell_runner import CellRunner
from benchmark.grid import planner
from benchmark.results.store import ResultStore
profile = loading.load_profile("smoke", {"methods": [sys.argv[1]], "tasks": ["chnsent"], "results": sys.argv[2]})
runner = CellRunner(profile, ResultStore(profile.results_folder))
results = [runner.run([cell])[0] for cell in planner.plan_grid(profile)]
assert all(result.is_done for result in results), results
print(json.dumps(sorted(name for name in sys.modules if name.partition(".")[0] in ("benchmark", "methods", "tasks"))))
"""


def covered_modules(profile: Profile) -> set[str]:
    """Modules whose code is in the identity of the profile's cells."""
    found = set(code_hash.find_code(*identity.TRAINING_MODULES, excluded=frozenset(identity.NEUTRAL_MODULES)))
    for cell in planner.plan_grid(profile):
        found |= set(code_hash.find_code(specs.find_defining_module("methods", cell.cell.method)))
        for task in cell.training_tasks:
            found |= set(code_hash.find_code(specs.find_defining_module("tasks", task)))
    return found


@pytest.mark.parametrize("method", ["lora", "meta_lora", "head_only", "spot", "ta_lora", "peft"])
def test_what_runs_while_a_cell_trains_and_scores_is_in_its_identity(method: str, tmp_path: Path):
    words = [sys.executable, "-c", RUN, method, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    profile = loading.load_profile("smoke", {"methods": [method], "tasks": ["chnsent"], "results": str(tmp_path)})
    generators = {name for name in code_hash.find_code("tasks.synthetic.topic") if name.startswith("tasks.synthetic")}
    generators |= {name for name in json.loads(done.stdout) if name.startswith("tasks.synthetic")}  # hashed as data
    uncovered = set(json.loads(done.stdout)) - covered_modules(profile) - code_hash.INDEX_MODULES - generators
    assert uncovered - identity.NEUTRAL_MODULES.keys() == set()


def test_neutral_modules_exist_and_say_why():
    for module, reason in identity.NEUTRAL_MODULES.items():
        assert code_hash.find_module_file(module), module
        assert reason


@pytest.mark.parametrize(
    "module",
    [
        "tasks.core.batching",
        "benchmark.execution.cell_runner",
        "benchmark.execution.record",
        "benchmark.training.model_selection",
        "benchmark.evaluation.scoring",
        "methods.base",
    ],
)
def test_an_edit_of_training_or_scoring_code_makes_every_cell_stale(module: str, monkeypatch: pytest.MonkeyPatch):
    profile = replace(loading.load_profile("smoke"), methods=("lora",), tasks=("chnsent",))
    (before,) = planner.plan_grid(profile)
    parse = code_hash.parse_module

    def parse_edited(name: str) -> tuple[str, list[str]]:
        return ("edited", parse(name)[1]) if name == module else parse(name)

    monkeypatch.setattr(code_hash, "parse_module", parse_edited)
    for function in (code_hash.hash_code, code_hash.find_code):
        function.cache_clear()
    try:
        (after,) = planner.plan_grid(profile)
    finally:
        for function in (code_hash.hash_code, code_hash.find_code):
            function.cache_clear()
    assert before.identity != after.identity
    assert "training or scoring code" in identity.describe_changes(before.inputs, after.inputs)


def test_generated_data_is_hashed_by_the_code_of_its_generators():
    assert data_hash.hash_synthetic_generators()


def test_peft_is_among_the_hashed_libraries():
    assert "peft" in identity.get_library_versions()
