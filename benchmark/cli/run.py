"""`run` and `retry`: run the cells that are due in packs, until all are done or a limit of the run is reached."""

import argparse
from collections.abc import Iterable, Sequence
from time import monotonic

from rich.console import Console

from benchmark.analysis.load import load_results
from benchmark.cli import plan, session
from benchmark.config import run_limits
from benchmark.config.profile import AUTO, Profile
from benchmark.execution import process_pool, ray_cluster, ray_pool
from benchmark.execution.progress import Progress
from benchmark.execution.scheduler import Scheduler
from benchmark.grid.cells import PlannedCell
from benchmark.reporting import build
from benchmark.results import run_log
from benchmark.results.files import convert_write_errors, get_scratch_path, remove_orphaned_files
from benchmark.results.schema import CellStatus
from benchmark.results.store import ResultStore
from benchmark.scheduling import calibration, preflight
from benchmark.scheduling.cost_model import CostModel
from benchmark.scheduling.run_plan import RunPlan, build_run_plan
from benchmark.system import hardware
from tasks.core.types import UsageError

EXIT_CELLS_LEFT = 3  # exit code: no cell failed, but cells remain because the time budget is used up


def run_grid(options: argparse.Namespace) -> int:
    """Run all cells that are due, then write and show the report. Returns the exit code."""
    if not options.dry:
        check_engine(options)
    console = session.create_console()
    profile = session.build_validated_profile(options, console)
    cells, result_store, statuses, cost_model = session.load_grid_state(profile, verify_files=True)
    if not options.dry:
        profile = connect_engine(options, profile, statuses, cost_model, console)
        due = [cell for cell, status in zip(cells, statuses, strict=True) if status.state != "done"]
        calibrate_packing(profile, due, console)
    run_plan = build_run_plan(profile, cells, statuses, cost_model)
    plan.print_plan(console, run_plan)
    return 0 if options.dry else execute_plan(options, run_plan, result_store, console)


def retry_cells(options: argparse.Namespace) -> int:
    """Run only the cells that failed, or only the stale ones, with what they depend on. Returns the exit code."""
    check_engine(options)
    console = session.create_console()
    profile = session.build_validated_profile(options)
    cells, result_store, statuses, cost_model = session.load_grid_state(profile, verify_files=True)
    states = {name for name in ("failed", "stale") if getattr(options, name)} or {"failed"}
    selected = {cell.identity for cell, status in zip(cells, statuses, strict=True) if status.state in states}
    if not selected:
        console.print(f"nothing to retry: no cell of {profile.results_folder} is {' or '.join(sorted(states))}")
        return 0
    repeated = add_dependencies(cells, statuses, selected)
    statuses = [
        status if cell.identity in repeated else CellStatus("done", "")
        for cell, status in zip(cells, statuses, strict=True)
    ]
    more = f", and {len(repeated) - len(selected)} dependencies" if len(repeated) > len(selected) else ""
    console.print(f"retrying {len(selected)} {' or '.join(sorted(states))} cells{more}")
    profile = connect_engine(options, profile, statuses, cost_model, console)
    return execute_plan(options, build_run_plan(profile, cells, statuses, cost_model), result_store, console)


def check_engine(options: argparse.Namespace) -> None:
    """Check that the requested execution backend is available. Raises `UsageError` if not."""
    if options.engine == "ray":
        ray_cluster.check_ray_available(options.address)
    elif options.address:
        raise UsageError("--address is the address of a Ray cluster; add --engine ray")


def connect_engine(
    options: argparse.Namespace,
    profile: Profile,
    states: Iterable[CellStatus],
    cost_model: CostModel,
    console: Console,
) -> Profile:
    """Connect to Ray if it is requested and any cell is due. Returns the profile with the number of workers of Ray."""
    if options.engine != "ray" or all(state == "done" for state, _ in states):
        return profile
    if profile.devices > 1:
        raise UsageError(f"devices {profile.devices}: a Ray actor has one device; set devices to 1, or omit --engine")
    action = f"joining {options.address}" if options.address else "starting on this machine"
    console.print(f"Ray: {action}", style="dim")
    profile, cost_model.device = ray_cluster.start_or_join_cluster(profile, options.address)
    return profile


