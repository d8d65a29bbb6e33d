"""Checks of the class and the label words of a custom task; each problem is one line."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tasks.base import Task

METRICS_BY_FORM = {"choice": ("accuracy", "macro_f1", "micro_f1"), "span": ("f1", "exact_match")}
RAW_PARTS = ("train", "dev", "test")


def find_class_problems(task_class: "type[Task]") -> Iterator[str]:
    """Yield the problems of a task class, without reading records. Each continues a message that names the class."""
    for field in ("name", "template"):
        if not isinstance(getattr(task_class, field, None), str):
            yield f"has no {field}; set it as a class attribute, a text"
            return
    if "{}" not in task_class.template:
        yield "has a template without a placeholder; write {} for each value"
    if task_class.form not in METRICS_BY_FORM:
        yield f"has form {task_class.form!r}; there are: {', '.join(METRICS_BY_FORM)}"
        return
    if unknown := [
        name for name in (task_class.metric, *task_class.metrics) if name not in METRICS_BY_FORM[task_class.form]
    ]:
        yield f"has metric {unknown[0]!r}; form {task_class.form} has {', '.join(METRICS_BY_FORM[task_class.form])}"
    if task_class.metric not in task_class.metrics:
        yield f"has metric {task_class.metric!r}, which is not among its metrics {', '.join(task_class.metrics)}"
    yield from map("has {}".format, find_label_word_problems(task_class.words))
    if task_class.form == "span" and task_class.words:
        yield "has words; form span has none, because its answers are parts of the text"
    yield from map("has {}".format, find_file_problems(task_class))


def find_file_problems(task_class: "type[Task]") -> Iterator[str]:
    """Yield the problems of a task's files and hub."""
    from tasks.core.sources import File

    if not isinstance(task_class.files, tuple) or not all(isinstance(file, File) for file in task_class.files):
        yield 'files that are not a tuple of File; write (File("train", ("rows.jsonl",), parse_json_lines),)'
        return
    if not task_class.files and not task_class.hub:
        yield "neither files nor a hub; set one of them as the source of its records"
    for file in task_class.files:
        if not isinstance(file.paths, tuple):
            yield f"File({file.part!r}) with paths {file.paths!r}; write a tuple, ({file.paths!r},)"
        if file.part not in (*RAW_PARTS, ""):
            yield f"File({file.part!r}); the parts are {', '.join(RAW_PARTS)}"


def find_label_word_problems(label_words: Any) -> Iterator[str]:
    """Yield the problems of label words, a mapping raw label -> label word."""
    if not isinstance(label_words, Mapping):
        yield f"words {label_words!r:.60}; write a word for each raw label, {{'0': 'bad', '1': 'good'}}"
        return
    for label, word in label_words.items():
        if not isinstance(label, str) or not isinstance(word, str):
            yield f"words with {label!r}: {word!r}; both must be texts, so put them in quotes"
        elif word != word.strip() or not word:
            yield f"words with {label!r}: {word!r}; a word is not empty and has no space at its ends"
    if duplicates := [word for word, count in Counter(label_words.values()).items() if count > 1]:
        yield f"words with {duplicates[0]!r} twice; each label needs a different word"
