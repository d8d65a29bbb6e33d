"""How the pages are built (`make docs`): Sphinx reads the Markdown as it stands on a code host.

No page has a word of Sphinx in it: the navigation is the list of links in index.md, and links that lead out of this
folder are plain words in the built pages. Those work from a folder or a server without a network.
"""

import re
from pathlib import Path

project = "adapterbench"
html_title = "adapterbench"
html_theme = "furo"
html_show_copyright = html_show_sphinx = html_copy_source = False
extensions = ["myst_parser"]
exclude_patterns = ["bench"]
html_static_path = html_css_files = ["wide.css"]
myst_heading_anchors = 4  # named as a code host names them

LISTED = re.compile(r"(?m)^- \[[^\]]*\]\(([\w/-]+)\.md\)")
OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./[^)]*\)")
REMOTE = {
    ".html": re.compile(r"""<(?:link|script|img|iframe|source)\b[^>]*\b(?:href|src)=["'](?:https?:)?//[^"']+"""),
    ".css": re.compile(r"""(?:@import|url\()\s*["']?(?:https?:)?//[^"')]+"""),
}


def contents(app, name, source):
    """What a page is, as Sphinx wants it."""
    source[0] = OUTSIDE.sub(r"\1", source[0])
    if name == "index":
        source[0] += "\n```{toctree}\n:hidden:\n\n" + "\n".join(LISTED.findall(source[0])) + "\n```\n"


def remote(folder):
    """What a page would fetch from elsewhere; links that are only followed do not count."""
    files = (path for path in sorted(Path(folder).rglob("*")) if path.suffix in REMOTE)
    return [f"{path.name}: {found}" for path in files for found in REMOTE[path.suffix].findall(path.read_text("utf-8"))]


def finished(app, error):
    if not error and (found := remote(app.outdir)):
        raise RuntimeError(f"the pages need a network: {'; '.join(found[:5])}")


def setup(app):
    app.connect("source-read", contents)
    app.connect("build-finished", finished)
    return {"parallel_read_safe": True}
