"""What is refused: one line that says what, where and what to do; exit code 2; nothing is written."""

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmark.cli.main import main

GRID = ["--profile", "smoke", "--methods", "lora", "--tasks", "chnsent", "--workers", "1"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In an empty folder, with the cache beside it."""
    monkeypatch.setenv("ADAPTERBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def refused(capsys: pytest.CaptureFixture, elsewhere: Path) -> Callable[..., None]:
    def check(words: list[str], *said: str) -> None:
        before = sorted(elsewhere.rglob("*"))
        assert main(words) == 2
        out = capsys.readouterr().err
        assert out.startswith("error: ")
        assert len(out.splitlines()) == 1, out
        assert len(out) < 600, "too long to be read"
        for text in said:
            assert text in out
        assert sorted(elsewhere.rglob("*")) == before

    return check
