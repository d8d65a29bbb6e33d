"""Run the proofs: on one class (`benchmark check`), and on every method for the table (`benchmark list proofs`)."""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

import methods
from benchmark.grid import code_hash, identity, specs
from benchmark.system import disk_cache
from methods.conformance.runner import CHECKS_MODULE, FAILED, NOT_APPLICABLE, PASSED, CheckResult, run_checks

if TYPE_CHECKING:
    pass

STATE_STYLES = {PASSED: "green", NOT_APPLICABLE: "dim", FAILED: "bold red"}
STATE_MARKS = {PASSED: "✓", NOT_APPLICABLE: "", FAILED: "✗"}
DOCS_COMMAND = "python -m benchmark list proofs --markdown > docs/proofs.md"
DOCS_HEADER = f"""# What each method proves

Made by `{DOCS_COMMAND}`, not by hand. The command runs every proof of `methods/conformance/checks.py` on every method, on tiny
random Qwen2, Qwen3 and Llama models with the methods' default options, and remembers what it found until code changes.
✓: holds on all three; ✗: fails; a letter: does not apply, for the reason below. `python -m benchmark check
package.module:Class` runs the same on a class of your own.

Equations against the paper, closed forms of the number of parameters, and comparisons with `peft` under other options
are tests of their own, in `tests/methods/`; that each proof fails a method that is wrong is in `tests/conformance/`.
"""


# -------------------------------------------------------------------- running


# -------------------------------------------------------------------- one class


def check_method(method_name: str, console: Console) -> int:
    """A table of verdicts on a class. -> the exit code: 1 if a proof fails."""
    kind = methods.load_method(method_name)
    with TemporaryDirectory() as folder, Console(stderr=True).status(f"proving {method_name}"):
        found = list(run_checks(kind, Path(folder)))
    # a Text, because rich makes a picture of the ":A:" in "mine:A: a scale"
    table = Table(title=Text(f"{method_name}: {kind.trained_part}"), title_justify="left", title_style="bold")
    for column in ("proof", "verdict", "why"):
        table.add_column(column, no_wrap=column != "why", overflow="fold")
    for verdict in found:
        table.add_row(
            verdict.check, f"[{STATE_STYLES[verdict.state]}]{verdict.state}", verdict.reason.replace("[", r"\[")
        )
    console.print(table)
    counts = Counter(verdict.state for verdict in found)
    said = f"{counts[PASSED]} hold, {counts[NOT_APPLICABLE]} do not apply, {counts[FAILED]} fail"
    console.print(f"{len(found)} proofs on tiny Qwen2, Qwen3 and Llama: {said}")
    return 1 if counts[FAILED] else 0


# -------------------------------------------------------------------- every method


def check_all_methods(method_names: Sequence[str]) -> dict[str, list[CheckResult]]:
    """Method -> verdicts, run anew only where the code of the method, of the kit or a library changed."""
    found = {}
    with Console(stderr=True).status("") as status:
        for place, name in enumerate(method_names, 1):
            status.update(f"proving {name} ({place} of {len(method_names)})")
            code = code_hash.hash_code(CHECKS_MODULE), code_hash.hash_code("tasks.core.encoding")
            key = ["proofs", name, specs.get_method_spec(name)["code"], *code, identity.get_library_versions()]
            rows = disk_cache.load_or_compute(key, partial(run_checks_as_rows, name))
            found[name] = [CheckResult(*row) for row in rows]
    return found


def run_checks_as_rows(method_name: str) -> list[list[str]]:
    with TemporaryDirectory() as folder:
        return [list(verdict) for verdict in run_checks(methods.load_method(method_name), Path(folder))]


def print_check_table(method_names: Sequence[str], console: Console, markdown: bool) -> int:
    """Method x proof, what each proof says, and the reasons of the blanks. -> 1 if one fails."""
    from methods.conformance.checks import CHECKS

    found = check_all_methods(method_names)
    reasons = dict.fromkeys(verdict.reason for row in found.values() for verdict in row if verdict.reason)
    letters = {reason: format_letter(place) for place, reason in enumerate(reasons)}
    header = ["method", *map(str, range(1, len(CHECKS) + 1))]
    rows = [[name, *(format_table_cell(verdict, letters) for verdict in row)] for name, row in found.items()]
    proofs = [(str(i), name, proof.__doc__.partition("\n")[0]) for i, (name, proof) in enumerate(CHECKS.items(), 1)]
    if markdown:
        print(format_markdown(header, rows, proofs, letters))
    else:
        print_matrix(console, header, rows, proofs, letters)
    return 1 if any(verdict.state == FAILED for row in found.values() for verdict in row) else 0


def format_letter(index: int) -> str:
    return (format_letter(index // 26 - 1) if index >= 26 else "") + "abcdefghijklmnopqrstuvwxyz"[index % 26]


def format_table_cell(result: CheckResult, letters: dict[str, str]) -> str:
    return f"{STATE_MARKS[result.state]} {letters.get(result.reason, '')}".strip()


def format_markdown(header: list[str], rows: list[list[str]], checks: list[tuple], letters: dict[str, str]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]
    numbered = [f"{number}. `{name}`: {says}" for number, name, says in checks]
    return "\n".join(
        [DOCS_HEADER, *lines, "", "## The proofs", "", *numbered, "", "## Why a blank is blank", ""]
        + [f"- {mark}: {reason}" for reason, mark in letters.items()]
    )


def print_matrix(
    console: Console, header: list[str], rows: list[list[str]], checks: list[tuple], letters: dict[str, str]
) -> None:
    grid_ = Table(header_style="bold", box=None, pad_edge=False)
    for name in header:
        grid_.add_column(name, no_wrap=True)
    for row in rows:
        grid_.add_row(*row)
    console.print(grid_)
    for number, name, says in checks:
        console.print(f"{number:>3} [bold]{name}[/]  {says.replace('[', chr(92) + '[')}")
    for reason, mark in letters.items():
        console.print(f"{mark:>3} {reason}", markup=False)
