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

from benchmark.config.model_size import parse_parameter_count
from benchmark.config.profile import Profile
from benchmark.scheduling import memory_model
from benchmark.scheduling.cost_model import LARGE_MODEL_PARAMETERS
from benchmark.system.environment import ROOT, get_device_name, get_installed_version
from benchmark.system.formatting import format_bytes
from benchmark.system.hardware import count_cpu_cores
from methods.core import architecture

OK = "ok"
WARNING = "!"
FAILED = "x"
REPORTED_PACKAGES = ("torch", "lightning", "transformers", "datasets", "peft", "wandb", "ray")
WORKER_BYTES = 1e9  # bytes of a worker on the embedded backbone; 0.6 to 0.9 GB were measured
MIN_FREE_BYTES = 1e9  # bytes free below which a folder is as good as full
HUB_CACHE = "hub cache"
RELOCATION_HINTS = {
    "results": "name another folder with --results DIR",
    HUB_CACHE: "set HF_HOME to a folder with room",
    "data sets": "set HF_DATASETS_CACHE to a folder with room",
    "own cache": "set ADAPTERBENCH_CACHE to a folder with room",
}
CGROUP_MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")  # what a container may take (Linux)
NVIDIA_SMI_FIELDS = "name,memory.total,compute_cap,driver_version"
MIN_BF16_CAPABILITY = 8.0  # compute capability from which on a GPU computes in bfloat16
CPU_BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # flags of a CPU
CUDA_PROBE = "import torch; print(torch.cuda.device_count(), torch.version.cuda)"


class Finding(NamedTuple):
    """One line: what was looked at, how it is (NO: the profile cannot be run), and what to do about it."""

    check: str
    state: str
    message: str
    fix: str = ""


# -------------------------------------------------------------------- what is installed


def check_python() -> Finding:
    wanted = load_project_metadata().get("requires-python", "")
    return check_version(
        "python", platform.python_version(), wanted, "install a Python that fits, then `make setup` again"
    )


def check_packages() -> Iterator[Finding]:
    from packaging.requirements import Requirement

    wanted = {one.name: str(one.specifier) for one in map(Requirement, load_project_metadata()["dependencies"])}
    for name in dict.fromkeys((*REPORTED_PACKAGES, *wanted)):
        fix = f'pip install "{name}{wanted.get(name, "")}"'
        if name in wanted:
            one = check_version(name, get_installed_version(name), wanted[name], fix)
            if name in REPORTED_PACKAGES or one.state != OK:
                yield one
        elif version := get_installed_version(name):
            yield Finding(name, OK, version)
        else:
            yield Finding(name, WARNING, "not installed; only `run --engine ray` needs it")
    yield Finding("other packages", OK, f"{len(set(wanted) - set(REPORTED_PACKAGES))} looked at")


def check_version(name: str, version: str | None, required_version: str, fix: str) -> Finding:
    from packaging.specifiers import SpecifierSet

    if version is None:
        return Finding(name, FAILED, f"not installed, needed {required_version}", fix)
    fits = SpecifierSet(required_version).contains(version, prereleases=True)
    return Finding(name, OK if fits else FAILED, f"{version} (needed {required_version})", "" if fits else fix)


def load_project_metadata() -> dict:
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


def check_device(profile: Profile, torch_probe: "subprocess.Popen[str] | None") -> Iterator[Finding]:
    """Where it would run, and whether the backbone has room there."""
    name, large = profile.backbone.name, parse_parameter_count(profile.backbone.name) > LARGE_MODEL_PARAMETERS
    if torch_probe is None:
        flags = next((line for line in read_lines("/proc/cpuinfo") if line.startswith(("flags", "Features"))), "")
        half = "" if CPU_BF16_FLAGS & set(flags.split()) else "no "
        said = f"{get_device_name('cpu')}, {count_cpu_cores()} cores, {half}bf16"
        if large:
            todo = "use a machine with a GPU, or --profile demo"
            yield Finding("device", FAILED, f"{said}; {name} is too large to train on it", todo)
        else:
            yield Finding("device", OK, said)
        yield check_memory()
        return
    yield from check_gpus(torch_probe)
    shape, most = architecture.find_model_shape(name), memory_model.get_gpu_memory_bytes()
    if shape:
        need = shape.num_parameters * memory_model.BYTES_PER_WEIGHT[profile.backbone.dtype]
        said = (
            f"{format_bytes(most)}; the weights of {name} take {format_bytes(need)}, `plan` says what each method takes"
        )
        fits = need < most
        yield Finding(
            "GPU memory", OK if fits else FAILED, said, "" if fits else "choose a smaller one with --backbone"
        )
    yield check_memory()


