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

from tasks import fields
from tasks.base import Example, Task, clean
from tasks.example import UsageError
from tasks.faults import METRICS, PARTS, of_words
from tasks.formats import headed, json_lines, json_list, quoted
from tasks.source import File, Hub
from tasks.typed import near, typed

ENDINGS = {".jsonl": json_lines, ".json": json_list, ".csv": quoted, ".tsv": headed}
MEASURES = METRICS | {"options": ("accuracy",)}
PLACE = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Copy:
    """A script-free data set on the Hugging Face hub."""

    id: str
    revision: str
    config: str | None = None
    splits: dict[str, str] = field(default_factory=lambda: {"train": "train", "test": "test"})  # part -> split


@dataclass(frozen=True)
class Declaration:
    """What a file may say."""

    template: str  # constant text first, then {column} for each value, the cue last
    form: Literal["choice", "options", "span"] = "choice"
    files: dict[Literal["train", "dev", "test"], str] = field(default_factory=dict)  # beside the declaration
    hub: Copy | None = None
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


def load(path: str) -> type[Task]:
    """The class of a declared task; the same one for as long as the file stays as it is."""
    try:
        fact = Path(path).stat()
    except OSError as error:
        raise UsageError(f"task {path}: cannot be read ({error.strerror})") from error
    return _load(path, Path(path).resolve(), fact.st_mtime_ns, fact.st_size)


@cache
def _load(path: str, place: Path, *_: int) -> type[Task]:
    where = f"task {path}"
    said = checked(typed(Declaration, plain(fields.read(Path(path), "task", "template: ..."), where), where), where)
    places = tuple(PLACE.findall(said.template))
    if missing := [f"files.{part}: no file {name}" for part, name in said.files.items()
                   if not (place.parent / name).is_file()]:  # fmt: skip
        raise UsageError(f"{where}: {'; '.join(missing)}; paths start at the folder of {place.name}")
    metrics = MEASURES[said.form]
    first = said.metric or metrics[0]
    return type(place.stem, (FORMS[said.form],), {
        "__doc__": said.about, "said": said, "places": places, "template": PLACE.sub("{}", said.template),
        "name": said.name or place.stem, "role": said.role, "family": said.family, "licence": said.licence,
        "words": said.words if said.form == "choice" else {}, "answer_tokens": said.answer_tokens,
        "form": "span" if said.form == "span" else "choice",
        "metric": first, "metrics": (first, *(name for name in metrics[:2] if name != first)),
        "home": place.parent if said.files else None,
        "files": tuple(File(part, (name,), ENDINGS[Path(name).suffix]) for part, name in said.files.items()),
        "hub": said.hub and Hub(said.hub.id, said.hub.config, said.hub.revision, said.hub.splits),
    })  # fmt: skip


def plain(values: dict[str, Any], where: str) -> dict[str, Any]:
    """Numbers among labels and words as texts; what YAML took for something else has to be quoted."""
    words = values.get("words")
    for one in (*words, *words.values()) if isinstance(words, dict) else ():
        if isinstance(one, bool) or not isinstance(one, str | int | float):
            raise UsageError(f"{where}: words: {one!r} is no text to YAML; put yes, no, dates and the like in quotes")
    if isinstance(words, dict):
        values = values | {"words": {spelled(key): spelled(word) for key, word in words.items()}}
    return values


def checked(said: Declaration, where: str) -> Declaration:
    """What types alone do not say."""
    problems = (*template_problems(said), *answer_problems(said), *source_problems(said))
    if problems:
        raise UsageError(f"{where}: {problems[0]}")
    return said


def template_problems(said: Declaration) -> Iterator[str]:
    places = PLACE.findall(said.template)
    if odd := re.search(r"\{[^{}]*\}?|\}", PLACE.sub("", said.template)):
        yield f"template: {odd[0]!r} is no plain name of a column in braces, such as {{text}}"
    if not set(places) - {"options"}:
        yield "template: no place for a value; write the name of a column in braces, such as {text}"
    if "answer" in places:
        yield "template: {answer} would show the answer; end with the cue, such as 答： or Answer:"
    if (said.form == "options") != ("options" in places):
        yield "template: {options} shows the options of form: options, and only those"
    for name in (said.cut, said.group):
        if name is not None and name not in places:
            yield f"cut and group take a name of the template, found {name!r}; {near(name, places)}"
    if said.cut == "options":
        yield "cut: options have to be whole; take another name of the template, the text"
    for name in said.columns:
        if name not in (*places, "answer"):
            yield f"columns.{name}: the template has no {{{name}}}; {near(name, [*places, 'answer'])}"
        if isinstance(said.columns[name], tuple) and name != "options":
            yield f"columns.{name} takes one column; only options may be a list of columns"


