"""`run` and `retry`: what is due, in packs, until it is done or the run has gone on long enough."""

import argparse
from collections.abc import Iterable, Sequence
from time import monotonic

from rich.console import Console

from benchmark.cli import plan, session
from benchmark.config import run_limits
from benchmark.config.profile import AUTO, Profile
from benchmark.execution import process_pool, ray_cluster, ray_pool
from benchmark.execution.progress import Progress
from benchmark.grid.cells import PlannedCell
from benchmark.reporting import build
from benchmark.results import run_log
from benchmark.results.files import convert_write_errors, get_scratch_path, remove_orphaned_files
from benchmark.results.store import ResultStore
from benchmark.scheduling import calibration, preflight
from benchmark.scheduling.cost_model import CostModel
from benchmark.system import hardware
from tasks.core.types import UsageError

EXIT_CELLS_LEFT = 3  # exit code: nothing failed, and cells are left because the run's time was over


def run_grid(options: argparse.Namespace) -> int:
    """Whatever is due, then the leaderboard."""
    if not options.dry:
        check_engine(options)
    say = session.create_console()
    found = session.build_validated_profile(options, say)
    cells, place, states, prices = session.load_grid_state(found, verify_files=True)
    if not options.dry:
        found = connect_engine(options, found, states, prices, say)
        calibrate_packing(found, [cell for cell, (state, _) in zip(cells, states, strict=True) if state != "done"], say)
    todo = session.pack_due_cells(found, cells, states, prices)
    plan.print_plan(say, found, cells, states, prices, todo)
    return 0 if options.dry else execute_packs(options, found, place, todo, prices, len(cells), say)


def retry_cells(options: argparse.Namespace) -> int:
    """Only the cells that failed, or only the stale ones, with what they rest on."""
    check_engine(options)
    say = session.create_console()
    found = session.build_validated_profile(options)
    cells, place, states, prices = session.load_grid_state(found, verify_files=True)
    wanted = {name for name in ("failed", "stale") if getattr(options, name)} or {"failed"}
    chosen = {cell.identity for cell, (state, _) in zip(cells, states, strict=True) if state in wanted}
    if not chosen:
        say.print(f"nothing to retry: no cell of {found.results_folder} is {' or '.join(sorted(wanted))}")
        return 0
    again = add_dependencies(cells, states, chosen)
    kept = [("done", "") if cell.identity not in again else state for cell, state in zip(cells, states, strict=True)]
    more = f", and {len(again) - len(chosen)} that they rest on" if len(again) > len(chosen) else ""
    say.print(f"again: {len(chosen)} {' or '.join(sorted(wanted))} cells{more}")
    found = connect_engine(options, found, kept, prices, say)
    return execute_packs(
        options, found, place, session.pack_due_cells(found, cells, kept, prices), prices, len(cells), say
    )


def check_engine(options: argparse.Namespace) -> None:
    """Whether those who shall do the work can be had, asked before anything else."""
    if options.engine == "ray":
        ray_cluster.check_ray_available(options.address)
    elif options.address:
        raise UsageError("--address is a Ray cluster's; add --engine ray")


def connect_engine(
    options: argparse.Namespace,
    profile: Profile,
    states: Iterable[tuple[str, str]],
    cost_model: CostModel,
    console: Console,
) -> Profile:
    """The profile with as many workers as its engine has places for, where anything is due."""
    if options.engine != "ray" or all(state == "done" for state, _ in states):
        return profile
    if profile.devices > 1:
        raise UsageError(f"devices {profile.devices}: an actor of Ray has one; set devices to 1, or leave --engine out")
    where = f"joining {options.address}" if options.address else "starting on this machine"
    console.print(f"Ray: {where}", style="dim")
    profile, cost_model.device = ray_cluster.start_or_join_cluster(profile, options.address)
    return profile


def calibrate_packing(profile: Profile, due_cells: Sequence[PlannedCell], console: Console) -> None:
    """Before the first packs on a GPU: how many cells pay."""
    if due_cells and hardware.is_cuda_device(profile.backbone.device) and profile.pack == AUTO:
        preflight.check_cells(profile, due_cells)
        with console.status("measuring once how steps grow with the cells in them on this device"):
            calibration.get_or_measure_curve(profile)


def add_dependencies(cells: Sequence[PlannedCell], states: Iterable[tuple[str, str]], selected: set[str]) -> set[str]:
    """These cells and all they rest on that is not done."""
    due = {cell.identity: cell for cell, (state, _) in zip(cells, states, strict=True) if state != "done"}
    found, waiting = set(), list(selected)
    while waiting:
        identity = waiting.pop()
        if identity in due and identity not in found:
            found.add(identity)
            waiting += due[identity].dependencies
    return found


def execute_packs(
    options: argparse.Namespace,
    profile: Profile,
    result_store: ResultStore,
    packs: Sequence[tuple[PlannedCell, ...]],
    cost_model: CostModel,
    num_cells: int,
    console: Console,
) -> int:
    """Run the packs, say how it went, and show the leaderboard. -> the exit code."""
    due, shop = [cell for pack in packs for cell in pack], None
    if due:
        preflight.check_cells(profile, due)
        prepare_results_folder(profile)
        price = {cell.identity: cost_model.estimate_seconds(cell)[0] for cell in due}
        count = hardware.choose_num_workers(profile, len(packs))
        with Progress(due, num_cells - len(due), price, count, console) as progress:
            fill = ray_pool.run_packs if options.engine == "ray" else process_pool.run_packs
            begun = monotonic()
            shop = fill(profile, packs, result_store, progress, count, run_limits.build_run_limits(options))
            if not shop.num_unfinished:
                with convert_write_errors(profile.results_folder):
                    run_log.append_run(
                        profile.results_folder, len(due), count, sum(price.values()) / count, monotonic() - begun
                    )
        console.print(
            f"{progress.num_done} done, {progress.num_failed} failed, {progress.num_cached} cached", style="bold"
        )
    if shop and shop.num_unfinished:
        console.print(
            f"stopped: {shop.stop_reason}; {shop.num_unfinished} cells are left, run again to go on", style="yellow"
        )
    console.print(f"tables and picture: {build.build_report(profile, console)}")
    viewed = profile.wandb == "off" or session.export_to_wandb(profile, console)
    if (shop and shop.progress.num_failed) or not viewed:
        return 1
    return EXIT_CELLS_LEFT if shop and shop.num_unfinished else 0


def prepare_results_folder(profile: Profile) -> None:
    """Find out about a folder that cannot be written before hours of work."""
    try:
        (profile.results_folder / "cells").mkdir(parents=True, exist_ok=True)
        probe = get_scratch_path(profile.results_folder / "probe")  # others may begin at this moment
        probe.write_bytes(b"0")
        probe.unlink()
    except OSError as error:
        raise UsageError(
            f"results folder {profile.results_folder}: {error.strerror}; name another with --results DIR"
        ) from error
    with convert_write_errors(profile.results_folder):
        remove_orphaned_files(profile.results_folder)
