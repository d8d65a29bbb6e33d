"""Checks of this machine for a profile: packages, device, memory, folders. Imports no heavy library."""

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
WORKER_BYTES = 1e9  # memory of a worker on the bundled tiny model; 0.6 to 0.9 GB were measured
MIN_FREE_BYTES = 1e9  # below this a folder counts as full
HUB_CACHE = "hub cache"
RELOCATION_HINTS = {
    "results": "name another folder with --results DIR",
    HUB_CACHE: "set HF_HOME to a folder with room",
    "data sets": "set HF_DATASETS_CACHE to a folder with room",
    "own cache": "set ADAPTERBENCH_CACHE to a folder with room",
}
CGROUP_MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")  # memory limit of a container (Linux)
NVIDIA_SMI_FIELDS = "name,memory.total,compute_cap,driver_version"
MIN_BF16_CAPABILITY = 8.0  # lowest CUDA compute capability with bfloat16
CPU_BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # any of these in /proc/cpuinfo means bfloat16
CUDA_PROBE = "import torch; print(torch.cuda.device_count(), torch.version.cuda)"


class Finding(NamedTuple):
    """Result of one check: its name, state (FAILED: the profile cannot run), a message, and how to fix it."""

    check: str
    state: str
    message: str
    fix: str = ""


# -------------------------------------------------------------------- packages


def check_python() -> Finding:
    """Check the Python version against the project's requirement."""
    required = load_project_metadata().get("requires-python", "")
    fix = "install a supported Python version, then run `make setup` again"
    return check_version("python", platform.python_version(), required, fix)


def check_packages() -> Iterator[Finding]:
    """Check the installed packages against the project's requirements; one finding for all less important ones."""
    from packaging.requirements import Requirement

    dependencies = map(Requirement, load_project_metadata()["dependencies"])
    required = {dependency.name: str(dependency.specifier) for dependency in dependencies}
    for name in dict.fromkeys((*REPORTED_PACKAGES, *required)):
        if name in required:
            fix = f'pip install "{name}{required[name]}"'
            finding = check_version(name, get_installed_version(name), required[name], fix)
            if name in REPORTED_PACKAGES or finding.state != OK:
                yield finding
        elif version := get_installed_version(name):
            yield Finding(name, OK, version)
        else:
            yield Finding(name, WARNING, "not installed; only `run --engine ray` needs it")
    yield Finding("other packages", OK, f"{len(set(required) - set(REPORTED_PACKAGES))} checked")


def check_version(name: str, version: str | None, required_version: str, fix: str) -> Finding:
    """Compare an installed version (`None`: not installed) with a PEP 440 specifier."""
    from packaging.specifiers import SpecifierSet

    if version is None:
        return Finding(name, FAILED, f"not installed, required {required_version}", fix)
    is_supported = SpecifierSet(required_version).contains(version, prereleases=True)
    message = f"{version} (required {required_version})"
    return Finding(name, OK, message) if is_supported else Finding(name, FAILED, message, fix)


def load_project_metadata() -> dict:
    """Load the project's requirements from pyproject.toml, or from the installed package outside a checkout."""
    path = ROOT / "pyproject.toml"
    if path.is_file():
        return tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    try:
        dependencies = requires("adapterbench") or []
    except PackageNotFoundError:
        dependencies = []
    return {"dependencies": [line for line in dependencies if "extra ==" not in line]}


# -------------------------------------------------------------------- device and memory


def check_device(profile: Profile, torch_probe: "subprocess.Popen[str] | None") -> Iterator[Finding]:
    """Check the device of the profile, and whether the backbone fits into its memory."""
    name = profile.backbone.name
    if torch_probe is None:
        flags = next((line for line in read_lines("/proc/cpuinfo") if line.startswith(("flags", "Features"))), "")
        bf16 = "bf16" if CPU_BF16_FLAGS & set(flags.split()) else "no bf16"
        message = f"{get_device_name('cpu')}, {count_cpu_cores()} cores, {bf16}"
        if parse_parameter_count(name) > LARGE_MODEL_PARAMETERS:
            fix = "use a machine with a GPU, or --profile demo"
            yield Finding("device", FAILED, f"{message}; {name} is too large to train on it", fix)
        else:
            yield Finding("device", OK, message)
        yield check_memory()
        return
    yield from check_gpus(torch_probe)
    shape = architecture.find_model_shape(name)
    if shape:
        available = memory_model.get_gpu_memory_bytes()
        required = shape.num_parameters * memory_model.BYTES_PER_WEIGHT[profile.backbone.dtype]
        message = (
            f"{format_bytes(available)}; the weights of {name} take {format_bytes(required)}, "
            "`plan` shows the memory of each method"
        )
        if required < available:
            yield Finding("GPU memory", OK, message)
        else:
            yield Finding("GPU memory", FAILED, message, "choose a smaller model with --backbone")
    yield check_memory()


