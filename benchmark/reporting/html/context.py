"""The page in words and rows: what the template prints, and the data that the scripts read."""

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

MAX_NAMED_METHODS = 4  # methods that a sentence lists
COST_TITLES = {"trained": "trained parameters", "amortised": "seconds per cell, with its share of the sources",
               "bytes": "peak memory, bytes"}  # fmt: skip


def build_context(
    loaded_results: LoadedResults, notes: Sequence[str], folder: Path, include_texts: bool
) -> dict[str, Any]:
    """Everything the template asks for."""
    wide, worth, results = loaded_results.extended_leaderboard, loaded_results.significance, loaded_results.results
    profile, done = wide.profile, leaderboard.select_newest_results(results)
    facts, scores = page_data.collect_cell_facts(results), page_data.build_score_records(wide, worth)
    shots = choose_default_shots(wide)
    name = next(iter(wide.task_groups))
    groups, asked = task_groups.name_task_groups(profile)
    lines = leaderboard.sort_rows(wide.get_rows(shots))
    phases = page_data.average_phase_seconds(done.values())
    methods = page_data.build_method_entries(profile)
    moved = len(loaded_results.all_results) > len(results) or len(profile.seed_streams) < len(SEED_STREAMS)
    parts = (
        page_data.build_variance_rows(loaded_results.planned_cells, loaded_results.all_results) if moved else []
    )  # else every seed moves all its streams
    cost = {
        str(k): {line.method: page_data.build_cost_entry(move_to_zero_shots(line), phases) for line in wide.get_rows(k)}
        for k in list_shots(wide)
    }
    cautious = {
        str(k): {line.method: page_data.list_cautions(line, facts.final_dev_gains) for line in wide.get_rows(k)}
        for k in list_shots(wide)
    }
    reference = {str(k): method for k, method in worth.reference_by_shots.items()}
    a, b = choose_compared_methods(lines, reference[str(shots)])
    data: dict[str, Any] = {
        "scores": scores, "costs": cost, "cautions": cautious, "reference": reference, "asked": asked, "groups": groups,
        "methods": methods, "tasks": page_data.build_task_entries(profile, wide), "ranks": page_data.build_rank_diagrams(worth),
        "crossings": page_data.build_crossings(wide, worth), "curves": facts.curves, "cells": facts.cells,
        "examples": examples.collect_examples(profile, wide, done, include_texts), "command": rerun_command.build_rerun_command(profile),
        "headlines": {str(k): compose_headline(leaderboard.sort_rows(wide.get_rows(k)), worth, k, name, wide) for k in list_shots(wide)},
        "costTitles": COST_TITLES, "seeds": len(profile.seeds), "titles": {str(k): format_shots(k) for k in list_shots(wide)},
        "default": {"shots": str(shots), "role": find_role(name), "family": task_groups.ANY_FAMILY, "a": a, "b": b,
                    "cost": "trained", "sort": "mean", "dir": "down", "task": ""},
    }  # fmt: skip
    return {
        "data": data, "drawn": bool(facts.cells), "profile": profile, "shots": str(shots), "group": name,
        "lines": lines, "scores": scores.get(str(shots), {}), "cost": cost[str(shots)],
        "cautions": cautious[str(shots)], "titles": data["titles"], "reference": reference[str(shots)],
        "methods": methods, "tasks": data["tasks"], "roles": list_roles(asked), "families": task_groups.list_families(profile),
        "headline": data["headlines"][str(shots)], "notes": list(notes),
        "ranks": data["ranks"].get(str(shots), {}).get(name), "ranked": any(data["ranks"].values()),
        "parts": parts, "pictures": embed_diagnostics(folder),
        "failed": [cell for cell in facts.cells if cell[5] == "failed"], "facts": facts,
        "states": Counter(cell[5] for cell in facts.cells), "due": len(loaded_results.planned_cells), "command": data["command"],
        "backbone": get_backbone_display_name(profile.backbone.name), "points": format_score_record, "count": formatting.format_count,
        "memory": formatting.format_bytes, "mark": format.CONTROL_MARK, "heat": format_heat_style, "sized": format_whisker_style, "apart": format_difference_record,
    }  # fmt: skip


def list_shots(leaderboard: Leaderboard) -> list[int | str]:
    return list(dict.fromkeys(line.shots for line in leaderboard.rows))


def choose_default_shots(leaderboard: Leaderboard) -> int | str:
    """The fewest shots at which something trained has a number; the first where nothing has."""
    own = [line.shots for line in leaderboard.rows if not line.is_control and any(line.task_scores.values())]
    return own[0] if own else leaderboard.rows[0].shots


def move_to_zero_shots(row: LeaderboardRow) -> LeaderboardRow:
    """Cells that no shots change are kept under 0 shots."""
    return row._replace(shots=0) if row.is_seed_independent else row


def find_role(group_name: str) -> str:
    return next(role for role, title in task_groups.ROLE_TITLES.items() if title == group_name)


