"""Index of the tasks of all suites. Importing this package does not import torch."""

# fmt: off
# ruff: noqa: E701, I001  (one row per task: the index is read as a table)
from typing import TYPE_CHECKING

from tasks.suites import SUITES

if TYPE_CHECKING:
    from tasks.base import Task

TASK_NAMES = tuple(name for suite in SUITES.values() for name in suite.tasks)


def load_task(name: str) -> "type[Task]":
    """Return the class of a task by its name, as "package.module:Class", or from a YAML file.

    Raises UsageError for an unknown name and for an invalid custom task.
    """
    match name:
        case "afqmc": from tasks.paraphrase import AFQMC as task_class
        case "amazon": from tasks.sentiment import Amazon as task_class
        case "thucnews": from tasks.topic import THUCNews as task_class
        case "bq": from tasks.paraphrase import BQ as task_class
        case "cmnli": from tasks.nli import CMNLI as task_class
        case "cmrc2018": from tasks.reading_comprehension import CMRC2018 as task_class
        case "sanwen": from tasks.relation import SanWen as task_class
        case "cote_mfw": from tasks.opinion_target import COTEMFW as task_class
        case "chnsent": from tasks.sentiment import ChnSent as task_class
        case "tnews": from tasks.topic import TNews as task_class
        case "ocnli": from tasks.nli import OCNLI as task_class
        case "lcqmc": from tasks.paraphrase import LCQMC as task_class
        case "drcd": from tasks.reading_comprehension import DRCD as task_class
        case "c3": from tasks.reading_comprehension import C3 as task_class
        case "cote_bd": from tasks.opinion_target import COTEBD as task_class
        case "finre": from tasks.relation import FinRE as task_class
        case "xnli_en": from tasks.multilingual import XNLIEnglish as task_class
        case "xnli_zh": from tasks.multilingual import XNLIChinese as task_class
        case "xnli_de": from tasks.multilingual import XNLIGerman as task_class
        case "xnli_es": from tasks.multilingual import XNLISpanish as task_class
        case "xnli_fr": from tasks.multilingual import XNLIFrench as task_class
        case "paws_en": from tasks.multilingual import PAWSXEnglish as task_class
        case "paws_zh": from tasks.multilingual import PAWSXChinese as task_class
        case "paws_de": from tasks.multilingual import PAWSXGerman as task_class
        case "paws_es": from tasks.multilingual import PAWSXSpanish as task_class
        case "paws_fr": from tasks.multilingual import PAWSXFrench as task_class
        case _ if is_yaml_task(name):
            from tasks.core import yaml_task
            return yaml_task.load_yaml_task(name)
        case _ if ":" in name: return import_task_class(name)
        case _:
            from tasks.core.types import UsageError
            raise UsageError(
                f"no task {name!r}; there are: {', '.join(TASK_NAMES)} "
                "(or your own as package.module:Class or file.yaml)"
            )
    return task_class


def is_yaml_task(name: str) -> bool:
    """Return whether a name is the path of a YAML task file."""
    return name.endswith((".yaml", ".yml"))


def is_custom_task(name: str) -> bool:
    """Return whether a name is that of a custom task, which is not in the index."""
    return is_yaml_task(name) or ":" in name


def import_task_class(name: str) -> "type[Task]":
    """Import the task class `package.module:Class` and check it. Raises UsageError if it is invalid."""
    from tasks.base import Task
    from tasks.core.types import UsageError
    from tasks.core.class_checks import find_class_problems
    from tasks.core.import_path import import_class
    task_class = import_class(name, Task, "task")
    if problem := next(find_class_problems(task_class), None):
        raise UsageError(f"task {name!r} {problem}")
    return task_class
