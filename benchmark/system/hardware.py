"""Hardware of this machine, detected without importing torch: default profile and number of worker processes."""

import os
import shutil
import subprocess
from functools import cache

from benchmark.config.profile import AUTO, Profile

PAPER_MIN_GPU_MIB = 40 * 1024  # smallest GPU memory for which the 7B backbone is the default


@cache
def get_gpu_memory_mib() -> tuple[int, ...]:
    """Memory of each NVIDIA GPU in MiB, from nvidia-smi; empty if there is none."""
    if not shutil.which("nvidia-smi"):
        return ()
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        process = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except subprocess.TimeoutExpired:
        return ()
    if process.returncode != 0:
        return ()
    return tuple(int(line) for line in process.stdout.split() if line.isdigit())


def choose_preset() -> tuple[str, str]:
    """Return the preset for this machine, and the reason for the choice."""
    if not get_gpu_memory_mib():
        return "demo", "no CUDA device, so the bundled tiny model on the sample data"
    memory_mib = max(get_gpu_memory_mib())
    if memory_mib < PAPER_MIN_GPU_MIB:
        return "small", f"a GPU of {memory_mib / 1024:.0f} GB, below the 40 GB of `paper`"
    return "paper", f"a GPU of {memory_mib / 1024:.0f} GB"


def is_cuda_device(device: str) -> bool:
    """Whether a device setting (`auto`, `cpu`, `cuda:1`) selects a CUDA device on this machine."""
    return device.startswith("cuda") or (device == AUTO and bool(get_gpu_memory_mib()))


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
