"""What a machine has for a profile: packages, device, memory, folders; each as a finding. Imports nothing heavy."""

import os
import platform
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from shutil import disk_usage, which
from typing import NamedTuple

from benchmark import memory
from benchmark.engine import cores
from benchmark.environment import ROOT, device_name, installed
from benchmark.price import LARGE, parameters
from benchmark.profile import Profile

OK = "ok"
MIND = "!"
NO = "x"
NAMED = ("torch", "lightning", "transformers", "datasets", "peft", "wandb", "ray")
PROCESS = 1e9  # bytes of a worker on the embedded backbone; 0.6 to 0.9 GB were measured
ROOM = 1e9  # bytes free below which a folder is as good as full
HUB = "hub cache"
MOVE = {
    "results": "name another folder with --results DIR",
    HUB: "set HF_HOME to a folder with room",
    "data sets": "set HF_DATASETS_CACHE to a folder with room",
    "own cache": "set ADAPTERBENCH_CACHE to a folder with room",
}
GROUP = Path("/sys/fs/cgroup/memory.max")  # what a container may take (Linux)
ASK = "name,memory.total,compute_cap,driver_version"
BF16 = 8.0  # compute capability from which on a GPU computes in bfloat16
CPU_BF16 = {"avx512_bf16", "amx_bf16", "bf16"}  # flags of a CPU
SEES = "import torch; print(torch.cuda.device_count(), torch.version.cuda)"


class Finding(NamedTuple):
    """One line: what was looked at, how it is (NO: the profile cannot be run), and what to do about it."""

    what: str
    state: str
    found: str
    todo: str = ""


def gigabytes(number: float) -> str:
    """15.2 GB, as a disk counts."""
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"


# -------------------------------------------------------------------- what is installed


def python() -> Finding:
    wanted = project().get("requires-python", "")
    return required("python", platform.python_version(), wanted, "install a Python that fits, then `make setup` again")


def packages() -> Iterator[Finding]:
    from packaging.requirements import Requirement

    wanted = {one.name: str(one.specifier) for one in map(Requirement, project()["dependencies"])}
    for name in dict.fromkeys((*NAMED, *wanted)):
        fix = f'pip install "{name}{wanted.get(name, "")}"'
        if name in wanted:
            one = required(name, installed(name), wanted[name], fix)
            if name in NAMED or one.state != OK:
                yield one
        elif version := installed(name):
            yield Finding(name, OK, version)
        else:
            yield Finding(name, MIND, "not installed; only `run --engine ray` needs it")
    yield Finding("other packages", OK, f"{len(set(wanted) - set(NAMED))} looked at")


def required(name: str, version: str | None, wanted: str, fix: str) -> Finding:
    from packaging.specifiers import SpecifierSet

    if version is None:
        return Finding(name, NO, f"not installed, needed {wanted}", fix)
    fits = SpecifierSet(wanted).contains(version, prereleases=True)
    return Finding(name, OK if fits else NO, f"{version} (needed {wanted})", "" if fits else fix)


def project() -> dict:
    """What the project requires: from its checkout, else from what is installed."""
    path = ROOT / "pyproject.toml"
    if path.is_file():
        return tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    try:
        found = requires("adapterbench") or []
    except PackageNotFoundError:
        found = []
    return {"dependencies": [line for line in found if "extra ==" not in line]}


# -------------------------------------------------------------------- device and memory


