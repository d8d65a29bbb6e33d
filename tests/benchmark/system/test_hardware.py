"""The device of a profile is the one on which torch runs, whatever nvidia-smi lists."""

import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmark.config import loading
from benchmark.scheduling import preflight
from benchmark.system import hardware
from tasks.core.types import UsageError

ROOT = Path(hardware.__file__).parents[2]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Pretend that this machine has this build of torch, a driver or none, and these GPUs (memory in MiB) in torch."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(hardware, "load_or_compute", lambda key, compute: compute())

    def pretend(build: str | None = "13.0", *, has_driver: bool = True, gpus: str = "[81920]") -> None:
        hardware.get_gpu_memory_mib.cache_clear()
        monkeypatch.setattr(hardware, "read_torch_build", lambda: build)
        monkeypatch.setattr(hardware, "is_gpu_driver_installed", lambda: has_driver)
        done = subprocess.CompletedProcess([], 0, stdout=f"a warning\n{gpus}\n", stderr="")
        monkeypatch.setattr(hardware.subprocess, "run", lambda *_, **__: done)

    yield pretend
    hardware.get_gpu_memory_mib.cache_clear()


def test_a_gpu_that_torch_sees_is_used_without_nvidia_smi(machine, monkeypatch):
    machine(gpus="[81920, 40960]")
    monkeypatch.setenv("PATH", "")
    assert hardware.get_gpu_memory_mib() == (81920, 40960)
    assert hardware.resolve_device("auto") == "cuda"
    assert hardware.resolve_device("cpu") == "cpu"
    assert hardware.choose_preset()[0] == "paper"


@pytest.mark.parametrize(
    "machine_facts", [{"build": None}, {"has_driver": False}, {"gpus": "[]"}], ids=["CPU build", "no driver", "no GPU"]
)
def test_the_cpu_is_used_where_torch_sees_no_gpu(machine, machine_facts):
    machine(**machine_facts)
    assert hardware.resolve_device("auto") == "cpu"
    assert hardware.choose_preset()[0] == "demo"


@pytest.mark.parametrize("visible", ["", "-1"])
def test_hidden_gpus_are_not_used_and_torch_is_not_asked(machine, monkeypatch, visible):
    machine()
    monkeypatch.setattr(hardware.subprocess, "run", None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert hardware.resolve_device("auto") == "cpu"


def test_a_gpu_that_is_not_there_is_refused(machine):
    machine(gpus="[81920]")
    preflight.check_device("cuda:0")
    with pytest.raises(UsageError, match="torch sees 1 CUDA devices"):
        preflight.check_device("cuda:1")


def test_a_broken_torch_is_one_line(machine, monkeypatch):
    machine()
    broken = subprocess.CompletedProcess([], 1, stdout="", stderr="Traceback\nImportError: libcudart.so.13\n")
    monkeypatch.setattr(hardware.subprocess, "run", lambda *_, **__: broken)
    with pytest.raises(
        UsageError, match=r"torch cannot list the GPUs: ImportError: libcudart.so.13; to do without them: --device cpu"
    ):
        hardware.resolve_device("auto")


def test_a_driver_that_hangs_is_one_line(machine, monkeypatch):
    def hang(command, **options):
        raise subprocess.TimeoutExpired(command, options["timeout"])

    machine()
    monkeypatch.setattr(hardware.subprocess, "run", hang)
    with pytest.raises(UsageError, match="did not list the GPUs within 120 s"):
        hardware.resolve_device("auto")


def test_the_preset_is_that_of_the_first_gpu(machine):
    machine(gpus="[24576, 81920]")
    assert hardware.choose_preset()[0] == "small"


def test_the_build_of_the_installed_torch_is_read_without_importing_it():
    import torch

    platform_version = torch.version.cuda or torch.version.hip
    assert hardware.read_torch_build() == (f"{torch.__version__} {platform_version}" if platform_version else None)


def test_the_plan_and_the_run_use_the_same_device(machine):
    from benchmark.execution.cell_runner import CellRunner
    from benchmark.results.store import ResultStore

    machine(build=None)
    profile = loading.load_profile("smoke")
    runner = CellRunner(replace(profile, results="unused"), ResultStore(Path("unused")))
    assert runner.device == hardware.resolve_device(profile.backbone.device) == "cpu"


def test_no_other_module_asks_torch_or_nvidia_smi_for_the_device():
    """`doctor` compares both, the loader checks a device that was named, and the script of the tiny model runs alone."""
    allowed = {
        "benchmark/system/hardware.py",
        "benchmark/cli/system_checks.py",
        "methods/core/backbone.py",
        "methods/tiny/build.py",
    }
    asking = {
        path.relative_to(ROOT).as_posix()
        for package in ("tasks", "methods", "benchmark")
        for path in (ROOT / package).rglob("*.py")
        if re.search(r"cuda\.(is_available|device_count)|\"nvidia-smi\"", path.read_text(encoding="utf-8"))
    }
    assert asking - {"benchmark/cli/doctor.py"} == allowed
