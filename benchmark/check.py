"""Run the proofs: on one class (`benchmark check`), and on every method for the table (`benchmark list proofs`)."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from traceback import extract_tb
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

import methods
from benchmark import catalogue, grid
from tasks.example import UsageError

if TYPE_CHECKING:
    from methods.backbone import Backbone
    from methods.base import Method

HOLDS = "holds"
BLANK = "does not apply"
FAILS = "fails"
COLOURS = {HOLDS: "green", BLANK: "dim", FAILS: "bold red"}
MARKS = {HOLDS: "✓", BLANK: "", FAILS: "✗"}
KIT = "benchmark.proofs.kit"
COMMAND = "python -m benchmark list proofs --markdown > docs/proofs.md"
HEAD = f"""# What each method proves

Made by `{COMMAND}`, not by hand. The command runs every proof of `benchmark/proofs/kit.py` on every method, on tiny
random Qwen2, Qwen3 and Llama models with the methods' default options, and remembers what it found until code changes.
✓: holds on all three; ✗: fails; a letter: does not apply, for the reason below. `python -m benchmark check
package.module:Class` runs the same on a class of your own.

Equations against the paper, closed forms of the number of parameters, and comparisons with `peft` under other options
are tests of their own, in `tests/methods/`; that each proof fails a method that is wrong is in `tests/conformance/`.
"""


class Verdict(NamedTuple):
    """What came of one proof, on all architectures; the reason why it failed or does not apply."""

    proof: str
    state: str
    reason: str = ""


# -------------------------------------------------------------------- running


def prove(kind: "type[Method]", folder: Path) -> Iterator[Verdict]:
    """Every proof of the kit on a class, on tiny models that are written into the folder."""
    from benchmark.proofs.kit import PROOFS
    from benchmark.proofs.models import ARCHITECTURES, write_model
    from methods.backbone import Backbone

    if not __debug__:
        raise UsageError("python -O removes the assertions that proofs are made of; run without it")
    places = {name: write_model(folder / name, name) for name in ARCHITECTURES}
    loaded = {name: Backbone.load(str(place)) for name, place in places.items()}
    for name, proof in PROOFS.items():
        found = {}
        for architecture, backbone in loaded.items():
            found[architecture] = state, _ = tried(proof, kind, backbone)
            if state == FAILS:  # it may have left anything behind
                loaded[architecture] = Backbone.load(str(places[architecture]))
        yield Verdict(name, *together(found))


def tried(proof: Callable, kind: "type[Method]", backbone: "Backbone") -> tuple[str, str]:
    try:
        reason = proof(kind, backbone)
    except Exception as error:  # whatever a class raises is the verdict on it
        return FAILS, why(error)
    finally:
        backbone.detach()
    return (BLANK, reason) if reason else (HOLDS, "")


def together(found: dict[str, tuple[str, str]]) -> tuple[str, str]:
    """One verdict from those of all architectures: the worst, and where it is not that of all, on which."""
    states = {state for state, _ in found.values()}
    state = next(state for state in (FAILS, HOLDS, BLANK) if state in states)
    if state == HOLDS:
        blank = [f"not on {name}: {reason}" for name, (own, reason) in found.items() if own == BLANK]
        return state, "; ".join(blank)
    named: dict[str, list[str]] = {}
    for name, (own, reason) in found.items():
        if own == state:
            named.setdefault(reason, []).append(name)
    said = [reason if len(at) == len(found) else f"{', '.join(at)}: {reason}" for reason, at in named.items()]
    return state, "; ".join(said)


def why(error: Exception) -> str:
    """What was raised, and the line of the proof that asked."""
    said = " ".join(str(error).split())[:160]
    if not isinstance(error, AssertionError):
        said = f"{type(error).__name__}: {said}"
    lines = [frame.line for frame in extract_tb(error.__traceback__) if Path(frame.filename).stem == KIT.split(".")[-1]]
    return f"{said} <- {lines[-1]}".strip() if lines else said


# -------------------------------------------------------------------- one class


def check(name: str, say: Console) -> int:
    """A table of verdicts on a class. -> the exit code: 1 if a proof fails."""
    kind = methods.load(name)
    with TemporaryDirectory() as folder, Console(stderr=True).status(f"proving {name}"):
        found = list(prove(kind, Path(folder)))
    # a Text, because rich makes a picture of the ":A:" in "mine:A: a scale"
    table = Table(title=Text(f"{name}: {kind.what}"), title_justify="left", title_style="bold")
    for column in ("proof", "verdict", "why"):
        table.add_column(column, no_wrap=column != "why", overflow="fold")
    for verdict in found:
        table.add_row(verdict.proof, f"[{COLOURS[verdict.state]}]{verdict.state}", verdict.reason.replace("[", r"\["))
    say.print(table)
    counts = Counter(verdict.state for verdict in found)
    said = f"{counts[HOLDS]} hold, {counts[BLANK]} do not apply, {counts[FAILS]} fail"
    say.print(f"{len(found)} proofs on tiny Qwen2, Qwen3 and Llama: {said}")
    return 1 if counts[FAILS] else 0


# -------------------------------------------------------------------- every method


def matrix(names: Sequence[str]) -> dict[str, list[Verdict]]:
    """Method -> verdicts, run anew only where the code of the method, of the kit or a library changed."""
    found = {}
    with Console(stderr=True).status("") as status:
        for place, name in enumerate(names, 1):
            status.update(f"proving {name} ({place} of {len(names)})")
            code = catalogue.code_of(KIT), catalogue.code_of("tasks.encode")
            key = ["proofs", name, catalogue.method(name)["code"], *code, grid.libraries()]
            rows = catalogue.remembered(key, partial(proved, name))
            found[name] = [Verdict(*row) for row in rows]
    return found


def proved(name: str) -> list[list[str]]:
    with TemporaryDirectory() as folder:
        return [list(verdict) for verdict in prove(methods.load(name), Path(folder))]


def table_of(names: Sequence[str], say: Console, markdown: bool) -> int:
    """Method x proof, what each proof says, and the reasons of the blanks. -> 1 if one fails."""
    from benchmark.proofs.kit import PROOFS

    found = matrix(names)
    reasons = dict.fromkeys(verdict.reason for row in found.values() for verdict in row if verdict.reason)
    letters = {reason: letter(place) for place, reason in enumerate(reasons)}
    header = ["method", *map(str, range(1, len(PROOFS) + 1))]
    rows = [[name, *(cell(verdict, letters) for verdict in row)] for name, row in found.items()]
    proofs = [(str(i), name, proof.__doc__.partition("\n")[0]) for i, (name, proof) in enumerate(PROOFS.items(), 1)]
    if markdown:
        print(document(header, rows, proofs, letters))
    else:
        draw(say, header, rows, proofs, letters)
    return 1 if any(verdict.state == FAILS for row in found.values() for verdict in row) else 0


def letter(place: int) -> str:
    return (letter(place // 26 - 1) if place >= 26 else "") + "abcdefghijklmnopqrstuvwxyz"[place % 26]


def cell(verdict: Verdict, letters: dict[str, str]) -> str:
    return f"{MARKS[verdict.state]} {letters.get(verdict.reason, '')}".strip()


def document(header: list[str], rows: list[list[str]], proofs: list[tuple], letters: dict[str, str]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]
    numbered = [f"{number}. `{name}`: {says}" for number, name, says in proofs]
    return "\n".join(
        [HEAD, *lines, "", "## The proofs", "", *numbered, "", "## Why a blank is blank", ""]
        + [f"- {mark}: {reason}" for reason, mark in letters.items()]
    )


def draw(say: Console, header: list[str], rows: list[list[str]], proofs: list[tuple], letters: dict[str, str]) -> None:
    grid_ = Table(header_style="bold", box=None, pad_edge=False)
    for name in header:
        grid_.add_column(name, no_wrap=True)
    for row in rows:
        grid_.add_row(*row)
    say.print(grid_)
    for number, name, says in proofs:
        say.print(f"{number:>3} [bold]{name}[/]  {says.replace('[', chr(92) + '[')}")
    for reason, mark in letters.items():
        say.print(f"{mark:>3} {reason}", markup=False)
