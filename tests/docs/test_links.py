"""Every relative link, anchor and picture of README.md and docs/*.md is there, as a code host resolves them."""

import importlib.util
import re
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, pages, prose, title

LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?([^)\s>]+)>?[^)]*\)")
HEADING = re.compile(r"(?m)^#{1,6} +(.+?) *#*$")
ELSEWHERE = re.compile(r"[a-z][a-z+.-]*:")
PAGES = pages()


def anchors(page: Path) -> set[str]:
    """What a code host makes of a page's headings."""
    found: dict[str, int] = {}
    made = set()
    for heading in HEADING.findall(prose(page)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        made.add(f"{slug}-{found[slug]}" if slug in found else slug)
        found[slug] = found.get(slug, 0) + 1
    return made


def broken(page: Path) -> list[str]:
    missing = []
    for link in LINK.findall(re.sub(r"`[^`]*`", "", prose(page))):
        if ELSEWHERE.match(link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        inside = target == ROOT or ROOT in target.parents
        if not (inside and target.exists()) or (anchor and anchor not in anchors(target)):
            missing.append(link)
    return missing


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_links_lead_somewhere(page):
    assert broken(page) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.docs.test_links.ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(
        "# Here, `now`\n[a](#here-now) [b](#there) [c](gone.md) ![d](gone.png) [e](https://x.org) [f](../x)\n"
    )
    assert broken(page) == ["#there", "gone.md", "gone.png", "../x"]


def test_the_first_page_leads_to_all_others():
    """It is the table of contents of the built pages too."""
    index = ROOT / "docs" / "index.md"
    linked = {(index.parent / link.partition("#")[0]).resolve() for link in LINK.findall(prose(index))}
    assert [title(page) for page in PAGES[1:] if page not in {*linked, index}] == []


def test_a_page_that_would_need_a_network_is_found(tmp_path):
    spec = importlib.util.spec_from_file_location("docs_conf", ROOT / "docs" / "conf.py")
    conf = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(conf)
    (tmp_path / "a.html").write_text('<a href="https://x.org">x</a> <img src="x.png"> <link href="_static/x.css">')
    (tmp_path / "a.css").write_text("a {background: url(x.png)}")
    assert conf.remote(tmp_path) == []
    (tmp_path / "b.html").write_text('<script async src="https://x.org/x.js"></script>')
    (tmp_path / "b.css").write_text("@import url('//fonts.org/x')")
    assert len(conf.remote(tmp_path)) == 2
