"""Builds what the page shows: the variables of its template, and the data that its scripts read."""

import base64
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from benchmark.analysis import leaderboard, task_groups
from benchmark.analysis.leaderboard import Leaderboard, LeaderboardRow
from benchmark.analysis.load import LoadedResults
from benchmark.analysis.significance import LeaderboardSignificance
from benchmark.config.profile import SEED_STREAMS, Profile
from benchmark.reporting import format
from benchmark.reporting.html import charts, examples, page_data, rerun_command
from benchmark.reporting.html.page_data import CellFacts
from benchmark.reporting.html.page_records import (
    CellRecord,
    CostRecord,
    PageData,
    PageState,
    RankDiagram,
    ScoreRecord,
    VarianceRow,
)
from benchmark.system.formatting import format_shots
from benchmark.system.redaction import get_backbone_display_name

MAX_NAMED_METHODS = 4  # methods that a sentence lists by name
COST_TITLES = {
    "trained": "trained parameters",
    "amortised": "seconds per cell, including its share of the source stages",
    "bytes": "peak memory, bytes",
}
RowValue = TypeVar("RowValue")


@dataclass(frozen=True)
class DiagnosticsFigure:
    """A figure of a method's source stage."""

    method: str
    png_base64: str
    width: int  # pixels
    height: int  # pixels


@dataclass(frozen=True)
class PageContext:
    """What the template reads. Without JavaScript the page shows the default selection, `data.default_state`."""

    profile: Profile
    data: PageData
    facts: CellFacts
    rows: list[LeaderboardRow]  # at the default shots, best first
    group_name: str  # task group of the default selection
    roles: dict[str, str]  # role -> title
    families: list[str]
    variance_rows: list[VarianceRow]
    figures: list[DiagnosticsFigure]
    notes: list[str]  # remarks shown under Provenance
    num_due: int  # planned cells
    backbone: str  # display name

    @property
    def shots(self) -> str:
        """The default number of shots."""
        return self.data.default_state.shots

    @property
    def scores(self) -> dict[str, dict[str, ScoreRecord]]:
        """Task group or task -> method -> score, at the default shots."""
        return self.data.scores.get(self.shots, {})

    @property
    def costs(self) -> dict[str, CostRecord]:
        """Method -> cost, at the default shots."""
        return self.data.costs[self.shots]

    @property
    def rank_diagram(self) -> RankDiagram | None:
        """Diagram of the default selection."""
        return self.data.rank_diagrams.get(self.shots, {}).get(self.group_name)

    @property
    def has_rank_diagrams(self) -> bool:
        """Whether there is a rank diagram at some number of shots."""
        return any(self.data.rank_diagrams.values())

    @property
    def failed_cells(self) -> list[CellRecord]:
        """Cells that failed."""
        return [cell for cell in self.data.cells if cell.state == "failed"]

    @property
    def num_cells_by_state(self) -> Counter[str]:
        """State -> number of cells."""
        return Counter(cell.state for cell in self.data.cells)


def build_page_context(
    loaded_results: LoadedResults, notes: Sequence[str], folder: Path, include_texts: bool
) -> PageContext:
    """Build what the template reads.

    `notes`: remarks shown under Provenance. `folder`: holds the diagnostics figures. `include_texts`: see
    `examples.collect_examples`.
    """
    board = loaded_results.extended_leaderboard
    profile = board.profile
    facts = page_data.collect_cell_facts(loaded_results.results)
    data = build_page_data(loaded_results, facts, include_texts)
    return PageContext(
        profile=profile,
        data=data,
        facts=facts,
        rows=leaderboard.sort_rows(board.get_rows(choose_default_shots(board))),
        group_name=get_default_group(board),
        roles=list_roles(data.group_names),
        families=task_groups.list_families(profile),
        variance_rows=list_variance_rows(loaded_results),
        figures=embed_diagnostics(folder),
        notes=list(notes),
        num_due=len(loaded_results.planned_cells),
        backbone=get_backbone_display_name(profile.backbone.name),
    )


