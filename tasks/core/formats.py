"""Parsers of the original file formats: functions (text of a file, file name) -> records. No file is opened here.

Only LF ends a record, a trailing CR is removed, and blank lines are skipped: `str.splitlines` would also split at
U+2028, and FinRE has a blank line after every record. All parsers raise UsageError with file and line.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator
from typing import Any

from tasks.core.types import UsageError


def iter_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, line) for all lines that are not blank."""
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.removesuffix("\r")
        if line.strip():
            yield number, line


class Record(dict):
    """A record with its location; access to a missing field raises UsageError with that location."""

    def __init__(self, values: dict, location: str) -> None:
        super().__init__(values)
        self.location = location

    def __missing__(self, key: str) -> object:
        raise UsageError(f"{self.location}: no field {key!r}; there are: {', '.join(map(str, self))}")


def make_tsv_parser(*columns: str, has_header: bool = False) -> Callable[[str, str], Iterator[dict]]:
    """Make a parser of tab-separated columns without quoting.

    A csv reader, which interprets quotes, joins the 9,600 train rows of ChnSentiCorp into 9,146.
    """

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
    """Parse tab-separated columns without quoting; the first line names them."""
    header = next((line for _, line in iter_lines(text)), "")
    names = header.split("\t")
    if len(set(names)) < len(names):
        raise UsageError(f"{file_name}:1: duplicate column among {', '.join(names)}")
    return make_tsv_parser(*names, has_header=True)(text, file_name)


def parse_csv(text: str, file_name: str) -> Iterator[dict]:
    """Parse comma-separated columns with header and quoting (BQ, which also starts with a byte order mark)."""
    reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline=""))
    try:
        for row in reader:
            if None in row or None in row.values():
                raise UsageError(
                    f"{file_name}:{reader.line_num}: number of columns differs from the header {reader.fieldnames}"
                )
            yield Record(row, f"{file_name}:{reader.line_num}")
    except csv.Error as error:
        raise UsageError(f"{file_name}:{reader.line_num}: not comma-separated: {error}") from error


def parse_json_lines(text: str, file_name: str) -> Iterator[dict]:
    """Parse one JSON object per line."""
    for number, line in iter_lines(text):
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise UsageError(f"{file_name}:{number}: not JSON: {getattr(error, 'msg', error)}") from error
        if not isinstance(row, dict):
            raise UsageError(f"{file_name}:{number}: not a JSON object but {type(row).__name__}")
        yield Record(row, f"{file_name}:{number}")


def parse_json(text: str, file_name: str) -> Iterator[dict]:
    """Parse a JSON list of objects, or one object per line."""
    if not text.lstrip().startswith("["):
        yield from parse_json_lines(text, file_name)
        return
    for number, row in enumerate(decode_json(text, file_name), start=1):
        if not isinstance(row, dict):
            raise UsageError(f"{file_name}: record {number} is not a JSON object but {type(row).__name__}")
        yield Record(row, f"{file_name}, record {number}")


def decode_json(text: str, file_name: str) -> Any:
    """Decode a JSON document; objects become `Record`s."""
    try:
        return json.loads(text, object_hook=lambda values: Record(values, file_name))
    except json.JSONDecodeError as error:
        raise UsageError(f"{file_name}:{error.lineno}: not JSON: {error.msg}") from error
    except RecursionError as error:
        raise UsageError(f"{file_name}: not JSON: {error}") from error


def parse_squad(text: str, file_name: str) -> Iterator[dict]:
    """Parse one record per question, from the nested SQuAD format or from the flat list of CMRC 2018.

    Offsets are not used: in CMRC 2018, 193 of them are -1 and 7 count UTF-16 units. Numbers among its answers
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
        raise UsageError(f"{file_name}: not in the format of SQuAD or CMRC 2018 ({error})") from error


def make_question_record(context: str, question_text: str, answers: list) -> dict:
    """Make a record of a question with the keys of SQuAD on the hub."""
    return {"context": context, "question": question_text, "answers": {"text": [str(answer) for answer in answers]}}


def parse_multiple_choice(text: str, file_name: str) -> Iterator[dict]:
    """Parse C3, a list of [texts of the document, questions, id]: one record per question, with the keys of the hub."""
    try:
        for texts, questions, _ in decode_json(text, file_name):
            for qa in questions:
                yield Record({"context": texts, **qa}, file_name)
    except (TypeError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{file_name}: not in the format of C3, a list of [texts, questions, id] ({error})") from error


def parse_label_names(text: str, file_name: str) -> dict[str, str]:
    """Parse label id -> name from a list of names (line number = id), a JSON object, or JSON lines with `label_des`."""
    if not text.lstrip().startswith("{"):
        return {str(index): name for index, (_, name) in enumerate(iter_lines(text))}
    rows = list(parse_json_lines(text, file_name))
    if len(rows) == 1 and "label" not in rows[0]:
        return {str(label): name for label, name in rows[0].items()}
    return {str(row["label"]): row["label_des"] for row in rows}
