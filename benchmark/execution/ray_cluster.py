"""Ray itself: started on this machine or joined as a cluster, and what the machines of one must have in common."""

import os
import signal
import socket
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from benchmark.config.profile import Profile
from benchmark.grid import identity
from benchmark.system.hardware import count_cpu_cores
from tasks.core.types import UsageError

CONNECT_TIMEOUT_SECONDS = 5.0  # seconds for an address to answer
OBJECT_STORE_BYTES = 2**27  # bytes of Ray's object store where it is started here: what passes through it is small
RAY_LOGGING_OPTIONS = {"log_to_driver": False, "logging_level": "ERROR"}


def import_ray() -> ModuleType:
    """Ray, imported where it is asked for."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # no telemetry
    import ray

    return ray


def check_ray_available(address: str | None) -> None:
    """Find out within seconds that there is no Ray, or nobody at an address."""
    if find_spec("ray") is None:
        raise UsageError("--engine ray: Ray is not installed; `pip install ray`, or leave --engine out")
    if address in (None, "auto"):
        return
    host, _, port = address.rpartition(":")
    if "/" in address or not host or not port.isdigit():
        raise UsageError(f"--address {address!r}: write host:port of the cluster's head (6379), or auto")
    try:
        socket.create_connection((host, int(port)), CONNECT_TIMEOUT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UsageError(f"--address {address}: nobody answers there ({error}); is `ray start --head` on?") from error


def start_or_join_cluster(profile: Profile, address: str | None) -> tuple[Profile, str]:
    """Start Ray here, or join a cluster. -> the profile, with an actor for each place; and the device it will have."""
    terminated = signal.getsignal(signal.SIGTERM)
    asked = profile.workers if isinstance(profile.workers, int) else 0
    if address is None:
        start_local_ray(max(count_cpu_cores(), asked))
    else:
        connect_to_cluster(address)
    signal.signal(signal.SIGTERM, terminated)  # Ray put its own in its place
    gpus = count_cluster_gpus(profile)
    places = gpus or round(import_ray().cluster_resources().get("CPU", 0))
    if not places:
        raise UsageError(f"the Ray cluster at {address} has neither a GPU nor a CPU to run on")
    return replace(profile, workers=asked or places), "cuda" if gpus else "cpu"


def start_local_ray(num_cpus: int) -> None:
    """Ray on this machine alone: nothing of it can be reached from another."""
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # its name apart: Ray then listens on the loopback only
    os.environ.setdefault("RAY_worker_niceness", "0")  # as any process of this machine; Ray would say 15
    ray = import_ray()
    if not ray.is_initialized():
        ray.init(
            "local",
            num_cpus=num_cpus,
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            **RAY_LOGGING_OPTIONS,
        )


def connect_to_cluster(address: str) -> None:
    """A cluster that runs, and that this machine is part of."""
    try:
        import_ray().init(address, ignore_reinit_error=True, **RAY_LOGGING_OPTIONS)
    except (ConnectionError, RuntimeError, ValueError) as error:
        said = " ".join(str(error).split())[:200].rstrip(".")
        hint = "one that asks for a token needs RAY_AUTH_MODE=token here too"
        raise UsageError(f"--address {address}: Ray cannot join it: {said}; {hint}") from error


def count_cluster_gpus(profile: Profile) -> int:
    """GPUs that Ray has for this profile."""
    return 0 if profile.backbone.device == "cpu" else round(import_ray().cluster_resources().get("GPU", 0))


class DriverEnvironment(NamedTuple):
    """Where a run was started, and what its actors have to have in common with it."""

    working_folder: str
    import_path: list[str]  # for imports
    probe_file: str  # a file in the results folder
    installation: dict[str, Any]

    @classmethod
    def capture(cls, probe_file: Path) -> "DriverEnvironment":
        return cls(os.getcwd(), sys.path, str(probe_file.absolute()), describe_installation())

    def apply(self) -> None:
        """Make an actor's process like the one that asked for it, or say why that cannot be."""
        if not Path(self.working_folder).is_dir() or not Path(self.probe_file).exists():
            lost = f"{Path(self.probe_file).parent} or {self.working_folder} is not there on a machine of the cluster"
            raise UsageError(f"{lost}; put both on a file system that all machines share, under the same path")
        os.chdir(self.working_folder)
        sys.path += [folder for folder in self.import_path if folder not in sys.path]
        if other := identity.describe_changes(self.installation, describe_installation()):
            raise UsageError(f"a machine of the cluster has another installation: {', '.join(other)}; make them equal")


def describe_installation() -> dict[str, Any]:
    """What decides numbers and is part of the installation."""
    return {"libraries": identity.get_library_versions(), "scoring": identity.hash_training_code()}
