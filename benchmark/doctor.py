"""`benchmark doctor`: what this machine has, what the profile lacks here, and what to do next. Imports nothing heavy.

A cross means that the profile cannot be run as things are, an exclamation mark that something is worth knowing.
"""

import json
import netrc
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmark import hardware, machine
from benchmark.environment import private
from benchmark.machine import HUB, MIND, NO, OK, Finding, gigabytes
from benchmark.profile import Profile

if TYPE_CHECKING:
    from benchmark.needs import Need

MARKS = {OK: "[green]✓[/]", MIND: "[yellow]![/]", NO: "[red]✗[/]"}
WANDB = "https://api.wandb.ai"


def doctor(load: Callable[[], Profile], asked: str, say: Console, as_json: bool) -> int:
    name, why = hardware.choose() if asked == "auto" else (asked, "asked for")
    findings = [machine.python(), *machine.packages()]
    if any(finding.state == NO for finding in findings):
        findings.append(Finding("profile", MIND, f"{name}: {why}; not looked at while packages are missing"))
    else:
        findings += profile(load(), name, why)
    findings = [one._replace(found=private(one.found), todo=private(one.todo)) for one in findings]
    able = all(finding.state != NO for finding in findings)
    steps = next_steps(findings, name, able)
    if as_json:
        facts = {"can_run": able, "profile": name, "why": why, "findings": [one._asdict() for one in findings]}
        print(json.dumps(facts | {"next": steps}, ensure_ascii=False, indent=1))
    else:
        draw(say, findings, steps)
    return 0 if able else 1


def profile(found: Profile, name: str, why: str) -> Iterator[Finding]:
    """All that depends on what is to be run. Hosts, and torch of GPUs, are asked while the rest is looked at."""
    from huggingface_hub import constants

    from benchmark import needs
    from tasks.source import RAW, cache_folder

    yield Finding("profile", OK, f"{name}: {why}")
    offline, hub = constants.is_offline_mode(), (constants.ENDPOINT, os.environ.get("ADAPTERBENCH_RAW", RAW))
    wandb = os.environ.get("WANDB_BASE_URL", WANDB)
    silent: dict[str, str] = {}
    asking = Thread(target=lambda: silent.update(needs.silent([*(() if offline else hub), wandb])), daemon=True)
    asking.start()
    torch = machine.ask_torch() if hardware.cuda(found.backbone.device) else None
    needed = [needs.backbone(found)] if found.source == "sample" else needs.of(found)
    missing = [need for need in needed if not need.here]
    yield from machine.device(found, torch)
    sets = Path(os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME) / "datasets")
    caches = {
        "results": found.folder,
        HUB: Path(constants.HF_HUB_CACHE),
        "data sets": sets,
        "own cache": cache_folder(),
    }
    yield from machine.folders(caches, sum(need.bytes or 0 for need in missing))
    asking.join(2 * needs.SECONDS)
    wanted = {need.host for need in missing}
    if offline:
        yield Finding("hub", MIND if wanted else OK, "HF_HUB_OFFLINE is set: not asked")
    for host in () if offline else hub:
        yield Finding(urlsplit(host).netloc, MIND if host in silent else OK, silent.get(host, "answers"))
    yield from at_hand(found, needed, missing, wanted if offline else wanted & silent.keys(), name)
    yield from tracking(found, wandb, silent)


def at_hand(found: Profile, needed: "Sequence[Need]", missing: "Sequence[Need]", closed: set[str], name: str
            ) -> Iterator[Finding]:  # fmt: skip
    """Backbone and records: here, to be fetched, or out of reach."""
    todo = {False: f"python -m benchmark fetch --profile {name}, or let the run fetch it",
            True: f"python -m benchmark fetch --profile {name} where there is a network, then bring the caches here; "
                  "or --source sample --backbone tiny"}  # fmt: skip
    backbone, *records = needed
    size = "" if backbone.bytes is None else f", {gigabytes(backbone.bytes)}"
    state = OK if backbone.here else NO if backbone.host in closed else MIND
    yield Finding("backbone", state, f"{backbone.repository}{size}, {'here' if backbone.here else 'not here'}",
                  "" if backbone.here else todo[state == NO])  # fmt: skip
    if found.source == "sample":
        yield Finding("records", OK, f"samples of {len(found.tasks)} tasks, made here")
        return
    absent = [need for need in missing if need is not backbone]
    said = f"{len(records) - len(absent)} of {len(records)} tasks here (source {found.source})"
    if not absent:
        yield Finding("records", OK, said)
    elif found.source == "local":
        yield Finding("records", NO, f"{said}; not: {', '.join(need.name for need in absent)}",
                      f"put their original files below {found.data_dir}, or leave them out with --tasks")  # fmt: skip
    else:
        state = NO if any(need.host in closed for need in absent) else MIND
        yield Finding("records", state, said, todo[state == NO])


def tracking(found: Profile, host: str, silent: dict[str, str]) -> Iterator[Finding]:
    """W&B: whether one is logged in, and reached. The local files are the truth, so nothing of it stops a run."""
    key = key_from(host)
    reached = f"{urlsplit(host).netloc} {'is out of reach' if host in silent else 'answers'}"
    said = f"this profile: {found.wandb}; {f'key from {key}' if key else 'not logged in'}; {reached}"
    online = found.wandb == "online"
    todo = "wandb login" if not key else "--wandb offline, and `wandb sync` later" if host in silent else ""
    yield Finding("W&B", MIND if online and todo else OK, said, todo if online else "")


def key_from(host: str) -> str:
    """Where a key for W&B is kept; the key itself is nobody's business."""
    if os.environ.get("WANDB_API_KEY"):
        return "WANDB_API_KEY"
    places = [os.environ.get("NETRC"), "~/.netrc", "~/_netrc"]
    for path in (Path(place).expanduser() for place in places if place):
        try:
            if netrc.netrc(path).authenticators(urlsplit(host).netloc):
                return path.name
        except (OSError, netrc.NetrcParseError):
            continue
    return ""


# -------------------------------------------------------------------- telling


def next_steps(findings: Sequence[Finding], name: str, able: bool) -> list[str]:
    """What is in the way first, then what may be better, then the run."""
    whose: dict[str, list[str]] = defaultdict(list)
    for one in sorted((one for one in findings if one.todo), key=lambda one: one.state != NO):
        whose[one.todo].append(one.what)
    steps = [f"{', '.join(names)}: {todo}" for todo, names in whose.items()]
    if not able:
        return [*steps, "python -m benchmark doctor, once more"]
    run = [f"python -m benchmark plan --profile {name}: what it runs, and how long that takes",
           f"python -m benchmark run --profile {name}"]  # fmt: skip
    return [*steps, *run]


def draw(say: Console, findings: Sequence[Finding], steps: Sequence[str]) -> None:
    """A line each; plain letters where the output is no terminal."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1, 0, 0))
    for column in ("", "what", "found"):
        table.add_column(column, overflow="fold", no_wrap=column == "what")
    for one in findings:
        table.add_row(MARKS[one.state] if say.is_terminal else one.state, one.what, escape(one.found))
    say.print(table)
    say.print("what to do next", style="bold")
    for number, step in enumerate(steps, start=1):
        say.print(f"{number}. {step}", soft_wrap=True, markup=False)
