"""Exports the result files to Weights & Biases: one run per cell, one summary run with the tables, and panels.

The export runs after the grid, from the files, so it costs the cells no time. Run ids are derived from cell identities,
so a repeated export creates no duplicates. Offline unless uploading is requested. Only this package imports wandb.
"""

import os
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, NamedTuple

from benchmark.analysis.load import LoadedResults, load_results
from benchmark.config.profile import Profile
from benchmark.reporting.wandb import views
from benchmark.reporting.wandb.tables import build_all_tables, collect_run_metrics, iterate_curve_points
from benchmark.results.cell_result import CellResult
from benchmark.results.store import ResultStore
from benchmark.system import hardware
from benchmark.system.hashing import hash_json
from benchmark.system.redaction import get_backbone_display_name
from tasks.core.types import UsageError

PROJECT = "adapterbench"
COMPLETE_MARKER = "whole"  # name of a file that marks the folder of a completely written run
MAX_CELL_RUNS = 9_000  # with more cells, only the summary run: W&B recommends at most about 10,000 runs per project
BATCH_SIZE = 64  # runs that one process writes before it gets the next batch
MAX_RUNS_IN_ONE_PROCESS = 4 * BATCH_SIZE  # up to this number, one process writes all runs
NUM_UPLOAD_PROCESSES = 8  # processes that upload; each waits for the server most of the time


class ExportSummary(NamedTuple):
    """Result of an export."""

    num_cell_runs: int  # cell runs in the folder
    num_skipped: int  # cells without a run, because there are more than MAX_CELL_RUNS
    folder: Path
    # URLs of the workspace and the report, or the file with both; empty if wandb-workspaces is not installed
    view_locations: list[str]


def export_results(profile: Profile, mode: str, loaded_results: LoadedResults | None = None) -> ExportSummary:
    """Write the missing cell runs, the summary run and the panels. `online` uploads, `offline` only writes files.

    `loaded_results`: what a report has loaded already; stale results are not exported. Raises `UsageError` if `online`
    has no API key, `WandbExportError` if W&B or the network fails.
    """
    store = ResultStore(profile.results_folder)
    wandb_folder = store.folder.resolve() / "wandb"
    if mode == "online" and not find_api_key():
        raise UsageError("--wandb online needs an account: `wandb login` or WANDB_API_KEY; offline writes files only")
    wandb_folder.mkdir(parents=True, exist_ok=True)
    if loaded_results is None or loaded_results.has_stale_results:
        loaded_results = load_results(profile)
    done = [result for result in loaded_results.results if result.is_done]
    with convert_wandb_errors():
        if len(done) <= MAX_CELL_RUNS:
            export_cells(profile, find_missing_runs(done, wandb_folder, mode), mode, store.folder)
        view_locations = export_summary(loaded_results, done, mode, store.folder)
    num_skipped = 0 if len(done) <= MAX_CELL_RUNS else len(done)
    return ExportSummary(len(done) - num_skipped, num_skipped, profile.results_folder / "wandb", view_locations)


class WandbExportError(Exception):
    """W&B or the network failed during the export."""


@contextmanager
def convert_wandb_errors() -> Iterator[None]:
    """Convert errors of W&B and the network raised in the block into a one-line `WandbExportError`."""
    import wandb

    try:
        yield
    except (wandb.Error, OSError, BrokenExecutor) as error:
        raise WandbExportError(" ".join(f"{type(error).__name__}: {error}".split())[:200]) from error


def find_api_key() -> str | None:
    """Return the API key of the account, or None. The key is never stored or printed."""
    import wandb

    return os.environ.get("WANDB_API_KEY") or wandb.api.api_key


# -------------------------------------------------------------------- runs on disk


def get_run_id(result: CellResult) -> str:
    """Return the W&B run id of a cell: the first 16 characters of its identity."""
    return result.identity[:16]


def get_folder_prefix(mode: str) -> str:
    """Return the prefix that W&B gives to run folders in this mode."""
    return "run" if mode == "online" else "offline-run"


def find_run_folders(wandb_folder: Path, mode: str) -> dict[str, list[Path]]:
    """Run id -> its folders. Lists the W&B folder only once, because it may hold thousands of runs."""
    folders = defaultdict(list)
    for folder in wandb_folder.glob(f"{get_folder_prefix(mode)}-*"):
        folders[folder.name.rpartition("-")[2]].append(folder)
    return folders


def find_missing_runs(done_results: Sequence[CellResult], wandb_folder: Path, mode: str) -> list[CellResult]:
    """Return the results without a complete run. Removes incomplete run folders, so that no run is written twice."""
    folders = find_run_folders(wandb_folder, mode)
    missing = []
    synced = find_run_folders(wandb_folder, "offline") if mode == "online" else {}
    for result in done_results:
        run = get_run_id(result)
        # `wandb sync` has uploaded an offline run
        is_uploaded = any(next(folder.glob("*.wandb.synced"), None) for folder in synced.get(run, ()))
        if is_uploaded or any((folder / COMPLETE_MARKER).exists() for folder in folders.get(run, ())):
            continue
        for folder in folders.get(run, ()):
            shutil.rmtree(folder)
        missing.append(result)
    return missing


