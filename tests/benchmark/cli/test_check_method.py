"""`benchmark check` and the table of proofs."""

import re
from pathlib import Path

import pytest

import methods
from benchmark.cli import check_method
from benchmark.cli.main import main
from methods.conformance import checks, runner
from methods.conformance.runner import FAILED, NOT_APPLICABLE, PASSED, CheckResult

MINE = """
from methods.lora import LoRA
from methods.baselines import ZeroShot

class A(ZeroShot):
    name = "right"

class Wrong(ZeroShot):
    name = "wrong"

    def compute_hidden_states(self, *given, **more):
        return super().compute_hidden_states(*given, **more) * 1.001
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "mine_to_check.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    return "mine_to_check"


def test_a_class_of_ones_own_is_checked(mine: str, capsys):
    assert main(["check", f"{mine}:A"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{mine}:A: ")
    assert all(name in out for name in checks.CHECKS)
    assert "0 fail" in out


def test_a_wrong_class_fails_with_the_reason(mine: str, capsys):
    assert main(["check", f"{mine}:Wrong"]) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "1 fail" in out
    assert "torch.equal" in out


def test_a_class_that_is_not_there_is_one_line(capsys):
    assert main(["check", "no.such:Method"]) == 2
    assert "cannot be imported" in capsys.readouterr().err
    assert main(["check", "lorra"]) == 2
    assert "did you mean 'lora'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("found", "want"),
    [
        ({"a": (PASSED, ""), "b": (PASSED, "")}, (PASSED, "")),
        ({"a": (PASSED, ""), "b": (NOT_APPLICABLE, "none")}, (PASSED, "not on b: none")),
        ({"a": (NOT_APPLICABLE, "none"), "b": (NOT_APPLICABLE, "none")}, (NOT_APPLICABLE, "none")),
        ({"a": (PASSED, ""), "b": (FAILED, "off")}, (FAILED, "b: off")),
        ({"a": (NOT_APPLICABLE, "none"), "b": (FAILED, "off")}, (FAILED, "b: off")),
    ],
)
def test_a_verdict_is_the_worst_of_all_architectures(found, want):
    assert runner.merge_outcomes(found) == want


def test_the_table_says_what_each_proof_said(monkeypatch, capsys):
    rows = [CheckResult(name, PASSED) for name in checks.CHECKS]
    rows[1], rows[2] = (
        rows[1]._replace(state=NOT_APPLICABLE, reason="no use"),
        rows[2]._replace(state=FAILED, reason="off"),
    )
    monkeypatch.setattr(check_method, "check_all_methods", lambda names: dict.fromkeys(names, rows))
    for extra in ([], ["--markdown"]):
        assert main(["list", "proofs", "--methods", "lora,bitfit", *extra]) == 1
        out = capsys.readouterr().out
        assert re.search(r"lora[ |]+✓[ |]+a[ |]+✗ b[ |]+✓", out)
        assert "a" + (": " if extra else " ") + "no use" in out


def test_the_committed_table_is_of_these_methods_and_proofs():
    text = (Path(__file__).parents[3] / "docs/proofs.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| (\w+) \|", text, re.M)
    assert named == ["method", *methods.NAMES]
    assert re.findall(r"^\d+\. `(\w+)`", text, re.M) == list(checks.CHECKS)
    assert "✗" not in text.partition("| method |")[2]
    assert check_method.DOCS_COMMAND in text
