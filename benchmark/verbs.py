"""What each verb of the command line does. Heavy modules are imported by the verb that needs them."""

import argparse
import json
from collections import Counter
from pathlib import Path

from rich.console import Console

import tasks
from benchmark import grid, hardware, planning, profile, store
from benchmark.grid import Planned
from benchmark.packs import Pack, packs
from benchmark.price import Prices
from benchmark.profile import Profile
from tasks.example import UsageError

WIDE = 120  # columns where the output is no terminal


def console() -> Console:
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=WIDE)


def profile_of(options: argparse.Namespace, say: Console | None = None) -> Profile:
    """The profile with the command line's changes."""
    name = options.profile
    if name == "auto":
        name, why = hardware.choose()
        if say:
            say.print(f"profile {name}: {why}")
    changes = {
        key: getattr(options, key) for key in ("source", "data_dir", "methods", "tasks", "shots", "seeds", "results")
    }
    changes |= {key: value for key in ("workers", "pack") if (value := getattr(options, key)) is not None}
    changes["wandb"] = getattr(options, "wandb", None)
    settings = list(options.settings)
    for flag, path in (("backbone", "backbone.name"), ("device", "backbone.device"), ("limit_test", "limit.test")):
        if (value := getattr(options, flag)) is not None:
            settings.append(f"{path}={value}")
    if options.backbone is not None:  # a revision belongs to the backbone that was named in the profile
        settings.append("backbone.revision=null")
    found = profile.load(name, changes, settings)
    grid.unknown_options(found)
    return found


# -------------------------------------------------------------------- plan


def survey(found: Profile) -> tuple[list[Planned], store.Store, list[tuple[str, str]], Prices]:
    """The cells, their states, and what they cost."""
    cells, place = grid.plan(found), store.Store(found.folder)
    results = place.results()
    device = "cuda" if hardware.cuda(found.backbone.device) else "cpu"
    return cells, place, place.states(cells, results), Prices(found, results, device)


def packed(found: Profile, cells: list[Planned], states: list[tuple[str, str]], prices: Prices) -> list[Pack]:
    """What is due, in packs and in the order to run them."""
    due = [cell for cell, (state, _) in zip(cells, states, strict=True) if state != "done"]
    price = {cell.identity: prices.seconds(cell)[0] for cell in due}
    return packs(found, due, price, device=prices.device, workers=hardware.workers(found, len(due)))


def plan(options: argparse.Namespace) -> int:
    say = console()
    found = profile_of(options, say)
    cells, _, states, prices = survey(found)
    planning.draw(say, found, cells, states, prices, packed(found, cells, states, prices))
    stale = Counter(why for state, why in states if state == "stale")
    for why, number in stale.most_common(5):
        say.print(f"{number} stale: changed {why}; their results stay on disk", style="yellow")
    planning.draw_parents(say, cells)
    return 0


# -------------------------------------------------------------------- run


def run(options: argparse.Namespace) -> int:
    from benchmark import engine, report
    from benchmark.progress import Progress

    say = console()
    found = profile_of(options, say)
    cells, place, states, prices = survey(found)
    todo = packed(found, cells, states, prices)
    planning.draw(say, found, cells, states, prices, todo)
    if options.dry:
        return 0
    due, failed = [cell for pack in todo for cell in pack], 0
    if due:
        prepare(found)
        price = {cell.identity: prices.seconds(cell)[0] for cell in due}
        count = hardware.workers(found, len(todo))
        with Progress(due, len(cells) - len(due), price, count, say) as progress:
            failed = engine.fill(found, todo, place, progress, count)
        say.print(f"{progress.done} done, {failed} failed, {progress.cached} cached", style="bold")
    folder = report.make(found, say)
    say.print(f"tables and picture: {folder}")
    if found.wandb != "off":
        wandb(found, say)
    return 1 if failed else 0


def prepare(found: Profile) -> None:
    """Find out about a folder that cannot be written before hours of work."""
    try:
        (found.folder / "cells").mkdir(parents=True, exist_ok=True)
        probe = found.folder / ".probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UsageError(f"results folder {found.folder}: {error.strerror}; name another with --results DIR") from error


def wandb(found: Profile, say: Console) -> None:
    from benchmark import dashboards

    count, folder = dashboards.write(found, found.wandb)
    where = (
        "uploaded" if found.wandb == "online" else f"in {folder}; upload them with `wandb sync {folder}/offline-run-*`"
    )
    say.print(f"W&B: {count} cell runs and one summary run, {where}")


