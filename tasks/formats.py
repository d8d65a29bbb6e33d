"""The original file formats, each a function (text of a file, its name) -> records. Pure: no file is opened here.

Only LF ends a record (a trailing CR is dropped) and blank lines are no records: `str.splitlines` would also split at
U+2028, and FinRE has a blank line after every record.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator

from tasks.example import UsageError


def lines(text: str) -> Iterator[tuple[int, str]]:
    """The records of a line-oriented file with their line numbers from 1."""
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.removesuffix("\r")
        if line.strip():
            yield number, line


def tabbed(*columns: str, header: bool = False) -> Callable[[str, str], Iterator[dict]]:
    """Columns split at tabs, with no quoting: a csv reader joins ChnSentiCorp's 9,600 train rows into 9,146."""

    def parse(text: str, where: str) -> Iterator[dict]:
        for number, line in lines(text):
            if header and number == 1:
                continue
            values = line.split("\t")
            if len(values) != len(columns):
                raise UsageError(f"{where}:{number}: {len(values)} columns between tabs; expected {', '.join(columns)}")
            yield dict(zip(columns, values, strict=True))

    return parse


def quoted(text: str, where: str) -> Iterator[dict]:
    """Comma-separated with a header and real quoting (BQ, which also starts with a byte order mark)."""
    reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline=""))
    for row in reader:
        if None in row or None in row.values():
            raise UsageError(f"{where}:{reader.line_num}: not as many columns as the header {reader.fieldnames}")
        yield row


def json_lines(text: str, where: str) -> Iterator[dict]:
    for number, line in lines(text):
        try:
            yield json.loads(line)
        except json.JSONDecodeError as error:
            raise UsageError(f"{where}:{number}: not JSON: {error.msg}") from error


def document(text: str, where: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(f"{where}:{error.lineno}: not JSON: {error.msg}") from error


def squad(text: str, where: str) -> Iterator[dict]:
    """One record per question, from SQuAD's nesting or from CMRC 2018's own flat list.

    Offsets are left out on purpose: in CMRC 193 are -1 and 7 count UTF-16 units. Numbers among CMRC's answers
    (39764.0) become strings, as in its SQuAD-style copy.
    """
    data = document(text, where)
    if isinstance(data, list):
        for paragraph in data:
            for qa in paragraph["qas"]:
                yield question(paragraph["context_text"], qa["query_text"], qa["answers"])
        return
    for article in data["data"]:
        for paragraph in article["paragraphs"]:
            for qa in paragraph["qas"]:
                yield question(paragraph["context"], qa["question"], [answer["text"] for answer in qa["answers"]])


def question(context: str, text: str, answers: list) -> dict:
    return {"context": context, "question": text, "answers": {"text": [str(answer) for answer in answers]}}


def multiple_choice(text: str, where: str) -> Iterator[dict]:
    """C3: a list of [parts of the document, questions, id]; one record per question, keys as on the hub."""
    for parts, questions, _ in document(text, where):
        for qa in questions:
            yield {"context": parts, **qa}


def label_names(text: str) -> dict[str, str]:
    """Label id -> name, from a list of names (line number = id), a JSON dict, or JSON lines with a Chinese name."""
    if not text.lstrip().startswith("{"):
        return {str(index): name for index, (_, name) in enumerate(lines(text))}
    rows = [json.loads(line) for _, line in lines(text)]
    if len(rows) == 1 and "label" not in rows[0]:
        return {str(label): name for label, name in rows[0].items()}
    return {str(row["label"]): row["label_des"] for row in rows}
