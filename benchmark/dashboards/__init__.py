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

from benchmark import engine
from benchmark.catalogue import digest
from benchmark.dashboards import views
from benchmark.dashboards.tables import every, numbers, points
from benchmark.profile import Profile
from benchmark.reading import Read, read
from benchmark.result import backbone_title
from benchmark.store import Store
from tasks.example import UsageError

PROJECT = "adapterbench"
WHOLE = "whole"  # file in the folder of a run that was written to its end
RUNS = 9_000  # most cells that get a run of their own: W&B asks for no more than about 10,000 runs in a project
BATCH = 64  # runs that one process writes before the next batch is dealt out
ALONE = 4 * BATCH  # up to so many, one process writes them all
UPLOADS = 8  # processes that upload: each waits for the server most of the time


class Written(NamedTuple):
    """What there is now."""

    cells: int  # runs of cells in the folder
    left: int  # cells that have none, because there are too many of them
    folder: Path
    views: list[str]  # addresses of the workspace and the report, or the file that has both; none without the library


def write(profile: Profile, mode: str, seen: Read | None = None) -> Written:
    """The runs that are not there yet, the summary, the panels. `online` uploads, `offline` only writes.

    `seen`: what a report has read already. Results of other code, options or data have no run.
    """
    store = Store(profile.folder)
    place = store.folder.resolve() / "wandb"
    if mode == "online" and not key():
        raise UsageError("--wandb online needs an account: `wandb login` or WANDB_API_KEY; offline writes files only")
    place.mkdir(parents=True, exist_ok=True)
    seen = read(profile) if seen is None or seen.stale else seen
    done = [result for result in seen.results if result["state"] == "done"]
    with losses():
        if len(done) <= RUNS:
            cells(profile, due(done, place, mode), mode, store.folder)
        found = summary(seen, done, mode, store.folder)
    left = 0 if len(done) <= RUNS else len(done)
    return Written(len(done) - left, left, profile.folder / "wandb", found)


class Lost(Exception):
    """W&B, or the way there, failed."""


@contextmanager
def losses() -> Iterator[None]:
    """What W&B raises where it cannot be reached, or breaks off, in one line."""
    import wandb

    try:
        yield
    except (wandb.Error, OSError, BrokenExecutor) as error:
        raise Lost(" ".join(f"{type(error).__name__}: {error}".split())[:200]) from error


def key() -> str | None:
    """The account's key, where there is one. It is only asked for, never kept or shown."""
    import wandb

    return os.environ.get("WANDB_API_KEY") or wandb.api.api_key


# -------------------------------------------------------------------- runs on disk


def run_id(result: Mapping[str, Any]) -> str:
    return result["identity"][:16]


def kind(mode: str) -> str:
    """How folders of runs are called that were written this way."""
    return "run" if mode == "online" else "offline-run"


def runs(place: Path, mode: str) -> dict[str, list[Path]]:
    """Run id -> its folders; one look at a folder of thousands."""
    found = defaultdict(list)
    for folder in place.glob(f"{kind(mode)}-*"):
        found[folder.name.rpartition("-")[2]].append(folder)
    return found


def due(done: Sequence[Mapping[str, Any]], place: Path, mode: str) -> list[Mapping[str, Any]]:
    """Results whose run was not written to its end; what broke off is removed, so that it is written once."""
    own, rest = runs(place, mode), []
    synced = runs(place, "offline") if mode == "online" else {}
    for result in done:
        run = run_id(result)
        uploaded = any(next(folder.glob("*.wandb.synced"), None) for folder in synced.get(run, ()))  # by `wandb sync`
        if uploaded or any((folder / WHOLE).exists() for folder in own.get(run, ())):
            continue
        for folder in own.get(run, ()):
            shutil.rmtree(folder)
        rest.append(result)
    return rest


# -------------------------------------------------------------------- writing


