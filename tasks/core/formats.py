"""The original file formats, each a function (text of a file, its name) -> records. Pure: no file is opened here.

Only LF ends a record (a trailing CR is dropped) and blank lines are no records: `str.splitlines` would also split at
U+2028, and FinRE has a blank line after every record.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator
from typing import Any

from tasks.core.types import UsageError


def iter_lines(text: str) -> Iterator[tuple[int, str]]:
    """The records of a line-oriented file with their line numbers from 1."""
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.removesuffix("\r")
        if line.strip():
            yield number, line


class Record(dict):
    """A record that says where it stands when it is asked for what it has not."""

    def __init__(self, values: dict, location: str) -> None:
        super().__init__(values)
        self.location = location

    def __missing__(self, key: str) -> object:
        raise UsageError(f"{self.location}: no field {key!r}; there are: {', '.join(map(str, self))}")


def make_tsv_parser(*columns: str, has_header: bool = False) -> Callable[[str, str], Iterator[dict]]:
    """Columns split at tabs, with no quoting: a csv reader joins ChnSentiCorp's 9,600 train rows into 9,146."""

    def parse(text: str, where: str) -> Iterator[dict]:
        for number, line in iter_lines(text):
            if has_header and number == 1:
                continue
            values = line.split("\t")
            if len(values) != len(columns):
                raise UsageError(f"{where}:{number}: {len(values)} columns between tabs; expected {', '.join(columns)}")
            yield Record(dict(zip(columns, values, strict=True)), f"{where}:{number}")

    return parse


def parse_tsv(text: str, file_name: str) -> Iterator[dict]:
    """Columns split at tabs and named by the first line, with no quoting."""
    first = next((line for _, line in iter_lines(text)), "")
    names = first.split("\t")
    if len(set(names)) < len(names):
        raise UsageError(f"{file_name}:1: a column twice among {', '.join(names)}")
    return make_tsv_parser(*names, has_header=True)(text, file_name)


def parse_csv(text: str, file_name: str) -> Iterator[dict]:
    """Comma-separated with a header and real quoting (BQ, which also starts with a byte order mark)."""
    reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline=""))
    try:
        for row in reader:
            if None in row or None in row.values():
                raise UsageError(
                    f"{file_name}:{reader.line_num}: not as many columns as the header {reader.fieldnames}"
                )
            yield Record(row, f"{file_name}:{reader.line_num}")
    except csv.Error as error:
        raise UsageError(f"{file_name}:{reader.line_num}: not comma-separated: {error}") from error


def parse_json_lines(text: str, file_name: str) -> Iterator[dict]:
    for number, line in iter_lines(text):
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise UsageError(f"{file_name}:{number}: not JSON: {getattr(error, 'msg', error)}") from error
        if not isinstance(row, dict):
            raise UsageError(f"{file_name}:{number}: not a record in braces but {type(row).__name__}")
        yield Record(row, f"{file_name}:{number}")


def parse_json(text: str, file_name: str) -> Iterator[dict]:
    """A list of records in one document, or a record on each line."""
    if not text.lstrip().startswith("["):
        yield from parse_json_lines(text, file_name)
        return
    for place, row in enumerate(decode_json(text, file_name), start=1):
        if not isinstance(row, dict):
            raise UsageError(f"{file_name}: record {place} is not in braces but {type(row).__name__}")
        yield Record(row, f"{file_name}, record {place}")


def decode_json(text: str, file_name: str) -> Any:
    try:
        return json.loads(text, object_hook=lambda values: Record(values, file_name))
    except json.JSONDecodeError as error:
        raise UsageError(f"{file_name}:{error.lineno}: not JSON: {error.msg}") from error
    except RecursionError as error:
        raise UsageError(f"{file_name}: not JSON: {error}") from error


def parse_squad(text: str, file_name: str) -> Iterator[dict]:
    """One record per question, from SQuAD's nesting or from CMRC 2018's own flat list.

    Offsets are left out on purpose: in CMRC 193 are -1 and 7 count UTF-16 units. Numbers among CMRC's answers
    (39764.0) become strings, as in its SQuAD-style copy.
    """
    data = decode_json(text, file_name)
    try:
        if isinstance(data, list):
            for paragraph in data:
                for qa in paragraph["qas"]:
                    yield make_question_record(paragraph["context_text"], qa["query_text"], qa["answers"])
            return
        for article in data["data"]:
            for paragraph in article["paragraphs"]:
                for qa in paragraph["qas"]:
                    yield make_question_record(
                        paragraph["context"], qa["question"], [answer["text"] for answer in qa["answers"]]
                    )
    except TypeError as error:
        raise UsageError(f"{file_name}: not nested as SQuAD or CMRC 2018 ({error})") from error


def make_question_record(context: str, question_text: str, answers: list) -> dict:
    return {"context": context, "question": question_text, "answers": {"text": [str(answer) for answer in answers]}}


def parse_multiple_choice(text: str, file_name: str) -> Iterator[dict]:
    """C3: a list of [parts of the document, questions, id]; one record per question, keys as on the hub."""
    try:
        for parts, questions, _ in decode_json(text, file_name):
            for qa in questions:
                yield Record({"context": parts, **qa}, file_name)
    except (TypeError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{file_name}: not nested as C3, a list of [texts, questions, id] ({error})") from error


def parse_label_names(text: str, file_name: str) -> dict[str, str]:
    """Label id -> name, from a list of names (line number = id), a JSON dict, or JSON lines with a Chinese name."""
    if not text.lstrip().startswith("{"):
        return {str(index): name for index, (_, name) in enumerate(iter_lines(text))}
    rows = list(parse_json_lines(text, file_name))
    if len(rows) == 1 and "label" not in rows[0]:
        return {str(label): name for label, name in rows[0].items()}
    return {str(row["label"]): row["label_des"] for row in rows}
