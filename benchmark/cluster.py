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

from benchmark import catalogue, grid
from benchmark.engine import cores
from benchmark.profile import Profile
from tasks.example import UsageError

PATIENCE = 5.0  # seconds for an address to answer
STORE = 2**27  # bytes of Ray's object store where it is started here: what passes through it is small
QUIET = {"log_to_driver": False, "logging_level": "ERROR"}


def library() -> ModuleType:
    """Ray, imported where it is asked for."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # no telemetry
    import ray

    return ray


def check(address: str | None) -> None:
    """Find out within seconds that there is no Ray, or nobody at an address."""
    if find_spec("ray") is None:
        raise UsageError("--engine ray: Ray is not installed; `pip install ray`, or leave --engine out")
    if address in (None, "auto"):
        return
    host, _, port = address.rpartition(":")
    if "/" in address or not host or not port.isdigit():
        raise UsageError(f"--address {address!r}: write host:port of the cluster's head (6379), or auto")
    try:
        socket.create_connection((host, int(port)), PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise UsageError(f"--address {address}: nobody answers there ({error}); is `ray start --head` on?") from error


def join(profile: Profile, address: str | None) -> tuple[Profile, str]:
    """Start Ray here, or join a cluster. -> the profile, with an actor for each place; and the device it will have."""
    terminated = signal.getsignal(signal.SIGTERM)
    asked = profile.workers if isinstance(profile.workers, int) else 0
    if address is None:
        start(max(cores(), asked))
    else:
        connect(address)
    signal.signal(signal.SIGTERM, terminated)  # Ray put its own in its place
    gpus = devices(profile)
    places = gpus or round(library().cluster_resources().get("CPU", 0))
    if not places:
        raise UsageError(f"the Ray cluster at {address} has neither a GPU nor a CPU to run on")
    return replace(profile, workers=asked or places), "cuda" if gpus else "cpu"


def start(cpus: int) -> None:
    """Ray on this machine alone: nothing of it can be reached from another."""
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # its name apart: Ray then listens on the loopback only
    os.environ.setdefault("RAY_worker_niceness", "0")  # as any process of this machine; Ray would say 15
    ray = library()
    if not ray.is_initialized():
        ray.init("local", num_cpus=cpus, object_store_memory=STORE, include_dashboard=False, **QUIET)


def connect(address: str) -> None:
    """A cluster that runs, and that this machine is part of."""
    try:
        library().init(address, ignore_reinit_error=True, **QUIET)
    except (ConnectionError, RuntimeError, ValueError) as error:
        said = " ".join(str(error).split())[:200].rstrip(".")
        hint = "one that asks for a token needs RAY_AUTH_MODE=token here too"
        raise UsageError(f"--address {address}: Ray cannot join it: {said}; {hint}") from error


def devices(profile: Profile) -> int:
    """GPUs that Ray has for this profile."""
    return 0 if profile.backbone.device == "cpu" else round(library().cluster_resources().get("GPU", 0))


class Place(NamedTuple):
    """Where a run was started, and what its actors have to have in common with it."""

    folder: str
    path: list[str]  # for imports
    probe: str  # a file in the results folder
    facts: dict[str, Any]

    @classmethod
    def here(cls, probe: Path) -> "Place":
        return cls(os.getcwd(), sys.path, str(probe.absolute()), facts())

    def enter(self) -> None:
        """Make an actor's process like the one that asked for it, or say why that cannot be."""
        if not Path(self.folder).is_dir() or not Path(self.probe).exists():
            lost = f"{Path(self.probe).parent} or {self.folder} is not there on a machine of the cluster"
            raise UsageError(f"{lost}; put both on a file system that all machines share, under the same path")
        os.chdir(self.folder)
        sys.path += [folder for folder in self.path if folder not in sys.path]
        if other := grid.changed(self.facts, facts()):
            raise UsageError(f"a machine of the cluster has another installation: {', '.join(other)}; make them equal")


def facts() -> dict[str, Any]:
    """What decides numbers and is part of the installation."""
    return {"libraries": grid.libraries(), "scoring": catalogue.code_of(*grid.SCORING)}
