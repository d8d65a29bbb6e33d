"""A task declared in YAML alone: where its records are, which columns count, the template, the label words.

Nothing of a declaration is run: the loader of `fields` knows plain values only, and a place of a template is the name
of a column in braces, which is looked up in the record and never evaluated.
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
    splits: dict[str, str] = field(default_factory=lambda: {"train": "train", "test": "test"})  # part -> split


@dataclass(frozen=True)
class TaskDeclaration:
    """What a file may say."""

    template: str  # constant text first, then {column} for each value, the cue last
    form: Literal["choice", "options", "span"] = "choice"
    files: dict[Literal["train", "dev", "test"], str] = field(default_factory=dict)  # beside the declaration
    hub: HubDeclaration | None = None
    columns: dict[str, str | tuple[str, ...]] = field(default_factory=dict)  # name used here -> column of the records
    words: dict[str, str] = field(default_factory=dict)  # raw answer -> label word; of options: -> letter
    metric: str | None = None
    cut: str | None = None  # which value loses its end where a prompt is too long; default: the first, not the options
    group: str | None = None  # records with the same value stay in one split
    name: str | None = None  # default: that of the file
    role: Literal["source", "target"] = "target"
    family: str = "own"
    about: str = ""
    licence: str = "not stated"
    answer_tokens: int = 32


# -------------------------------------------------------------------- from file to class


def load_yaml_task(path: str) -> type[Task]:
    """The class of a declared task; the same one for as long as the file stays as it is."""
    try:
        fact = Path(path).stat()
    except OSError as error:
        raise UsageError(f"task {path}: cannot be read ({error.strerror})") from error
    return _build_task_class(path, Path(path).resolve(), fact.st_mtime_ns, fact.st_size)


@cache
def _build_task_class(path: str, resolved_path: Path, *_: int) -> type[Task]:
    where = f"task {path}"
    said = validate_declaration(
        coerce_to_dataclass(
            TaskDeclaration,
            convert_label_words(yaml_loading.load_yaml_fields(Path(path), "task", "template: ..."), where),
            where,
        ),
        where,
    )
    places = tuple(PLACEHOLDER.findall(said.template))
    if missing := [f"files.{part}: no file {name}" for part, name in said.files.items()
                   if not (resolved_path.parent / name).is_file()]:  # fmt: skip
        raise UsageError(f"{where}: {'; '.join(missing)}; paths start at the folder of {resolved_path.name}")
    metrics = METRICS_BY_DECLARED_FORM[said.form]
    first = said.metric or metrics[0]
    return type(resolved_path.stem, (TASK_CLASSES_BY_FORM[said.form],), {
        "__doc__": said.about, "declaration": said, "placeholders": places, "template": PLACEHOLDER.sub("{}", said.template),
        "name": said.name or resolved_path.stem, "role": said.role, "family": said.family, "licence": said.licence,
        "words": said.words if said.form == "choice" else {}, "answer_tokens": said.answer_tokens,
        "form": "span" if said.form == "span" else "choice",
        "metric": first, "metrics": (first, *(name for name in metrics[:2] if name != first)),
        "home": resolved_path.parent if said.files else None,
        "files": tuple(File(part, (name,), PARSERS_BY_SUFFIX[Path(name).suffix]) for part, name in said.files.items()),
        "hub": said.hub and Hub(said.hub.id, said.hub.config, said.hub.revision, said.hub.splits),
    })  # fmt: skip


def convert_label_words(values: dict[str, Any], where: str) -> dict[str, Any]:
    """Numbers among labels and words as texts; what YAML took for something else has to be quoted."""
    words = values.get("words")
    for one in (*words, *words.values()) if isinstance(words, dict) else ():
        if isinstance(one, bool) or not isinstance(one, str | int | float):
            raise UsageError(f"{where}: words: {one!r} is no text to YAML; put yes, no, dates and the like in quotes")
    if isinstance(words, dict):
        values = values | {"words": {format_value(key): format_value(word) for key, word in words.items()}}
    return values


def validate_declaration(declaration: TaskDeclaration, where: str) -> TaskDeclaration:
    """What types alone do not say."""
    problems = (
        *find_template_problems(declaration),
        *find_answer_problems(declaration),
        *find_source_problems(declaration),
    )
    if problems:
        raise UsageError(f"{where}: {problems[0]}")
    return declaration


def find_template_problems(declaration: TaskDeclaration) -> Iterator[str]:
    places = PLACEHOLDER.findall(declaration.template)
    if odd := re.search(r"\{[^{}]*\}?|\}", PLACEHOLDER.sub("", declaration.template)):
        yield f"template: {odd[0]!r} is no plain name of a column in braces, such as {{text}}"
    if not set(places) - {"options"}:
        yield "template: no place for a value; write the name of a column in braces, such as {text}"
    if "answer" in places:
        yield "template: {answer} would show the answer; end with the cue, such as 答： or Answer:"
    if (declaration.form == "options") != ("options" in places):
        yield "template: {options} shows the options of form: options, and only those"
    for name in (declaration.cut, declaration.group):
        if name is not None and name not in places:
            yield f"cut and group take a name of the template, found {name!r}; {suggest_name(name, places)}"
    if declaration.cut == "options":
        yield "cut: options have to be whole; take another name of the template, the text"
    for name in declaration.columns:
        if name not in (*places, "answer"):
            yield f"columns.{name}: the template has no {{{name}}}; {suggest_name(name, [*places, 'answer'])}"
        if isinstance(declaration.columns[name], tuple) and name != "options":
            yield f"columns.{name} takes one column; only options may be a list of columns"


def find_answer_problems(declaration: TaskDeclaration) -> Iterator[str]:
    if declaration.form == "choice" and len(declaration.words) < 2:
        yield "words: form choice needs two or more, each raw label with its word, such as {0: bad, 1: good}"
    if declaration.form == "span" and declaration.words:
        yield "words: form span has none; its answers are parts of the text"
    if declaration.form == "choice":
        yield from find_label_word_problems(declaration.words)
    if declaration.form == "options" and (
        odd := [word for word in declaration.words.values() if word not in [*ascii_uppercase]]
    ):
        yield f"words: of form options they are letters (A is the first option), found {odd[0]!r}"
    if declaration.metric not in (None, *METRICS_BY_DECLARED_FORM[declaration.form]):
        yield f"metric: form {declaration.form} has {', '.join(METRICS_BY_DECLARED_FORM[declaration.form])}, found {declaration.metric!r}"
    if declaration.answer_tokens < 1:
        yield f"answer_tokens takes 1 or more, found {declaration.answer_tokens}"


def find_source_problems(declaration: TaskDeclaration) -> Iterator[str]:
    if not declaration.files and not declaration.hub:
        yield "files or hub is missing: where are the records? Such as files: {train: train.jsonl, test: test.jsonl}"
    for part, name in declaration.files.items():
        if Path(name).suffix not in PARSERS_BY_SUFFIX:
            yield f"files.{part}: {name} ends in none of {', '.join(PARSERS_BY_SUFFIX)}, which say how a file is read"
    if declaration.hub and not declaration.hub.splits:
        yield "hub.splits is empty; write which split serves as which part, such as {train: train, test: validation}"
    if declaration.hub and (odd := [part for part in declaration.hub.splits if part not in RAW_PARTS]):
        yield f"hub.splits: no part {odd[0]!r}; {suggest_name(odd[0], RAW_PARTS)}"
    if declaration.name is not None and not re.fullmatch(r"\w[\w.+-]*", declaration.name):
        yield f"name: {declaration.name!r} names files; use letters, digits, - _ and . alone"


# -------------------------------------------------------------------- from record to example


def format_value(value: object) -> str:
    """A plain value as text: 1.0 is 1, true is true, and a list is a line for each."""
    if isinstance(value, list):
        return "\n".join(map(format_value, value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else "" if value is None else str(value)


class YamlTask(Task):
    """A declared task; one label of a fixed list, where its form says nothing else."""

    declaration: TaskDeclaration
    placeholders: tuple[str, ...]

    def read_examples(self, split: str) -> Iterator[Example]:
        at = self.placeholders.index(
            self.declaration.cut or next(name for name in self.placeholders if name != "options")
        )
        for row in self.read_records(split):
            values = [self.format_placeholder(row, name) for name in self.placeholders]
            if not clean_text(values[at]):
                self.count_dropped(split, f"empty {self.placeholders[at]}")
                continue
            found = self.parse_answers(split, row, values[at])
            if found:
                answers, choices = found
                key = self.declaration.group or ("" if self.words else self.placeholders[at])
                group = values[self.placeholders.index(key)] if key else ""
                yield self.make_example(values, answers, choices, truncatable_index=at, group_text=group)

    def get_value(self, row: dict, placeholder: str) -> object:
        """A value of a record, by the name it has in the declaration."""
        column = self.declaration.columns.get(placeholder, placeholder)
        if isinstance(column, tuple):
            return [self.get_field(row, each) for each in column]
        return self.get_field(row, column)

    def get_field(self, row: dict, column: str) -> object:
        if column not in row:
            raise UsageError(
                f"{self.record_location}: no field {column!r}; there are: {', '.join(map(str, row))} (see `columns`)"
            )
        return row[column]

    def format_placeholder(self, row: dict, placeholder: str) -> str:
        return format_value(self.get_value(row, placeholder))

    def parse_answers(self, raw_part: str, row: dict, text: str) -> tuple[list[str], list[str]] | None:
        """Accepted answers and the choices; None where a record is left out, which is counted."""
        return [self.get_label_word(format_value(self.get_value(row, "answer")))], list(self.words.values())


class OptionsTask(YamlTask):
    """Options of each record's own, answered by letter. The answer is given as an option's text or as its letter."""

    def parse_options(self, row: dict) -> list[str]:
        found = self.get_value(row, "options")
        if not isinstance(found, list) or not 1 < len(found) <= len(ascii_uppercase):
            raise UsageError(
                f"{self.record_location}: options are a list of 2 to 26, or several columns, found {str(found)[:60]!r}"
            )
        return [clean_text(format_value(one)) for one in found]

    def format_placeholder(self, row: dict, name: str) -> str:
        if name != "options":
            return super().format_placeholder(row, name)
        return "\n".join(
            f"{letter}：{one}" for letter, one in zip(ascii_uppercase, self.parse_options(row), strict=False)
        )

    def parse_answers(self, split: str, row: dict, text: str) -> tuple[list[str], list[str]] | None:
        options, given = self.parse_options(row), clean_text(format_value(self.get_value(row, "answer")))
        letters = list(ascii_uppercase[: len(options)])
        asked = self.declaration.words.get(given, given)
        right = [letter for letter, one in zip(letters, options, strict=True) if one == given]
        if right or asked in letters:
            return right or [asked], letters
        self.count_dropped(split, "answer is none of the options")
        return None


class SpanTask(YamlTask):
    """Answers are parts of the text that may be cut: one, a list, or SQuAD's {text: [...]}; all are accepted."""

    def parse_answers(self, split: str, row: dict, text: str) -> tuple[list[str], list[str]] | None:
        given = self.get_value(row, "answer")
        given = given.get("text", []) if isinstance(given, dict) else given
        asked = [clean_text(format_value(one)) for one in (given if isinstance(given, list) else [given])]
        found = [one for one in asked if one and one in clean_text(text)]
        if found:
            return [*found, *(one for one in asked if one and one not in found)], []
        self.count_dropped(split, "no answer is in the text")
        return None


TASK_CLASSES_BY_FORM: dict[str, type[YamlTask]] = {"choice": YamlTask, "options": OptionsTask, "span": SpanTask}
