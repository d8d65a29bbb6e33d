"""`benchmark doctor`: checks this machine, shows what the profile still needs, and suggests the next steps.

A cross means that the profile cannot run, an exclamation mark is a warning. Imports no heavy library.
"""

import json
import netrc
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from shutil import which
from threading import Thread
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmark.cli import system_checks
from benchmark.cli.system_checks import FAILED, HUB_CACHE, OK, WARNING, Finding
from benchmark.config.profile import AUTO, Profile
from benchmark.system import hardware
from benchmark.system.formatting import format_bytes
from benchmark.system.redaction import redact_private_text

if TYPE_CHECKING:
    from benchmark.scheduling.requirements import Requirement

STATE_MARKS = {OK: "[green]✓[/]", WARNING: "[yellow]![/]", FAILED: "[red]✗[/]"}
WANDB_API_URL = "https://api.wandb.ai"


def run_doctor(load_profile: Callable[[], Profile], requested_profile: str, console: Console, as_json: bool) -> int:
    """Print the findings and the next steps. Returns 0 if the profile can run, otherwise 1."""
    name = requested_profile
    reason = "requested"
    if requested_profile == "auto":
        name, reason = hardware.choose_preset()
    findings = [system_checks.check_python(), *system_checks.check_packages()]
    if any(finding.state == FAILED for finding in findings):
        findings.append(Finding("profile", WARNING, f"{name}: {reason}; not checked while packages are missing"))
    else:
        findings += check_profile(load_profile(), name, reason)
    findings = [
        finding._replace(message=redact_private_text(finding.message), fix=redact_private_text(finding.fix))
        for finding in findings
    ]
    can_run = all(finding.state != FAILED for finding in findings)
    steps = list_next_steps(findings, name, can_run)
    if as_json:
        report = {
            "can_run": can_run,
            "profile": name,
            "why": reason,
            "findings": [finding._asdict() for finding in findings],
            "next": steps,
        }
        print(json.dumps(report, ensure_ascii=False, indent=1))
    else:
        print_findings(console, findings, steps)
    return 0 if can_run else 1


def check_profile(profile: Profile, profile_name: str, reason: str) -> Iterator[Finding]:
    """Yield the findings that depend on the profile. Hosts and torch are probed in the background meanwhile."""
    from huggingface_hub import constants

    from benchmark.scheduling import requirements
    from tasks.core.sources import GITHUB_RAW_URL, get_cache_folder

    yield Finding("profile", OK, f"{profile_name}: {reason}")
    is_offline = constants.is_offline_mode()
    hub_hosts = []
    if not is_offline:
        hub_hosts = [constants.ENDPOINT, os.environ.get("ADAPTERBENCH_RAW", GITHUB_RAW_URL)]
    wandb_host = os.environ.get("WANDB_BASE_URL", WANDB_API_URL)
    unreachable: dict[str, str] = {}  # host -> reason
    host_probe = Thread(
        target=lambda: unreachable.update(requirements.find_unreachable_hosts([*hub_hosts, wandb_host])), daemon=True
    )
    host_probe.start()
    device = profile.backbone.device
    expects_gpu = hardware.is_cuda_device(device) or (device == AUTO and which("nvidia-smi") is not None)
    torch_probe = system_checks.start_torch_probe() if expects_gpu else None
    if profile.source == "sample":
        needed = [requirements.get_backbone_requirement(profile)]
    else:
        needed = requirements.list_requirements(profile)
    missing = [need for need in needed if not need.is_available]
    yield from system_checks.check_device(profile, torch_probe)
    datasets_cache = Path(os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME) / "datasets")
    caches = {
        "results": profile.results_folder,
        HUB_CACHE: Path(constants.HF_HUB_CACHE),
        "data sets": datasets_cache,
        "own cache": get_cache_folder(),
    }
    yield from system_checks.check_folders(caches, sum(need.num_bytes or 0 for need in missing))
    host_probe.join(2 * requirements.HOST_TIMEOUT_SECONDS)
    missing_hosts = {need.host for need in missing}
    if is_offline:
        yield Finding("hub", WARNING if missing_hosts else OK, "HF_HUB_OFFLINE is set: not checked")
    for host in hub_hosts:
        yield Finding(urlsplit(host).netloc, WARNING if host in unreachable else OK, unreachable.get(host, "reachable"))
    unreachable_hosts = missing_hosts if is_offline else missing_hosts & unreachable.keys()
    yield from check_backbone_and_records(profile, needed, missing, unreachable_hosts, profile_name)
    yield from check_wandb(profile, wandb_host, unreachable)


