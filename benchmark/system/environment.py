"""Reproducibility metadata of a result: versions, device, commit. Contains no user or host names."""

import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from shutil import which

REPORTED_PACKAGES = (
    "adapterbench", "torch", "lightning", "transformers", "tokenizers", "torchmetrics", "datasets", "numpy", "peft",
)  # fmt: skip
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Environment:
    """Where a cell ran. `commit` is None outside of a git checkout."""

    packages: Mapping[str, str]  # package -> version
    python: str
    system: str
    device: str
    commit: str | None
    has_uncommitted_changes: bool | None
    num_devices: int = 1
    strategy: str | None = None  # how several devices share a cell


@cache
def collect_environment(device: str) -> Environment:
    """Collect package versions, Python version, operating system, device name and git commit."""
    commit, has_uncommitted_changes = get_git_commit()
    return Environment(
        packages={name: number for name in REPORTED_PACKAGES if (number := get_installed_version(name))},
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        device=get_device_name(device),
        commit=commit,
        has_uncommitted_changes=has_uncommitted_changes,
    )


def get_installed_version(name: str) -> str | None:
    """Version of an installed package, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def get_device_name(device: str) -> str:
    """Model name of the GPU, or of the CPU as `cpu: NAME`."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"cpu: {models[0] if models else platform.processor()}"


def get_git_commit() -> tuple[str | None, bool | None]:
    """Return the commit of this checkout and whether it has uncommitted changes; None outside of a git checkout."""
    if not (ROOT / ".git").exists() or which("git") is None:
        return None, None
    git = ["git", "-C", str(ROOT)]
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    status = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=False)
    commit = head.stdout.strip() or None  # empty if git refuses, as in a checkout that another user owns
    return commit, bool(status.stdout.strip()) if commit else None
