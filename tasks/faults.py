"""What a task of one's own may have wrong, each in one line: its class, its label words, its examples."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tasks.example import UsageError

if TYPE_CHECKING:
    from tasks.base import Task

METRICS = {"choice": ("accuracy", "macro_f1", "micro_f1"), "span": ("f1", "exact_match")}
PARTS = ("train", "dev", "test")


def of_class(kind: "type[Task]") -> Iterator[str]:
    """What is wrong with a class, before anything is read."""
    for field in ("name", "template"):
        if not isinstance(getattr(kind, field, None), str):
            yield f"has no {field}; write it as a class attribute, a text"
            return
    if "{}" not in kind.template:
        yield "has a template without a place for a value; write {} for each"
    if kind.form not in METRICS:
        yield f"has form {kind.form!r}; there are: {', '.join(METRICS)}"
        return
    if odd := [name for name in (kind.metric, *kind.metrics) if name not in METRICS[kind.form]]:
        yield f"has metric {odd[0]!r}; form {kind.form} has {', '.join(METRICS[kind.form])}"
    if kind.metric not in kind.metrics:
        yield f"has metric {kind.metric!r}, which is none of its metrics {', '.join(kind.metrics)}"
    yield from map("has {}".format, of_words(kind.words))
    if kind.form == "span" and kind.words:
        yield "has words; a span has none, its answers are parts of the text"
    yield from map("has {}".format, of_files(kind))


def of_files(kind: "type[Task]") -> Iterator[str]:
    from tasks.source import File

    if not isinstance(kind.files, tuple) or not all(isinstance(file, File) for file in kind.files):
        yield 'files that are no tuple of File; write (File("train", ("rows.jsonl",), json_lines),)'
        return
    if not kind.files and not kind.hub:
        yield "neither files nor a hub; where are its records?"
    for file in kind.files:
        if not isinstance(file.paths, tuple):
            yield f"File({file.part!r}) with paths {file.paths!r}; write a tuple, ({file.paths!r},)"
        if file.part not in (*PARTS, ""):
            yield f"File({file.part!r}); the parts are {', '.join(PARTS)}"


def of_words(words: Any) -> Iterator[str]:
    """What is wrong with label words: raw label -> word."""
    if not isinstance(words, Mapping):
        yield f"words {words!r:.60}; write a word for each raw label, {{'0': 'bad', '1': 'good'}}"
        return
    for label, word in words.items():
        if not isinstance(label, str) or not isinstance(word, str):
            yield f"words with {label!r}: {word!r}; both are texts, put them in quotes"
        elif word != word.strip() or not word:
            yield f"words with {label!r}: {word!r}; a word has no space at its ends, since answers have none"
    if twice := [word for word, count in Counter(words.values()).items() if count > 1]:
        yield f"words with {twice[0]!r} twice; two labels that are answered alike cannot be told apart"


def check_example(task: "Task", values: Sequence[str], answers: Sequence[str]) -> None:
    """Refuse what cannot fill the template, and what would be taken apart letter by letter."""
    if isinstance(values, str) or isinstance(answers, str) or not answers:
        said = f"values {values!r:.60}, answers {answers!r:.60}"
        raise UsageError(f"{task.at}: values and answers of an example are lists of texts, one or more; found {said}")
    places = task.template.count("{}")
    if places != len(values):
        raise UsageError(f"{task.name}: the template has {places} places {{}}, not {len(values)}")


def no_examples(task: "Task", split: str) -> UsageError:
    """Why nothing is left of a split."""
    lost: Counter[str] = sum(map(Counter, task.report["dropped"].values()), Counter())
    read = " and ".join(f"{count:,} {part}" for part, count in task.report["rows"].items())
    why = ", ".join(f"{count:,} {reason}" for reason, count in lost.items()) or "too few, or all of one group"
    return UsageError(f"{task.name}: no {split} examples left of {read} records, {task.origin.title} ({why})")
