"""Tasks that are declared in a YAML file: source of the records, columns, template and label words.

No code of a declaration is executed: YAML is loaded as plain values (`yaml_loading`), and a placeholder of a template
is a column name in braces that is looked up in the record, never evaluated.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Literal

from tasks.base import Example, Task, clean_text
from tasks.core import yaml_loading
from tasks.core.class_checks import METRICS_BY_FORM, RAW_PARTS, find_label_word_problems
from tasks.core.coercion import coerce_to_dataclass
from tasks.core.formats import parse_csv, parse_json, parse_json_lines, parse_tsv
from tasks.core.sources import File, Hub
from tasks.core.suggestions import suggest_name
from tasks.core.types import UsageError

PARSERS_BY_SUFFIX = {".jsonl": parse_json_lines, ".json": parse_json, ".csv": parse_csv, ".tsv": parse_tsv}
METRICS_BY_DECLARED_FORM = METRICS_BY_FORM | {"options": ("accuracy",)}
PLACEHOLDER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class HubDeclaration:
    """A script-free data set on the Hugging Face hub."""

    id: str
    revision: str
    config: str | None = None
    splits: dict[str, str] = field(
        default_factory=lambda: {"train": "train", "test": "test"}
    )  # part -> split of the data set


@dataclass(frozen=True)
class TaskDeclaration:
    """Fields of a task file."""

    template: str  # constant instruction, then one {column} per value, then the cue that the answer follows
    form: Literal["choice", "options", "span"] = "choice"
    files: dict[Literal["train", "dev", "test"], str] = field(
        default_factory=dict
    )  # part -> path, relative to the task file
    hub: HubDeclaration | None = None
    columns: dict[str, str | tuple[str, ...]] = field(
        default_factory=dict
    )  # name in this file -> column of the records
    words: dict[str, str] = field(default_factory=dict)  # raw answer -> label word; form options: raw answer -> letter
    metric: str | None = None
    cut: str | None = None  # value that is truncated if a prompt is too long; default: the first except options
    group: str | None = None  # value of the template; records with the same value stay in one split
    name: str | None = None  # default: the name of the file
    role: Literal["source", "target"] = "target"
    family: str = "own"
    about: str = ""
    licence: str = "not stated"
    answer_tokens: int = 32


# -------------------------------------------------------------------- From file to class


def load_yaml_task(path: str) -> type[Task]:
    """Return the class of a declared task; cached until the file changes. Raises UsageError for an invalid file."""
    try:
        status = Path(path).stat()
    except OSError as error:
        raise UsageError(f"task {path}: cannot be read ({error.strerror})") from error
    return _build_task_class(path, Path(path).resolve(), status.st_mtime_ns, status.st_size)


@cache
def _build_task_class(path: str, resolved_path: Path, *_: int) -> type[Task]:
    where = f"task {path}"
    fields = convert_label_words(yaml_loading.load_yaml_fields(Path(path), "task", "template: ..."), where)
    declaration = validate_declaration(coerce_to_dataclass(TaskDeclaration, fields, where), where)
    folder = resolved_path.parent
    if missing := [
        f"files.{part}: no file {name}" for part, name in declaration.files.items() if not (folder / name).is_file()
    ]:
        raise UsageError(f"{where}: {'; '.join(missing)}; paths are relative to the folder of {resolved_path.name}")
    metrics = METRICS_BY_DECLARED_FORM[declaration.form]
    primary_metric = declaration.metric or metrics[0]
    hub = declaration.hub
    attributes = {
        "__doc__": declaration.about,
        "declaration": declaration,
        "placeholders": tuple(PLACEHOLDER.findall(declaration.template)),
        "template": PLACEHOLDER.sub("{}", declaration.template),
        "name": declaration.name or resolved_path.stem,
        "role": declaration.role,
        "family": declaration.family,
        "licence": declaration.licence,
        "words": declaration.words if declaration.form == "choice" else {},
        "answer_tokens": declaration.answer_tokens,
        "form": "span" if declaration.form == "span" else "choice",
        "metric": primary_metric,
        "metrics": (primary_metric, *(name for name in metrics[:2] if name != primary_metric)),
        "home": folder if declaration.files else None,
        "files": tuple(
            File(part, (name,), PARSERS_BY_SUFFIX[Path(name).suffix]) for part, name in declaration.files.items()
        ),
        "hub": Hub(hub.id, hub.config, hub.revision, hub.splits) if hub else None,
    }
    return type(resolved_path.stem, (TASK_CLASSES_BY_FORM[declaration.form],), attributes)


def convert_label_words(values: dict[str, Any], where: str) -> dict[str, Any]:
    """Convert numbers among raw labels and label words to texts.

    Raises UsageError for other types, such as the booleans that YAML makes of an unquoted yes or no.
    """
    label_words = values.get("words")
    if not isinstance(label_words, dict):
        return values
    for text in (*label_words, *label_words.values()):
        if isinstance(text, bool) or not isinstance(text, str | int | float):
            raise UsageError(
                f"{where}: words: {text!r} is not a text in YAML; put yes, no, dates and the like in quotes"
            )
    return values | {"words": {format_value(label): format_value(word) for label, word in label_words.items()}}


def validate_declaration(declaration: TaskDeclaration, where: str) -> TaskDeclaration:
    """Return the declaration. Raises UsageError for the first problem that the field types do not exclude."""
    problems = (
        *find_template_problems(declaration),
        *find_answer_problems(declaration),
        *find_source_problems(declaration),
    )
    if problems:
        raise UsageError(f"{where}: {problems[0]}")
    return declaration


def find_template_problems(declaration: TaskDeclaration) -> Iterator[str]:
    """Yield the problems of template, columns, cut and group."""
    placeholders = PLACEHOLDER.findall(declaration.template)
    if invalid := re.search(r"\{[^{}]*\}?|\}", PLACEHOLDER.sub("", declaration.template)):
        yield f"template: {invalid[0]!r} is not a column name in braces, such as {{text}}"
    if not set(placeholders) - {"options"}:
        yield "template: no placeholder for a value; write a column name in braces, such as {text}"
    if "answer" in placeholders:
        yield "template: {answer} would show the answer; end with the cue, such as 答： or Answer:"
    if (declaration.form == "options") != ("options" in placeholders):
        yield "template: {options} is required with form: options, and allowed only there"
    for name in (declaration.cut, declaration.group):
        if name is not None and name not in placeholders:
            yield f"cut and group take a name of the template, found {name!r}; {suggest_name(name, placeholders)}"
    if declaration.cut == "options":
        yield "cut: options cannot be truncated; name another placeholder of the template, such as the text"
    for name in declaration.columns:
        if name not in (*placeholders, "answer"):
            yield f"columns.{name}: the template has no {{{name}}}; {suggest_name(name, [*placeholders, 'answer'])}"
        if isinstance(declaration.columns[name], tuple) and name != "options":
            yield f"columns.{name} takes one column; only options may be a list of columns"


def find_answer_problems(declaration: TaskDeclaration) -> Iterator[str]:
    """Yield the problems of label words, metric and answer length."""
    if declaration.form == "choice" and len(declaration.words) < 2:
        yield "words: form choice needs two or more, each raw label with its word, such as {0: bad, 1: good}"
    if declaration.form == "span" and declaration.words:
        yield "words: form span has none; its answers are parts of the text"
    if declaration.form == "choice":
        yield from find_label_word_problems(declaration.words)
    if declaration.form == "options" and (
        invalid_words := [word for word in declaration.words.values() if word not in [*ascii_uppercase]]
    ):
        yield f"words: with form options they are letters (A is the first option), found {invalid_words[0]!r}"
    if declaration.metric not in (None, *METRICS_BY_DECLARED_FORM[declaration.form]):
        metrics = ", ".join(METRICS_BY_DECLARED_FORM[declaration.form])
        yield f"metric: form {declaration.form} has {metrics}, found {declaration.metric!r}"
    if declaration.answer_tokens < 1:
        yield f"answer_tokens takes 1 or more, found {declaration.answer_tokens}"


def find_source_problems(declaration: TaskDeclaration) -> Iterator[str]:
    """Yield the problems of files, hub and name."""
    if not declaration.files and not declaration.hub:
        yield "files or hub is missing; name the records, such as files: {train: train.jsonl, test: test.jsonl}"
    for part, name in declaration.files.items():
        if Path(name).suffix not in PARSERS_BY_SUFFIX:
            yield f"files.{part}: unknown format of {name}; the name must end in one of {', '.join(PARSERS_BY_SUFFIX)}"
    if declaration.hub and not declaration.hub.splits:
        yield "hub.splits is empty; map parts to splits, such as {train: train, test: validation}"
    if declaration.hub and (unknown := [part for part in declaration.hub.splits if part not in RAW_PARTS]):
        yield f"hub.splits: no part {unknown[0]!r}; {suggest_name(unknown[0], RAW_PARTS)}"
    if declaration.name is not None and not re.fullmatch(r"\w[\w.+-]*", declaration.name):
        yield f"name: {declaration.name!r} is used in file names; use only letters, digits, - _ . and +"


# -------------------------------------------------------------------- From record to example


def format_value(value: object) -> str:
    """Format a plain value as text: 1.0 as "1", True as "true", None as "", and a list as one line per value."""
    if isinstance(value, list):
        return "\n".join(map(format_value, value))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return "" if value is None else str(value)


class YamlTask(Task):
    """A declared task of form choice: the answer is one label of a fixed list. Base class of the other forms."""

    declaration: TaskDeclaration
    placeholders: tuple[str, ...]

    def read_examples(self, split: str) -> Iterator[Example]:
        """Yield an example per record whose main text is not empty and whose answer is valid."""
        main_name = self.declaration.cut or next(name for name in self.placeholders if name != "options")
        main_index = self.placeholders.index(main_name)
        for row in self.read_records(split):
            values = [self.format_placeholder(row, name) for name in self.placeholders]
            if not clean_text(values[main_index]):
                self.count_dropped(split, f"empty {main_name}")
                continue
            parsed = self.parse_answers(split, row, values[main_index])
            if parsed:
                answers, choices = parsed
                group_name = self.declaration.group or ("" if self.words else main_name)
                group_text = values[self.placeholders.index(group_name)] if group_name else ""
                yield self.make_example(values, answers, choices, truncatable_index=main_index, group_text=group_text)

    def get_value(self, row: dict, placeholder: str) -> object:
        """Return a value of a record by its name in the declaration; a list if several columns are declared."""
        column = self.declaration.columns.get(placeholder, placeholder)
        if isinstance(column, tuple):
            return [self.get_field(row, name) for name in column]
        return self.get_field(row, column)

    def get_field(self, row: dict, column: str) -> object:
        """Return a column of a record. Raises UsageError with the record's location if it is missing."""
        if column not in row:
            raise UsageError(
                f"{self.record_location}: no field {column!r}; there are: {', '.join(map(str, row))} (see `columns`)"
            )
        return row[column]

    def format_placeholder(self, row: dict, placeholder: str) -> str:
        """Return the text that fills a placeholder of the template."""
        return format_value(self.get_value(row, placeholder))

    def parse_answers(self, raw_part: str, row: dict, text: str) -> tuple[list[str], list[str]] | None:
        """Return (accepted answers, choices), or None if the record is dropped, which is counted."""
        return [self.get_label_word(format_value(self.get_value(row, "answer")))], list(self.words.values())


