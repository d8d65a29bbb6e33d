"""What is asked: the tasks of the suites, and the index that finds them. Importing this package imports no torch."""

# fmt: off
# ruff: noqa: E701, I001  (one row per task: the index is read as a table)
from typing import TYPE_CHECKING

from tasks.suites import SUITES

if TYPE_CHECKING:
    from tasks.base import Task

TASK_NAMES = tuple(name for suite in SUITES.values() for name in suite.tasks)


def load_task(name: str) -> "type[Task]":
    """The class of a task, by its name here or as "package.module:Class" from anywhere on the path."""
    match name:
        case "afqmc": from tasks.paraphrase import AFQMC as found
        case "amazon": from tasks.sentiment import Amazon as found
        case "thucnews": from tasks.topic import THUCNews as found
        case "bq": from tasks.paraphrase import BQ as found
        case "cmnli": from tasks.nli import CMNLI as found
        case "cmrc2018": from tasks.reading_comprehension import CMRC2018 as found
        case "sanwen": from tasks.relation import SanWen as found
        case "cote_mfw": from tasks.opinion_target import COTEMFW as found
        case "chnsent": from tasks.sentiment import ChnSent as found
        case "tnews": from tasks.topic import TNews as found
        case "ocnli": from tasks.nli import OCNLI as found
        case "lcqmc": from tasks.paraphrase import LCQMC as found
        case "drcd": from tasks.reading_comprehension import DRCD as found
        case "c3": from tasks.reading_comprehension import C3 as found
        case "cote_bd": from tasks.opinion_target import COTEBD as found
        case "finre": from tasks.relation import FinRE as found
        case "xnli_en": from tasks.multilingual import XNLIEnglish as found
        case "xnli_zh": from tasks.multilingual import XNLIChinese as found
        case "xnli_de": from tasks.multilingual import XNLIGerman as found
        case "xnli_es": from tasks.multilingual import XNLISpanish as found
        case "xnli_fr": from tasks.multilingual import XNLIFrench as found
        case "paws_en": from tasks.multilingual import PAWSXEnglish as found
        case "paws_zh": from tasks.multilingual import PAWSXChinese as found
        case "paws_de": from tasks.multilingual import PAWSXGerman as found
        case "paws_es": from tasks.multilingual import PAWSXSpanish as found
        case "paws_fr": from tasks.multilingual import PAWSXFrench as found
        case _ if is_yaml_task(name):
            from tasks.core import yaml_task
            return yaml_task.load_yaml_task(name)
        case _ if ":" in name: return import_task_class(name)
        case _:
            from tasks.core.types import UsageError
            raise UsageError(f"no task {name!r}; there are: {', '.join(TASK_NAMES)} (or your own as package.module:Class or file.yaml)")
    return found


def is_yaml_task(name: str) -> bool:
    """Whether a task is declared in a YAML file."""
    return name.endswith((".yaml", ".yml"))


def is_custom_task(name: str) -> bool:
    """Whether a name is that of a task from elsewhere, which the index does not know."""
    return is_yaml_task(name) or ":" in name


def import_task_class(name: str) -> "type[Task]":
    """The class that `package.module:Class` names."""
    from tasks.base import Task
    from tasks.core.types import UsageError
    from tasks.core.class_checks import find_class_problems
    from tasks.core.import_path import import_class
    found = import_class(name, Task, "task")
    if wrong := next(find_class_problems(found), None):
        raise UsageError(f"task {name!r} {wrong}")
    return found
