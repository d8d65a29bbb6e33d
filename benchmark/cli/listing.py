"""`benchmark list`: tasks, suites, methods, profiles and proofs as tables."""

import argparse
from functools import cache, partial
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

import methods
import tasks
from benchmark.cli import check_method
from benchmark.config import loading
from benchmark.grid import code_hash, data_hash, identity, planner, specs
from benchmark.system import disk_cache, formatting
from tasks.core.suggestions import suggest_name
from tasks.core.types import UsageError
from tasks.suites import SUITES

if TYPE_CHECKING:
    from methods.core.backbone import Backbone

LIST_KINDS = ("tasks", "suites", "methods", "profiles", "proofs")


def print_list(options: argparse.Namespace, console: Console) -> int:
    what = options.what
    if what not in LIST_KINDS:
        raise UsageError(f"list {what!r}? {suggest_name(what, LIST_KINDS)}")
    if options.markdown and what != "proofs":
        raise UsageError(f"list {what}: --markdown is for proofs")
    if what == "proofs":
        names = methods.NAMES if options.methods in (None, ["all"]) else options.methods
        return check_method.print_check_table(names, console, options.markdown)
    if what == "profiles":
        rows = [(name, loading.load_profile(name)) for name in loading.list_presets()]
        print_table(console, ("profile", "backbone", "records", "cells", "for"),
              [(n, p.backbone.name, p.source, str(len([*planner.iterate_table_cells(p)])), p.about) for n, p in rows])  # fmt: skip
    elif what == "suites":
        print_table(console, ("suite", "sources", "targets", "about"),
              [(s.name, " ".join(s.sources), " ".join(s.targets), s.about) for s in SUITES.values()])  # fmt: skip
    elif what == "methods":
        facts, backbone = [specs.get_method_spec(name) for name in methods.NAMES], options.backbone or "tiny"
        counts = count_parameters_by_method(backbone)
        print_table(console, ("method", "what trains", "trained", "stages", "packs", "merges", "paper"), [
            (f["name"], f["what"], formatting.format_count(counts[f["name"]] or None),
             " > ".join(s["name"] for s in f["stages"]) if f["trains"] else "control",
             "yes" if f["packable"] else "", "yes" if f["mergeable"] else "", f["paper"]) for f in facts])  # fmt: skip
        console.print(f"trained: numbers that learn on one target, with default options, on {backbone} (--backbone)")
    else:
        suites = [SUITES[options.suite]] if options.suite in SUITES else SUITES.values()
        facts = [(suite, specs.get_task_spec(name)) for suite in suites for name in suite.tasks]
        lengths = count_answer_tokens(options.backbone) if options.backbone else dict.fromkeys(tasks.TASK_NAMES, "")
        print_table(console, ("task", "suite", "role", "family", "form", "metric", "labels", "tokens", "licence"), [
            (f["name"], suite.name, suite.get_role(f["name"]), f["family"], f["form"], f["metric"],
             str(len(f["words"]) or ""), lengths[f["name"]], f["licence"]) for suite, f in facts])  # fmt: skip
        if not options.backbone:
            console.print("tokens of each label word: name a tokenizer, --backbone tiny")
    return 0


def count_answer_tokens(backbone_name: str) -> dict[str, str]:
    """Task -> how many tokens its label words have in this tokenizer: 1, or 1-3. Refuses words with equal tokens."""
    from methods.core.backbone import load_tokenizer
    from methods.core.backbone_files import find_or_download_backbone
    from tasks.core.encoding import tokenize_label_words

    tokenizer, found = load_tokenizer(find_or_download_backbone(backbone_name), backbone_name), {}
    for name in tasks.TASK_NAMES:
        task = tasks.load_task(name)(tokenizer)
        sizes = {len(ids) for ids in tokenize_label_words(task, tokenizer, tuple(task.words.values())).values()}
        found[name] = "-".join(map(str, sorted({min(sizes), max(sizes)}))) if sizes else ""
    return found


def count_parameters_by_method(backbone_name: str) -> dict[str, int]:
    """Method -> how many numbers learn on a target, counted on the backbone itself; remembered until code changes."""
    weights, loaded = data_hash.hash_backbone(backbone_name, None), cache(lambda: load_backbone(backbone_name))
    with Console(stderr=True).status(f"counting on {backbone_name}"):
        return {
            name: disk_cache.load_or_compute(
                [
                    "trained",
                    weights,
                    specs.get_method_spec(name)["code"],
                    code_hash.hash_code(__name__),
                    identity.get_library_versions(),
                ],
                partial(lambda name: count_trained_parameters(name, loaded()), name),
            )
            for name in methods.NAMES
        }


def load_backbone(backbone_name: str) -> "Backbone":
    from methods.core.backbone import Backbone

    return Backbone.load(backbone_name)


def count_trained_parameters(method_name: str, backbone: "Backbone") -> int:
    from methods.core.instantiate import instantiate_method

    found = instantiate_method(methods.load_method(method_name), backbone, 1, perturb=False)
    try:
        return found.count_trained_parameters()
    finally:
        found.close()


def print_table(console: Console, header: tuple[str, ...], rows: "list[tuple]") -> None:
    grid_ = Table(header_style="bold", box=None, pad_edge=False)
    for name in header:
        grid_.add_column(name)
    for row in rows:
        grid_.add_row(*row)
    console.print(grid_)
