"""Builds the template variables of the page, and the data that its scripts read."""

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark.analysis import leaderboard, task_groups
from benchmark.analysis.leaderboard import Leaderboard, LeaderboardRow
from benchmark.analysis.load import LoadedResults
from benchmark.analysis.significance import LeaderboardSignificance
from benchmark.config.profile import SEED_STREAMS
from benchmark.reporting import format
from benchmark.reporting.html import examples, page_data, rerun_command
from benchmark.system import formatting
from benchmark.system.formatting import format_shots
from benchmark.system.redaction import get_backbone_display_name

MAX_NAMED_METHODS = 4  # methods that a sentence lists by name
COST_TITLES = {
    "trained": "trained parameters",
    "amortised": "seconds per cell, including its share of the source stages",
    "bytes": "peak memory, bytes",
}


def build_context(
    loaded_results: LoadedResults, notes: Sequence[str], folder: Path, include_texts: bool
) -> dict[str, Any]:
    """Build all template variables; `data` is embedded as JSON for the scripts.

    `notes`: remarks shown under Provenance. `folder`: holds the diagnostics figures. `include_texts`: see
    `examples.collect_examples`.
    """
    board = loaded_results.extended_leaderboard
    significance = loaded_results.significance
    results = loaded_results.results
    profile = board.profile
    newest_results = leaderboard.select_newest_results(results)
    facts = page_data.collect_cell_facts(results)
    scores = page_data.build_score_records(board, significance)
    shots = choose_default_shots(board)
    group_name = next(iter(board.task_groups))
    groups, group_names = task_groups.name_task_groups(profile)
    rows_by_shots = {str(k): leaderboard.sort_rows(board.get_rows(k)) for k in list_shots(board)}
    rows = rows_by_shots[str(shots)]
    phases = page_data.average_phase_seconds(newest_results.values())
    methods = page_data.build_method_entries(profile)
    variance_rows = []
    # otherwise every seed varies all random streams
    if len(loaded_results.all_results) > len(results) or len(profile.seed_streams) < len(SEED_STREAMS):
        variance_rows = page_data.build_variance_rows(loaded_results.planned_cells, loaded_results.all_results)
    costs = {
        str(k): {row.method: page_data.build_cost_entry(move_to_zero_shots(row), phases) for row in board.get_rows(k)}
        for k in list_shots(board)
    }
    cautions = {
        str(k): {row.method: page_data.list_cautions(row, facts.final_dev_gains) for row in board.get_rows(k)}
        for k in list_shots(board)
    }
    headlines = {
        str(k): compose_headline(rows_by_shots[str(k)], significance, k, group_name, board) for k in list_shots(board)
    }
    reference = {str(k): method for k, method in significance.reference_by_shots.items()}
    a, b = choose_compared_methods(rows, reference[str(shots)])
    data: dict[str, Any] = {
        "scores": scores, "costs": costs, "cautions": cautions, "reference": reference, "asked": group_names,
        "groups": groups, "methods": methods, "tasks": page_data.build_task_entries(profile, board),
        "ranks": page_data.build_rank_diagrams(significance),
        "crossings": page_data.build_crossings(board, significance), "curves": facts.curves, "cells": facts.cells,
        "examples": examples.collect_examples(profile, board, newest_results, include_texts),
        "command": rerun_command.build_rerun_command(profile), "headlines": headlines, "costTitles": COST_TITLES,
        "seeds": len(profile.seeds), "titles": {str(k): format_shots(k) for k in list_shots(board)},
        "default": {"shots": str(shots), "role": find_role(group_name), "family": task_groups.ANY_FAMILY, "a": a,
                    "b": b, "cost": "trained", "sort": "mean", "dir": "down", "task": ""},
    }  # fmt: skip
    return {
        "data": data, "drawn": bool(facts.cells), "profile": profile, "shots": str(shots), "group": group_name,
        "lines": rows, "scores": scores.get(str(shots), {}), "cost": costs[str(shots)],
        "cautions": cautions[str(shots)], "titles": data["titles"], "reference": reference[str(shots)],
        "methods": methods, "tasks": data["tasks"], "roles": list_roles(group_names),
        "families": task_groups.list_families(profile), "headline": headlines[str(shots)], "notes": list(notes),
        "ranks": data["ranks"].get(str(shots), {}).get(group_name), "ranked": any(data["ranks"].values()),
        "parts": variance_rows, "pictures": embed_diagnostics(folder),
        "failed": [cell for cell in facts.cells if cell[5] == "failed"], "facts": facts,
        "states": Counter(cell[5] for cell in facts.cells), "due": len(loaded_results.planned_cells),
        "command": data["command"], "backbone": get_backbone_display_name(profile.backbone.name),
        "points": format_score_record, "count": formatting.format_count, "memory": formatting.format_bytes,
        "mark": format.CONTROL_MARK, "heat": format_heat_style, "sized": format_whisker_style,
        "apart": format_difference_record,
    }  # fmt: skip


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
    ranked = [
        row
        for row in rows
        if not row.is_control
        and row.averages.get(group_name)
        and not significance.entries[row.method, shots, group_name].unranked_reason
    ]
    if not ranked:
        return f"No method has all of its cells {where} yet, so there is no ranking."
    top = ranked[0]
    score = format.format_score(top.averages[group_name])
    letters = {row.method: significance.entries[row.method, shots, group_name].tie_letters for row in ranked}
    if top.averages[group_name].half_width is None:
        return (
            f"{top.method} has the highest mean {where}: {score}, from one seed. "
            "Other seeds may give another order: run more seeds before drawing conclusions."
        )
    top_letters = set(letters[top.method])
    if not top_letters:
        reason = "no other method is ranked" if len(ranked) == 1 else "its difference to the others is not known"
        return f"{top.method} has the highest mean {where}: {score}; {reason}."
    tied = [method for method in letters if method != top.method and set(letters[method]) & top_letters]
    if not tied:
        return f"{top.method} is significantly better than every other method {where}: {score}."
    if len(tied) == 1:
        return f"{top.method} has the highest mean {where}, {score}; {tied[0]} is not significantly different."
    others = f"{', '.join(tied[:-1])} and {tied[-1]}" if len(tied) <= MAX_NAMED_METHODS else f"{len(tied)} others"
    return f"{top.method} has the highest mean {where}, {score}; {others} are not significantly different."


