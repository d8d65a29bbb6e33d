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

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

import methods
from benchmark.analysis import load
from benchmark.analysis.intervals import CONFIDENCE_LEVEL
from benchmark.analysis.leaderboard import LeaderboardRow, build_leaderboard
from benchmark.analysis.paired import PairedScores
from benchmark.analysis.statistics import PairedDifference, apply_holm_correction
from benchmark.config.profile import FULL, Profile
from benchmark.grid import cells, planner
from benchmark.reporting.format import format_difference
from benchmark.results.files import write_file_atomically
from benchmark.results.store import ResultStore
from benchmark.system import formatting
from benchmark.system.formatting import format_shots
from benchmark.system.redaction import get_backbone_display_name

MARGIN = 0.01  # of the metric's 0..1: differences below a point are not worth a claim
FEW_SHOT = "few-shot"  # the mean over the grid's numbers of shots up to 32, else 16
MAX_FEW_SHOTS = 32
DEFAULT_FEW_SHOTS = 16
ABOVE = "above"
REACHES = "reaches"
SUPPORTED = "supported"
NOT_SUPPORTED = "not supported"
UNDECIDED = "undecided at this size"
NOT_RUN = "not run"
SAME_OPTIONS = "no comparison: both have the same options here"
TARGET_TASKS = "target"
ALL_TASKS = "all"

TA_LORA = "TA-LoRA (arXiv 2505.00009)"
META_LORA = "MeTA-LoRA (arXiv 2510.11598)"
TRANSFER = "Transfer from the sources (this suite)"


class Claim(NamedTuple):
    """`row` at `shots` is `kind` of `other` at its shots, in the mean over `tasks`."""

    paper: str
    variant: str
    relation: str
    other_variant: str
    shots: int | str
    task_group: str = TARGET_TASKS
    other_shots: int | str | None = None  # the same
    has_fewer_parameters: bool = False  # and trains fewer parameters


VARIANT_OPTIONS: dict[str, dict[str, Any]] = {  # rows that a claim takes apart: the options they differ in
    "ta_lora:no-gate": {"gate": "none"},
    "ta_lora:no-fast-slow": {"slow_lr_multiplier": 1.0},
    "ta_lora:no-low-rank": {"low_rank": False},
    "ta_lora:no-prompt": {"length": 0},
    "meta_lora:N-100": {"pool": 100},
    "shared_lora:N-50": {"pool": 50},
}
CLAIMS = (
    *(
        Claim(TA_LORA, "ta_lora", ABOVE, other, shots, has_fewer_parameters=True)
        for shots in (FEW_SHOT, FULL)
        for other in ("prompt", "adapter", "bitfit", "spot", "attempt", "mpt")
    ),
    *(Claim(TA_LORA, "ta_lora", ABOVE, row, FEW_SHOT) for row in VARIANT_OPTIONS if row.startswith("ta_lora:")),
    Claim(META_LORA, "meta_lora", REACHES, "shared_lora", 50, ALL_TASKS, FULL),
    Claim(META_LORA, "meta_lora:N-100", REACHES, "shared_lora", 100, ALL_TASKS, FULL),
    Claim(META_LORA, "meta_lora", REACHES, "shared_lora", FEW_SHOT),
    Claim(META_LORA, "meta_lora", ABOVE, "shared_lora:N-50", FEW_SHOT),
    Claim(TRANSFER, "ta_lora", ABOVE, "prompt", 4),
    Claim(TRANSFER, "meta_lora", ABOVE, "lora", 4),
    Claim(TRANSFER, "shared_lora", ABOVE, "lora", 4),
)
NO_TABLE_AVAILABLE = "No table of the paper is known to us."
PAPER_NOTES = {  # what is known of the papers, and from where; nothing stands here that we did not find
    TA_LORA: "Reported: sixteen tasks, full data and few-shot (abstract); against FT, Adapter, BitFit, PT, SPoT, "
    f"ATTEMPT and MPT, with 1.3 M parameters on a 7B model (secondary source). {NO_TABLE_AVAILABLE}",
    META_LORA: "Reported: matches or surpasses full-data LoRA in multi-task and multilingual learning with much less "
    f"data (abstract); 50 or 100 samples per task (secondary source). {NO_TABLE_AVAILABLE} Here meta_lora learns from 50 examples "
    "of each source (N-100: from 100) and shared_lora from all, or from the same 50 as a control (N-50); shots are of "
    "the target, per label where labels are fixed, while the paper's samples are per task.",
    TRANSFER: "Not from a paper: methods that learn from the sources against the single-task method of their family.",
}


class ClaimResult(NamedTuple):
    """What became of a claim."""

    claim: Claim
    verdict: str
    difference: PairedDifference | None = None
    p_value: float | None = None  # corrected
    detectable_difference: float | None = None  # after the correction
    trained_parameters: tuple[float, float] | None = None  # parameters of row and other

    @property
    def verdict_text(self) -> str:
        """The verdict, with what qualifies it."""
        if self.verdict == UNDECIDED and self.detectable_difference is None:
            return f"{UNDECIDED}: one seed"
        if self.verdict == UNDECIDED:
            return f"{UNDECIDED}: finds {100 * self.detectable_difference:.1f} points"
        if (
            self.verdict == SUPPORTED
            and self.claim.has_fewer_parameters
            and self.trained_parameters[0] >= self.trained_parameters[1]
        ):
            return f"{SUPPORTED}, but not at fewer parameters"
        return self.verdict