def start(folder: Path, mode: str, **options: Any) -> Any:
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


def cells(profile: Profile, rest: Sequence[Mapping[str, Any]], mode: str, folder: Path) -> None:
    """Runs of many cells, by several processes where it pays."""
    batches = [rest[first : first + BATCH] for first in range(0, len(rest), BATCH)]
    job = partial(batch, profile=profile, mode=mode, folder=folder)
    if len(rest) <= ALONE:
        for each in batches:
            job(each)
        return
    count = min(UPLOADS if mode == "online" else engine.cores(), len(batches))
    with ProcessPoolExecutor(count, get_context("spawn")) as pool:
        for _ in pool.map(job, batches):
            pass


def batch(results: Sequence[Mapping[str, Any]], *, profile: Profile, mode: str, folder: Path) -> None:
    """Runs of some cells; those that ended are marked, also where one breaks off."""
    ended = []
    try:
        with losses():
            for result in results:
                cell(profile, result, mode, folder)
                ended.append(run_id(result))
    finally:
        found = runs(folder.resolve() / "wandb", mode) if ended else {}
        for run in (run for name in ended for run in found[name]):
            (run / WHOLE).touch()


def cell(profile: Profile, result: Mapping[str, Any], mode: str, folder: Path) -> None:
    """One cell's run: its learning curves, and the ten numbers."""
    at = result["cell"]
    tags = [str(at["task"]), f"{at['shots']} shots"]
    facts = {"identity": result["identity"], "suite": profile.suite.name, "seed": at["seed"]}
    facts["backbone"] = result["backbone"]["name"]
    config = {**at, **result["parts"]["options"], **facts, "commit": result["environment"].get("commit")}
    named = {"id": run_id(result), "name": result["key"], "group": profile.title, "job_type": at["method"]}
    run = start(folder, mode, **named, tags=tags, config=config)
    for step, values in points(result["training"]):
        run.log(values, step=step, commit=True)  # uncommitted, the last point would overwrite the summary
    run.summary.update(numbers(result))
    run.finish()


def summary(seen: Read, done: Sequence[Mapping[str, Any]], mode: str, folder: Path) -> list[str]:
    """The grid's run, always anew under the same id, and the panels over it. -> where those are."""
    import wandb

    table, profile = seen.table, seen.table.profile
    title = backbone_title(profile.backbone.name)
    run = digest(["summary", profile.title, title, profile.source])[:16]
    for each in ("offline", "online"):
        for old in runs(folder.resolve() / "wandb", each).get(run, ()):
            shutil.rmtree(old)
    config = {"backbone": title, "suite": profile.suite.name, "source": profile.source, "seeds": list(profile.seeds)}
    named = {"id": run, "name": f"summary of {profile.title}", "group": profile.title, "job_type": "summary"}
    opened = start(folder, mode, **named, tags=["summary"], config=config)
    tables = every(table, seen.worth, done)
    opened.log({name: wandb.Table(columns=columns, data=rows) for name, (columns, rows) in tables.items()})
    pictures = {path.stem.replace("-", "/", 1): path for path in sorted((folder / "report").glob("inside-*.png"))}
    if (overview := folder / "report" / "leaderboard.png").exists():
        pictures["leaderboard/picture"] = overview
    opened.log({name: wandb.Image(str(path)) for name, path in pictures.items()})
    opened.finish()
    if not views.installed():
        return []
    shown = views.Shown(
        project=PROJECT,
        run=run,
        title=f"{profile.title} on {title}, {profile.source} records",
        about=f"{len(done)} cells, {len(profile.seeds)} seeds; made from result files by `benchmark report --wandb`.",
        average=next(iter(table.groups)),
        shots=list(dict.fromkeys(line.shots for line in table.lines)),
        tables=list(tables),
        pictures=list(pictures),
    )
    return views.save(shown, opened.entity) if mode == "online" else [str(views.keep(shown, folder / "report"))]
