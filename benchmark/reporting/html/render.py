"""The page: report/index.html, one file with all that it needs. Numbers (gather) -> words and rows (view) -> template.

Numbers that a reader may ask for are all in it: every selection of tasks has its own averages, intervals, ties and
flags, computed here, so that filtering in the browser never averages anything.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.results.files import write_file_atomically as put

if TYPE_CHECKING:
    from benchmark.analysis.load import LoadedResults

TEMPLATE_FOLDER = Path(__file__).parent
SCRIPT_FILES = ("state.js", "tables.js", "charts.js", "tasks.js", "page.js")


def write_html_report(
    loaded_results: "LoadedResults", notes: Sequence[str], folder: Path, include_texts: bool = False
) -> Path:
    """`texts`: with those of test examples, whatever the records are."""
    from benchmark.reporting.html import context

    path = folder / "index.html"
    put(path, render_html(context.build_context(loaded_results, notes, folder, include_texts)).encode())
    return path


def render_html(context: Mapping[str, Any]) -> str:
    """The template with what it shows; texts are escaped, and data cannot end the script that carries it."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from benchmark.reporting.html import charts

    shelf = Environment(
        loader=FileSystemLoader(TEMPLATE_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return shelf.get_template("template.html").render(
        **context,
        style=(TEMPLATE_FOLDER / "style.css").read_text(encoding="utf-8"),
        plots=escape_script(charts.load_vega_script()) if context["drawn"] else "",
        script=escape_script("\n".join((TEMPLATE_FOLDER / name).read_text(encoding="utf-8") for name in SCRIPT_FILES)),
        json=embed_json({**context["data"], "charts": charts.build_all_charts()}),
    )


def embed_json(data: Any) -> str:
    """JSON that HTML reads as nothing but text."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def escape_script(script: str) -> str:
    """A script that does not end before its end."""
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")
