"""Shared steps of the commands: build the profile, load the state of the grid, pack cells, export to W&B."""

import argparse
import shlex
from typing import TYPE_CHECKING

from rich.console import Console

from benchmark.config import loading
from benchmark.config.profile import Profile
from benchmark.grid import planner
from benchmark.grid.cells import PlannedCell
from benchmark.results import files, store
from benchmark.results.schema import CellStatus
from benchmark.scheduling.cost_model import CostModel
from benchmark.system import hardware
from tasks.core.types import UsageError

if TYPE_CHECKING:
    from benchmark.analysis.load import LoadedResults


def format_profile_flags(arguments: argparse.Namespace, profile: Profile) -> str:
    """Format the profile and its overrides, without methods and shots, as command-line flags."""
    flags = {"profile": profile.name if arguments.profile == "auto" else arguments.profile}
    for name in ("suite", "backbone", "device", "source", "data_dir", "tasks", "seeds", "limit_test", "results"):
        if (value := getattr(arguments, name)) is not None:
            flags[name.replace("_", "-")] = ",".join(value) if isinstance(value, list) else value
    formatted = [f"--{name} {shlex.quote(str(value))}" for name, value in flags.items()]
    return " ".join(formatted + [f"--set {shlex.quote(setting)}" for setting in arguments.settings])


NON_TERMINAL_WIDTH = 120  # columns, if the output is not a terminal


def create_console() -> Console:
    """Create the console of a command, with a fixed width if the output is not a terminal."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=NON_TERMINAL_WIDTH)


def build_profile(options: argparse.Namespace, console: Console | None = None) -> Profile:
    """Load the profile and apply the overrides of the command line. `auto` is printed with its reason."""
    name = options.profile
    if name == "auto":
        name, why = hardware.choose_preset()
        if console:
            console.print(f"profile {name}: {why}")
    changes = {
        key: getattr(options, key)
        for key in ("suite", "source", "data_dir", "methods", "tasks", "shots", "seeds", "results")
    }
    changes |= {key: value for key in ("workers", "pack") if (value := getattr(options, key)) is not None}
    changes["wandb"] = getattr(options, "wandb", None)
    settings = list(options.settings)
    for flag, path in (("backbone", "backbone.name"), ("device", "backbone.device"), ("limit_test", "limit.test")):
        if (value := getattr(options, flag)) is not None:
            settings.append(f"{path}={value}")
    if options.backbone is not None:  # the profile's revision belongs to the profile's backbone
        settings.insert(0, "backbone.revision=null")
    return loading.load_profile(name, changes, settings)


def build_validated_profile(options: argparse.Namespace, console: Console | None = None) -> Profile:
    """Build the profile and validate it. Raises `UsageError` for unknown method options or a mixed results folder."""
    profile = build_profile(options, console)
    planner.check_options_exist(profile)
    check_single_suite(profile)
    return profile


def check_single_suite(profile: Profile) -> None:
    """Raise `UsageError` if the results folder holds another suite, so that no table mixes two suites."""
    results = map(files.read_result_file, (profile.results_folder / "cells").glob("*.json"))
    first = next(filter(None, results), None)
    stored_suite = first["suite"] if first else profile.suite.name
    if stored_suite != profile.suite.name:
        raise UsageError(
            f"{profile.results_folder} holds results of suite {stored_suite}, not {profile.suite.name}; "
            "name another with --results DIR"
        )


def load_grid_state(
    profile: Profile, *, verify_files: bool = False
) -> tuple[list[PlannedCell], store.ResultStore, list[CellStatus], CostModel]:
    """Plan the grid and read the results folder. `verify_files` also checks the files that results name."""
    cells = planner.plan_grid(profile)
    result_store = store.ResultStore(profile.results_folder)
    results = result_store.load_results()
    device = "cuda" if hardware.is_cuda_device(profile.backbone.device) else "cpu"
    statuses = result_store.compute_statuses(cells, results, verify_files=verify_files)
    return cells, result_store, statuses, CostModel(profile, results, device)


def export_to_wandb(profile: Profile, console: Console, loaded_results: "LoadedResults | None" = None) -> bool:
    """Export the results to W&B and return whether that succeeded. The result files are not affected.

    `loaded_results`: what the report has loaded already.
    """
    from benchmark.reporting.wandb import export

    try:
        count, num_skipped, folder, views = export.export_results(profile, profile.wandb, loaded_results)
    except export.WandbExportError as error:
        command = f"python -m benchmark report {profile.cli_flags} --wandb {profile.wandb}"
        console.print(f"W&B: {error}; the results are complete, retry with `{command}`", style="red", soft_wrap=True)
        return False
    if profile.wandb == "online":
        location = "uploaded"
    else:
        location = f"in {folder}; upload them with `wandb sync {folder}/offline-run-*`"
    console.print(f"W&B: {count} cell runs and one summary run, {location}", soft_wrap=True)
    if num_skipped:
        console.print(
            f"W&B: {num_skipped} cells exceed the recommended number of runs per project; "
            "only the summary run was written",
            soft_wrap=True,
        )
    missing_library = "none; they need `pip install wandb-workspaces`"
    console.print(f"W&B workspace and report: {' '.join(views) or missing_library}", soft_wrap=True)
    return True


def build_profile_with_results(options: argparse.Namespace) -> Profile:
    """Build and validate the profile. Raises `UsageError` if its results folder holds no cells."""
    profile = build_validated_profile(options)
    if not (profile.results_folder / "cells").is_dir():
        raise UsageError(
            f"no results in {profile.results_folder}; run `python -m benchmark run {profile.cli_flags}` first"
        )
    return profile
