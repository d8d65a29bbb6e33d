"""Start Ray on this machine or join a Ray cluster, and check that its machines have the same files and installation."""

import os
import signal
import socket
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from benchmark.config.profile import Profile
from benchmark.grid import identity
from benchmark.system.hardware import count_cpu_cores
from tasks.core.types import UsageError

CONNECT_TIMEOUT_SECONDS = 5.0  # seconds to wait for a connection to the cluster
OBJECT_STORE_BYTES = 2**27  # bytes of the object store of a local Ray: little data passes through it
RAY_LOGGING_OPTIONS = {"log_to_driver": False, "logging_level": "ERROR"}


def import_ray() -> ModuleType:
    """Import Ray on first use, with its telemetry off."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # no telemetry
    import ray

    return ray


def check_ray_available(address: str | None) -> None:
    """Raise UsageError if Ray is not installed, or if no server answers at the address of the cluster."""
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
        raise UsageError(
            f"--address {address}: no server answers there ({error}); is `ray start --head` running?"
        ) from error


def start_or_join_cluster(profile: Profile, address: str | None) -> tuple[Profile, str]:
    """Start Ray on this machine, or join a cluster.

    -> the profile with its number of actors (one per GPU, else one per CPU, by default), and "cuda" or "cpu".
    """
    sigterm_handler = signal.getsignal(signal.SIGTERM)
    requested_workers = profile.workers if isinstance(profile.workers, int) else 0
    if address is None:
        start_local_ray(max(count_cpu_cores(), requested_workers))
    else:
        connect_to_cluster(address)
    signal.signal(signal.SIGTERM, sigterm_handler)  # Ray has replaced it
    num_gpus = count_cluster_gpus(profile)
    max_workers = num_gpus or round(import_ray().cluster_resources().get("CPU", 0))
    if not max_workers:
        raise UsageError(f"the Ray cluster at {address} has neither a GPU nor a CPU to run on")
    return replace(profile, workers=requested_workers or max_workers), "cuda" if num_gpus else "cpu"


def start_local_ray(num_cpus: int) -> None:
    """Start Ray on this machine only; it is not reachable from other machines."""
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = (
        "0"  # on every platform this makes Ray listen on the loopback interface only
    )
    os.environ.setdefault("RAY_worker_niceness", "0")  # normal priority; Ray's default is 15
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
    """Join a running cluster that this machine is part of; raises UsageError if Ray cannot."""
    try:
        import_ray().init(address, ignore_reinit_error=True, **RAY_LOGGING_OPTIONS)
    except (ConnectionError, RuntimeError, ValueError) as error:
        message = " ".join(str(error).split())[:200].rstrip(".")
        hint = "a cluster with token authentication needs RAY_AUTH_MODE=token on this machine too"
        raise UsageError(f"--address {address}: Ray cannot join it: {message}; {hint}") from error


def count_cluster_gpus(profile: Profile) -> int:
    """Return the number of GPUs of the cluster; 0 if the profile runs on the CPU."""
    return 0 if profile.backbone.device == "cpu" else round(import_ray().cluster_resources().get("GPU", 0))


class DriverEnvironment(NamedTuple):
    """Folder, import path and installation of the process that started the run; its actors need the same."""

    working_folder: str
    import_path: list[str]  # sys.path
    probe_file: str  # a file in the results folder
    installation: dict[str, str]

    @classmethod
    def capture(cls, probe_file: Path) -> "DriverEnvironment":
        """Describe this process; `probe_file` is a file in the results folder."""
        return cls(os.getcwd(), sys.path, str(probe_file.absolute()), describe_installation())

    def apply(self) -> None:
        """Use the driver's working folder and import path in this actor process.

        Raises UsageError if a folder is missing on this machine or its installation differs.
        """
        if not Path(self.working_folder).is_dir() or not Path(self.probe_file).exists():
            problem = (
                f"{Path(self.probe_file).parent} or {self.working_folder} is not there on a machine of the cluster"
            )
            raise UsageError(f"{problem}; put both on a file system that all machines share, under the same path")
        os.chdir(self.working_folder)
        sys.path += [folder for folder in self.import_path if folder not in sys.path]
        here = describe_installation()
        differences = [
            f"{name} {value} -> {here[name]}" for name, value in self.installation.items() if here[name] != value
        ]
        if differences:
            raise UsageError(
                f"a machine of the cluster has a different installation: {', '.join(differences)}; make them equal"
            )


def describe_installation() -> dict[str, str]:
    """Return the library versions and the hash of the training code, which must be the same on all machines."""
    return identity.get_library_versions() | {"training code": identity.hash_training_code()[:10]}