def calibrate_packing(profile: Profile, due_cells: Sequence[PlannedCell], console: Console) -> None:
    """Measure once per GPU how the step time grows with the number of cells in a pack, if `pack` is auto."""
    if due_cells and hardware.is_cuda_device(profile.backbone.device) and profile.pack == AUTO:
        preflight.check_cells(profile, due_cells)
        with console.status("measuring step time against pack size on this device (once)"):
            calibration.get_or_measure_curve(profile)


def add_dependencies(cells: Sequence[PlannedCell], states: Iterable[CellStatus], selected: set[str]) -> set[str]:
    """Return the selected identities and those of all their dependencies that are not done."""
    due = {cell.identity: cell for cell, (state, _) in zip(cells, states, strict=True) if state != "done"}
    identities: set[str] = set()
    pending = list(selected)
    while pending:
        identity = pending.pop()
        if identity in due and identity not in identities:
            identities.add(identity)
            pending += due[identity].dependencies
    return identities


def execute_plan(options: argparse.Namespace, run_plan: RunPlan, result_store: ResultStore, console: Console) -> int:
    """Run the packs of a plan, report the outcome and show the leaderboard. Returns the exit code."""
    profile = run_plan.profile
    scheduler = None
    if run_plan.packs:
        scheduler = run_packs(options, run_plan, result_store, console)
    if scheduler and scheduler.num_unfinished:
        remaining = f"{scheduler.num_unfinished} cells remain, run again to continue"
        console.print(f"stopped: {scheduler.stop_reason}; {remaining}", style="yellow")
    loaded_results = load_results(profile)
    folder = build.build_report(profile, console, loaded_results)
    console.print(f"tables and picture: {folder}")
    is_exported = profile.wandb == "off" or session.export_to_wandb(profile, console, loaded_results)
    if (scheduler and scheduler.progress.num_failed) or not is_exported:
        return 1
    return EXIT_CELLS_LEFT if scheduler and scheduler.num_unfinished else 0


def run_packs(options: argparse.Namespace, run_plan: RunPlan, result_store: ResultStore, console: Console) -> Scheduler:
    """Run the pre-flight checks, then run the packs with the selected engine and log the time they took."""
    profile = run_plan.profile
    due = run_plan.due_cells
    preflight.check_cells(profile, due)
    prepare_results_folder(profile)
    seconds = {identity: estimate.seconds for identity, estimate in run_plan.estimates.items()}
    num_workers = run_plan.num_workers
    num_cached = len(run_plan.cells) - len(due)
    with Progress(due, num_cached, seconds, num_workers, console) as progress:
        engine = ray_pool if options.engine == "ray" else process_pool
        start = monotonic()
        limits = run_limits.build_run_limits(options)
        scheduler = engine.run_packs(profile, run_plan.packs, result_store, progress, num_workers, limits)
        if not scheduler.num_unfinished:
            with convert_write_errors(profile.results_folder):
                expected = run_plan.total_seconds / num_workers
                run_log.append_run(profile.results_folder, len(due), num_workers, expected, monotonic() - start)
    counts = f"{progress.num_done} done, {progress.num_failed} failed, {progress.num_cached} cached"
    console.print(counts, style="bold")
    return scheduler


def prepare_results_folder(profile: Profile) -> None:
    """Create the results folder and remove orphaned files. Fails early (`UsageError`) if it is not writable."""
    try:
        (profile.results_folder / "cells").mkdir(parents=True, exist_ok=True)
        probe = get_scratch_path(profile.results_folder / "probe")  # unique: other runs may probe at the same time
        probe.write_bytes(b"0")
        probe.unlink()
    except OSError as error:
        raise UsageError(
            f"results folder {profile.results_folder}: {error.strerror}; name another with --results DIR"
        ) from error
    with convert_write_errors(profile.results_folder):
        remove_orphaned_files(profile.results_folder)
