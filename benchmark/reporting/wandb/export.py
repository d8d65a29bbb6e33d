"""Weights & Biases, as a view of the result files: a light run per cell, one summary run with the tables, and panels.

Written at the end, from the files, so cells cost nothing. Run ids come from identities: writing again duplicates
nothing. Offline unless uploading is asked for. The only folder that imports wandb.
"""

import os
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
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
from benchmark.results.store import ResultStore
from benchmark.system import hardware
from benchmark.system.hashing import hash_json
from benchmark.system.redaction import get_backbone_display_name
from tasks.core.types import UsageError

PROJECT = "adapterbench"
COMPLETE_MARKER = "whole"  # file in the folder of a run that was written to its end
MAX_CELL_RUNS = (
    9_000  # most cells that get a run of their own: W&B asks for no more than about 10,000 runs in a project
)
BATCH_SIZE = 64  # runs that one process writes before the next batch is dealt out
MAX_RUNS_IN_ONE_PROCESS = 4 * BATCH_SIZE  # up to so many, one process writes them all
NUM_UPLOAD_PROCESSES = 8  # processes that upload: each waits for the server most of the time


class ExportSummary(NamedTuple):
    """What there is now."""

    num_cell_runs: int  # runs of cells in the folder
    num_skipped: int  # cells that have none, because there are too many of them
    folder: Path
    view_locations: list[
        str
    ]  # addresses of the workspace and the report, or the file that has both; none without the library


def export_results(profile: Profile, mode: str, loaded_results: LoadedResults | None = None) -> ExportSummary:
    """The runs that are not there yet, the summary, the panels. `online` uploads, `offline` only writes.

    `seen`: what a report has read already. Results of other code, options or data have no run.
    """
    store = ResultStore(profile.results_folder)
    place = store.folder.resolve() / "wandb"
    if mode == "online" and not find_api_key():
        raise UsageError("--wandb online needs an account: `wandb login` or WANDB_API_KEY; offline writes files only")
    place.mkdir(parents=True, exist_ok=True)
    loaded_results = (
        load_results(profile) if loaded_results is None or loaded_results.has_stale_results else loaded_results
    )
    done = [result for result in loaded_results.results if result["state"] == "done"]
    with convert_wandb_errors():
        if len(done) <= MAX_CELL_RUNS:
            export_cells(profile, find_missing_runs(done, place, mode), mode, store.folder)
        found = export_summary(loaded_results, done, mode, store.folder)
    left = 0 if len(done) <= MAX_CELL_RUNS else len(done)
    return ExportSummary(len(done) - left, left, profile.results_folder / "wandb", found)


class WandbExportError(Exception):
    """W&B, or the way there, failed."""


@contextmanager
def convert_wandb_errors() -> Iterator[None]:
    """What W&B raises where it cannot be reached, or breaks off, in one line."""
    import wandb

    try:
        yield
    except (wandb.Error, OSError, BrokenExecutor) as error:
        raise WandbExportError(" ".join(f"{type(error).__name__}: {error}".split())[:200]) from error


def find_api_key() -> str | None:
    """The account's key, where there is one. It is only asked for, never kept or shown."""
    import wandb

    return os.environ.get("WANDB_API_KEY") or wandb.api.api_key


# -------------------------------------------------------------------- runs on disk


def get_run_id(result: Mapping[str, Any]) -> str:
    return result["identity"][:16]


def get_folder_prefix(mode: str) -> str:
    """How folders of runs are called that were written this way."""
    return "run" if mode == "online" else "offline-run"


def find_run_folders(wandb_folder: Path, mode: str) -> dict[str, list[Path]]:
    """Run id -> its folders; one look at a folder of thousands."""
    found = defaultdict(list)
    for folder in wandb_folder.glob(f"{get_folder_prefix(mode)}-*"):
        found[folder.name.rpartition("-")[2]].append(folder)
    return found


def find_missing_runs(
    done_results: Sequence[Mapping[str, Any]], wandb_folder: Path, mode: str
) -> list[Mapping[str, Any]]:
    """Results whose run was not written to its end; what broke off is removed, so that it is written once."""
    own, rest = find_run_folders(wandb_folder, mode), []
    synced = find_run_folders(wandb_folder, "offline") if mode == "online" else {}
    for result in done_results:
        run = get_run_id(result)
        uploaded = any(next(folder.glob("*.wandb.synced"), None) for folder in synced.get(run, ()))  # by `wandb sync`
        if uploaded or any((folder / COMPLETE_MARKER).exists() for folder in own.get(run, ())):
            continue
        for folder in own.get(run, ()):
            shutil.rmtree(folder)
        rest.append(result)
    return rest


# -------------------------------------------------------------------- writing


