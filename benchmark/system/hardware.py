"""Hardware of this machine: GPUs that torch can use, the device of a profile, default profile, number of workers.

torch decides whether there is a GPU, because torch runs the cells: nvidia-smi also lists GPUs that a CPU build of torch
cannot use or that CUDA_VISIBLE_DEVICES hides, and it is missing in many containers. This module does not import torch,
which takes seconds: where a GPU is possible, a short process asks it, and the answer is cached on disk.
"""

import ctypes
import json
import os
import platform
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from runpy import run_path

from benchmark.config.profile import AUTO, Profile
from benchmark.system.disk_cache import load_or_compute
from tasks.core.types import UsageError

PAPER_MIN_GPU_MIB = 40 * 1024  # smallest GPU memory for which the 7B backbone is the default
CUDA_DRIVER_LIBRARY = "libcuda.so.1"  # torch loads the driver by this name
DRIVER_FOLDER = Path("/proc/driver/nvidia")  # written by the driver: its version, and the GPUs of this machine
TORCH_TIMEOUT_SECONDS = 120.0
VISIBILITY_VARIABLES = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
# prints the memory in MiB of each GPU, in the order of their torch index
TORCH_PROGRAM = """
import json, torch
count = torch.cuda.device_count() if torch.cuda.is_available() else 0
print(json.dumps([torch.cuda.get_device_properties(index).total_memory // 2**20 for index in range(count)]))
"""


class NoGpuError(Exception):
    """torch was built for GPUs, and sees none."""


@cache
def get_gpu_memory_mib() -> tuple[int, ...]:
    """Memory in MiB of each GPU that torch sees in this environment; empty if there is none."""
    torch_build = read_torch_build()
    hides_all_gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1")
    if torch_build is None or hides_all_gpus or not is_gpu_driver_installed():
        return ()
    driver_files = [DRIVER_FOLDER / "version", *sorted(DRIVER_FOLDER.glob("gpus/*/information"))]
    key = [
        "GPUs that torch sees",
        torch_build,
        sys.executable,
        platform.node(),  # machines of a cluster may share the cache
        [os.environ.get(name) for name in VISIBILITY_VARIABLES],
        [path.read_text(errors="replace") for path in driver_files if path.is_file()],
        sorted(path.name for path in Path("/dev").glob("nvidia*")),
    ]
    try:
        return tuple(load_or_compute(key, ask_torch_for_gpu_memory))
    except NoGpuError:  # not cached: it may be repaired without a change of the key, for example by a restart
        return ()


def read_torch_build() -> str | None:
    """Return version and platform of the installed torch, as "2.13.0 13.0"; None for a CPU build or without torch.

    Reads torch/version.py, which torch's build writes, without importing torch.
    """
    spec = find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        return None
    version = run_path(str(Path(spec.submodule_search_locations[0]) / "version.py"))
    platform_version = version.get("cuda") or version.get("hip")
    return f"{version['__version__']} {platform_version}" if platform_version else None


def is_gpu_driver_installed() -> bool:
    """Whether a build of torch for GPUs can find a driver; True where only torch can tell (ROCm, not Linux)."""
    if sys.platform != "linux" or Path("/dev/kfd").exists():
        return True
    try:
        ctypes.CDLL(CUDA_DRIVER_LIBRARY)  # loads the library and does not touch the GPU
    except OSError:
        return False
    return True


def ask_torch_for_gpu_memory() -> list[int]:
    """Ask torch for the memory in MiB of each GPU, in a process of its own: in this one it would initialise CUDA.

    Raises `NoGpuError` if torch sees none, `UsageError` if torch fails or does not answer.
    """
    command = [sys.executable, "-c", TORCH_PROGRAM]
    try:
        process = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TORCH_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        raise UsageError(
            f"torch did not list the GPUs within {TORCH_TIMEOUT_SECONDS:.0f} s; to do without them: --device cpu"
        ) from None
    if process.returncode != 0:
        last_line = (process.stderr.strip().splitlines() or ["no output"])[-1]
        raise UsageError(f"torch cannot list the GPUs: {last_line}; to do without them: --device cpu")
    gpu_memory_mib = json.loads(process.stdout.splitlines()[-1])
    if not gpu_memory_mib:
        raise NoGpuError
    return list(gpu_memory_mib)


def resolve_device(device: str) -> str:
    """Return the torch device of a device setting: `auto` is `cuda` where torch sees a GPU, else `cpu`."""
    if device != AUTO:
        return device
    return "cuda" if get_gpu_memory_mib() else "cpu"


def choose_preset() -> tuple[str, str]:
    """Return the preset for this machine, and the reason for the choice."""
    if not get_gpu_memory_mib():
        return "demo", "no CUDA device that torch can use, so the bundled tiny model on the sample data"
    memory_mib = get_gpu_memory_mib()[0]  # `auto` runs on the first GPU
    if memory_mib < PAPER_MIN_GPU_MIB:
        return "small", f"a GPU of {memory_mib / 1024:.0f} GB, below the 40 GB of `paper`"
    return "paper", f"a GPU of {memory_mib / 1024:.0f} GB"


def is_cuda_device(device: str) -> bool:
    """Whether a device setting (`auto`, `cpu`, `cuda:1`) selects a CUDA device on this machine."""
    return resolve_device(device).startswith("cuda")


def choose_num_workers(profile: Profile, num_due: int) -> int:
    """Number of worker processes for `num_due` cells on this machine."""
    return compute_num_workers(profile, is_cuda_device(profile.backbone.device), num_due)


def compute_num_workers(profile: Profile, is_cuda: bool, num_due: int) -> int:
    """Return `profile.workers`, or for `auto` one per CPU core or one on a GPU; at most one per due cell."""
    if isinstance(profile.workers, int):
        num_workers = profile.workers
    elif is_cuda or profile.devices > 1:
        num_workers = 1
    else:
        num_workers = count_cpu_cores()
    return max(1, min(num_workers, num_due))


def count_cpu_cores() -> int:
    """Number of CPU cores available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
