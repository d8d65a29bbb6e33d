"""A small task declared in YAML, beside its records."""

import json
from collections.abc import Sequence
from pathlib import Path

PLAIN = """
files: {train: rows.jsonl}
columns: {answer: label}
template: "选坏或好。\\n{text}\\n答："
words: {0: 坏, 1: 好}
"""
ROWS = [{"text": f"第{i}条评论", "n": i, "label": i % 2} for i in range(30)]


def declare(folder: Path, text: str = PLAIN, rows: Sequence[dict] | str = ROWS, name: str = "rows.jsonl") -> Path:
    """The declaration's path; `rows` as JSON lines, or as the text of the file `name`."""
    lines = rows if isinstance(rows, str) else "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / name).write_text(lines, encoding="utf-8")
    (folder / "mine.yaml").write_text(text, encoding="utf-8")
    return folder / "mine.yaml"
