"""TODO."""

import argparse
import shlex
from typing import TYPE_CHECKING

from rich.console import Console

from benchmark.config import loading
from benchmark.config.profile import Profile
from benchmark.grid import planner
from benchmark.grid.cells import PlannedCell
from benchmark.results import files, store
from benchmark.scheduling.cost_model import CostModel
from benchmark.scheduling.packing import Pack, build_packs
from benchmark.system import hardware
from tasks.core.types import UsageError
from tasks.suites import CHINESE

if TYPE_CHECKING:
    from benchmark.analysis.load import LoadedResults


def format_profile_flags(arguments: argparse.Namespace, profile: Profile) -> str:
    """The profile and its changes, less methods and shots, as one would type them again."""
    said = {"profile": profile.name if arguments.profile == "auto" else arguments.profile}
    for name in ("suite", "backbone", "device", "source", "data_dir", "tasks", "seeds", "limit_test", "results"):
        if (value := getattr(arguments, name)) is not None:
            said[name.replace("_", "-")] = ",".join(value) if isinstance(value, list) else value
    words = [f"--{name} {shlex.quote(str(value))}" for name, value in said.items()]
    return " ".join(words + [f"--set {shlex.quote(setting)}" for setting in arguments.settings])


NON_TERMINAL_WIDTH = 120  # columns where the output is no terminal


def create_console() -> Console:
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=NON_TERMINAL_WIDTH)


def build_profile(options: argparse.Namespace, console: Console | None = None) -> Profile:
    """The profile with the command line's changes."""
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
    if options.backbone is not None:  # a revision belongs to the backbone that was named in the profile
        settings.insert(0, "backbone.revision=null")
    return loading.load_profile(name, changes, settings)


def build_validated_profile(options: argparse.Namespace, console: Console | None = None) -> Profile:
    """The same, and its options are those that its methods have."""
    found = build_profile(options, console)
    planner.check_options_exist(found)
    check_single_suite(found)
    return found


def check_single_suite(profile: Profile) -> None:
    """A folder holds the results of one suite, so that no table mixes two."""
    results = map(files.read_result_file, (profile.results_folder / "cells").glob("*.json"))
    first = next(filter(None, results), {"suite": profile.suite.name})
    if (there := first.get("suite", CHINESE.name)) != profile.suite.name:
        other = "name another with --results DIR"
        raise UsageError(f"{profile.results_folder} holds results of suite {there}, not {profile.suite.name}; {other}")


def load_grid_state(
    profile: Profile, *, verify_files: bool = False
) -> tuple[list[PlannedCell], store.ResultStore, list[tuple[str, str]], CostModel]:
    """The cells, their states, and what they cost; `thorough` looks into the files that results name."""
    cells, place = planner.plan_grid(profile), store.ResultStore(profile.results_folder)
    results = place.load_results()
    device = "cuda" if hardware.is_cuda_device(profile.backbone.device) else "cpu"
    return (
        cells,
        place,
        place.compute_statuses(cells, results, verify_files=verify_files),
        CostModel(profile, results, device),
    )


def pack_due_cells(
    profile: Profile, cells: list[PlannedCell], states: list[tuple[str, str]], cost_model: CostModel
) -> list[Pack]:
    """What is due, in packs and in the order to run them."""
    due = [cell for cell, (state, _) in zip(cells, states, strict=True) if state != "done"]
    price = {cell.identity: cost_model.estimate_seconds(cell)[0] for cell in due}
    return build_packs(
        profile, due, price, device=cost_model.device, num_workers=hardware.choose_num_workers(profile, len(due))
    )


def export_to_wandb(profile: Profile, console: Console, loaded_results: "LoadedResults | None" = None) -> bool:
    """Show the results in W&B, `seen` by the report already. -> whether it took them; the files have them anyway."""
    from benchmark.reporting.wandb import export

    try:
        count, left, folder, views = export.export_results(profile, profile.wandb, loaded_results)
    except export.WandbExportError as error:
        again = f"python -m benchmark report {profile.cli_flags} --wandb {profile.wandb}"
        console.print(f"W&B: {error}; the results are whole, `{again}` tries again", style="red", soft_wrap=True)
        return False
    where = (
        "uploaded"
        if profile.wandb == "online"
        else f"in {folder}; upload them with `wandb sync {folder}/offline-run-*`"
    )
    console.print(f"W&B: {count} cell runs and one summary run, {where}", soft_wrap=True)
    if left:
        console.print(f"W&B: {left} cells are more than a project takes well; the summary run has their numbers")
    need = "none; they need `pip install wandb-workspaces`"
    console.print(f"W&B workspace and report: {' '.join(views) or need}", soft_wrap=True)
    return True


def build_profile_with_results(options: argparse.Namespace) -> Profile:
    found = build_validated_profile(options)
    if not (found.results_folder / "cells").is_dir():
        raise UsageError(f"no results in {found.results_folder}; run `python -m benchmark run {found.cli_flags}` first")
    return found
