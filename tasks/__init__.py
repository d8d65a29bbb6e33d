"""What is asked: sixteen Chinese tasks, and the index that finds them. Importing this package imports no torch."""

# fmt: off
# ruff: noqa: E701, I001  (one row per task: the index is read as a table)
import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tasks.base import Task

SOURCES = ("afqmc", "amazon", "thucnews", "bq", "cmnli", "cmrc2018", "sanwen", "cote_mfw")
TARGETS = ("chnsent", "tnews", "ocnli", "lcqmc", "drcd", "c3", "cote_bd", "finre")
NAMES = SOURCES + TARGETS


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
        case _ if ":" in name: found = imported(name)
        case _:
            from tasks.example import UsageError
            raise UsageError(f"no task {name!r}; there are: {', '.join(NAMES)} (or your own as package.module:Class)")
    return found


def imported(name: str) -> "type[Task]":
    """The class that `package.module:Class` names."""
    from tasks.base import Task
    from tasks.example import UsageError
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, SyntaxError, ValueError) as error:
        raise UsageError(f"task {name!r} cannot be imported: {error}; write it as package.module:Class") from error
    if not (isinstance(found, type) and issubclass(found, Task)):
        raise UsageError(f"task {name!r} is no subclass of tasks.base.Task")
    return found
