"""What doctor finds on machines made by hand: without packages, network, room, rights, or with a GPU that is none."""

import io
import json
import os
from pathlib import Path
from unittest.mock import Mock

import pytest
from rich.console import Console

from benchmark.cli import doctor, system_checks
from benchmark.cli.main import main
from benchmark.cli.system_checks import FAILED, OK, WARNING, Finding
from benchmark.scheduling import requirements
from benchmark.system import hardware

KEY = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network, no GPU, no keys, caches below tmp_path."""
    for name in ("WANDB_API_KEY", "NETRC", "WANDB_BASE_URL", "HF_DATASETS_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(
        "ADAPTERBENCH_CACHE", os.environ.get("ADAPTERBENCH_CACHE") or str(Path.home() / ".cache/adapterbench")
    )
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(requirements, "_probe_host", lambda url, found: found.update({url: "no such host"}))
    monkeypatch.setattr(hardware, "get_gpu_memory_mib", lambda: ())
    monkeypatch.chdir(tmp_path)


def findings(capsys, *words: str) -> tuple[int, dict[str, dict], dict]:
    code = main(["doctor", "--json", *words])
    said = json.loads(capsys.readouterr().out)
    return code, {one["check"]: one for one in said["findings"]}, said


def test_the_demo_needs_no_network(capsys):
    code, found, said = findings(capsys)
    assert code == 0
    assert said["can_run"]
    assert said["profile"] == "demo"
    assert "no CUDA device" in said["why"]
    assert {one["state"] for one in found.values()} <= {OK, WARNING}
    assert found["huggingface.co"] == {
        "check": "huggingface.co",
        "state": WARNING,
        "message": "no such host",
        "fix": "",
    }
    assert said["next"] == [
        "python -m benchmark plan --profile demo: shows the cells and the estimated time",
        "python -m benchmark run --profile demo",
    ]


def test_what_a_profile_lacks_is_named_with_what_to_do(capsys):
    code, found, said = findings(capsys, "--profile", "small")
    assert code == 1
    assert not said["can_run"]
    assert {name for name, one in found.items() if one["state"] == FAILED} == {"device", "backbone", "records"}
    assert "0 of 16 tasks present" in found["records"]["message"]
    assert said["next"][0].startswith("device: use a machine with a GPU")
    assert "fetch --profile small on a machine with a network" in said["next"][1]
    assert said["next"][-1] == "python -m benchmark doctor, to check again"


def test_with_a_network_what_is_missing_can_be_fetched(capsys, monkeypatch):
    monkeypatch.setattr(requirements, "_probe_host", lambda url, found: found.update({url: ""}))
    words = ["--profile", "smoke", "--backbone", "someorg/small-1M", "--source", "hub", "--tasks", "ocnli"]
    code, found, said = findings(capsys, *words, "--methods", "lora")
    assert code == 0
    assert found["backbone"]["state"] == found["records"]["state"] == WARNING
    assert said["next"][0] == "backbone, records: python -m benchmark fetch --profile smoke, or let the run fetch it"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    code, found, _ = findings(capsys, *words, "--methods", "lora")
    assert code == 1
    assert found["hub"]["message"] == "HF_HUB_OFFLINE is set: not checked"
    assert found["backbone"]["state"] == FAILED


def test_files_of_ones_own_that_are_not_there(capsys, tmp_path):
    words = [
        "--profile",
        "smoke",
        "--source",
        "local",
        "--data-dir",
        str(tmp_path),
        "--tasks",
        "drcd",
        "--methods",
        "lora",
    ]
    code, found, _ = findings(capsys, *words)
    assert code == 1
    assert "0 of 1 tasks present (source local); missing: drcd" in found["records"]["message"]


def test_packages_are_held_against_what_is_required(capsys, monkeypatch):
    versions = {"peft": None, "torch": "1.13.0", "ray": None}
    real = system_checks.get_installed_version
    monkeypatch.setattr(system_checks, "get_installed_version", lambda name: versions.get(name, real(name)))
    code, found, said = findings(capsys)
    assert code == 1
    assert found["torch"]["state"] == found["peft"]["state"] == FAILED
    assert found["torch"]["message"].startswith("1.13.0 (required >=")
    assert found["ray"]["state"] == WARNING
    assert "not checked while packages are missing" in found["profile"]["message"]
    assert any(step.startswith('peft: pip install "peft>=') for step in said["next"])


def test_a_key_is_never_shown(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    _, found, said = findings(capsys)
    assert "key from WANDB_API_KEY" in found["W&B"]["message"]
    assert KEY not in json.dumps(said)
    monkeypatch.delenv("WANDB_API_KEY")
    (tmp_path / ".netrc").write_text(f"machine api.wandb.ai\n  login user\n  password {KEY}\n")
    _, found, said = findings(capsys)
    assert "key from .netrc" in found["W&B"]["message"]
    assert KEY not in json.dumps(said)
    (tmp_path / ".netrc").write_text("machine elsewhere\n  login user\n  password x\n")
    assert "not logged in" in findings(capsys)[1]["W&B"]["message"]


def test_uploading_without_a_key_or_a_network_is_said(capsys, tmp_path, monkeypatch):
    (tmp_path / "mine.yaml").write_text("methods: [lora]\ntasks: [chnsent]\nwandb: online\n")
    _, found, _ = findings(capsys, "--profile", str(tmp_path / "mine.yaml"))
    assert found["W&B"]["state"] == WARNING
    assert found["W&B"]["fix"] == "wandb login"
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    _, found, _ = findings(capsys, "--profile", str(tmp_path / "mine.yaml"))
    assert "wandb sync" in found["W&B"]["fix"]


def test_folders_without_room_or_rights(tmp_path, monkeypatch):
    def one() -> Finding:
        return next(iter(system_checks.check_folders({"results": tmp_path / "a" / "b"}, 0)))

    assert one().state == OK
    monkeypatch.setattr(system_checks, "disk_usage", lambda path: type("Disk", (), {"free": 9e8}))
    assert one() == Finding(
        "results", FAILED, f"{tmp_path}/a/b: 858 MB free, 954 MB are needed", "name another folder with --results DIR"
    )
    monkeypatch.setattr(system_checks.os, "access", lambda path, how: False)
    assert "not writable" in one().message


def test_what_still_comes_into_the_cache_has_to_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(system_checks, "disk_usage", lambda path: type("Disk", (), {"free": 10e9}))
    states = [
        one.state for one in system_checks.check_folders({"results": tmp_path, system_checks.HUB_CACHE: tmp_path}, 15e9)
    ]
    assert states == [OK, FAILED]


def test_memory_of_a_container_counts(tmp_path, monkeypatch):
    (tmp_path / "memory.max").write_text("2000000000\n")
    (tmp_path / "memory.current").write_text("1500000000\n")
    monkeypatch.setattr(system_checks, "CGROUP_MEMORY_LIMIT", tmp_path / "memory.max")
    assert system_checks.get_memory_bytes() == (2e9, 5e8)
    assert system_checks.check_memory().state == FAILED


def smi(folder: Path, monkeypatch: pytest.MonkeyPatch, capability: str, torch: str) -> dict[str, Finding]:
    """What is found where the driver and torch say this."""
    path = folder / "nvidia-smi"
    path.write_text(f"#!/bin/sh\necho 'A GPU, 24576, {capability}, 550.1'\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(system_checks, "CUDA_PROBE", f"print({torch!r})")
    return {one.check: one for one in system_checks.check_gpus(system_checks.start_torch_probe())}


@pytest.mark.parametrize(
    ("torch", "state", "said"),
    [
        ("1 12.8", OK, "built for CUDA 12.8"),
        ("0 None", FAILED, "no CUDA"),
        ("0 12.8", FAILED, "driver may be too old"),
        ("", FAILED, ""),
    ],
)
def test_a_gpu_is_worth_what_torch_sees_of_it(tmp_path, monkeypatch, torch, state, said):
    found = smi(tmp_path, monkeypatch, "9.0", torch)
    assert found["cuda:0"].message == "A GPU, 24 GB, bf16, driver 550.1"
    assert found["torch and GPU"].state == state
    assert said in found["torch and GPU"].message


def test_an_old_gpu_has_no_bf16(tmp_path, monkeypatch):
    assert "no bf16" in smi(tmp_path, monkeypatch, "7.5", "1 12.8")["cuda:0"].message


def test_hosts_that_hang_are_waited_for_once(monkeypatch):
    clock = [0.0]

    class Hangs(Mock):
        def join(self, seconds: float) -> None:
            clock[0] += seconds

    monkeypatch.setattr(requirements, "Thread", Hangs)
    monkeypatch.setattr(requirements, "monotonic", lambda: clock[0])
    assert set(requirements.find_unreachable_hosts([f"http://{number}" for number in range(5)])) == {
        f"http://{number}" for number in range(5)
    }
    assert clock[0] == requirements.HOST_TIMEOUT_SECONDS


def test_a_terminal_has_marks_and_a_file_plain_letters():
    found = [Finding("a", OK, "[b]fine[/b]"), Finding("b", WARNING, "so so"), Finding("c", FAILED, "bad", "mend it")]
    plain, terminal = io.StringIO(), io.StringIO()
    doctor.print_findings(Console(file=plain, width=80), found, ["c: mend it"])
    doctor.print_findings(Console(file=terminal, width=80, force_terminal=True), found, ["c: mend it"])
    assert plain.getvalue().isascii()
    assert "[b]fine[/b]" in plain.getvalue()
    assert "1. c: mend it" in plain.getvalue()
    assert all(mark in terminal.getvalue() for mark in "✓!✗")
