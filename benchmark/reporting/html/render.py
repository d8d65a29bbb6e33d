"""Renders the HTML page report/index.html, a single self-contained file.

`page_data` computes the numbers, `context` the template variables, this module renders the template. The averages,
intervals, ties and flags of every selection of tasks are precomputed, so the browser only filters and never averages.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.reporting.html import charts, page_records
from benchmark.results.files import write_file_atomically as put
from benchmark.system import formatting

if TYPE_CHECKING:
    from jinja2 import Environment

    from benchmark.analysis.load import LoadedResults
    from benchmark.reporting.html.context import PageContext

TEMPLATE_FOLDER = Path(__file__).parent
SCRIPT_FILES = ("state.js", "tables.js", "charts.js", "tasks.js", "page.js")


def write_html_report(
    loaded_results: "LoadedResults", notes: Sequence[str], folder: Path, include_texts: bool = False
) -> Path:
    """Write index.html to `folder` and return its path.

    `include_texts`: include the texts of test examples even if they are not generated samples.
    """
    from benchmark.reporting.html import context

    path = folder / "index.html"
    put(path, render_html(context.build_page_context(loaded_results, notes, folder, include_texts)).encode())
    return path


def render_html(page: "PageContext") -> str:
    """Render the template. Texts are HTML-escaped, and the embedded data cannot close the script element around it."""

    payload = {**page_records.encode_page_data(page.data), "charts": charts.build_all_charts()}
    return (
        create_environment()
        .get_template("template.html")
        .render(
            page=page,
            style=(TEMPLATE_FOLDER / "style.css").read_text(encoding="utf-8"),
            chart_library=escape_script(charts.load_vega_script()) if page.data.cells else "",
            script=escape_script(
                "\n".join((TEMPLATE_FOLDER / name).read_text(encoding="utf-8") for name in SCRIPT_FILES)
            ),
            json=embed_json(payload),
        )
    )


def create_environment() -> "Environment":
    """Create the Jinja environment with the formatting functions that the template calls."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from benchmark.reporting import format
    from benchmark.reporting.html import context

    environment = Environment(
        loader=FileSystemLoader(TEMPLATE_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        CONTROL_MARK=format.CONTROL_MARK,
        format_score=context.format_score_record,
        format_difference=context.format_difference,
        format_tie_letters=context.format_tie_letters,
        format_whisker_style=context.format_whisker_style,
        format_heat_style=context.format_heat_style,
        format_count=formatting.format_count,
        format_bytes=formatting.format_bytes,
    )
    return environment


def embed_json(data: Any) -> str:
    """Serialise data as JSON that is safe inside an HTML script element."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def escape_script(script: str) -> str:
    """Escape a script so that it cannot close its own script element."""
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")