def check_backbone_and_records(
    profile: Profile,
    requirements: "Sequence[Requirement]",
    missing: "Sequence[Requirement]",
    unreachable_hosts: set[str],
    profile_name: str,
) -> Iterator[Finding]:
    """Check whether the backbone and the data are present, can be downloaded, or are unreachable."""
    command = f"python -m benchmark fetch --profile {profile_name}"
    fixes = {
        WARNING: f"{command}, or let the run fetch it",
        FAILED: f"{command} on a machine with a network, then copy the caches here; or --source sample --backbone tiny",
    }
    backbone, *data_sets = requirements
    size = "" if backbone.num_bytes is None else f", {format_bytes(backbone.num_bytes)}"
    if backbone.is_available:
        yield Finding("backbone", OK, f"{backbone.repository}{size}, present")
    else:
        state = FAILED if backbone.host in unreachable_hosts else WARNING
        yield Finding("backbone", state, f"{backbone.repository}{size}, missing", fixes[state])
    if profile.source == "sample":
        yield Finding("records", OK, f"samples of {len(profile.tasks)} tasks, generated on this machine")
        return
    absent = [need for need in missing if need is not backbone]
    message = f"{len(data_sets) - len(absent)} of {len(data_sets)} tasks present (source {profile.source})"
    if not absent:
        yield Finding("records", OK, message)
    elif profile.source == "local":
        names = ", ".join(need.name for need in absent)
        fix = f"put their original files below {profile.data_dir}, or leave them out with --tasks"
        yield Finding("records", FAILED, f"{message}; missing: {names}", fix)
    else:
        state = FAILED if any(need.host in unreachable_hosts for need in absent) else WARNING
        yield Finding("records", state, message, fixes[state])


def check_wandb(profile: Profile, host: str, unreachable_hosts: dict[str, str]) -> Iterator[Finding]:
    """Check the W&B login and its host. Never fails: a run writes local files first and does not need W&B."""
    key = find_wandb_key_source(host)
    login = f"key from {key}" if key else "not logged in"
    reachability = "is unreachable" if host in unreachable_hosts else "is reachable"
    message = f"this profile: {profile.wandb}; {login}; {urlsplit(host).netloc} {reachability}"
    fix = ""
    if profile.wandb == "online" and not key:
        fix = "wandb login"
    elif profile.wandb == "online" and host in unreachable_hosts:
        fix = "--wandb offline, and `wandb sync` later"
    yield Finding("W&B", WARNING if fix else OK, message, fix)


def find_wandb_key_source(host: str) -> str:
    """Return the variable or file that holds the W&B key, or an empty string. The key itself is never returned."""
    if os.environ.get("WANDB_API_KEY"):
        return "WANDB_API_KEY"
    netrc_files = [os.environ.get("NETRC"), "~/.netrc", "~/_netrc"]
    for path in (Path(name).expanduser() for name in netrc_files if name):
        try:
            if netrc.netrc(path).authenticators(urlsplit(host).netloc):
                return path.name
        except (OSError, netrc.NetrcParseError):
            continue
    return ""


# -------------------------------------------------------------------- output


def list_next_steps(findings: Sequence[Finding], profile_name: str, can_run: bool) -> list[str]:
    """List the fixes of failed checks, then those of warnings, then the commands to run."""
    checks_by_fix: dict[str, list[str]] = defaultdict(list)
    fixable = (finding for finding in findings if finding.fix)
    for finding in sorted(fixable, key=lambda finding: finding.state != FAILED):
        checks_by_fix[finding.fix].append(finding.check)
    steps = [f"{', '.join(checks)}: {fix}" for fix, checks in checks_by_fix.items()]
    if not can_run:
        return [*steps, "python -m benchmark doctor, to check again"]
    return [
        *steps,
        f"python -m benchmark plan --profile {profile_name}: shows the cells and the estimated time",
        f"python -m benchmark run --profile {profile_name}",
    ]


def print_findings(console: Console, findings: Sequence[Finding], steps: Sequence[str]) -> None:
    """Print one line per finding, with plain ASCII marks if the output is not a terminal, then the next steps."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1, 0, 0))
    for column in ("", "what", "found"):
        table.add_column(column, overflow="fold", no_wrap=column == "what")
    for finding in findings:
        mark = STATE_MARKS[finding.state] if console.is_terminal else finding.state
        table.add_row(mark, finding.check, escape(finding.message))
    console.print(table)
    console.print("next steps", style="bold")
    for number, step in enumerate(steps, start=1):
        console.print(f"{number}. {step}", soft_wrap=True, markup=False)
