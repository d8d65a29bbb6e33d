"""`benchmark claims`: what the papers claim, as paired comparisons on whatever was run here.

A claim is a row against another: above it, or reaching it, which is to say no more than MARGIN below. It is

- supported: the difference is beyond the claim's bound and its p value against the bound, corrected for the claims of
  the paper that were run (Holm), is below 5 %;
- not supported: its 95 % interval leaves out every difference that would be worth the claim, an advantage of MARGIN for
  "above", a deficit of MARGIN or less for "reaches";
- undecided at this size: neither, with the difference that would have been found with 80 % probability after the
  correction;
- not run: a cell, or what was predicted in it, is missing; the command that runs it is named. (Where a profile has
  tuned a method to the very options that a variant stands for, there is nothing to compare, which is said.)

Nothing here was tuned until it came true, and the rows of TA-LoRA and MeTA-LoRA are reconstructions of ours.
"""

import argparse
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

import methods
from benchmark import grid, reading, report
from benchmark.compare import points
from benchmark.paired import Kept
from benchmark.profile import FULL, Profile
from benchmark.result import backbone_title
from benchmark.stats import Difference, holm
from benchmark.store import Store, write
from benchmark.table import LEVEL, Line, at_shots, board

MARGIN = 0.01  # of the metric's 0..1: differences below a point are not worth a claim
FEW = "few-shot"  # the mean over the grid's numbers of shots up to 32, else 16
FEW_MOST = 32
FEW_ELSE = 16
ABOVE = "above"
REACHES = "reaches"
SUPPORTED = "supported"
REFUTED = "not supported"
OPEN = "undecided at this size"
ABSENT = "not run"
SAME = "no comparison: both have the same options here"
TARGETS = "target"
EVERY = "all"

TA_LORA = "TA-LoRA (arXiv 2505.00009)"
META_LORA = "MeTA-LoRA (arXiv 2510.11598)"
TRANSFER = "Transfer from the sources (this suite)"


class Claim(NamedTuple):
    """`row` at `shots` is `kind` of `other` at its shots, in the mean over `tasks`."""

    paper: str
    row: str
    kind: str
    other: str
    shots: int | str
    tasks: str = TARGETS
    other_shots: int | str | None = None  # the same
    fewer: bool = False  # and trains fewer parameters


VARIANTS: dict[str, dict[str, Any]] = {  # rows that a claim takes apart: the options they differ in
    "ta_lora:no-gate": {"gate": "none"},
    "ta_lora:no-fast-slow": {"slow": 1.0},
    "ta_lora:no-low-rank": {"low_rank": False},
    "ta_lora:no-prompt": {"length": 0},
    "meta_lora:N-100": {"pool": 100},
    "shared_lora:N-50": {"pool": 50},
}
CLAIMS = (
    *(
        Claim(TA_LORA, "ta_lora", ABOVE, other, shots, fewer=True)
        for shots in (FEW, FULL)
        for other in ("prompt", "adapter", "bitfit", "spot", "attempt", "mpt")
    ),
    *(Claim(TA_LORA, "ta_lora", ABOVE, row, FEW) for row in VARIANTS if row.startswith("ta_lora:")),
    Claim(META_LORA, "meta_lora", REACHES, "shared_lora", 50, EVERY, FULL),
    Claim(META_LORA, "meta_lora:N-100", REACHES, "shared_lora", 100, EVERY, FULL),
    Claim(META_LORA, "meta_lora", REACHES, "shared_lora", FEW),
    Claim(META_LORA, "meta_lora", ABOVE, "shared_lora:N-50", FEW),
    Claim(TRANSFER, "ta_lora", ABOVE, "prompt", 4),
    Claim(TRANSFER, "meta_lora", ABOVE, "lora", 4),
    Claim(TRANSFER, "shared_lora", ABOVE, "lora", 4),
)
UNKNOWN = "No table of the paper is known to us."
REPORTED = {  # what is known of the papers, and from where; nothing stands here that we did not find
    TA_LORA: "Reported: sixteen tasks, full data and few-shot (abstract); against FT, Adapter, BitFit, PT, SPoT, "
    f"ATTEMPT and MPT, with 1.3 M parameters on a 7B model (secondary source). {UNKNOWN}",
    META_LORA: "Reported: matches or surpasses full-data LoRA in multi-task and multilingual learning with much less "
    f"data (abstract); 50 or 100 samples per task (secondary source). {UNKNOWN} Here meta_lora learns from 50 examples "
    "of each source (N-100: from 100) and shared_lora from all, or from the same 50 as a control (N-50); shots are of "
    "the target, per label where labels are fixed, while the paper's samples are per task.",
    TRANSFER: "Not from a paper: methods that learn from the sources against the single-task method of their family.",
}


