"""Every command and code block of README.md and docs/*.md does what it did when it was written."""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from benchmark.cli.main import main
from benchmark.config import loading, profile, validation
from methods.base import Method, SlotParameter
from tasks.core.types import UsageError
from tests.docs.blocks import NOT_RUN, ROOT, SHELL, Block, blocks, commands, inline, pages, title
from tests.docs.runner import Wrong, checked

ALL = [block for page in pages() for block in blocks(page)]
COMMANDS = [block for block in ALL if block.language in SHELL]
PYTHON = [block for block in ALL if block.language == "python"]
YAML = [block for block in ALL if block.language == "yaml"]
SPANS = [(title(page), span) for page in pages() for span in dict.fromkeys(inline(page))
         if re.match(r"(python -m benchmark|adapterbench|make|python -m tests\.\w+) \w", span)]  # fmt: skip


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands of all pages run, with what a clone has beside them."""
    folder = tmp_path_factory.mktemp("docs") / "adapterbench"
    folder.mkdir()
    for name in ("methods", "tests", "docs", "tasks", "benchmark"):
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.fixture(autouse=True)
def inside(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workshop)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)


def where(block: Block) -> str:
    return block.where


@pytest.mark.parametrize("block", COMMANDS, ids=where)
def test_commands(block, tmp_path, monkeypatch, capsys):
    if block.refused:  # by a folder without results
        monkeypatch.chdir(tmp_path)
    for words in commands(block.text):
        if block.refused:
            assert main(words[3:]) == 2, words
            assert " ".join(capsys.readouterr().err.split()) == " ".join(block.refused.split())
            continue
        try:
            checked(words, run=not block.reason)
        except (UsageError, Wrong) as error:
            pytest.fail(f"{block.where}: {' '.join(words)}\n{error}\n{capsys.readouterr().err[-600:]}", pytrace=False)


@pytest.mark.parametrize(("page", "span"), SPANS)
def test_commands_within_a_line(page, span):
    """Their verbs and flags are there."""
    for words in commands(span):
        try:
            checked(words, run=False)
        except (UsageError, Wrong) as error:
            pytest.fail(f"{page}: `{span}`: {error}", pytrace=False)


def trainer(**options: object):
    """Lightning's own, with two batches in place of all and no files of its own."""
    from lightning.pytorch import Trainer

    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(**{**options, **quiet, "max_epochs": 1, "limit_train_batches": 2, "limit_val_batches": 1})


@pytest.mark.parametrize("block", PYTHON, ids=where)
def test_python(block, monkeypatch, capsys):
    """Runs as it stands, on what a method's file imports."""
    code = compile(block.text, block.where, "exec")
    if block.reason:
        return
    monkeypatch.setattr("lightning.Trainer", trainer)
    if '"out"' in block.text:  # what `benchmark export` leaves
        checked(["adapterbench", "export", "lora/chnsent/16/0", "out"], run=True)
    names = {
        "__name__": "page",
        "torch": torch,
        "nn": nn,
        "dataclass": dataclass,
        "Bank": SlotParameter,
        "Method": Method,
    }
    exec(code, names)


@pytest.mark.parametrize("block", YAML, ids=where)
def test_yaml(block):
    """A profile has fields and values that exist."""
    found = yaml.safe_load(block.text)
    if not block.reason and isinstance(found, dict) and found.keys() <= profile.Profile.__dataclass_fields__.keys():
        validation.validate_profile(loading.parse_profile({"name": "page"} | found, block.where))


def test_a_block_says_what_language_it_is_in():
    assert not [block.where for block in ALL if not block.language]


def test_what_is_not_run_has_a_reason():
    """And is run again once the comment is gone."""
    said = [block for block in ALL if block.comment.startswith(NOT_RUN.rstrip(":"))]
    assert not [block.where for block in said if not block.reason]


WRONG = [
    "python -m benchmark plan --profile demo --shot-count 4",
    "python -m benchmark rnu",
    "python -m benchmark plan --profile dmeo",
    "python -m benchmark plan --set lora.rnk=3",
    "python -m benchmark run --methods lorra",
    "adapterbench list task",
    "make benchmrk",
    "make benchmark ARGS='--methds lora'",
    "make bench ARGS=--quikc",
    "python -m tests.fault_injection --shrt",
    "python -m benchmark check nosuch:Method",
    "python -m benchmark show lora/chnsent",
    "cd no/such/folder",
    "benhcmark run",
]


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_command_is_found(line, capsys):
    (words,) = commands(line)
    with pytest.raises((UsageError, Wrong)):
        checked(words, run=True)
