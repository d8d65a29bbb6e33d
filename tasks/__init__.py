"""What is asked: the tasks of the suites, and the index that finds them. Importing this package imports no torch."""

# fmt: off
# ruff: noqa: E701, I001  (one row per task: the index is read as a table)
from typing import TYPE_CHECKING

from tasks.suites import SUITES

if TYPE_CHECKING:
    from tasks.base import Task

NAMES = tuple(name for suite in SUITES.values() for name in suite.tasks)


def load(name: str) -> "type[Task]":
    """The class of a task, by its name here or as "package.module:Class" from anywhere on the path."""
    match name:
        case "afqmc": from tasks.paraphrase import AFQMC as found
        case "amazon": from tasks.sentiment import Amazon as found
        case "thucnews": from tasks.topic import THUCNews as found
        case "bq": from tasks.paraphrase import BQ as found
        case "cmnli": from tasks.inference import CMNLI as found
        case "cmrc2018": from tasks.reading import CMRC2018 as found
        case "sanwen": from tasks.relation import SanWen as found
        case "cote_mfw": from tasks.opinion import COTEMFW as found
        case "chnsent": from tasks.sentiment import ChnSent as found
        case "tnews": from tasks.topic import TNews as found
        case "ocnli": from tasks.inference import OCNLI as found
        case "lcqmc": from tasks.paraphrase import LCQMC as found
        case "drcd": from tasks.reading import DRCD as found
        case "c3": from tasks.reading import C3 as found
        case "cote_bd": from tasks.opinion import COTEBD as found
        case "finre": from tasks.relation import FinRE as found
        case "xnli_en": from tasks.multilingual import XNLIen as found
        case "xnli_zh": from tasks.multilingual import XNLIzh as found
        case "xnli_de": from tasks.multilingual import XNLIde as found
        case "xnli_es": from tasks.multilingual import XNLIes as found
        case "xnli_fr": from tasks.multilingual import XNLIfr as found
        case "paws_en": from tasks.multilingual import PAWSen as found
        case "paws_zh": from tasks.multilingual import PAWSzh as found
        case "paws_de": from tasks.multilingual import PAWSde as found
        case "paws_es": from tasks.multilingual import PAWSes as found
        case "paws_fr": from tasks.multilingual import PAWSfr as found
        case _ if is_file(name):
            from tasks import declared
            return declared.load(name)
        case _ if ":" in name: return imported(name)
        case _:
            from tasks.example import UsageError
            raise UsageError(f"no task {name!r}; there are: {', '.join(NAMES)} (or your own as package.module:Class or file.yaml)")
    return found


def is_file(name: str) -> bool:
    """Whether a task is declared in a YAML file."""
    return name.endswith((".yaml", ".yml"))


def foreign(name: str) -> bool:
    """Whether a name is that of a task from elsewhere, which the index does not know."""
    return is_file(name) or ":" in name


def imported(name: str) -> "type[Task]":
    """The class that `package.module:Class` names."""
    from tasks.base import Task
    from tasks.example import UsageError
    from tasks.faults import of_class
    from tasks.by_path import class_of
    found = class_of(name, Task, "task")
    if wrong := next(of_class(found), None):
        raise UsageError(f"task {name!r} {wrong}")
    return found