class OptionsTask(YamlTask):
    """A declared task of form options: each record has its own options, and the model answers by letter.

    The raw answer is the text of an option or its letter.
    """

    def parse_options(self, row: dict) -> list[str]:
        """Return the texts of a record's options."""
        options = self.get_value(row, "options")
        if not isinstance(options, list) or not 1 < len(options) <= len(ascii_uppercase):
            raise UsageError(
                f"{self.record_location}: options are a list of 2 to 26, or several columns, "
                f"found {str(options)[:60]!r}"
            )
        return [clean_text(format_value(option)) for option in options]

    def format_placeholder(self, row: dict, name: str) -> str:
        """Return the text of a placeholder; for options, one line per option with its letter."""
        if name != "options":
            return super().format_placeholder(row, name)
        return "\n".join(
            f"{letter}：{option}" for letter, option in zip(ascii_uppercase, self.parse_options(row), strict=False)
        )

    def parse_answers(self, split: str, row: dict, text: str) -> tuple[list[str], list[str]] | None:
        """Return (letters of the correct options, all letters), or None if the answer is not an option."""
        options = self.parse_options(row)
        raw_answer = clean_text(format_value(self.get_value(row, "answer")))
        letters = list(ascii_uppercase[: len(options)])
        matching = [letter for letter, option in zip(letters, options, strict=True) if option == raw_answer]
        if matching:
            return matching, letters
        letter = self.declaration.words.get(raw_answer, raw_answer)
        if letter in letters:
            return [letter], letters
        self.count_dropped(split, "answer is none of the options")
        return None


class SpanTask(YamlTask):
    """A declared task of form span: answers are parts of the truncatable text.

    The raw answer is a text, a list of texts, or {"text": [...]} as in SQuAD; all of them are accepted.
    """

    def parse_answers(self, split: str, row: dict, text: str) -> tuple[list[str], list[str]] | None:
        """Return (answers, no choices), those in the text first, or None if no answer is in the text."""
        raw_answer = self.get_value(row, "answer")
        if isinstance(raw_answer, dict):
            raw_answer = raw_answer.get("text", [])
        raw_answers = raw_answer if isinstance(raw_answer, list) else [raw_answer]
        answers = [clean_text(format_value(answer)) for answer in raw_answers]
        in_text = [answer for answer in answers if answer and answer in clean_text(text)]
        if in_text:
            return [*in_text, *(answer for answer in answers if answer and answer not in in_text)], []
        self.count_dropped(split, "no answer is in the text")
        return None


TASK_CLASSES_BY_FORM: dict[str, type[YamlTask]] = {"choice": YamlTask, "options": OptionsTask, "span": SpanTask}
