"""TODO."""

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
    pack_due_cells,
)
from tasks.core.suggestions import suggest_name
from tasks.core.types import UsageError


def plan_command(options: argparse.Namespace) -> int:
    say = create_console()
    found = build_validated_profile(options, say)
    cells, _, states, prices = load_grid_state(found)
    plan.print_plan(say, found, cells, states, prices, pack_due_cells(found, cells, states, prices))
    stale = Counter(why for state, why in states if state == "stale")
    for why, number in stale.most_common(5):
        say.print(f"{number} stale: changed {why}; their results stay on disk", style="yellow")
    plan.print_dependencies(say, cells)
    return 0


def run_command(options: argparse.Namespace) -> int:
    from benchmark.cli import run

    return run.run_grid(options)


def retry_command(options: argparse.Namespace) -> int:
    from benchmark.cli import run

    return run.retry_cells(options)


def report_command(options: argparse.Namespace) -> int:
    from benchmark.analysis import load
    from benchmark.reporting import build as module

    say = create_console()
    found = build_profile_with_results(options)
    seen = load.load_results(found, include_stale=options.stale)
    folder = module.build_report(found, say, seen, include_texts=options.texts)
    say.print(f"tables and picture: {folder}")
    if options.open:
        open_in_browser(folder / "index.html")
    viewed = options.wandb in (None, "off") or export_to_wandb(found, say, seen)
    return 0 if viewed else 1


def open_in_browser(html_path: Path) -> None:
    """Open a file where there is a display; without one its path has been printed."""
    if sys.platform in ("darwin", "win32") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY"))):
        webbrowser.open(html_path.resolve().as_uri())


def compare_command(options: argparse.Namespace) -> int:
    from benchmark.reporting import compare as module

    return module.compare_methods(build_profile_with_results(options), options.first, options.second, create_console())


def doctor_command(options: argparse.Namespace) -> int:
    from benchmark.cli import doctor as module

    return module.run_doctor(lambda: build_profile(options), options.profile, create_console(), options.json)


def fetch_command(options: argparse.Namespace) -> int:
    from benchmark.cli import fetch as module

    say = create_console()
    return module.fetch_profile(build_validated_profile(options, say), say, options.dry_run)


def recommend_command(options: argparse.Namespace) -> int:
    from benchmark.reporting import recommend as module

    return module.recommend_method(build_profile_with_results(options), options, create_console())


def claims_command(options: argparse.Namespace) -> int:
    from benchmark.reporting import claims as module

    say = create_console()
    found = build_profile_with_results(options)
    say.print(f"claims: {module.write_claims(found, format_profile_flags(options, found), say)}")
    return 0


def status_command(options: argparse.Namespace) -> int:
    from benchmark.cli import inspect

    return inspect.print_status(build_validated_profile(options), options.watch, create_console())


def show_command(options: argparse.Namespace) -> int:
    from benchmark.cli import inspect

    return inspect.print_cell(build_validated_profile(options), options.cell, create_console())


def export_command(options: argparse.Namespace) -> int:
    from benchmark.cli import export as module
    from benchmark.cli import inspect

    found = build_validated_profile(options)
    return module.export_cell(found, inspect.find_results(found, options.cell), Path(options.folder), create_console())


def list_command(options: argparse.Namespace) -> int:
    from benchmark.cli import listing as module

    return module.print_list(options, create_console())


def check_command(options: argparse.Namespace) -> int:
    from benchmark.cli import check_method as module
    from benchmark.cli import check_task

    if check_task.is_task(options.what):
        return check_task.check_task(build_validated_profile(options), options.what, create_console())
    return module.check_method(options.what, create_console())


def describe_command(options: argparse.Namespace) -> int:
    if options.task not in tasks.TASK_NAMES and not tasks.is_custom_task(options.task):
        raise UsageError(f"no task {options.task!r}; {suggest_name(options.task, tasks.TASK_NAMES)}")
    from benchmark.cli import check_task
    from tasks.validation import describe as module

    found = build_validated_profile(options)
    first = found.shots[0]
    shots = first if options.shots and isinstance(first, int) else None
    print(module.describe_task(check_task.open_task(found, options.task, shots)))
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
