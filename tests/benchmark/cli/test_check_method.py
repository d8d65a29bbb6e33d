"""`benchmark check` and the table of proofs."""

import re
from pathlib import Path

import pytest

import methods
from benchmark import check
from benchmark.__main__ import entry
from benchmark.check import BLANK, FAILS, HOLDS, Verdict
from benchmark.proofs import kit

MINE = """
from methods.lora import LoRA
from methods.controls import ZeroShot

class A(ZeroShot):
    name = "right"

class Wrong(ZeroShot):
    name = "wrong"

    def hidden(self, *given, **more):
        return super().hidden(*given, **more) * 1.001
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "mine_to_check.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    return "mine_to_check"


def test_a_class_of_ones_own_is_checked(mine: str, capsys):
    assert entry(["check", f"{mine}:A"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{mine}:A: ")
    assert all(name in out for name in kit.PROOFS)
    assert "0 fail" in out


def test_a_wrong_class_fails_with_the_reason(mine: str, capsys):
    assert entry(["check", f"{mine}:Wrong"]) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "1 fail" in out
    assert "torch.equal" in out


def test_a_class_that_is_not_there_is_one_line(capsys):
    assert entry(["check", "no.such:Method"]) == 2
    assert "cannot be imported" in capsys.readouterr().err
    assert entry(["check", "lorra"]) == 2
    assert "did you mean 'lora'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("found", "want"),
    [
        ({"a": (HOLDS, ""), "b": (HOLDS, "")}, (HOLDS, "")),
        ({"a": (HOLDS, ""), "b": (BLANK, "none")}, (HOLDS, "not on b: none")),
        ({"a": (BLANK, "none"), "b": (BLANK, "none")}, (BLANK, "none")),
        ({"a": (HOLDS, ""), "b": (FAILS, "off")}, (FAILS, "b: off")),
        ({"a": (BLANK, "none"), "b": (FAILS, "off")}, (FAILS, "b: off")),
    ],
)
def test_a_verdict_is_the_worst_of_all_architectures(found, want):
    assert check.together(found) == want


def test_the_table_says_what_each_proof_said(monkeypatch, capsys):
    rows = [Verdict(name, HOLDS) for name in kit.PROOFS]
    rows[1], rows[2] = rows[1]._replace(state=BLANK, reason="no use"), rows[2]._replace(state=FAILS, reason="off")
    monkeypatch.setattr(check, "matrix", lambda names: dict.fromkeys(names, rows))
    for extra in ([], ["--markdown"]):
        assert entry(["list", "proofs", "--methods", "lora,bitfit", *extra]) == 1
        out = capsys.readouterr().out
        assert re.search(r"lora[ |]+✓[ |]+a[ |]+✗ b[ |]+✓", out)
        assert "a" + (": " if extra else " ") + "no use" in out


def test_the_committed_table_is_of_these_methods_and_proofs():
    text = (Path(__file__).parents[3] / "docs/proofs.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| (\w+) \|", text, re.M)
    assert named == ["method", *methods.NAMES]
    assert re.findall(r"^\d+\. `(\w+)`", text, re.M) == list(kit.PROOFS)
    assert "✗" not in text.partition("| method |")[2]
    assert check.COMMAND in text
