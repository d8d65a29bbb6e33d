"""`benchmark list`: tasks, suites, methods, profiles and proofs as tables."""

import argparse
from functools import cache, partial
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

import methods
import tasks
from benchmark import catalogue, check, grid, profile, report
from tasks.example import UsageError
from tasks.suites import SUITES

if TYPE_CHECKING:
    from methods.backbone import Backbone

LISTS = ("tasks", "suites", "methods", "profiles", "proofs")


def show(options: argparse.Namespace, say: Console) -> int:
    what = options.what
    if what not in LISTS:
        raise UsageError(f"list {what!r}? {profile.near(what, LISTS)}")
    if options.markdown and what != "proofs":
        raise UsageError(f"list {what}: --markdown is for proofs")
    if what == "proofs":
        names = methods.NAMES if options.methods in (None, ["all"]) else options.methods
        return check.table_of(names, say, options.markdown)
    if what == "profiles":
        rows = [(name, profile.load(name)) for name in profile.names()]
        table(say, ("profile", "backbone", "records", "cells", "for"),
              [(n, p.backbone.name, p.source, str(len([*grid.cells(p)])), p.about) for n, p in rows])  # fmt: skip
    elif what == "suites":
        table(say, ("suite", "sources", "targets", "about"),
              [(s.name, " ".join(s.sources), " ".join(s.targets), s.about) for s in SUITES.values()])  # fmt: skip
    elif what == "methods":
        facts, backbone = [catalogue.method(name) for name in methods.NAMES], options.backbone or "tiny"
        counts = trained(backbone)
        table(say, ("method", "what trains", "trained", "stages", "packs", "merges", "paper"), [
            (f["name"], f["what"], report.count(counts[f["name"]] or None),
             " > ".join(s["name"] for s in f["stages"]) if f["trains"] else "control",
             "yes" if f["packable"] else "", "yes" if f["mergeable"] else "", f["paper"]) for f in facts])  # fmt: skip
        say.print(f"trained: numbers that learn on one target, with default options, on {backbone} (--backbone)")
    else:
        suites = [SUITES[options.suite]] if options.suite in SUITES else SUITES.values()
        facts = [(suite, catalogue.task(name)) for suite in suites for name in suite.tasks]
        lengths = answer_lengths(options.backbone) if options.backbone else dict.fromkeys(tasks.NAMES, "")
        table(say, ("task", "suite", "role", "family", "form", "metric", "labels", "tokens", "licence"), [
            (f["name"], suite.name, suite.role(f["name"]), f["family"], f["form"], f["metric"],
             str(len(f["words"]) or ""), lengths[f["name"]], f["licence"]) for suite, f in facts])  # fmt: skip
        if not options.backbone:
            say.print("tokens of each label word: name a tokenizer, --backbone tiny")
    return 0


def answer_lengths(backbone: str) -> dict[str, str]:
    """Task -> how many tokens its label words have in this tokenizer: 1, or 1-3. Refuses words with equal tokens."""
    from methods.backbone import load_tokenizer
    from methods.files import find
    from tasks.encode import answer_ids

    tokenizer, found = load_tokenizer(find(backbone), backbone), {}
    for name in tasks.NAMES:
        task = tasks.load(name)(tokenizer)
        sizes = {len(ids) for ids in answer_ids(task, tokenizer, tuple(task.words.values())).values()}
        found[name] = "-".join(map(str, sorted({min(sizes), max(sizes)}))) if sizes else ""
    return found


def trained(backbone: str) -> dict[str, int]:
    """Method -> how many numbers learn on a target, counted on the backbone itself; remembered until code changes."""
    weights, loaded = catalogue.backbone(backbone, None), cache(lambda: load(backbone))
    with Console(stderr=True).status(f"counting on {backbone}"):
        return {
            name: catalogue.remembered(
                ["trained", weights, catalogue.method(name)["code"], catalogue.code_of(__name__), grid.libraries()],
                partial(lambda name: counted(name, loaded()), name),
            )
            for name in methods.NAMES
        }


def load(backbone: str) -> "Backbone":
    from methods.backbone import Backbone

    return Backbone.load(backbone)


def counted(name: str, backbone: "Backbone") -> int:
    from benchmark.proofs.material import built

    found = built(methods.load(name), backbone, 1, away=False)
    try:
        return found.trained_parameters()
    finally:
        found.close()


def table(say: Console, header: tuple[str, ...], rows: "list[tuple]") -> None:
    grid_ = Table(header_style="bold", box=None, pad_edge=False)
    for name in header:
        grid_.add_column(name)
    for row in rows:
        grid_.add_row(*row)
    say.print(grid_)
