"""`benchmark claims`: test claims of the papers as paired comparisons on the results of a profile.

A claim compares two variants: the first is above the second, or reaches it (is at most MARGIN below). Its verdict is

- supported: the difference is beyond the claim's bound, and its p value against the bound, Holm-corrected for the
  paper's claims that were run, is below 5 %;
- not supported: the 95 % interval excludes every difference that would be worth the claim (an advantage of MARGIN for
  "above", a deficit of at most MARGIN for "reaches");
- undecided at this size: neither; the smallest detectable difference (80 % power, after correction) is reported;
- not run: a cell or its predictions are missing; the command that runs it is printed.

If a profile sets a method to the options of the variant that it is compared with, there is no comparison. No option was
tuned on these claims. TA-LoRA and MeTA-LoRA are our reconstructions.
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

MARGIN = 0.01  # in units of the metric (0..1); smaller differences are not worth a claim
FEW_SHOT = "few-shot"  # mean over the grid's numbers of shots up to MAX_FEW_SHOTS, otherwise DEFAULT_FEW_SHOTS
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
    """Claim that `variant` at `shots` is ABOVE or REACHES `other_variant`, in the mean over a task group."""

    paper: str
    variant: str
    relation: str
    other_variant: str
    shots: int | str
    task_group: str = TARGET_TASKS
    other_shots: int | str | None = None  # shots of other_variant; None: the same
    has_fewer_parameters: bool = False  # whether the claim includes fewer trained parameters


VARIANT_OPTIONS: dict[str, dict[str, Any]] = {  # ablation variants and the options they change
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
NO_TABLE_AVAILABLE = "We have no table of the paper."
PAPER_NOTES = {  # what we know of the papers, with the source
    TA_LORA: "Reported: sixteen tasks, full data and few-shot (abstract); against FT, Adapter, BitFit, PT, SPoT, "
    f"ATTEMPT and MPT, with 1.3 M parameters on a 7B model (secondary source). {NO_TABLE_AVAILABLE}",
    META_LORA: "Reported: matches or surpasses full-data LoRA in multi-task and multilingual learning with much less "
    f"data (abstract); 50 or 100 samples per task (secondary source). {NO_TABLE_AVAILABLE} Here meta_lora trains on "
    "50 examples of each source (N-100: 100) and shared_lora on all, or on the same 50 as a baseline (N-50); shots "
    "count examples of the target, per label where labels are fixed, while the paper counts samples per task.",
    TRANSFER: "Not from a paper: methods with source training against the single-task method of their family.",
}


class ClaimResult(NamedTuple):
    """Verdict of a claim with its statistics; differences are in units of the metric (0..1)."""

    claim: Claim
    verdict: str
    difference: PairedDifference | None = None
    p_value: float | None = None  # Holm-corrected
    detectable_difference: float | None = None  # after correction
    trained_parameters: tuple[float, float] | None = None  # of variant and other_variant

    @property
    def verdict_text(self) -> str:
        """The verdict with its qualification, e.g. the detectable difference."""
        if self.verdict == UNDECIDED and self.detectable_difference is None:
            return f"{UNDECIDED}: one seed"
        if self.verdict == UNDECIDED:
            return f"{UNDECIDED}: can detect {100 * self.detectable_difference:.1f} points"
        if (
            self.verdict == SUPPORTED
            and self.claim.has_fewer_parameters
            and self.trained_parameters[0] >= self.trained_parameters[1]
        ):
            return f"{SUPPORTED}, but not at fewer parameters"
        return self.verdict


# -------------------------------------------------------------------- evaluation


def evaluate_claims(profile: Profile, claims: Sequence[Claim] = CLAIMS) -> tuple[list[ClaimResult], dict[str, str]]:
    """Evaluate all claims on a profile's results: (claim results, unusable cells with the reason)."""
    names, extended = extend_profile(profile, claims)
    _, results, _ = load.collect_results(extended, ResultStore(extended.results_folder))
    paired_scores = PairedScores(extended, results)
    rows = {(row.method, row.shots): row for row in build_leaderboard(extended, results).rows}
    few_shots = list_few_shots(profile)
    claim_results = [evaluate_claim(extended, claim, paired_scores, rows, names, few_shots) for claim in claims]
    for paper in dict.fromkeys(claim.paper for claim in claims):
        indices = [
            index
            for index, result in enumerate(claim_results)
            if result.claim.paper == paper and result.p_value is not None
        ]
        corrected = apply_holm_correction([claim_results[index].p_value for index in indices])
        for index, p_value in zip(indices, corrected, strict=True):
            claim_results[index] = decide_claim(claim_results[index], p_value, len(indices))
    return claim_results, paired_scores.unusable_cells


