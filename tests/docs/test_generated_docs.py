"""What the pages say of methods, tasks and profiles is what the code says."""

import importlib.util
import pydoc
import re

import pytest

import methods
import tasks
from benchmark.cli import listing
from methods.core.backbone import Backbone
from tests.docs.blocks import ROOT, pages, title

spec = importlib.util.spec_from_file_location("docs_make", ROOT / "docs" / "make.py")
make = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make)

MADE = [page for page in pages() if make.REGION.search(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("page", MADE, ids=title)
def test_a_page_is_what_the_code_says(page):
    text = page.read_text(encoding="utf-8")
    for region in make.REGION.finditer(text):
        assert make.made(region[0]) == region[0], (
            f"{title(page)} is behind the code: `python docs/make.py` makes it anew"
        )


def test_every_method_and_task_has_a_section():
    told = {title(page): page.read_text(encoding="utf-8") for page in MADE}
    for name in tasks.TASK_NAMES:
        assert any(f"\n## {name}\n\n<!-- made:task {name} -->\n\n```text\n{name}: " in text for text in told.values())
    for name in methods.NAMES:
        assert f"\n## {name}\n" in told[f"docs/{make.HERE[name]}"]
        assert f"<!-- made:method {name} -->" in told[f"docs/{make.HERE[name]}"]


@pytest.mark.parametrize("name", [name for name in methods.NAMES if name not in ("zero_shot", "majority", "head_only")])
def test_closed_forms_count_what_trains(name, loaded):
    """On the embedded backbone, and on a random Qwen2 and Llama (biases, none; no norms of queries)."""
    assert make.trained(name, make.tiny()) == listing.count_trained_parameters(name, embedded())
    if name == "adapter":
        return  # its bottleneck would be of 2
    for backbone in (loaded["qwen2"], loaded["llama"]):
        assert make.trained(name, shape(backbone)) == listing.count_trained_parameters(name, backbone)
        backbone.detach()


KEPT: list[Backbone] = []


def embedded() -> Backbone:
    if not KEPT:
        KEPT.append(Backbone.load("tiny"))
    return KEPT[0]


def shape(backbone: Backbone) -> "make.Shape":
    c = backbone.config
    sizes = (c.hidden_size, c.num_hidden_layers, c.num_attention_heads, c.num_key_value_heads, c.head_dim)
    qwen2 = c.model_type == "qwen2"
    return make.Shape(*sizes, c.intermediate_size, c.vocab_size, c.tie_word_embeddings, biases=qwen2)


def test_a_page_that_is_behind_is_found():
    region = "<!-- made:options -->\n| lr | 7 |\n<!-- /made -->"
    assert "0.0002" in make.made(region)
    assert make.made(make.made(region)) == make.made(region)


def test_a_docstring_keeps_its_equations_and_its_stars():
    text = "P* learns, and `P*` too.\n\n  y = P* x\n  z = 1\n\nx = y\n\n**Ours**: x_i <- P_*"
    assert list(make.markdown(text)) == [
        "P\\* learns, and `P*` too.", "```text\ny = P* x\nz = 1\n```", "```text\nx = y\n```",
        "**Ours**: x_i \\<- P\\_\\*",
    ]  # fmt: skip


def test_the_picture_of_the_rooms_is_what_the_code_imports():
    picture = (ROOT / "docs" / "architecture.svg").read_text(encoding="utf-8")
    assert picture == make.draw_rooms(), "`python docs/make.py` draws it anew"


def test_every_folder_of_the_packages_is_a_room():
    folders = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for package in ("tasks", "methods", "benchmark")
        for path in (ROOT / package).rglob("*.py")
    }
    assert folders == set(make.load_rooms())


def test_the_way_of_a_cell_names_what_exists_in_at_most_twelve_hops():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").partition("## The way of a cell")[2]
    assert len(re.findall(r"(?m)^\d+\. ", text)) <= 12
    names = re.findall(r"`(benchmark\.[\w.]+)`", text)
    assert len(names) >= 12
    for name in names:
        assert pydoc.locate(name) is not None, name
