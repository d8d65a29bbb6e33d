"""The page: report/index.html, one file with all that it needs. Numbers (gather) -> words and rows (view) -> template.

Numbers that a reader may ask for are all in it: every selection of tasks has its own averages, intervals, ties and
flags, computed here, so that filtering in the browser never averages anything.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.store import write as put

if TYPE_CHECKING:
    from benchmark.grid import Planned
    from benchmark.standing import Standings
    from benchmark.store import Result
    from benchmark.table import Board

HERE = Path(__file__).parent
SCRIPTS = ("state.js", "tables.js", "charts.js", "tasks.js", "page.js")


def write(
    wide: "Board",
    worth: "Standings",
    cells: Sequence["Planned"],
    results: Sequence["Result"],
    every: Sequence[Mapping[str, Any]],
    notes: Sequence[str],
    folder: Path,
    texts: bool = False,
) -> Path:
    """The page of a board over `selection.averages`. `every`: all results of the folder, other seeds' streams too.

    `texts`: with those of test examples, whatever the records are.
    """
    from benchmark.page import view

    path = folder / "index.html"
    put(path, render(view.view(wide, worth, cells, results, every, notes, folder, texts)).encode())
    return path


def render(found: Mapping[str, Any]) -> str:
    """The template with what it shows; texts are escaped, and data cannot end the script that carries it."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from benchmark.page import charts

    shelf = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return shelf.get_template("template.html").render(
        **found,
        style=(HERE / "style.css").read_text(encoding="utf-8"),
        plots=closed(charts.script()) if found["drawn"] else "",
        script=closed("\n".join((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS)),
        json=embedded({**found["data"], "charts": charts.every()}),
    )


def embedded(data: Any) -> str:
    """JSON that HTML reads as nothing but text."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def closed(script: str) -> str:
    """A script that does not end before its end."""
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")