# -------------------------------------------------------------------- looking


def report(options: argparse.Namespace) -> int:
    from benchmark import report as module

    say = console()
    found = with_results(options)
    folder = module.make(found, say, stale=options.stale)
    say.print(f"tables and picture: {folder}")
    if options.wandb and options.wandb != "off":
        wandb(found, say)
    return 0


def with_results(options: argparse.Namespace) -> Profile:
    found = profile_of(options)
    if not (found.folder / "cells").is_dir():
        raise UsageError(f"no results in {found.folder}; run `python -m benchmark run --profile {found.name}` first")
    return found


def compare(options: argparse.Namespace) -> int:
    from benchmark import compare as module

    return module.compare(with_results(options), options.first, options.second, console())


def claims(options: argparse.Namespace) -> int:
    from benchmark import claims as module

    say = console()
    found = with_results(options)
    say.print(f"claims: {module.make(found, module.flags(options, found), say)}")
    return 0


def status(options: argparse.Namespace) -> int:
    say = console()
    found = profile_of(options)
    cells, _, states, _ = survey(found)
    counts = Counter(state for state, _ in states)
    say.print(
        f"{found.folder}: " + ", ".join(f"{counts[state]} {state}" for state in store.STATES) + f" of {len(cells)}"
    )
    for cell, (state, why) in zip(cells, states, strict=True):
        if state in ("running", "failed"):
            say.print(f"  {state:<8} {cell.cell.key:<34} {why}", soft_wrap=True)
    for why, number in Counter(why for state, why in states if state == "stale").most_common():
        say.print(f"  stale    {number} cells, changed: {why}", soft_wrap=True)
    return 0


def show(options: argparse.Namespace) -> int:
    """One cell's result: what people ask for first, the whole file on request by its path."""
    say = console()
    found = profile_of(options)
    for result in matching(found, options.cell):
        hidden = ("schema", "parts", "training", "environment", "task", "error")
        say.print_json(
            json.dumps({key: value for key, value in result.items() if key not in hidden}, ensure_ascii=False)
        )
        say.print_json(json.dumps({"parts": result["parts"], "environment": result["environment"]}, ensure_ascii=False))
        if result["state"] == "failed":
            say.print(result["error"]["traceback"] or result["error"]["reason"], markup=False)
    return 0


def matching(found: Profile, wanted: str) -> list[dict]:
    """Results by the cell's name or the start of an identity, oldest first."""
    place = store.Store(found.folder)
    results = [r for r in place.results() if r["key"] == wanted or r["identity"].startswith(wanted)]
    if not results:
        known = [cell.cell.key for cell in grid.plan(found)]
        state = "is planned and not done yet" if wanted in known else f"is unknown; {profile.near(wanted, known)}"
        raise UsageError(f"cell {wanted} {state} (folder {found.folder})" if len(known) < 40 or wanted in known else
                         f"no cell {wanted!r} in {found.folder}; write it as method/task/shots/seed")  # fmt: skip
    return results


def export(options: argparse.Namespace) -> int:
    from benchmark import export as module

    found = profile_of(options)
    return module.export(found, matching(found, options.cell), Path(options.folder), console())


def listing(options: argparse.Namespace) -> int:
    from benchmark import listing as module

    return module.show(options, console())


def check(options: argparse.Namespace) -> int:
    from benchmark import check as module

    return module.check(options.method, console())


def describe(options: argparse.Namespace) -> int:
    if options.task not in tasks.NAMES and ":" not in options.task:
        raise UsageError(f"no task {options.task!r}; {profile.near(options.task, tasks.NAMES)}")
    found = profile_of(options)
    from methods.backbone import Backbone
    from tasks import describe as module

    weights = found.backbone
    tokenizer = Backbone.load(weights.name, revision=weights.revision).tokenizer
    shots = found.shots[0] if options.shots and found.shots[0] != profile.FULL else None
    task = tasks.load(options.task)(
        tokenizer, source=found.source, data_dir=found.data_dir, shots=shots, seed=found.seeds[0], limit=found.limit,
        max_length=found.max_length,
    )  # fmt: skip
    print(module.describe(task))
    return 0


ALL = {
    "run": run,
    "plan": plan,
    "status": status,
    "show": show,
    "report": report,
    "compare": compare,
    "claims": claims,
    "list": listing,
    "describe": describe,
    "export": export,
    "check": check,
}
