"""Command handlers: each takes the parsed options, imports what its command needs and returns an exit code."""

import argparse
import os
import sys
import webbrowser
from collections import Counter
from pathlib import Path

import tasks
from benchmark.cli import plan
from benchmark.cli.session import (
    build_profile,
    build_profile_with_results,
    build_validated_profile,
    create_console,
    export_to_wandb,
    format_profile_flags,
    load_grid_state,
)
from tasks.core.suggestions import suggest_name
from tasks.core.types import UsageError


def plan_command(options: argparse.Namespace) -> int:
    """Show what a run would do, which results are stale and why, and which cells depend on which."""
    from benchmark.scheduling.run_plan import build_run_plan

    console = create_console()
    profile = build_validated_profile(options, console)
    cells, _, statuses, cost_model = load_grid_state(profile)
    plan.print_plan(console, build_run_plan(profile, cells, statuses, cost_model))
    stale = Counter(status.reason for status in statuses if status.state == "stale")
    for reason, number in stale.most_common(5):
        console.print(f"{number} stale: changed {reason}; their results stay on disk", style="yellow")
    plan.print_dependencies(console, cells)
    return 0


def run_command(options: argparse.Namespace) -> int:
    """Run all cells that are due, then print the leaderboard."""
    from benchmark.cli import run

    return run.run_grid(options)


def retry_command(options: argparse.Namespace) -> int:
    """Run the failed or the stale cells again."""
    from benchmark.cli import run

    return run.retry_cells(options)


def report_command(options: argparse.Namespace) -> int:
    """Write the report, and export it to W&B if requested. Returns 1 if the export fails."""
    from benchmark.analysis import load
    from benchmark.reporting import build

    console = create_console()
    profile = build_profile_with_results(options)
    loaded_results = load.load_results(profile, include_stale=options.stale)
    folder = build.build_report(profile, console, loaded_results, include_texts=options.texts)
    console.print(f"tables and picture: {folder}")
    if options.open:
        open_in_browser(folder / "index.html")
    if options.wandb in (None, "off"):
        return 0
    return 0 if export_to_wandb(profile, console, loaded_results) else 1


def open_in_browser(html_path: Path) -> None:
    """Open a file in the browser if there is a display."""
    if sys.platform in ("darwin", "win32") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY"))):
        webbrowser.open(html_path.resolve().as_uri())


def compare_command(options: argparse.Namespace) -> int:
    """Compare two methods."""
    from benchmark.reporting import compare

    return compare.compare_methods(build_profile_with_results(options), options.first, options.second, create_console())


def doctor_command(options: argparse.Namespace) -> int:
    """Check this machine for the profile."""
    from benchmark.cli import doctor

    return doctor.run_doctor(lambda: build_profile(options), options.profile, create_console(), options.json)


def fetch_command(options: argparse.Namespace) -> int:
    """Download and check the backbone and the data of the profile."""
    from benchmark.cli import fetch

    console = create_console()
    return fetch.fetch_profile(build_validated_profile(options, console), console, options.dry_run)


def recommend_command(options: argparse.Namespace) -> int:
    """Recommend a method from the stored results."""
    from benchmark.reporting import recommend

    return recommend.recommend_method(build_profile_with_results(options), options, create_console())


def claims_command(options: argparse.Namespace) -> int:
    """Test the claims of the papers and write them to a file."""
    from benchmark.reporting import claims

    console = create_console()
    profile = build_profile_with_results(options)
    console.print(f"claims: {claims.write_claims(profile, format_profile_flags(options, profile), console)}")
    return 0


def status_command(options: argparse.Namespace) -> int:
    """Print how many cells are in each state."""
    from benchmark.cli import inspect

    return inspect.print_status(build_validated_profile(options), options.watch, create_console())


def show_command(options: argparse.Namespace) -> int:
    """Print one cell."""
    from benchmark.cli import inspect

    return inspect.print_cell(build_validated_profile(options), options.cell, create_console())


def export_command(options: argparse.Namespace) -> int:
    """Write the trained adapter of a cell to a folder."""
    from benchmark.cli import export, inspect

    profile = build_validated_profile(options)
    results = inspect.find_results(profile, options.cell)
    return export.export_cell(profile, results, Path(options.folder), create_console())


def list_command(options: argparse.Namespace) -> int:
    """Print tasks, suites, methods, profiles or proofs."""
    from benchmark.cli import listing

    return listing.print_list(options, create_console())


def check_command(options: argparse.Namespace) -> int:
    """Run the conformance checks on a method, or the loader checks on a task."""
    from benchmark.cli import check_method, check_task

    if check_task.is_task(options.what):
        return check_task.check_task(build_validated_profile(options), options.what, create_console())
    return check_method.check_method(options.what, create_console())


def describe_command(options: argparse.Namespace) -> int:
    """Print what a task's loader reads, and example prompts."""
    if options.task not in tasks.TASK_NAMES and not tasks.is_custom_task(options.task):
        raise UsageError(f"no task {options.task!r}; {suggest_name(options.task, tasks.TASK_NAMES)}")
    from benchmark.cli import check_task
    from tasks.validation import describe

    profile = build_validated_profile(options)
    shots = profile.shots[0]
    if not options.shots or not isinstance(shots, int):
        shots = None
    print(describe.describe_task(check_task.open_task(profile, options.task, shots)))
    return 0


COMMAND_HANDLERS = {
    "run": run_command,
    "retry": retry_command,
    "plan": plan_command,
    "status": status_command,
    "show": show_command,
    "report": report_command,
    "compare": compare_command,
    "doctor": doctor_command,
    "fetch": fetch_command,
    "recommend": recommend_command,
    "claims": claims_command,
    "list": list_command,
    "describe": describe_command,
    "export": export_command,
    "check": check_command,
}
