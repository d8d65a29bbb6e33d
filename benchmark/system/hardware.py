"""What this machine has, asked without importing torch: it decides the profile and the number of processes."""

import os
import shutil
import subprocess
from functools import cache

from benchmark.config.profile import AUTO, Profile

PAPER_MIN_GPU_MIB = 40 * 1024  # MiB of GPU memory from which on the 7B backbone is the default


@cache
def get_gpu_memory_mib() -> tuple[int, ...]:
    """MiB of each NVIDIA GPU that the driver shows."""
    if not shutil.which("nvidia-smi"):
        return ()
    ask = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(ask, capture_output=True, text=True, check=False, timeout=10)
    except subprocess.TimeoutExpired:
        return ()
    return tuple(int(line) for line in said.stdout.split() if line.isdigit()) if said.returncode == 0 else ()


def choose_preset() -> tuple[str, str]:
    """(profile, why) for this machine."""
    if not get_gpu_memory_mib():
        return "demo", "no CUDA device here, so the embedded backbone on the embedded records"
    most = max(get_gpu_memory_mib())
    if most < PAPER_MIN_GPU_MIB:
        return "small", f"a GPU of {most / 1024:.0f} GB, below the 40 GB of `paper`"
    return "paper", f"a GPU of {most / 1024:.0f} GB"


def is_cuda_device(device: str) -> bool:
    return device.startswith("cuda") or (device == AUTO and bool(get_gpu_memory_mib()))


def choose_num_workers(profile: Profile, num_due: int) -> int:

    return compute_num_workers(profile, is_cuda_device(profile.backbone.device), num_due)


def compute_num_workers(profile: Profile, is_cuda: bool, num_due: int) -> int:
    """How many processes: as asked, else one per core on a CPU and one on a GPU; never more than cells."""
    asked = (
        profile.workers
        if isinstance(profile.workers, int)
        else 1
        if is_cuda or profile.devices > 1
        else count_cpu_cores()
    )
    return max(1, min(asked, num_due))


def count_cpu_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
