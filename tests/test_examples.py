"""examples/own_method as its README has it: by import path, from its folder, on any architecture."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from benchmark.cli.main import main
from benchmark.config import loading
from tasks.validation.loader_checks import check_loader

FOLDER = Path(__file__).parents[1] / "examples" / "own_method"
PAGE = Path(__file__).parents[1] / "docs" / "add-your-own.md"
TASKS = ["own_task:Intent", "own_task:Quiz", "own_task:Meeting", "own_task:Review", "ticket.yaml"]
QUICK = ["--seeds", "0", "--limit-test", "4", "--workers", "1", "--set", "budget.max_steps=2", "--set", "budget.min_steps=0",
         "--set", "budget.evaluations=1"]  # fmt: skip
SMALL = ["--tasks", "own_task:Intent", "--methods", "own_method:MyAdapter", *QUICK]


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example, in which results may be written."""
    folder = tmp_path_factory.mktemp("examples") / "own_method"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("__pycache__", "results"))
    return folder


@pytest.fixture
def inside(example: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(example)
    monkeypatch.syspath_prepend(str(example))
    yield example
    for name in ("own_method", "own_task"):
        sys.modules.pop(name, None)


def test_the_profile_runs_from_its_folder_as_a_user_types_it(example: Path, tmp_path: Path):
    words = [
        "-m",
        "benchmark",
        "run",
        "--profile",
        "profile.yaml",
        "--methods",
        "own_method:MyAdapter",
        "--tasks",
        "own_task:Meeting,ticket.yaml",
        *QUICK,
    ]
    said = subprocess.run([sys.executable, *words], cwd=example, capture_output=True, text=True,
                          env=os.environ | {"ADAPTERBENCH_CACHE": str(tmp_path / "cache")})  # fmt: skip
    assert said.returncode == 0, said.stderr
    assert "2 done, 0 failed" in said.stdout
    assert "Suite own: five small invented tasks." in said.stdout
    assert "own_task:Meeting" in said.stdout
    assert "ticket.yaml" in said.stdout
    assert len(list((example / "results" / "cells").glob("*.json"))) == 2
    assert "own_method:MyAdapter" in (example / "results" / "report" / "index.html").read_text(encoding="utf-8")


def test_the_page_shows_what_is_in_the_folder():
    fences = re.findall(r"```(\w+)\n(.*?)\n```", PAGE.read_text(encoding="utf-8"), re.S)
    shown = [text for language, text in fences if language in ("python", "yaml") and "form: options" not in text]
    files = "\n".join(path.read_text(encoding="utf-8") for path in sorted(FOLDER.iterdir()) if path.is_file())
    assert [text for text in shown if text not in files and "form: span" not in text] == []
    assert len(shown) == 5


@pytest.mark.parametrize("form", ["choice", "options", "span"])
def test_every_declaration_of_the_page_reads_the_records_of_the_folder(form: str, tmp_path: Path):
    from tasks.core.yaml_task import load_yaml_task

    fences = re.findall(r"```yaml\n(.*?)\n```", PAGE.read_text(encoding="utf-8"), re.S)
    (text,) = [text for text in fences if re.search(rf"(?m)^form: {form}\b", text)]
    shutil.copytree(FOLDER / "data", tmp_path / "data")
    for path in (FOLDER / "data").glob("*.*"):
        shutil.copy(path, tmp_path)
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    task = load_yaml_task(str(tmp_path / "mine.yaml"))()
    task.setup()
    assert len(task.examples["test"]) >= 18
    assert not any(sum(counts.values()) for counts in task.report["dropped"].values())


@pytest.mark.parametrize("name", ["own_method:MyAdapter", "package.module:Class", "package.module:Class:row"])
def test_an_option_is_set_by_the_import_path(name: str):
    found = loading.load_profile("smoke", {"methods": [name]}, [f"{name}.lr=0.5", f"config.{name}.sites=q"])
    assert found.config[name] == {"lr": 0.5, "sites": "q"}


def test_the_profile_names_every_task_and_method_of_the_folder():
    found = yaml.safe_load((FOLDER / "profile.yaml").read_text(encoding="utf-8"))
    assert found["suite"]["targets"] == TASKS
    assert "own_method:MyAdapter" in found["methods"]


@pytest.mark.parametrize("name", TASKS)
def test_every_task_passes_every_check(inside: Path, name: str):
    import tasks
    from methods.core.backbone import load_tokenizer
    from methods.core.backbone_files import find_or_download_backbone

    task = tasks.load_task(name)(
        load_tokenizer(find_or_download_backbone("tiny"), "tiny"), data_source="local", data_dir="data"
    )
    assert [finding for finding in check_loader(task) if finding.status != "passed"] == []


def test_a_backbone_of_ones_own_is_a_folder(inside: Path, model_folders, tmp_path: Path, capsys):
    words = [
        "--profile",
        "profile.yaml",
        "--backbone",
        str(model_folders["llama"]),
        "--results",
        str(tmp_path / "r"),
    ]
    assert main(["run", *words, *SMALL]) == 0
    assert "1 done, 0 failed" in capsys.readouterr().out


def test_the_method_proves_what_every_method_proves(inside: Path, model_folders):
    """On one architecture; `benchmark check own_method:MyAdapter` takes all three."""
    import methods
    from methods.conformance.checks import CHECKS
    from methods.conformance.runner import FAILED, run_check
    from methods.core.backbone import Backbone

    kind, backbone = methods.load_method("own_method:MyAdapter"), Backbone.load(str(model_folders["qwen2"]))
    states = {name: run_check(proof, kind, backbone) for name, proof in CHECKS.items()}
    assert [(name, why) for name, (state, why) in states.items() if state == FAILED] == []


def test_the_method_is_the_equation(inside: Path):
    """y = gamma * (W x) + beta, element by element."""
    import torch

    import methods
    from methods.core.slot_parameters import SlotContext

    place = sys.modules[methods.load_method("own_method:MyAdapter").__module__].ScaleShift(
        torch.nn.Linear(3, 2), SlotContext()
    )
    place.gamma.add_slot(torch.tensor([[2.0, -1.0]]))
    place.beta.add_slot(torch.tensor([[0.5, 0.0]]))
    found = place(torch.zeros(1, 1, 3), torch.tensor([[[1.0, 3.0]]]))
    assert found.tolist() == [[[2.5, -3.0]]]
