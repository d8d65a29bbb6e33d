"""`benchmark list`: prints tasks, suites, methods, profiles or proofs as a table."""

import argparse
from functools import cache, partial
from typing import TYPE_CHECKING, Any

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
    """Print the requested list. Returns the exit code. Raises `UsageError` for an unknown kind of list."""
    what = options.what
    if what not in LIST_KINDS:
        raise UsageError(f"list {what!r}? {suggest_name(what, LIST_KINDS)}")
    if options.markdown and what != "proofs":
        raise UsageError(f"list {what}: --markdown is for proofs")
    if what == "proofs":
        names = methods.NAMES if options.methods in (None, ["all"]) else options.methods
        return check_method.print_check_table(names, console, options.markdown)
    if what == "profiles":
        profiles = {name: loading.load_profile(name) for name in loading.list_presets()}
        rows = [
            (
                name,
                profile.backbone.name,
                profile.source,
                str(len([*planner.iterate_table_cells(profile)])),
                profile.about,
            )
            for name, profile in profiles.items()
        ]
        print_table(console, ("profile", "backbone", "source", "cells", "purpose"), rows)
    elif what == "suites":
        rows = [
            (suite.name, " ".join(suite.sources), " ".join(suite.targets), suite.about) for suite in SUITES.values()
        ]
        print_table(console, ("suite", "sources", "targets", "about"), rows)
    elif what == "methods":
        backbone = options.backbone or "tiny"
        counts = count_parameters_by_method(backbone)
        method_rows: list[tuple[Any, ...]] = []
        for spec in map(specs.get_method_spec, methods.NAMES):
            trained = formatting.format_count(counts[spec.name] or None)
            stages = " > ".join(stage.name for stage in spec.stages) if spec.uses_gradient_descent else "control"
            packs = "yes" if spec.is_packable else ""
            merges = "yes" if spec.is_mergeable else ""
            method_rows.append((spec.name, spec.trained_part, trained, stages, packs, merges, spec.paper))
        print_table(console, ("method", "what trains", "trained", "stages", "packs", "merges", "paper"), method_rows)
        console.print(f"trained: parameters trained on one target task, default options, on {backbone} (--backbone)")
    else:
        suites = [SUITES[options.suite]] if options.suite in SUITES else SUITES.values()
        num_tokens = count_answer_tokens(options.backbone) if options.backbone else dict.fromkeys(tasks.TASK_NAMES, "")
        task_rows: list[tuple[Any, ...]] = []
        for suite in suites:
            for name in suite.tasks:
                task = specs.get_task_spec(name)
                num_labels = str(len(task.words) or "")
                columns = (task.family, task.form, task.metric, num_labels, num_tokens[name], task.licence)
                task_rows.append((name, suite.name, suite.get_role(name), *columns))
        print_table(
            console, ("task", "suite", "role", "family", "form", "metric", "labels", "tokens", "licence"), task_rows
        )
        if not options.backbone:
            console.print("to show the tokens per label word, choose a tokenizer, e.g. --backbone tiny")
    return 0


def count_answer_tokens(backbone_name: str) -> dict[str, str]:
    """Task -> number of tokens of its label words with this tokenizer, e.g. 1 or 1-3.

    Raises `UsageError` if two label words have the same tokens.
    """
    from methods.core.backbone import load_tokenizer
    from methods.core.backbone_files import find_or_download_backbone
    from tasks.core.encoding import tokenize_label_words

    tokenizer = load_tokenizer(find_or_download_backbone(backbone_name), backbone_name)
    num_tokens = {}
    for name in tasks.TASK_NAMES:
        task = tasks.load_task(name)(tokenizer)
        sizes = {len(ids) for ids in tokenize_label_words(task.name, tokenizer, tuple(task.words.values())).values()}
        num_tokens[name] = "-".join(map(str, sorted({min(sizes), max(sizes)}))) if sizes else ""
    return num_tokens


def count_parameters_by_method(backbone_name: str) -> dict[str, int]:
    """Method -> number of parameters trained on a target task, counted on the backbone; cached until code changes."""
    backbone_hash = data_hash.hash_backbone(backbone_name, None)
    get_backbone = cache(lambda: load_backbone(backbone_name))
    with Console(stderr=True).status(f"counting on {backbone_name}"):
        return {
            name: disk_cache.load_or_compute(
                [
                    "trained",
                    backbone_hash,
                    specs.get_method_spec(name).code_hash,
                    code_hash.hash_code(__name__),
                    identity.get_library_versions(),
                ],
                partial(lambda name: count_trained_parameters(name, get_backbone()), name),
            )
            for name in methods.NAMES
        }


def load_backbone(backbone_name: str) -> "Backbone":
    """Load a backbone with its default revision and dtype."""
    from methods.core.backbone import Backbone

    return Backbone.load(backbone_name)


def count_trained_parameters(method_name: str, backbone: "Backbone") -> int:
    """Count the parameters that a method with default options trains on one target task."""
    from methods.core.instantiate import instantiate_method

    method = instantiate_method(methods.load_method(method_name), backbone, 1, perturb=False)
    try:
        return method.count_trained_parameters()
    finally:
        method.close()


def print_table(console: Console, header: tuple[str, ...], rows: "list[tuple]") -> None:
    """Print rows of text as a table without borders."""
    table = Table(header_style="bold", box=None, pad_edge=False)
    for name in header:
        table.add_column(name)
    for row in rows:
        table.add_row(*row)
    console.print(table)