def list_roles(group_names: Mapping[str, str]) -> dict[str, str]:
    return {
        role: title
        for role, title in task_groups.ROLE_TITLES.items()
        if f"{role}/{task_groups.ANY_FAMILY}" in group_names
    }


def choose_compared_methods(rows: Sequence[LeaderboardRow], reference: str) -> tuple[str, str]:
    """The two methods that charts begin with: the reference, and the best of the others."""
    trained = [line.method for line in rows if not line.is_control and line.method != reference]
    others = trained or [line.method for line in rows if line.method != reference] or [reference]
    return reference, others[0]


def compose_headline(
    rows: Sequence[LeaderboardRow],
    significance: LeaderboardSignificance,
    shots: int | str,
    group_name: str,
    leaderboard: Leaderboard,
) -> str:
    """The answer in a sentence, as strong as the numbers allow."""
    where = f"over {len(leaderboard.task_groups[group_name])} {group_name} at {format_shots(shots)}"
    ranked = [line for line in rows if not line.is_control and line.averages.get(group_name)
              and not significance.entries[line.method, shots, group_name].unranked_reason]  # fmt: skip
    if not ranked:
        return f"No method has all of its cells {where} yet, so there is no order of them."
    top = ranked[0]
    said = format.format_score(top.averages[group_name])
    letters = {line.method: significance.entries[line.method, shots, group_name].tie_letters for line in ranked}
    if top.averages[group_name].half_width is None:
        return (
            f"{top.method} has the highest mean {where}: {said}, from one seed. Another seed may say otherwise: run "
            "more before believing an order."
        )
    tied = [method for method, own in letters.items() if method != top.method and set(own) & set(letters[top.method])]
    if not letters[top.method]:
        alone = "no other is ranked" if len(ranked) == 1 else "how it differs from others is not known"
        return f"{top.method} has the highest mean {where}: {said}; {alone}."
    if not tied:
        return f"{top.method} is ahead of every other method {where}: {said}."
    others = tied[0] if len(tied) == 1 else f"{', '.join(tied[:-1])} and {tied[-1]}"
    others = others if len(tied) <= MAX_NAMED_METHODS else f"{len(tied)} others"
    return f"{top.method} has the highest mean {where}, {said}; {others} cannot be told apart from it."


# -------------------------------------------------------------------- cells of the tables


def format_score_record(score_record: Sequence[Any] | None, num_planned_seeds: int) -> str:
    """66.9 ±2.6, with what is missing of an interval or of seeds."""
    if not score_record:
        return ""
    mean, half, seeds = score_record[:3]
    spread = f" ±{half:.1f}" if half is not None else ""
    return f"{mean:.1f}{spread}" + (f" ({seeds}/{num_planned_seeds})" if seeds < num_planned_seeds else "")


def format_difference_record(score_record: Sequence[Any] | None) -> str:
    """-2.1 ±1.3"""
    if not score_record or score_record[3] is None:
        return ""
    return f"{score_record[3]:+.1f}" + ("" if score_record[4] is None else f" ±{score_record[4]:.1f}")


def format_whisker_style(score_records: Mapping[str, Sequence[Any]], method: str) -> str:
    """Where a score's interval lies between the lowest and the highest end of one in the table, 0 to 100, as CSS."""
    if method not in score_records:
        return "display:none"
    spans = {
        name: (score[0] - (score[1] or 0.0), score[0] + (score[1] or 0.0)) for name, score in score_records.items()
    }
    low, high = max(0.0, min(one for one, _ in spans.values())), min(100.0, max(one for _, one in spans.values()))
    places = (spans[method][0], score_records[method][0], spans[method][1])
    ends = [100 * (min(high, max(low, value)) - low) / (high - low) if high > low else 50.0 for value in places]
    return ";".join(f"--{name}:{end:.1f}" for name, end in zip(("low", "mean", "high"), ends, strict=True))


def format_heat_style(score_records: Mapping[str, Sequence[Any]], method: str) -> str:
    """How a method stands among the others on a task, 0 to 1, as CSS."""
    if method not in score_records:
        return ""
    means = [score[0] for score in score_records.values()]
    low, high = min(means), max(means)
    return f"--heat:{(score_records[method][0] - low) / (high - low) if high > low else 0.5:.2f}"


def embed_diagnostics(folder: Path) -> list[dict[str, str]]:
    """What methods learned from their sources, drawn beside the page; small enough to be carried in it."""
    import io

    from PIL import Image

    found = []
    for path in sorted(folder.glob("inside-*.png")):
        sink = io.BytesIO()
        with Image.open(path) as image:
            image.convert("RGB").quantize(256).save(sink, "PNG", optimize=True)
            size = image.size
        name = path.stem.removeprefix("inside-")
        data = base64.b64encode(sink.getvalue()).decode()
        found.append({"method": name, "data": data, "width": size[0], "height": size[1]})
    return found