# -------------------------------------------------------------------- judging


def evaluate_claims(profile: Profile, claims: Sequence[Claim] = CLAIMS) -> tuple[list[ClaimResult], dict[str, str]]:
    """Every claim on the grid of a profile, and which cells could not be used."""
    names, wide = extend_profile(profile, claims)
    _, results, _ = load.collect_results(wide, ResultStore(wide.results_folder))
    kept = PairedScores(wide, results)
    lines = {(line.method, line.shots): line for line in build_leaderboard(wide, results).rows}
    findings = [evaluate_claim(wide, claim, kept, lines, names, list_few_shots(profile)) for claim in claims]
    for paper in dict.fromkeys(claim.paper for claim in claims):
        own = [i for i, one in enumerate(findings) if one.claim.paper == paper and one.p_value is not None]
        for i, p in zip(own, apply_holm_correction([findings[i].p_value for i in own]), strict=True):
            findings[i] = decide_claim(findings[i], p, len(own))
    return findings, kept.unusable_cells


def extend_profile(profile: Profile, claims: Iterable[Claim]) -> tuple[dict[str, str], Profile]:
    """The profile with the rows and shots of all claims, and what each claimed row is called in it."""
    rows = dict.fromkeys(row for claim in claims for row in (claim.variant, claim.other_variant))
    names = {row: find_variant_name(profile, row) for row in rows if methods.parse_method_name(row) in methods.NAMES}
    config = {
        row: VARIANT_OPTIONS[row] for row in names if names[row] == row and row in VARIANT_OPTIONS
    } | profile.config
    named_shots = [
        shots for claim in claims for shots in (claim.shots, claim.other_shots) if shots not in (FEW_SHOT, None)
    ]
    shots = tuple(dict.fromkeys((*profile.shots, *list_few_shots(profile), *named_shots)))
    return names, replace(profile, methods=tuple(dict.fromkeys(names.values())), shots=shots, config=config)


def find_variant_name(profile: Profile, variant: str) -> str:
    """The profile's own name for a row with exactly these options."""
    if variant not in VARIANT_OPTIONS:
        return variant
    same = [name for name in profile.methods if methods.parse_method_name(name) == methods.parse_method_name(variant) != name
            and profile.config.get(name) == VARIANT_OPTIONS[variant]]  # fmt: skip
    return same[0] if same else variant


def list_few_shots(profile: Profile) -> tuple[int, ...]:
    return tuple(sorted(shots for shots in profile.shots if isinstance(shots, int) and shots <= MAX_FEW_SHOTS)) or (
        DEFAULT_FEW_SHOTS,
    )


def evaluate_claim(profile: Profile, claim: Claim, paired_scores: PairedScores, rows_by_variant: dict[tuple, LeaderboardRow], variant_names: dict[str, str],
            few_shots: tuple[int, ...]) -> ClaimResult:  # fmt: skip
    """The difference and its own p value; the verdict waits for the paper's other claims."""
    tasks = [task for task in profile.tasks if claim.task_group in (ALL_TASKS, planner.get_task_role(profile, task))]
    at = [few_shots if one == FEW_SHOT else (one,) for one in (claim.shots, claim.other_shots or claim.shots)]
    rows = [variant_names.get(row) for row in (claim.variant, claim.other_variant)]
    if not tasks or None in rows:
        return ClaimResult(claim, NOT_RUN)
    if len({methods.parse_method_name(row) for row in rows}) == 1 and planner.resolve_method_options(
        profile, rows[0]
    ) == planner.resolve_method_options(profile, rows[1]):
        return ClaimResult(claim, SAME_OPTIONS)
    first, second = zip(rows, at, strict=True)
    difference = paired_scores.compute_difference(first, second, tasks)
    if difference is None:
        return ClaimResult(claim, NOT_RUN)
    mine, theirs = (rows_by_variant[row, few_shots[-1]].trained_parameters for row, few_shots in (first, second))
    p = difference.compute_p_value(0.0 if claim.relation == ABOVE else -MARGIN)
    return ClaimResult(claim, UNDECIDED, difference, p, trained_parameters=(mine, theirs))


def decide_claim(result: ClaimResult, corrected_p_value: float, num_claims: int) -> ClaimResult:
    """With the corrected p value; the first step of Holm's correction says what this many claims can find."""
    gap, above = result.difference, result.claim.relation == ABOVE
    verdict, bound, worth = UNDECIDED, (0.0 if above else -MARGIN), (MARGIN if above else -MARGIN)
    if corrected_p_value < 1 - CONFIDENCE_LEVEL and gap.mean > bound:
        verdict = SUPPORTED
    elif gap.compute_interval()[1] < worth:
        verdict = NOT_SUPPORTED
    return result._replace(
        p_value=corrected_p_value,
        verdict=verdict,
        detectable_difference=gap.compute_detectable_difference(1 - (1 - CONFIDENCE_LEVEL) / num_claims),
    )