def device(found: Profile, torch: "subprocess.Popen[str] | None") -> Iterator[Finding]:
    """Where it would run, and whether the backbone has room there."""
    name, large = found.backbone.name, parameters(found.backbone.name) > LARGE
    if torch is None:
        flags = next((line for line in lines("/proc/cpuinfo") if line.startswith(("flags", "Features"))), "")
        half = "" if CPU_BF16 & set(flags.split()) else "no "
        said = f"{device_name('cpu')}, {cores()} cores, {half}bf16"
        if large:
            todo = "use a machine with a GPU, or --profile demo"
            yield Finding("device", NO, f"{said}; {name} is too large to train on it", todo)
        else:
            yield Finding("device", OK, said)
        yield main_memory()
        return
    yield from graphics(torch)
    shape, most = memory.shape_of(name), memory.limit()
    if shape:
        need = shape.parameters * memory.BYTES[found.backbone.dtype]
        said = f"{gigabytes(most)}; the weights of {name} take {gigabytes(need)}, `plan` says what each method takes"
        fits = need < most
        yield Finding("GPU memory", OK if fits else NO, said, "" if fits else "choose a smaller one with --backbone")
    yield main_memory()


def ask_torch() -> "subprocess.Popen[str]":
    """What torch sees of GPUs: asked of another process, because importing it takes seconds."""
    return subprocess.Popen([sys.executable, "-c", SEES], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def graphics(torch: "subprocess.Popen[str]") -> Iterator[Finding]:
    """The GPUs of the driver, and whether this torch can use them."""
    ask = ["nvidia-smi", f"--query-gpu={ASK}", "--format=csv,noheader,nounits"]
    said = subprocess.run(ask, capture_output=True, text=True, check=False, timeout=10).stdout if which(ask[0]) else ""
    rows = [[part.strip() for part in line.split(",")] for line in said.splitlines() if line.count(",") == 3]
    for number, (name, size, capability, driver) in enumerate(rows):
        half = "bf16" if float(capability) >= BF16 else "no bf16: --set backbone.dtype=float32"
        yield Finding(f"cuda:{number}", OK, f"{name}, {float(size) / 1024:.0f} GB, {half}, driver {driver}")
    try:
        count, _, version = torch.communicate(timeout=60)[0].strip().partition(" ")
    except subprocess.TimeoutExpired:
        torch.kill()
        count, version = "", ""
    if count in ("", "0"):
        why = "this build of torch has no CUDA" if version == "None" else "torch sees no GPU; its driver may be too old"
        yield Finding("torch and GPU", NO, why, "install the CUDA build of this torch version (pytorch.org says how)")
    else:
        yield Finding("torch and GPU", OK, f"torch sees {count}, built for CUDA {version}")


def main_memory() -> Finding:
    total, free = ram()
    workers = f"room for {int(free // PROCESS)} worker processes of the embedded backbone"
    state = OK if free >= PROCESS * cores() else MIND if free >= PROCESS else NO
    todo = "" if state == OK else "end what takes the memory" if state == NO else "fewer processes: --workers 1"
    return Finding("memory", state, f"{gigabytes(free)} free of {gigabytes(total)}; {workers}", todo)


def ram() -> tuple[float, float]:
    """(all, free) bytes, of a container what it may take."""
    total = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    facts = dict(line.split(":", 1) for line in lines("/proc/meminfo") if ":" in line)
    free = float(facts["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in facts else total
    limit = "".join(lines(str(GROUP)))
    if limit.isdigit():
        used = "".join(lines(str(GROUP.with_name("memory.current"))))
        total, free = min(total, float(limit)), min(free, float(limit) - float(used or 0))
    return total, free


def lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


# -------------------------------------------------------------------- folders


def folders(caches: dict[str, Path], due: float) -> Iterator[Finding]:
    """Room and rights; `due`: bytes that still come into the hub's cache."""
    for name, path in caches.items():
        place = existing(path)
        free, need = disk_usage(place).free, ROOM + (due if name == HUB else 0)
        said = f"{path}: {gigabytes(free)} free"
        if not os.access(place, os.W_OK):
            yield Finding(name, NO, f"{path}: may not be written", MOVE[name])
        elif free < need:
            yield Finding(name, NO, f"{said}, {gigabytes(need)} are needed", MOVE[name])
        else:
            yield Finding(name, OK, said)


def existing(path: Path) -> Path:
    """The folder, or the next one above it that is there."""
    return next(place for place in (path.absolute(), *path.absolute().parents) if place.is_dir())
