"""What this machine has, asked without importing torch: it decides the profile and the number of processes."""

import shutil
import subprocess
from functools import cache

from benchmark.profile import AUTO, Profile

PAPER = 40 * 1024  # MiB of GPU memory from which on the 7B backbone is the default


@cache
def gpus() -> tuple[int, ...]:
    """MiB of each NVIDIA GPU that the driver shows."""
    if not shutil.which("nvidia-smi"):
        return ()
    ask = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(ask, capture_output=True, text=True, check=False, timeout=10)
    except subprocess.TimeoutExpired:
        return ()
    return tuple(int(line) for line in said.stdout.split() if line.isdigit()) if said.returncode == 0 else ()


def choose() -> tuple[str, str]:
    """(profile, why) for this machine."""
    if not gpus():
        return "demo", "no CUDA device here, so the embedded backbone on the embedded records"
    most = max(gpus())
    if most < PAPER:
        return "small", f"a GPU of {most / 1024:.0f} GB, below the 40 GB of `paper`"
    return "paper", f"a GPU of {most / 1024:.0f} GB"


def cuda(device: str) -> bool:
    return device.startswith("cuda") or (device == AUTO and bool(gpus()))


def workers(profile: Profile, due: int) -> int:
    from benchmark import engine

    return engine.workers(profile, cuda(profile.backbone.device), due)