# -------------------------------------------------------------------- writing


def start_run(folder: Path, mode: str, **options: Any) -> Any:
    """Start a W&B run that records no information about this machine. `options` go to `wandb.init`."""
    import wandb

    wandb_mode: Literal["online", "offline"] = "online" if mode == "online" else "offline"
    settings = wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,
        disable_code=True,
        save_code=False,
        host="-",
        program="benchmark",  # default: the path of the script
        x_disable_meta=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
        x_save_requirements=False,  # in the result files; collecting takes half of a run's time
    )
    return wandb.init(
        project=PROJECT, dir=folder, mode=wandb_mode, reinit="finish_previous", settings=settings, **options
    )


def export_cells(profile: Profile, results: Sequence[CellResult], mode: str, folder: Path) -> None:
    """Write the runs of many cells, in several processes if there are more than MAX_RUNS_IN_ONE_PROCESS."""
    batches = [results[first : first + BATCH_SIZE] for first in range(0, len(results), BATCH_SIZE)]
    job = partial(export_batch, profile=profile, mode=mode, folder=folder)
    if len(results) <= MAX_RUNS_IN_ONE_PROCESS:
        for batch in batches:
            job(batch)
        return
    count = min(NUM_UPLOAD_PROCESSES if mode == "online" else hardware.count_cpu_cores(), len(batches))
    with ProcessPoolExecutor(count, get_context("spawn")) as pool:
        for _ in pool.map(job, batches):
            pass


def export_batch(results: Sequence[CellResult], *, profile: Profile, mode: str, folder: Path) -> None:
    """Write the runs of some cells, and mark the complete ones even if a later one fails."""
    ended = []
    try:
        with convert_wandb_errors():
            for result in results:
                export_cell(profile, result, mode, folder)
                ended.append(get_run_id(result))
    finally:
        if ended:
            run_folders = find_run_folders(folder.resolve() / "wandb", mode)
            for run_folder in (run_folder for run_id in ended for run_folder in run_folders[run_id]):
                (run_folder / COMPLETE_MARKER).touch()


def export_cell(profile: Profile, result: CellResult, mode: str, folder: Path) -> None:
    """Write the run of one cell: its learning curves, and RUN_METRICS as its summary."""
    cell = result.cell
    environment = result.details.environment
    config = {
        **cell._asdict(),
        **result.details.identity_inputs.options,
        "identity": result.identity,
        "suite": profile.suite.name,
        "seed": cell.seed,
        "backbone": result.backbone.name,
        "commit": environment.commit if environment else None,
    }
    run = start_run(
        folder,
        mode,
        id=get_run_id(result),
        name=result.key,
        group=profile.grid_name,
        job_type=cell.method,
        tags=[cell.task, f"{cell.shots} shots"],
        config=config,
    )
    for step, values in iterate_curve_points(result.details.training):
        run.log(values, step=step, commit=True)  # without commit, the last point would overwrite the summary
    run.summary.update(collect_run_metrics(result))
    run.finish()


def export_summary(
    loaded_results: LoadedResults, done_results: Sequence[CellResult], mode: str, folder: Path
) -> list[str]:
    """Rewrite the summary run of the grid under a fixed id, and its panels. Returns the locations of the panels."""
    import wandb

    leaderboard = loaded_results.leaderboard
    profile = leaderboard.profile
    title = get_backbone_display_name(profile.backbone.name)
    run_id = hash_json(["summary", profile.grid_name, title, profile.source])[:16]
    for written_mode in ("offline", "online"):
        for old_folder in find_run_folders(folder.resolve() / "wandb", written_mode).get(run_id, ()):
            shutil.rmtree(old_folder)
    config = {"backbone": title, "suite": profile.suite.name, "source": profile.source, "seeds": list(profile.seeds)}
    run = start_run(
        folder,
        mode,
        id=run_id,
        name=f"summary of {profile.grid_name}",
        group=profile.grid_name,
        job_type="summary",
        tags=["summary"],
        config=config,
    )
    tables = build_all_tables(leaderboard, loaded_results.significance, done_results)
    run.log({name: wandb.Table(columns=columns, data=rows) for name, (columns, rows) in tables.items()})
    pictures = {path.stem.replace("-", "/", 1): path for path in sorted((folder / "report").glob("inside-*.png"))}
    overview = folder / "report" / "leaderboard.png"
    if overview.exists():
        pictures["leaderboard/picture"] = overview
    run.log({name: wandb.Image(str(path)) for name, path in pictures.items()})
    run.finish()
    if not views.is_installed():
        return []
    contents = views.ViewContents(
        project=PROJECT,
        summary_run_id=run_id,
        title=f"{profile.grid_name} on {title}, {profile.source} data",
        description=(
            f"{len(done_results)} cells, {len(profile.seeds)} seeds; "
            "generated from the result files by `benchmark report --wandb`."
        ),
        primary_average=next(iter(leaderboard.task_groups)),
        shots=list(dict.fromkeys(row.shots for row in leaderboard.rows)),
        table_names=list(tables),
        image_keys=list(pictures),
    )
    if mode == "online":
        return views.save_views(contents, run.entity)
    return [str(views.write_views(contents, folder / "report"))]