def start_torch_probe() -> "subprocess.Popen[str]":
    """Start a process that prints the number of GPUs and the CUDA version of torch; importing torch takes seconds."""
    return subprocess.Popen(
        [sys.executable, "-c", CUDA_PROBE], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def check_gpus(torch_probe: "subprocess.Popen[str]") -> Iterator[Finding]:
    """List the GPUs that the driver reports, and check whether torch can use them."""
    command = ["nvidia-smi", f"--query-gpu={NVIDIA_SMI_FIELDS}", "--format=csv,noheader,nounits"]
    output = ""
    if which(command[0]):
        output = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10).stdout
    rows = [[field.strip() for field in line.split(",")] for line in output.splitlines() if line.count(",") == 3]
    for number, (name, size, capability, driver) in enumerate(rows):
        bf16 = "bf16" if float(capability) >= MIN_BF16_CAPABILITY else "no bf16: --set backbone.dtype=float32"
        yield Finding(f"cuda:{number}", OK, f"{name}, {float(size) / 1024:.0f} GB, {bf16}, driver {driver}")
    try:
        count, _, version = torch_probe.communicate(timeout=60)[0].strip().partition(" ")
    except subprocess.TimeoutExpired:
        torch_probe.kill()
        count = ""
        version = ""
    if count in ("", "0"):
        if version == "None":
            message = "this build of torch has no CUDA"
        else:
            message = "torch finds no GPU; the driver may be too old"
        yield Finding(
            "torch and GPU", FAILED, message, "install the CUDA build of this torch version (see pytorch.org)"
        )
    else:
        yield Finding("torch and GPU", OK, f"torch finds {count}, built for CUDA {version}")


def check_memory() -> Finding:
    """Check whether the free memory suffices for one worker process of the bundled tiny model per CPU core."""
    total, free = get_memory_bytes()
    message = (
        f"{format_bytes(free)} free of {format_bytes(total)}; "
        f"enough for {int(free // WORKER_BYTES)} worker processes of the bundled tiny model"
    )
    if free >= WORKER_BYTES * count_cpu_cores():
        return Finding("memory", OK, message)
    if free >= WORKER_BYTES:
        return Finding("memory", WARNING, message, "use fewer processes: --workers 1")
    return Finding("memory", FAILED, message, "end other programs that use the memory")


def get_memory_bytes() -> tuple[float, float]:
    """Return (total, free) memory in bytes, limited to those of the container if there is one."""
    total = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    meminfo = dict(line.split(":", 1) for line in read_lines("/proc/meminfo") if ":" in line)
    free = float(meminfo["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in meminfo else total
    limit = "".join(read_lines(str(CGROUP_MEMORY_LIMIT)))
    if limit.isdigit():
        used = "".join(read_lines(str(CGROUP_MEMORY_LIMIT.with_name("memory.current"))))
        total = min(total, float(limit))
        free = min(free, float(limit) - float(used or 0))
    return total, free


def read_lines(path: str) -> list[str]:
    """Return the lines of a file, or an empty list if it cannot be read."""
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


# -------------------------------------------------------------------- folders


def check_folders(caches: dict[str, Path], download_bytes: float) -> Iterator[Finding]:
    """Check free space and write access of each folder. `download_bytes` will still be added to the hub's cache."""
    for name, path in caches.items():
        parent = find_existing_parent(path)
        free = disk_usage(parent).free
        required = MIN_FREE_BYTES + (download_bytes if name == HUB_CACHE else 0)
        message = f"{path}: {format_bytes(free)} free"
        if not os.access(parent, os.W_OK):
            yield Finding(name, FAILED, f"{path}: not writable", RELOCATION_HINTS[name])
        elif free < required:
            yield Finding(name, FAILED, f"{message}, {format_bytes(required)} are needed", RELOCATION_HINTS[name])
        else:
            yield Finding(name, OK, message)


def find_existing_parent(path: Path) -> Path:
    """Return the folder, or its nearest parent that exists."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.is_dir())