def start_run(folder: Path, mode: str, **options: Any) -> Any:
    """A run that records what it is given and nothing about this machine."""
    import wandb

    known: Literal["online", "offline"] = "online" if mode == "online" else "offline"
    settings = wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,
        disable_code=True,
        save_code=False,
        host="-",
        program="benchmark",  # else the path of the script
        x_disable_meta=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
        x_save_requirements=False,  # the result files name what counts, and looking is half of a light run's time
    )
    return wandb.init(project=PROJECT, dir=folder, mode=known, reinit="finish_previous", settings=settings, **options)


def export_cells(profile: Profile, results: Sequence[Mapping[str, Any]], mode: str, folder: Path) -> None:
    """Runs of many cells, by several processes where it pays."""
    batches = [results[first : first + BATCH_SIZE] for first in range(0, len(results), BATCH_SIZE)]
    job = partial(export_batch, profile=profile, mode=mode, folder=folder)
    if len(results) <= MAX_RUNS_IN_ONE_PROCESS:
        for each in batches:
            job(each)
        return
    count = min(NUM_UPLOAD_PROCESSES if mode == "online" else hardware.count_cpu_cores(), len(batches))
    with ProcessPoolExecutor(count, get_context("spawn")) as pool:
        for _ in pool.map(job, batches):
            pass


def export_batch(results: Sequence[Mapping[str, Any]], *, profile: Profile, mode: str, folder: Path) -> None:
    """Runs of some cells; those that ended are marked, also where one breaks off."""
    ended = []
    try:
        with convert_wandb_errors():
            for result in results:
                export_cell(profile, result, mode, folder)
                ended.append(get_run_id(result))
    finally:
        found = find_run_folders(folder.resolve() / "wandb", mode) if ended else {}
        for run in (run for name in ended for run in found[name]):
            (run / COMPLETE_MARKER).touch()


def export_cell(profile: Profile, result: Mapping[str, Any], mode: str, folder: Path) -> None:
    """One cell's run: its learning curves, and the ten numbers."""
    at = result["cell"]
    tags = [str(at["task"]), f"{at['shots']} shots"]
    facts = {"identity": result["identity"], "suite": profile.suite.name, "seed": at["seed"]}
    facts["backbone"] = result["backbone"]["name"]
    config = {**at, **result["parts"]["options"], **facts, "commit": result["environment"].get("commit")}
    named = {"id": get_run_id(result), "name": result["key"], "group": profile.grid_name, "job_type": at["method"]}
    run = start_run(folder, mode, **named, tags=tags, config=config)
    for step, values in iterate_curve_points(result["training"]):
        run.log(values, step=step, commit=True)  # uncommitted, the last point would overwrite the summary
    run.summary.update(collect_run_metrics(result))
    run.finish()


def export_summary(
    loaded_results: LoadedResults, done_results: Sequence[Mapping[str, Any]], mode: str, folder: Path
) -> list[str]:
    """The grid's run, always anew under the same id, and the panels over it. -> where those are."""
    import wandb

    table, profile = loaded_results.leaderboard, loaded_results.leaderboard.profile
    title = get_backbone_display_name(profile.backbone.name)
    run = hash_json(["summary", profile.grid_name, title, profile.source])[:16]
    for each in ("offline", "online"):
        for old in find_run_folders(folder.resolve() / "wandb", each).get(run, ()):
            shutil.rmtree(old)
    config = {"backbone": title, "suite": profile.suite.name, "source": profile.source, "seeds": list(profile.seeds)}
    named = {"id": run, "name": f"summary of {profile.grid_name}", "group": profile.grid_name, "job_type": "summary"}
    opened = start_run(folder, mode, **named, tags=["summary"], config=config)
    tables = build_all_tables(table, loaded_results.significance, done_results)
    opened.log({name: wandb.Table(columns=columns, data=rows) for name, (columns, rows) in tables.items()})
    pictures = {path.stem.replace("-", "/", 1): path for path in sorted((folder / "report").glob("inside-*.png"))}
    if (overview := folder / "report" / "leaderboard.png").exists():
        pictures["leaderboard/picture"] = overview
    opened.log({name: wandb.Image(str(path)) for name, path in pictures.items()})
    opened.finish()
    if not views.is_installed():
        return []
    shown = views.ViewContents(
        project=PROJECT,
        summary_run_id=run,
        title=f"{profile.grid_name} on {title}, {profile.source} records",
        description=f"{len(done_results)} cells, {len(profile.seeds)} seeds; made from result files by `benchmark report --wandb`.",
        primary_average=next(iter(table.task_groups)),
        shots=list(dict.fromkeys(line.shots for line in table.rows)),
        table_names=list(tables),
        image_keys=list(pictures),
    )
    return (
        views.save_views(shown, opened.entity)
        if mode == "online"
        else [str(views.write_views(shown, folder / "report"))]
    )
