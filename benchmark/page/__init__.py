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
    from benchmark.reading import Read

HERE = Path(__file__).parent
SCRIPTS = ("state.js", "tables.js", "charts.js", "tasks.js", "page.js")


def write(seen: "Read", notes: Sequence[str], folder: Path, texts: bool = False) -> Path:
    """`texts`: with those of test examples, whatever the records are."""
    from benchmark.page import view

    path = folder / "index.html"
    put(path, render(view.view(seen, notes, folder, texts)).encode())
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