class Finding(NamedTuple):
    """What became of a claim."""

    claim: Claim
    verdict: str
    difference: Difference | None = None
    p: float | None = None  # corrected
    detectable: float | None = None  # after the correction
    trained: tuple[float, float] | None = None  # parameters of row and other

    @property
    def said(self) -> str:
        """The verdict, with what qualifies it."""
        if self.verdict == OPEN and self.detectable is None:
            return f"{OPEN}: one seed"
        if self.verdict == OPEN:
            return f"{OPEN}: finds {100 * self.detectable:.1f} points"
        if self.verdict == SUPPORTED and self.claim.fewer and self.trained[0] >= self.trained[1]:
            return f"{SUPPORTED}, but not at fewer parameters"
        return self.verdict


# -------------------------------------------------------------------- judging


def judge(found: Profile, claims: Sequence[Claim] = CLAIMS) -> tuple[list[Finding], dict[str, str]]:
    """Every claim on the grid of a profile, and which cells could not be used."""
    names, wide = widened(found, claims)
    _, results, _ = reading.collect(wide, Store(wide.folder))
    kept = Kept(wide, results)
    lines = {(line.method, line.shots): line for line in board(wide, results).lines}
    findings = [finding(wide, claim, kept, lines, names, few(found)) for claim in claims]
    for paper in dict.fromkeys(claim.paper for claim in claims):
        own = [i for i, one in enumerate(findings) if one.claim.paper == paper and one.p is not None]
        for i, p in zip(own, holm([findings[i].p for i in own]), strict=True):
            findings[i] = decided(findings[i], p, len(own))
    return findings, kept.unusable


def widened(found: Profile, claims: Iterable[Claim]) -> tuple[dict[str, str], Profile]:
    """The profile with the rows and shots of all claims, and what each claimed row is called in it."""
    rows = dict.fromkeys(row for claim in claims for row in (claim.row, claim.other))
    names = {row: named(found, row) for row in rows if methods.method_of(row) in methods.NAMES}
    config = {row: VARIANTS[row] for row in names if names[row] == row and row in VARIANTS} | found.config
    named_shots = [shots for claim in claims for shots in (claim.shots, claim.other_shots) if shots not in (FEW, None)]
    shots = tuple(dict.fromkeys((*found.shots, *few(found), *named_shots)))
    return names, replace(found, methods=tuple(dict.fromkeys(names.values())), shots=shots, config=config)


def named(found: Profile, row: str) -> str:
    """The profile's own name for a row with exactly these options."""
    if row not in VARIANTS:
        return row
    same = [name for name in found.methods if methods.method_of(name) == methods.method_of(row) != name
            and found.config.get(name) == VARIANTS[row]]  # fmt: skip
    return same[0] if same else row


def few(found: Profile) -> tuple[int, ...]:
    return tuple(sorted(shots for shots in found.shots if isinstance(shots, int) and shots <= FEW_MOST)) or (FEW_ELSE,)


def finding(wide: Profile, claim: Claim, kept: Kept, lines: dict[tuple, Line], names: dict[str, str],
            shots: tuple[int, ...]) -> Finding:  # fmt: skip
    """The difference and its own p value; the verdict waits for the paper's other claims."""
    tasks = [task for task in wide.tasks if claim.tasks in (EVERY, grid.role(wide, task))]
    at = [shots if one == FEW else (one,) for one in (claim.shots, claim.other_shots or claim.shots)]
    rows = [names.get(row) for row in (claim.row, claim.other)]
    if not tasks or None in rows:
        return Finding(claim, ABSENT)
    if len({methods.method_of(row) for row in rows}) == 1 and grid.options(wide, rows[0]) == grid.options(
        wide, rows[1]
    ):
        return Finding(claim, SAME)
    first, second = zip(rows, at, strict=True)
    difference = kept.difference(first, second, tasks)
    if difference is None:
        return Finding(claim, ABSENT)
    mine, theirs = (lines[row, shots[-1]].trained for row, shots in (first, second))
    p = difference.p(0.0 if claim.kind == ABOVE else -MARGIN)
    return Finding(claim, OPEN, difference, p, trained=(mine, theirs))


def decided(one: Finding, p: float, claims: int) -> Finding:
    """With the corrected p value; the first step of Holm's correction says what this many claims can find."""
    gap, above = one.difference, one.claim.kind == ABOVE
    verdict, bound, worth = OPEN, (0.0 if above else -MARGIN), (MARGIN if above else -MARGIN)
    if p < 1 - LEVEL and gap.mean > bound:
        verdict = SUPPORTED
    elif gap.interval()[1] < worth:
        verdict = REFUTED
    return one._replace(p=p, verdict=verdict, detectable=gap.detectable(1 - (1 - LEVEL) / claims))


# -------------------------------------------------------------------- telling