def extend_profile(profile: Profile, claims: Iterable[Claim]) -> tuple[dict[str, str], Profile]:
    """Return (claimed variant -> its name in the profile, profile extended by the variants and shots of all claims)."""
    variants = dict.fromkeys(variant for claim in claims for variant in (claim.variant, claim.other_variant))
    names = {
        variant: find_variant_name(profile, variant)
        for variant in variants
        if methods.parse_method_name(variant) in methods.NAMES
    }
    config = {
        variant: VARIANT_OPTIONS[variant]
        for variant in names
        if names[variant] == variant and variant in VARIANT_OPTIONS
    } | profile.config
    named_shots = [
        shots for claim in claims for shots in (claim.shots, claim.other_shots) if shots not in (FEW_SHOT, None)
    ]
    shots = tuple(dict.fromkeys((*profile.shots, *list_few_shots(profile), *named_shots)))
    return names, replace(profile, methods=tuple(dict.fromkeys(names.values())), shots=shots, config=config)


def find_variant_name(profile: Profile, variant: str) -> str:
    """The profile's name for a variant with exactly these options, or the variant itself."""
    if variant not in VARIANT_OPTIONS:
        return variant
    base_method = methods.parse_method_name(variant)
    for name in profile.methods:
        is_variant = methods.parse_method_name(name) == base_method != name
        if is_variant and profile.config.get(name) == VARIANT_OPTIONS[variant]:
            return name
    return variant


def list_few_shots(profile: Profile) -> tuple[int, ...]:
    """The numbers of shots that FEW_SHOT averages over, ascending."""
    few_shots = sorted(shots for shots in profile.shots if isinstance(shots, int) and shots <= MAX_FEW_SHOTS)
    return tuple(few_shots) or (DEFAULT_FEW_SHOTS,)


def evaluate_claim(
    profile: Profile,
    claim: Claim,
    paired_scores: PairedScores,
    rows_by_variant: dict[tuple, LeaderboardRow],
    variant_names: dict[str, str],
    few_shots: tuple[int, ...],
) -> ClaimResult:
    """Difference and uncorrected p value of a claim; `decide_claim` adds the verdict after correction."""
    tasks = [task for task in profile.tasks if claim.task_group in (ALL_TASKS, planner.get_task_role(profile, task))]
    first_name = variant_names.get(claim.variant)
    second_name = variant_names.get(claim.other_variant)
    if not tasks or first_name is None or second_name is None:
        return ClaimResult(claim, NOT_RUN)
    has_same_method = methods.parse_method_name(first_name) == methods.parse_method_name(second_name)
    if has_same_method and planner.resolve_method_options(profile, first_name) == planner.resolve_method_options(
        profile, second_name
    ):
        return ClaimResult(claim, SAME_OPTIONS)
    first_shots, second_shots = (
        few_shots if shots == FEW_SHOT else (shots,) for shots in (claim.shots, claim.other_shots or claim.shots)
    )
    difference = paired_scores.compute_difference((first_name, first_shots), (second_name, second_shots), tasks)
    if difference is None:
        return ClaimResult(claim, NOT_RUN)
    trained_parameters = (
        rows_by_variant[first_name, first_shots[-1]].trained_parameters,
        rows_by_variant[second_name, second_shots[-1]].trained_parameters,
    )
    p_value = difference.compute_p_value(0.0 if claim.relation == ABOVE else -MARGIN)
    return ClaimResult(claim, UNDECIDED, difference, p_value, trained_parameters=trained_parameters)


def decide_claim(result: ClaimResult, corrected_p_value: float, num_claims: int) -> ClaimResult:
    """Decide a claim from its corrected p value.

    The detectable difference is that of the first (strictest) step of Holm's correction for `num_claims` claims.
    """
    difference = result.difference
    is_above = result.claim.relation == ABOVE
    bound = 0.0 if is_above else -MARGIN
    min_relevant_difference = MARGIN if is_above else -MARGIN
    verdict = UNDECIDED
    if corrected_p_value < 1 - CONFIDENCE_LEVEL and difference.mean > bound:
        verdict = SUPPORTED
    elif difference.compute_interval()[1] < min_relevant_difference:
        verdict = NOT_SUPPORTED
    return result._replace(
        p_value=corrected_p_value,
        verdict=verdict,
        detectable_difference=difference.compute_detectable_difference(1 - (1 - CONFIDENCE_LEVEL) / num_claims),
    )


# -------------------------------------------------------------------- output


TABLE_HEADER = ["claim", "difference", "p (Holm)", "trained", "verdict"]