def build_page_data(loaded_results: LoadedResults, facts: CellFacts, include_texts: bool) -> PageData:
    """Build the numbers that the scripts read. `include_texts`: see `examples.collect_examples`."""
    board = loaded_results.extended_leaderboard
    significance = loaded_results.significance
    profile = board.profile
    newest_results = leaderboard.select_newest_results(loaded_results.results)
    phases = page_data.average_phase_seconds(newest_results.values())
    groups, group_names = task_groups.name_task_groups(profile)
    return PageData(
        scores=page_data.build_score_records(board, significance),
        costs=map_rows(board, lambda row: page_data.build_cost_record(move_to_zero_shots(row), phases)),
        cautions=map_rows(board, lambda row: page_data.list_cautions(row, facts.final_dev_gains)),
        references={str(shots): method for shots, method in significance.reference_by_shots.items()},
        headlines={
            str(shots): compose_headline(
                leaderboard.sort_rows(board.get_rows(shots)), significance, shots, get_default_group(board), board
            )
            for shots in list_shots(board)
        },
        shots_titles={str(shots): format_shots(shots) for shots in list_shots(board)},
        group_names=group_names,
        task_groups=groups,
        methods=page_data.build_method_records(profile),
        tasks=page_data.build_task_records(profile, board),
        rank_diagrams=page_data.build_rank_diagrams(significance),
        crossings=page_data.build_crossings(board, significance),
        curves=facts.curves,
        cells=facts.cells,
        examples=examples.collect_examples(profile, board, newest_results, include_texts),
        rerun_command=rerun_command.build_rerun_command(profile),
        cost_titles=COST_TITLES,
        phases=charts.PHASES,
        num_seeds=len(profile.seeds),
        default_state=choose_default_state(board, significance),
    )


def map_rows(board: Leaderboard, build_value: Callable[[LeaderboardRow], RowValue]) -> dict[str, dict[str, RowValue]]:
    """Build a value from each row of the leaderboard. Shots -> method -> value."""
    return {str(shots): {row.method: build_value(row) for row in board.get_rows(shots)} for shots in list_shots(board)}


def list_variance_rows(loaded_results: LoadedResults) -> list[VarianceRow]:
    """Return the standard deviations by random stream; empty if every seed varies all streams."""
    has_other_runs = len(loaded_results.all_results) > len(loaded_results.results)
    profile = loaded_results.extended_leaderboard.profile
    if not has_other_runs and len(profile.seed_streams) == len(SEED_STREAMS):
        return []
    return page_data.build_variance_rows(loaded_results.planned_cells, loaded_results.all_results)


def choose_default_state(board: Leaderboard, significance: LeaderboardSignificance) -> PageState:
    """Choose what the page shows before the reader selects anything."""
    shots = choose_default_shots(board)
    rows = leaderboard.sort_rows(board.get_rows(shots))
    method_a, method_b = choose_compared_methods(rows, significance.reference_by_shots[shots])
    return PageState(
        shots=str(shots),
        role=find_role(get_default_group(board)),
        family=task_groups.ANY_FAMILY,
        method_a=method_a,
        method_b=method_b,
        cost="trained",
        sort="mean",
        direction="down",
        task="",
    )


def get_default_group(board: Leaderboard) -> str:
    """Return the task group that the page shows at first."""
    return next(iter(board.task_groups))


def list_shots(leaderboard: Leaderboard) -> list[int | str]:
    """List the numbers of shots in the order of the leaderboard's rows."""
    return list(dict.fromkeys(row.shots for row in leaderboard.rows))


def choose_default_shots(leaderboard: Leaderboard) -> int | str:
    """Return the fewest shots at which a trained method has a score; if there are none, the first."""
    scored = [row.shots for row in leaderboard.rows if not row.is_control and any(row.task_scores.values())]
    return scored[0] if scored else leaderboard.rows[0].shots


def move_to_zero_shots(row: LeaderboardRow) -> LeaderboardRow:
    """Set the shots of a seed-independent row to 0, under which its cells are stored."""
    return row._replace(shots=0) if row.is_seed_independent else row


def find_role(group_name: str) -> str:
    """Return the role whose title is this group name."""
    return next(role for role, title in task_groups.ROLE_TITLES.items() if title == group_name)


def list_roles(group_names: Mapping[str, str]) -> dict[str, str]:
    """Role -> title, for the roles that have a group of tasks of any family."""
    return {
        role: title
        for role, title in task_groups.ROLE_TITLES.items()
        if f"{role}/{task_groups.ANY_FAMILY}" in group_names
    }


def choose_compared_methods(rows: Sequence[LeaderboardRow], reference: str) -> tuple[str, str]:
    """Return the two methods compared at first: the reference, and the best other method, trained if there is one."""
    trained = [row.method for row in rows if not row.is_control and row.method != reference]
    others = trained or [row.method for row in rows if row.method != reference] or [reference]
    return reference, others[0]