# -------------------------------------------------------------------- telling


TABLE_HEADER = ["claim", "difference", "p (Holm)", "trained", "verdict"]


def write_claims(profile: Profile, cli_flags: str, console: Console) -> Path:
    """Print every paper's claims and write them to the report's folder. `asked`: the profile and flags, to run more."""
    findings, unusable = evaluate_claims(profile)
    text = [f"# Claims on {profile.grid_name}", "", describe_setup(profile), ""]
    for paper in PAPER_NOTES:
        own = [one for one in findings if one.claim.paper == paper]
        rows = [format_claim_row(one) for one in own]
        table = Table(box=SIMPLE_HEAD, header_style="dim", title=paper, title_justify="left", title_style="bold")
        for name in TABLE_HEADER:
            table.add_column(name, justify="left" if name in (TABLE_HEADER[0], TABLE_HEADER[-1]) else "right")
        for row in rows:
            table.add_row(*row)
        console.print(table)
        text += [
            f"## {paper}",
            "",
            format_markdown_row(TABLE_HEADER),
            format_markdown_row(["---"] * len(TABLE_HEADER)),
            *map(format_markdown_row, rows),
            "",
        ]
        for note in (PAPER_NOTES[paper], *describe_missing_runs(profile, own, cli_flags)):
            console.print(note, style="dim", soft_wrap=True, markup=False)
            text += [note, ""]
    if unusable:
        note = f"{len(unusable)} cells could not be compared: {', or '.join(sorted(set(unusable.values())))}."
        console.print(note, style="dim")
        text += [note, ""]
    path = ResultStore(profile.results_folder).folder / "report" / "claims.md"
    write_file_atomically(path, "\n".join(text).encode())
    return path


def describe_setup(profile: Profile) -> str:
    """On what the claims are judged, and how the numbers are read."""
    seeds, shots = len(profile.seeds), list_few_shots(profile)
    return (
        f"Backbone {get_backbone_display_name(profile.backbone.name)}, records: {profile.source}, "
        f"suite {profile.suite.name}, {len(profile.tasks)} tasks, "
        f"sources at {format_claim_shots(profile.source_shots)}, {seeds} seed{'s' if seeds > 1 else ''}. Paired differences x 100, "
        "± half of the 95 % interval over seeds and test examples; p corrected for the claims of a paper that were run "
        f"(Holm). Above: by more than 0; reaches: no more than {100 * MARGIN:.0f} point below. Few-shot: "
        f"{'the mean over ' if len(shots) > 1 else ''}{', '.join(map(str, shots))} shots. "
        "TA-LoRA and MeTA-LoRA are our reconstructions."
    )


def format_claim_row(result: ClaimResult) -> list[str]:
    trained = " vs ".join(map(formatting.format_count, result.trained_parameters)) if result.trained_parameters else ""
    return [
        format_claim(result.claim),
        format_difference(result.difference),
        "" if result.p_value is None else f"{result.p_value:.2g}",
        trained,
        result.verdict_text,
    ]


def format_claim(claim: Claim) -> str:
    """ta_lora above prompt, few-shot, target tasks"""
    at = [format_claim_shots(shots) for shots in (claim.shots, claim.other_shots or claim.shots)]
    where = f"{claim.task_group} tasks"
    if at[0] == at[1]:
        return f"{claim.variant} {claim.relation} {claim.other_variant}, {at[0]}, {where}"
    return f"{claim.variant} at {at[0]} {claim.relation} {claim.other_variant} on {at[1]}, {where}"


def format_claim_shots(shots: int | str) -> str:
    return shots if shots == FEW_SHOT else format_shots(shots)


def format_markdown_row(table_cells: Sequence[str]) -> str:
    return f"| {' | '.join(table_cells)} |"


def describe_missing_runs(profile: Profile, results: Sequence[ClaimResult], cli_flags: str) -> list[str]:
    """The command that runs what a paper's claims still need."""
    claims = [one.claim for one in results if one.verdict == NOT_RUN]
    if not claims:
        return []
    rows = dict.fromkeys(
        find_variant_name(profile, row) for claim in claims for row in (claim.variant, claim.other_variant)
    )
    shots = {shots for claim in claims for shots in (claim.shots, claim.other_shots) if shots not in (FEW_SHOT, None)}
    if any(claim.shots == FEW_SHOT for claim in claims):
        shots |= set(list_few_shots(profile))
    settings = [f" --set {row}.{key}={str(value).lower()}" for row in rows if row not in profile.methods
                for key, value in VARIANT_OPTIONS.get(row, {}).items()]  # fmt: skip
    flags = f"--methods {','.join(rows)} --shots {','.join(map(str, sorted(shots, key=cells.get_shots_sort_key)))}{''.join(settings)}"
    return [f"{len(claims)} not run; this runs what they need: python -m benchmark run {cli_flags} {flags}"]