def write_claims(profile: Profile, cli_flags: str, console: Console) -> Path:
    """Print the claims of every paper, write them to report/claims.md and return its path.

    `cli_flags` select the profile in the printed commands that run missing cells.
    """
    claim_results, unusable = evaluate_claims(profile)
    lines = [f"# Claims on {profile.grid_name}", "", describe_setup(profile), ""]
    for paper in PAPER_NOTES:
        paper_results = [result for result in claim_results if result.claim.paper == paper]
        rows = [format_claim_row(result) for result in paper_results]
        table = Table(box=SIMPLE_HEAD, header_style="dim", title=paper, title_justify="left", title_style="bold")
        for name in TABLE_HEADER:
            table.add_column(name, justify="left" if name in (TABLE_HEADER[0], TABLE_HEADER[-1]) else "right")
        for row in rows:
            table.add_row(*row)
        console.print(table)
        lines += [
            f"## {paper}",
            "",
            format_markdown_row(TABLE_HEADER),
            format_markdown_row(["---"] * len(TABLE_HEADER)),
            *map(format_markdown_row, rows),
            "",
        ]
        for note in (PAPER_NOTES[paper], *describe_missing_runs(profile, paper_results, cli_flags)):
            console.print(note, style="dim", soft_wrap=True, markup=False)
            lines += [note, ""]
    if unusable:
        note = f"{len(unusable)} cells could not be compared: {', or '.join(sorted(set(unusable.values())))}."
        console.print(note, style="dim")
        lines += [note, ""]
    path = ResultStore(profile.results_folder).folder / "report" / "claims.md"
    write_file_atomically(path, "\n".join(lines).encode())
    return path


def describe_setup(profile: Profile) -> str:
    """Describe the experimental setup and how to read the numbers."""
    num_seeds = len(profile.seeds)
    few_shots = list_few_shots(profile)
    return (
        f"Backbone {get_backbone_display_name(profile.backbone.name)}, data: {profile.source}, "
        f"suite {profile.suite.name}, {len(profile.tasks)} tasks, "
        f"sources at {format_claim_shots(profile.source_shots)}, {num_seeds} seed{'s' if num_seeds > 1 else ''}. "
        "Paired differences x 100, ± the half-width of the 95 % interval over seeds and test examples; p is "
        "Holm-corrected for the claims of a paper that were run. "
        f"Above: by more than 0; reaches: at most {100 * MARGIN:.0f} point below. Few-shot: "
        f"{'the mean over ' if len(few_shots) > 1 else ''}{', '.join(map(str, few_shots))} shots. "
        "TA-LoRA and MeTA-LoRA are our reconstructions."
    )


def format_claim_row(result: ClaimResult) -> list[str]:
    """Table cells of a claim, in the order of TABLE_HEADER."""
    trained = " vs ".join(map(formatting.format_count, result.trained_parameters)) if result.trained_parameters else ""
    return [
        format_claim(result.claim),
        format_difference(result.difference),
        "" if result.p_value is None else f"{result.p_value:.2g}",
        trained,
        result.verdict_text,
    ]


def format_claim(claim: Claim) -> str:
    """Format a claim as "ta_lora above prompt, few-shot, target tasks"."""
    shots = format_claim_shots(claim.shots)
    other_shots = format_claim_shots(claim.other_shots or claim.shots)
    tasks = f"{claim.task_group} tasks"
    if shots == other_shots:
        return f"{claim.variant} {claim.relation} {claim.other_variant}, {shots}, {tasks}"
    return f"{claim.variant} at {shots} {claim.relation} {claim.other_variant} at {other_shots}, {tasks}"


def format_claim_shots(shots: int | str) -> str:
    """Format a number of shots or FEW_SHOT."""
    return shots if shots == FEW_SHOT else format_shots(shots)


def format_markdown_row(table_cells: Sequence[str]) -> str:
    """One row of a Markdown table."""
    return f"| {' | '.join(table_cells)} |"


def describe_missing_runs(profile: Profile, results: Sequence[ClaimResult], cli_flags: str) -> list[str]:
    """A sentence with the command that runs the missing cells of a paper's claims; empty if none is missing."""
    claims = [result.claim for result in results if result.verdict == NOT_RUN]
    if not claims:
        return []
    variants = dict.fromkeys(
        find_variant_name(profile, variant) for claim in claims for variant in (claim.variant, claim.other_variant)
    )
    shots = {shots for claim in claims for shots in (claim.shots, claim.other_shots) if shots not in (FEW_SHOT, None)}
    if any(claim.shots == FEW_SHOT for claim in claims):
        shots |= set(list_few_shots(profile))
    settings = [
        f" --set {variant}.{key}={str(value).lower()}"
        for variant in variants
        if variant not in profile.methods
        for key, value in VARIANT_OPTIONS.get(variant, {}).items()
    ]
    sorted_shots = ",".join(map(str, sorted(shots, key=cells.get_shots_sort_key)))
    flags = f"--methods {','.join(variants)} --shots {sorted_shots}{''.join(settings)}"
    return [f"{len(claims)} claims not run; to run the missing cells: python -m benchmark run {cli_flags} {flags}"]
