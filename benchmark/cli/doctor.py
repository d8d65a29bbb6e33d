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

from benchmark.cli import system_checks
from benchmark.cli.system_checks import FAILED, HUB_CACHE, OK, WARNING, Finding
from benchmark.config.profile import Profile
from benchmark.system import hardware
from benchmark.system.formatting import format_bytes
from benchmark.system.redaction import redact_private_text

if TYPE_CHECKING:
    from benchmark.scheduling.requirements import Requirement

STATE_MARKS = {OK: "[green]✓[/]", WARNING: "[yellow]![/]", FAILED: "[red]✗[/]"}
WANDB_API_URL = "https://api.wandb.ai"


def run_doctor(load_profile: Callable[[], Profile], requested_profile: str, console: Console, as_json: bool) -> int:
    name, why = hardware.choose_preset() if requested_profile == "auto" else (requested_profile, "asked for")
    findings = [system_checks.check_python(), *system_checks.check_packages()]
    if any(finding.state == FAILED for finding in findings):
        findings.append(Finding("profile", WARNING, f"{name}: {why}; not looked at while packages are missing"))
    else:
        findings += check_profile(load_profile(), name, why)
    findings = [
        one._replace(message=redact_private_text(one.message), fix=redact_private_text(one.fix)) for one in findings
    ]
    able = all(finding.state != FAILED for finding in findings)
    steps = list_next_steps(findings, name, able)
    if as_json:
        facts = {"can_run": able, "profile": name, "why": why, "findings": [one._asdict() for one in findings]}
        print(json.dumps(facts | {"next": steps}, ensure_ascii=False, indent=1))
    else:
        print_findings(console, findings, steps)
    return 0 if able else 1


def check_profile(profile: Profile, profile_name: str, reason: str) -> Iterator[Finding]:
    """All that depends on what is to be run. Hosts, and torch of GPUs, are asked while the rest is looked at."""
    from huggingface_hub import constants

    from benchmark.scheduling import requirements
    from tasks.core.sources import GITHUB_RAW_URL, get_cache_folder

    yield Finding("profile", OK, f"{profile_name}: {reason}")
    offline, hub = constants.is_offline_mode(), (constants.ENDPOINT, os.environ.get("ADAPTERBENCH_RAW", GITHUB_RAW_URL))
    wandb = os.environ.get("WANDB_BASE_URL", WANDB_API_URL)
    silent: dict[str, str] = {}
    asking = Thread(
        target=lambda: silent.update(requirements.find_unreachable_hosts([*(() if offline else hub), wandb])),
        daemon=True,
    )
    asking.start()
    torch = system_checks.start_torch_probe() if hardware.is_cuda_device(profile.backbone.device) else None
    needed = (
        [requirements.get_backbone_requirement(profile)]
        if profile.source == "sample"
        else requirements.list_requirements(profile)
    )
    missing = [need for need in needed if not need.is_available]
    yield from system_checks.check_device(profile, torch)
    sets = Path(os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME) / "datasets")
    caches = {
        "results": profile.results_folder,
        HUB_CACHE: Path(constants.HF_HUB_CACHE),
        "data sets": sets,
        "own cache": get_cache_folder(),
    }
    yield from system_checks.check_folders(caches, sum(need.num_bytes or 0 for need in missing))
    asking.join(2 * requirements.HOST_TIMEOUT_SECONDS)
    wanted = {need.host for need in missing}
    if offline:
        yield Finding("hub", WARNING if wanted else OK, "HF_HUB_OFFLINE is set: not asked")
    for host in () if offline else hub:
        yield Finding(urlsplit(host).netloc, WARNING if host in silent else OK, silent.get(host, "answers"))
    yield from check_backbone_and_records(
        profile, needed, missing, wanted if offline else wanted & silent.keys(), profile_name
    )
    yield from check_wandb(profile, wandb, silent)


def check_backbone_and_records(profile: Profile, requirements: "Sequence[Requirement]", missing: "Sequence[Requirement]", unreachable_hosts: set[str], profile_name: str
            ) -> Iterator[Finding]:  # fmt: skip
    """Backbone and records: here, to be fetched, or out of reach."""
    todo = {False: f"python -m benchmark fetch --profile {profile_name}, or let the run fetch it",
            True: f"python -m benchmark fetch --profile {profile_name} where there is a network, then bring the caches here; "
                  "or --source sample --backbone tiny"}  # fmt: skip
    backbone, *records = requirements
    size = "" if backbone.num_bytes is None else f", {format_bytes(backbone.num_bytes)}"
    state = OK if backbone.is_available else FAILED if backbone.host in unreachable_hosts else WARNING
    yield Finding("backbone", state, f"{backbone.repository}{size}, {'here' if backbone.is_available else 'not here'}",
                  "" if backbone.is_available else todo[state == FAILED])  # fmt: skip
    if profile.source == "sample":
        yield Finding("records", OK, f"samples of {len(profile.tasks)} tasks, made here")
        return
    absent = [need for need in missing if need is not backbone]
    said = f"{len(records) - len(absent)} of {len(records)} tasks here (source {profile.source})"
    if not absent:
        yield Finding("records", OK, said)
    elif profile.source == "local":
        yield Finding("records", FAILED, f"{said}; not: {', '.join(need.name for need in absent)}",
                      f"put their original files below {profile.data_dir}, or leave them out with --tasks")  # fmt: skip
    else:
        state = FAILED if any(need.host in unreachable_hosts for need in absent) else WARNING
        yield Finding("records", state, said, todo[state == FAILED])


def check_wandb(profile: Profile, host: str, unreachable_hosts: dict[str, str]) -> Iterator[Finding]:
    """W&B: whether one is logged in, and reached. The local files are the truth, so nothing of it stops a run."""
    key = find_wandb_key_source(host)
    reached = f"{urlsplit(host).netloc} {'is out of reach' if host in unreachable_hosts else 'answers'}"
    said = f"this profile: {profile.wandb}; {f'key from {key}' if key else 'not logged in'}; {reached}"
    online = profile.wandb == "online"
    todo = "wandb login" if not key else "--wandb offline, and `wandb sync` later" if host in unreachable_hosts else ""
    yield Finding("W&B", WARNING if online and todo else OK, said, todo if online else "")


def find_wandb_key_source(host: str) -> str:
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


def list_next_steps(findings: Sequence[Finding], profile_name: str, can_run: bool) -> list[str]:
    """What is in the way first, then what may be better, then the run."""
    whose: dict[str, list[str]] = defaultdict(list)
    for one in sorted((one for one in findings if one.fix), key=lambda one: one.state != FAILED):
        whose[one.fix].append(one.check)
    steps = [f"{', '.join(names)}: {todo}" for todo, names in whose.items()]
    if not can_run:
        return [*steps, "python -m benchmark doctor, once more"]
    run = [f"python -m benchmark plan --profile {profile_name}: what it runs, and how long that takes",
           f"python -m benchmark run --profile {profile_name}"]  # fmt: skip
    return [*steps, *run]


def print_findings(console: Console, findings: Sequence[Finding], steps: Sequence[str]) -> None:
    """A line each; plain letters where the output is no terminal."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1, 0, 0))
    for column in ("", "what", "found"):
        table.add_column(column, overflow="fold", no_wrap=column == "what")
    for one in findings:
        table.add_row(STATE_MARKS[one.state] if console.is_terminal else one.state, one.check, escape(one.message))
    console.print(table)
    console.print("what to do next", style="bold")
    for number, step in enumerate(steps, start=1):
        console.print(f"{number}. {step}", soft_wrap=True, markup=False)