def compose_headline(
    rows: Sequence[LeaderboardRow],
    significance: LeaderboardSignificance,
    shots: int | str,
    group_name: str,
    leaderboard: Leaderboard,
) -> str:
    """Summarise the leaderboard in one sentence that claims no more than the tie groups allow."""
    where = f"over {len(leaderboard.task_groups[group_name])} {group_name} at {format_shots(shots)}"
    averages = {
        row.method: average
        for row in rows
        if not row.is_control
        and (average := row.averages.get(group_name))
        and not significance.entries[row.method, shots, group_name].unranked_reason
    }
    if not averages:
        return f"No method has all of its cells {where} yet, so there is no ranking."
    top_method, top_average = next(iter(averages.items()))
    score = format.format_score(top_average)
    letters = {method: set(significance.entries[method, shots, group_name].tie_letters) for method in averages}
    if top_average.half_width is None:
        return (
            f"{top_method} has the highest mean {where}: {score}, from one seed. "
            "Other seeds may give another order: run more seeds before drawing conclusions."
        )
    if not letters[top_method]:
        reason = "no other method is ranked" if len(averages) == 1 else "its difference to the others is not known"
        return f"{top_method} has the highest mean {where}: {score}; {reason}."
    tied = [method for method in averages if method != top_method and letters[method] & letters[top_method]]
    if not tied:
        return f"{top_method} is significantly better than every other method {where}: {score}."
    if len(tied) == 1:
        return f"{top_method} has the highest mean {where}, {score}; {tied[0]} is not significantly different."
    others = f"{', '.join(tied[:-1])} and {tied[-1]}" if len(tied) <= MAX_NAMED_METHODS else f"{len(tied)} others"
    return f"{top_method} has the highest mean {where}, {score}; {others} are not significantly different."


# -------------------------------------------------------------------- cells of the tables


def format_score_record(score: ScoreRecord | None, num_planned_seeds: int) -> str:
    """Format a score, e.g. `66.9 ±2.6 (3/5)`; the seeds are shown only if some are missing."""
    if score is None:
        return ""
    interval = f" ±{score.half_width:.1f}" if score.half_width is not None else ""
    seeds = f" ({score.num_seeds}/{num_planned_seeds})" if score.num_seeds < num_planned_seeds else ""
    return f"{score.mean:.1f}{interval}{seeds}"


def format_difference(score: ScoreRecord | None) -> str:
    """Format the difference to the reference, e.g. `-2.1 ±1.3`."""
    if score is None or score.difference is None:
        return ""
    interval = "" if score.difference_half_width is None else f" ±{score.difference_half_width:.1f}"
    return f"{score.difference:+.1f}{interval}"


def format_tie_letters(score: ScoreRecord | None) -> str:
    """Format the tie letters, or ‡ for a method that is not ranked."""
    if score is None:
        return ""
    return "‡" if score.unranked_reason else score.tie_letters


def format_whisker_style(scores: Mapping[str, ScoreRecord], method: str) -> str:
    """Format a score's interval as CSS variables, scaled to 0..100 over the range of all intervals in the table."""
    if method not in scores:
        return "display:none"
    low = max(0.0, min(score.mean - (score.half_width or 0.0) for score in scores.values()))
    high = min(100.0, max(score.mean + (score.half_width or 0.0) for score in scores.values()))
    mean = scores[method].mean
    half_width = scores[method].half_width or 0.0
    values = {"low": mean - half_width, "mean": mean, "high": mean + half_width}
    positions = {
        name: 100 * (min(high, max(low, value)) - low) / (high - low) if high > low else 50.0
        for name, value in values.items()
    }
    return ";".join(f"--{name}:{position:.1f}" for name, position in positions.items())


def format_heat_style(scores: Mapping[str, ScoreRecord], method: str) -> str:
    """Format a method's score relative to the others on a task as a CSS variable from 0 to 1."""
    if method not in scores:
        return ""
    means = [score.mean for score in scores.values()]
    low = min(means)
    high = max(means)
    return f"--heat:{(scores[method].mean - low) / (high - low) if high > low else 0.5:.2f}"


def embed_diagnostics(folder: Path) -> list[DiagnosticsFigure]:
    """Load the diagnostics figures (inside-*.png) of the folder as base64 PNGs with 256 colours."""
    from PIL import Image

    figures = []
    for path in sorted(folder.glob("inside-*.png")):
        buffer = io.BytesIO()
        with Image.open(path) as image:
            image.convert("RGB").quantize(256).save(buffer, "PNG", optimize=True)
            width, height = image.size
        png_base64 = base64.b64encode(buffer.getvalue()).decode()
        figures.append(DiagnosticsFigure(path.stem.removeprefix("inside-"), png_base64, width, height))
    return figures