def answer_problems(said: Declaration) -> Iterator[str]:
    if said.form == "choice" and len(said.words) < 2:
        yield "words: form choice needs two or more, each raw label with its word, such as {0: bad, 1: good}"
    if said.form == "span" and said.words:
        yield "words: form span has none; its answers are parts of the text"
    if said.form == "choice":
        yield from of_words(said.words)
    if said.form == "options" and (odd := [word for word in said.words.values() if word not in [*ascii_uppercase]]):
        yield f"words: of form options they are letters (A is the first option), found {odd[0]!r}"
    if said.metric not in (None, *MEASURES[said.form]):
        yield f"metric: form {said.form} has {', '.join(MEASURES[said.form])}, found {said.metric!r}"
    if said.answer_tokens < 1:
        yield f"answer_tokens takes 1 or more, found {said.answer_tokens}"


def source_problems(said: Declaration) -> Iterator[str]:
    if not said.files and not said.hub:
        yield "files or hub is missing: where are the records? Such as files: {train: train.jsonl, test: test.jsonl}"
    for part, name in said.files.items():
        if Path(name).suffix not in ENDINGS:
            yield f"files.{part}: {name} ends in none of {', '.join(ENDINGS)}, which say how a file is read"
    if said.hub and not said.hub.splits:
        yield "hub.splits is empty; write which split serves as which part, such as {train: train, test: validation}"
    if said.hub and (odd := [part for part in said.hub.splits if part not in PARTS]):
        yield f"hub.splits: no part {odd[0]!r}; {near(odd[0], PARTS)}"
    if said.name is not None and not re.fullmatch(r"\w[\w.+-]*", said.name):
        yield f"name: {said.name!r} names files; use letters, digits, - _ and . alone"


# -------------------------------------------------------------------- from record to example


def spelled(value: object) -> str:
    """A plain value as text: 1.0 is 1, true is true, and a list is a line for each."""
    if isinstance(value, list):
        return "\n".join(map(spelled, value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else "" if value is None else str(value)


class Declared(Task):
    """A declared task; one label of a fixed list, where its form says nothing else."""

    said: Declaration
    places: tuple[str, ...]

    def read(self, split: str) -> Iterator[Example]:
        at = self.places.index(self.said.cut or next(name for name in self.places if name != "options"))
        for row in self.records(split):
            values = [self.shown(row, name) for name in self.places]
            if not clean(values[at]):
                self.drop(split, f"empty {self.places[at]}")
                continue
            found = self.answers(split, row, values[at])
            if found:
                answers, choices = found
                key = self.said.group or ("" if self.words else self.places[at])
                group = values[self.places.index(key)] if key else ""
                yield self.example(values, answers, choices, field=at, group=group)

    def column(self, row: dict, name: str) -> object:
        """A value of a record, by the name it has in the declaration."""
        column = self.said.columns.get(name, name)
        if isinstance(column, tuple):
            return [self.one(row, each) for each in column]
        return self.one(row, column)

    def one(self, row: dict, column: str) -> object:
        if column not in row:
            raise UsageError(f"{self.at}: no field {column!r}; there are: {', '.join(map(str, row))} (see `columns`)")
        return row[column]

    def shown(self, row: dict, name: str) -> str:
        return spelled(self.column(row, name))

    def answers(self, split: str, row: dict, text: str) -> tuple[list[str], list[str]] | None:
        """Accepted answers and the choices; None where a record is left out, which is counted."""
        return [self.word(spelled(self.column(row, "answer")))], list(self.words.values())


class Options(Declared):
    """Options of each record's own, answered by letter. The answer is given as an option's text or as its letter."""

    def options(self, row: dict) -> list[str]:
        found = self.column(row, "options")
        if not isinstance(found, list) or not 1 < len(found) <= len(ascii_uppercase):
            raise UsageError(f"{self.at}: options are a list of 2 to 26, or several columns, found {str(found)[:60]!r}")
        return [clean(spelled(one)) for one in found]

    def shown(self, row: dict, name: str) -> str:
        if name != "options":
            return super().shown(row, name)
        return "\n".join(f"{letter}：{one}" for letter, one in zip(ascii_uppercase, self.options(row), strict=False))

    def answers(self, split: str, row: dict, text: str) -> tuple[list[str], list[str]] | None:
        options, given = self.options(row), clean(spelled(self.column(row, "answer")))
        letters = list(ascii_uppercase[: len(options)])
        asked = self.said.words.get(given, given)
        right = [letter for letter, one in zip(letters, options, strict=True) if one == given]
        if right or asked in letters:
            return right or [asked], letters
        self.drop(split, "answer is none of the options")
        return None


class Span(Declared):
    """Answers are parts of the text that may be cut: one, a list, or SQuAD's {text: [...]}; all are accepted."""

    def answers(self, split: str, row: dict, text: str) -> tuple[list[str], list[str]] | None:
        given = self.column(row, "answer")
        given = given.get("text", []) if isinstance(given, dict) else given
        asked = [clean(spelled(one)) for one in (given if isinstance(given, list) else [given])]
        found = [one for one in asked if one and one in clean(text)]
        if found:
            return [*found, *(one for one in asked if one and one not in found)], []
        self.drop(split, "no answer is in the text")
        return None


FORMS: dict[str, type[Declared]] = {"choice": Declared, "options": Options, "span": Span}