def start_torch_probe() -> "subprocess.Popen[str]":
    """What torch sees of GPUs: asked of another process, because importing it takes seconds."""
    return subprocess.Popen(
        [sys.executable, "-c", CUDA_PROBE], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def check_gpus(torch_probe: "subprocess.Popen[str]") -> Iterator[Finding]:
    """The GPUs of the driver, and whether this torch can use them."""
    ask = ["nvidia-smi", f"--query-gpu={NVIDIA_SMI_FIELDS}", "--format=csv,noheader,nounits"]
    said = subprocess.run(ask, capture_output=True, text=True, check=False, timeout=10).stdout if which(ask[0]) else ""
    rows = [[part.strip() for part in line.split(",")] for line in said.splitlines() if line.count(",") == 3]
    for number, (name, size, capability, driver) in enumerate(rows):
        half = "bf16" if float(capability) >= MIN_BF16_CAPABILITY else "no bf16: --set backbone.dtype=float32"
        yield Finding(f"cuda:{number}", OK, f"{name}, {float(size) / 1024:.0f} GB, {half}, driver {driver}")
    try:
        count, _, version = torch_probe.communicate(timeout=60)[0].strip().partition(" ")
    except subprocess.TimeoutExpired:
        torch_probe.kill()
        count, version = "", ""
    if count in ("", "0"):
        why = "this build of torch has no CUDA" if version == "None" else "torch sees no GPU; its driver may be too old"
        yield Finding(
            "torch and GPU", FAILED, why, "install the CUDA build of this torch version (pytorch.org says how)"
        )
    else:
        yield Finding("torch and GPU", OK, f"torch sees {count}, built for CUDA {version}")


def check_memory() -> Finding:
    total, free = get_memory_bytes()
    workers = f"room for {int(free // WORKER_BYTES)} worker processes of the embedded backbone"
    state = OK if free >= WORKER_BYTES * count_cpu_cores() else WARNING if free >= WORKER_BYTES else FAILED
    todo = "" if state == OK else "end what takes the memory" if state == FAILED else "fewer processes: --workers 1"
    return Finding("memory", state, f"{format_bytes(free)} free of {format_bytes(total)}; {workers}", todo)


def get_memory_bytes() -> tuple[float, float]:
    """(all, free) bytes, of a container what it may take."""
    total = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    facts = dict(line.split(":", 1) for line in read_lines("/proc/meminfo") if ":" in line)
    free = float(facts["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in facts else total
    limit = "".join(read_lines(str(CGROUP_MEMORY_LIMIT)))
    if limit.isdigit():
        used = "".join(read_lines(str(CGROUP_MEMORY_LIMIT.with_name("memory.current"))))
        total, free = min(total, float(limit)), min(free, float(limit) - float(used or 0))
    return total, free


def read_lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


# -------------------------------------------------------------------- folders


def check_folders(caches: dict[str, Path], download_bytes: float) -> Iterator[Finding]:
    """Room and rights; `due`: bytes that still come into the hub's cache."""
    for name, path in caches.items():
        place = find_existing_parent(path)
        free, need = disk_usage(place).free, MIN_FREE_BYTES + (download_bytes if name == HUB_CACHE else 0)
        said = f"{path}: {format_bytes(free)} free"
        if not os.access(place, os.W_OK):
            yield Finding(name, FAILED, f"{path}: may not be written", RELOCATION_HINTS[name])
        elif free < need:
            yield Finding(name, FAILED, f"{said}, {format_bytes(need)} are needed", RELOCATION_HINTS[name])
        else:
            yield Finding(name, OK, said)


def find_existing_parent(path: Path) -> Path:
    """The folder, or the next one above it that is there."""
    return next(place for place in (path.absolute(), *path.absolute().parents) if place.is_dir())