# -------------------------------------------------------------------- cells of the tables


def format_score_record(score_record: Sequence[Any] | None, num_planned_seeds: int) -> str:
    """Format a score record, e.g. `66.9 ±2.6 (3/5)`; the seeds are shown only if some are missing."""
    if not score_record:
        return ""
    mean, half_width, num_seeds = score_record[:3]
    interval = f" ±{half_width:.1f}" if half_width is not None else ""
    seeds = f" ({num_seeds}/{num_planned_seeds})" if num_seeds < num_planned_seeds else ""
    return f"{mean:.1f}{interval}{seeds}"


def format_difference_record(score_record: Sequence[Any] | None) -> str:
    """Format the difference to the reference, e.g. `-2.1 ±1.3`."""
    if not score_record or score_record[3] is None:
        return ""
    return f"{score_record[3]:+.1f}" + ("" if score_record[4] is None else f" ±{score_record[4]:.1f}")


def format_whisker_style(score_records: Mapping[str, Sequence[Any]], method: str) -> str:
    """Format a score's interval as CSS variables, scaled to 0..100 over the range of all intervals in the table."""
    if method not in score_records:
        return "display:none"
    spans = {
        name: (score[0] - (score[1] or 0.0), score[0] + (score[1] or 0.0)) for name, score in score_records.items()
    }
    low = max(0.0, min(start for start, _ in spans.values()))
    high = min(100.0, max(end for _, end in spans.values()))
    values = {"low": spans[method][0], "mean": score_records[method][0], "high": spans[method][1]}
    positions = {
        name: 100 * (min(high, max(low, value)) - low) / (high - low) if high > low else 50.0
        for name, value in values.items()
    }
    return ";".join(f"--{name}:{position:.1f}" for name, position in positions.items())


def format_heat_style(score_records: Mapping[str, Sequence[Any]], method: str) -> str:
    """Format a method's score relative to the others on a task as a CSS variable from 0 to 1."""
    if method not in score_records:
        return ""
    means = [score[0] for score in score_records.values()]
    low = min(means)
    high = max(means)
    return f"--heat:{(score_records[method][0] - low) / (high - low) if high > low else 0.5:.2f}"


def embed_diagnostics(folder: Path) -> list[dict[str, str]]:
    """Load the diagnostics figures (inside-*.png) of the folder as base64 PNGs with 256 colours."""
    import io

    from PIL import Image

    figures = []
    for path in sorted(folder.glob("inside-*.png")):
        buffer = io.BytesIO()
        with Image.open(path) as image:
            image.convert("RGB").quantize(256).save(buffer, "PNG", optimize=True)
            width, height = image.size
        name = path.stem.removeprefix("inside-")
        data = base64.b64encode(buffer.getvalue()).decode()
        figures.append({"method": name, "data": data, "width": width, "height": height})
    return figures
