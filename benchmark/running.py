"""`run` and `retry`: what is due, in packs, until it is done or the run has gone on long enough."""

import argparse
from collections.abc import Iterable, Sequence
from time import monotonic

from rich.console import Console

from benchmark import calibration, cluster, engine, hardware, limits, past, planning, ray_engine, ready, report, verbs
from benchmark.grid import Planned
from benchmark.locks import own, sweep
from benchmark.price import Prices
from benchmark.profile import AUTO, Profile
from benchmark.progress import Progress
from benchmark.store import Store, writing
from tasks.example import UsageError

ENDED = 3  # exit code: nothing failed, and cells are left because the run's time was over


def run(options: argparse.Namespace) -> int:
    """Whatever is due, then the leaderboard."""
    if not options.dry:
        who(options)
    say = verbs.console()
    found = verbs.profile_of(options, say)
    cells, place, states, prices = verbs.survey(found, thorough=True)
    if not options.dry:
        found = staffed(options, found, states, prices, say)
        calibrate(found, [cell for cell, (state, _) in zip(cells, states, strict=True) if state != "done"], say)
    todo = verbs.packed(found, cells, states, prices)
    planning.draw(say, found, cells, states, prices, todo)
    return 0 if options.dry else go(options, found, place, todo, prices, len(cells), say)


def retry(options: argparse.Namespace) -> int:
    """Only the cells that failed, or only the stale ones, with what they rest on."""
    who(options)
    say = verbs.console()
    found = verbs.profile_of(options)
    cells, place, states, prices = verbs.survey(found, thorough=True)
    wanted = {name for name in ("failed", "stale") if getattr(options, name)} or {"failed"}
    chosen = {cell.identity for cell, (state, _) in zip(cells, states, strict=True) if state in wanted}
    if not chosen:
        say.print(f"nothing to retry: no cell of {found.folder} is {' or '.join(sorted(wanted))}")
        return 0
    again = with_parents(cells, states, chosen)
    kept = [("done", "") if cell.identity not in again else state for cell, state in zip(cells, states, strict=True)]
    more = f", and {len(again) - len(chosen)} that they rest on" if len(again) > len(chosen) else ""
    say.print(f"again: {len(chosen)} {' or '.join(sorted(wanted))} cells{more}")
    found = staffed(options, found, kept, prices, say)
    return go(options, found, place, verbs.packed(found, cells, kept, prices), prices, len(cells), say)


def who(options: argparse.Namespace) -> None:
    """Whether those who shall do the work can be had, asked before anything else."""
    if options.engine == "ray":
        cluster.check(options.address)
    elif options.address:
        raise UsageError("--address is a Ray cluster's; add --engine ray")


def staffed(
    options: argparse.Namespace, found: Profile, states: Iterable[tuple[str, str]], prices: Prices, say: Console
) -> Profile:
    """The profile with as many workers as its engine has places for, where anything is due."""
    if options.engine != "ray" or all(state == "done" for state, _ in states):
        return found
    if found.devices > 1:
        raise UsageError(f"devices {found.devices}: an actor of Ray has one; set devices to 1, or leave --engine out")
    where = f"joining {options.address}" if options.address else "starting on this machine"
    say.print(f"Ray: {where}", style="dim")
    found, prices.device = cluster.join(found, options.address)
    return found


def calibrate(found: Profile, due: Sequence[Planned], say: Console) -> None:
    """Before the first packs on a GPU: how many cells pay."""
    if due and hardware.cuda(found.backbone.device) and found.pack == AUTO:
        ready.check(found, due)
        with say.status("measuring once how steps grow with the cells in them on this device"):
            calibration.measured(found)


def with_parents(cells: Sequence[Planned], states: Iterable[tuple[str, str]], chosen: set[str]) -> set[str]:
    """These cells and all they rest on that is not done."""
    due = {cell.identity: cell for cell, (state, _) in zip(cells, states, strict=True) if state != "done"}
    found, waiting = set(), list(chosen)
    while waiting:
        identity = waiting.pop()
        if identity in due and identity not in found:
            found.add(identity)
            waiting += due[identity].parents
    return found


def go(
    options: argparse.Namespace,
    found: Profile,
    place: Store,
    todo: Sequence[tuple[Planned, ...]],
    prices: Prices,
    cells: int,
    say: Console,
) -> int:
    """Run the packs, say how it went, and show the leaderboard. -> the exit code."""
    due, shop = [cell for pack in todo for cell in pack], None
    if due:
        ready.check(found, due)
        prepare(found)
        price = {cell.identity: prices.seconds(cell)[0] for cell in due}
        count = hardware.workers(found, len(todo))
        with Progress(due, cells - len(due), price, count, say) as progress:
            fill = ray_engine.fill if options.engine == "ray" else engine.fill
            begun = monotonic()
            shop = fill(found, todo, place, progress, count, limits.of(options))
            if not shop.left:
                with writing(found.folder):
                    past.note(found.folder, len(due), count, sum(price.values()) / count, monotonic() - begun)
        say.print(f"{progress.done} done, {progress.failed} failed, {progress.cached} cached", style="bold")
    if shop and shop.left:
        say.print(f"stopped: {shop.ended}; {shop.left} cells are left, run again to go on", style="yellow")
    say.print(f"tables and picture: {report.make(found, say)}")
    viewed = found.wandb == "off" or verbs.wandb(found, say)
    if (shop and shop.progress.failed) or not viewed:
        return 1
    return ENDED if shop and shop.left else 0


def prepare(found: Profile) -> None:
    """Find out about a folder that cannot be written before hours of work."""
    try:
        (found.folder / "cells").mkdir(parents=True, exist_ok=True)
        probe = own(found.folder / "probe")  # others may begin at this moment
        probe.write_bytes(b"0")
        probe.unlink()
    except OSError as error:
        raise UsageError(f"results folder {found.folder}: {error.strerror}; name another with --results DIR") from error
    with writing(found.folder):
        sweep(found.folder)