HEADER = ["claim", "difference", "p (Holm)", "trained", "verdict"]


def make(found: Profile, asked: str, say: Console) -> Path:
    """Print every paper's claims and write them to the report's folder. `asked`: the profile and flags, to run more."""
    findings, unusable = judge(found)
    text = [f"# Claims on {found.title}", "", opening(found), ""]
    for paper in REPORTED:
        own = [one for one in findings if one.claim.paper == paper]
        rows = [cells(one) for one in own]
        table = Table(box=SIMPLE_HEAD, header_style="dim", title=paper, title_justify="left", title_style="bold")
        for name in HEADER:
            table.add_column(name, justify="left" if name in (HEADER[0], HEADER[-1]) else "right")
        for row in rows:
            table.add_row(*row)
        say.print(table)
        text += [f"## {paper}", "", line(HEADER), line(["---"] * len(HEADER)), *map(line, rows), ""]
        for note in (REPORTED[paper], *missing(found, own, asked)):
            say.print(note, style="dim", soft_wrap=True, markup=False)
            text += [note, ""]
    if unusable:
        note = f"{len(unusable)} cells could not be compared: {', or '.join(sorted(set(unusable.values())))}."
        say.print(note, style="dim")
        text += [note, ""]
    path = Store(found.folder).folder / "report" / "claims.md"
    write(path, "\n".join(text).encode())
    return path


def opening(found: Profile) -> str:
    """On what the claims are judged, and how the numbers are read."""
    seeds, shots = len(found.seeds), few(found)
    return (
        f"Backbone {backbone_title(found.backbone.name)}, records: {found.source}, "
        f"suite {found.suite.name}, {len(found.tasks)} tasks, "
        f"sources at {spoken(found.source_shots)}, {seeds} seed{'s' if seeds > 1 else ''}. Paired differences x 100, "
        "± half of the 95 % interval over seeds and test examples; p corrected for the claims of a paper that were run "
        f"(Holm). Above: by more than 0; reaches: no more than {100 * MARGIN:.0f} point below. Few-shot: "
        f"{'the mean over ' if len(shots) > 1 else ''}{', '.join(map(str, shots))} shots. "
        "TA-LoRA and MeTA-LoRA are our reconstructions."
    )


def cells(one: Finding) -> list[str]:
    trained = " vs ".join(map(report.count, one.trained)) if one.trained else ""
    return [
        sentence(one.claim),
        points(one.difference),
        "" if one.p is None else f"{one.p:.2g}",
        trained,
        one.said,
    ]


def sentence(claim: Claim) -> str:
    """ta_lora above prompt, few-shot, target tasks"""
    at = [spoken(shots) for shots in (claim.shots, claim.other_shots or claim.shots)]
    where = f"{claim.tasks} tasks"
    if at[0] == at[1]:
        return f"{claim.row} {claim.kind} {claim.other}, {at[0]}, {where}"
    return f"{claim.row} at {at[0]} {claim.kind} {claim.other} on {at[1]}, {where}"


def spoken(shots: int | str) -> str:
    return shots if shots == FEW else at_shots(shots)


def line(row: Sequence[str]) -> str:
    return f"| {' | '.join(row)} |"


def missing(found: Profile, own: Sequence[Finding], asked: str) -> list[str]:
    """The command that runs what a paper's claims still need."""
    claims = [one.claim for one in own if one.verdict == ABSENT]
    if not claims:
        return []
    rows = dict.fromkeys(named(found, row) for claim in claims for row in (claim.row, claim.other))
    shots = {shots for claim in claims for shots in (claim.shots, claim.other_shots) if shots not in (FEW, None)}
    if any(claim.shots == FEW for claim in claims):
        shots |= set(few(found))
    settings = [f" --set {row}.{key}={str(value).lower()}" for row in rows if row not in found.methods
                for key, value in VARIANTS.get(row, {}).items()]  # fmt: skip
    flags = f"--methods {','.join(rows)} --shots {','.join(map(str, sorted(shots, key=grid.order)))}{''.join(settings)}"
    return [f"{len(claims)} not run; this runs what they need: python -m benchmark run {asked} {flags}"]


def flags(options: argparse.Namespace, found: Profile) -> str:
    """The profile and its changes, less methods and shots, as one would type them again."""
    said = {"profile": found.name if options.profile == "auto" else options.profile}
    for name in ("suite", "backbone", "device", "source", "data_dir", "tasks", "seeds", "limit_test", "results"):
        if (value := getattr(options, name)) is not None:
            said[name.replace("_", "-")] = ",".join(value) if isinstance(value, list) else value
    words = [f"--{name} {shlex.quote(str(value))}" for name, value in said.items()]
    return " ".join(words + [f"--set {shlex.quote(setting)}" for setting in options.settings])
