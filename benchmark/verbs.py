"""What each verb of the command line does. Heavy modules are imported by the verb that needs them."""

import argparse
import os
import sys
import webbrowser
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

import tasks
from benchmark import grid, hardware, planning, profile, store
from benchmark.grid import Planned
from benchmark.packs import Pack, packs
from benchmark.price import Prices
from benchmark.profile import Profile
from tasks.example import UsageError
from tasks.suites import CHINESE

if TYPE_CHECKING:
    from benchmark.reading import Read

WIDE = 120  # columns where the output is no terminal


def console() -> Console:
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=WIDE)


def asked(options: argparse.Namespace, say: Console | None = None) -> Profile:
    """The profile with the command line's changes."""
    name = options.profile
    if name == "auto":
        name, why = hardware.choose()
        if say:
            say.print(f"profile {name}: {why}")
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
    return profile.load(name, changes, settings)


def profile_of(options: argparse.Namespace, say: Console | None = None) -> Profile:
    """The same, and its options are those that its methods have."""
    found = asked(options, say)
    grid.unknown_options(found)
    one_suite(found)
    return found


def one_suite(found: Profile) -> None:
    """A folder holds the results of one suite, so that no table mixes two."""
    results = map(store.load, (found.folder / "cells").glob("*.json"))
    first = next(filter(None, results), {"suite": found.suite.name})
    if (there := first.get("suite", CHINESE.name)) != found.suite.name:
        other = "name another with --results DIR"
        raise UsageError(f"{found.folder} holds results of suite {there}, not {found.suite.name}; {other}")


# -------------------------------------------------------------------- plan


def survey(
    found: Profile, *, thorough: bool = False
) -> tuple[list[Planned], store.Store, list[tuple[str, str]], Prices]:
    """The cells, their states, and what they cost; `thorough` looks into the files that results name."""
    cells, place = grid.plan(found), store.Store(found.folder)
    results = place.results()
    device = "cuda" if hardware.cuda(found.backbone.device) else "cpu"
    return cells, place, place.states(cells, results, thorough=thorough), Prices(found, results, device)


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
    from benchmark import running

    return running.run(options)


def retry(options: argparse.Namespace) -> int:
    from benchmark import running

    return running.retry(options)


def wandb(found: Profile, say: Console, seen: "Read | None" = None) -> bool:
    """Show the results in W&B, `seen` by the report already. -> whether it took them; the files have them anyway."""
    from benchmark import dashboards

    try:
        count, left, folder, views = dashboards.write(found, found.wandb, seen)
    except dashboards.Lost as error:
        again = f"python -m benchmark report {found.flags} --wandb {found.wandb}"
        say.print(f"W&B: {error}; the results are whole, `{again}` tries again", style="red", soft_wrap=True)
        return False
    where = (
        "uploaded" if found.wandb == "online" else f"in {folder}; upload them with `wandb sync {folder}/offline-run-*`"
    )
    say.print(f"W&B: {count} cell runs and one summary run, {where}", soft_wrap=True)
    if left:
        say.print(f"W&B: {left} cells are more than a project takes well; the summary run has their numbers")
    need = "none; they need `pip install wandb-workspaces`"
    say.print(f"W&B workspace and report: {' '.join(views) or need}", soft_wrap=True)
    return True


# -------------------------------------------------------------------- looking


def report(options: argparse.Namespace) -> int:
    from benchmark import reading
    from benchmark import report as module

    say = console()
    found = with_results(options)
    seen = reading.read(found, stale=options.stale)
    folder = module.make(found, say, seen, texts=options.texts)
    say.print(f"tables and picture: {folder}")
    if options.open:
        browse(folder / "index.html")
    viewed = options.wandb in (None, "off") or wandb(found, say, seen)
    return 0 if viewed else 1


def browse(page: Path) -> None:
    """Open a file where there is a display; without one its path has been printed."""
    if sys.platform in ("darwin", "win32") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY"))):
        webbrowser.open(page.resolve().as_uri())


def with_results(options: argparse.Namespace) -> Profile:
    found = profile_of(options)
    if not (found.folder / "cells").is_dir():
        raise UsageError(f"no results in {found.folder}; run `python -m benchmark run {found.flags}` first")
    return found


def compare(options: argparse.Namespace) -> int:
    from benchmark import compare as module

    return module.compare(with_results(options), options.first, options.second, console())


def doctor(options: argparse.Namespace) -> int:
    from benchmark import doctor as module

    return module.doctor(lambda: asked(options), options.profile, console(), options.json)


def fetch(options: argparse.Namespace) -> int:
    from benchmark import fetch as module

    say = console()
    return module.fetch(profile_of(options, say), say, options.dry_run)


def recommend(options: argparse.Namespace) -> int:
    from benchmark import recommend as module

    return module.recommend(with_results(options), options, console())


def claims(options: argparse.Namespace) -> int:
    from benchmark import claims as module

    say = console()
    found = with_results(options)
    say.print(f"claims: {module.make(found, module.flags(options, found), say)}")
    return 0


def status(options: argparse.Namespace) -> int:
    from benchmark import looking

    return looking.status(profile_of(options), options.watch, console())


def show(options: argparse.Namespace) -> int:
    from benchmark import looking

    return looking.show(profile_of(options), options.cell, console())


def export(options: argparse.Namespace) -> int:
    from benchmark import export as module
    from benchmark import looking

    found = profile_of(options)
    return module.export(found, looking.matching(found, options.cell), Path(options.folder), console())


def listing(options: argparse.Namespace) -> int:
    from benchmark import listing as module

    return module.show(options, console())


def check(options: argparse.Namespace) -> int:
    from benchmark import check as module
    from benchmark import check_task

    if check_task.is_task(options.what):
        return check_task.check(profile_of(options), options.what, console())
    return module.check(options.what, console())


def describe(options: argparse.Namespace) -> int:
    if options.task not in tasks.NAMES and not tasks.foreign(options.task):
        raise UsageError(f"no task {options.task!r}; {profile.near(options.task, tasks.NAMES)}")
    from benchmark import check_task
    from tasks import describe as module

    found = profile_of(options)
    first = found.shots[0]
    shots = first if options.shots and isinstance(first, int) else None
    print(module.describe(check_task.opened(found, options.task, shots)))
    return 0


ALL = {
    "run": run,
    "retry": retry,
    "plan": plan,
    "status": status,
    "show": show,
    "report": report,
    "compare": compare,
    "doctor": doctor,
    "fetch": fetch,
    "recommend": recommend,
    "claims": claims,
    "list": listing,
    "describe": describe,
    "export": export,
    "check": check,
}
