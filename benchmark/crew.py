"""Several processes of one machine that run each cell together, a device each: `strategy: ddp` or `fsdp`.

All do the same, cell after cell; only the first writes results. One that dies ends the others, and with them the cell
at hand; one that fails alone leaves the others waiting for its gradients, so after `APART` seconds all end.
"""

import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from time import sleep
from typing import Any

import torch
from torch import distributed

from benchmark.grid import Planned
from benchmark.profile import Profile
from benchmark.run import Bench
from benchmark.store import Store

APART = 60.0  # seconds that a process which failed waits for the others


class Silent(Store):
    """Writes nothing: the first process has the same results."""

    def save(self, planned: Planned, result: Mapping[str, Any]) -> None: ...

    def keep(self, path: Path, data: bytes) -> dict[str, Any]:
        return {}


class Crew:
    """The first process, and those that follow it."""

    def __init__(self, profile: Profile, store: Store) -> None:
        self.store, self.over = store, False
        self.folder = TemporaryDirectory(prefix="ranks-")
        meeting = f"{self.folder.name}/meeting"
        self.others = [self.follower(profile, rank, meeting) for rank in range(1, profile.devices)]
        self.bench = joined(profile, store, 0, meeting)

    def follower(self, profile: Profile, rank: int, meeting: str) -> Connection:
        here, there = Pipe()
        words = [sys.executable, "-m", "benchmark.crew", str(there.fileno())]
        process = subprocess.Popen(words, pass_fds=[there.fileno()], stdout=subprocess.DEVNULL)
        there.close()
        here.send((profile, rank, meeting, self.store.tried))
        threading.Thread(target=self.watch, args=(process,), daemon=True).start()
        return here

    def watch(self, process: subprocess.Popen) -> None:
        """Where a follower dies, sums would wait for it for ever."""
        code = process.wait()
        if not self.over:
            print(f"a process that shares the cells left with exit code {code}", file=sys.stderr, flush=True)
            os._exit(1)

    def run(self, pack: Sequence[Planned]) -> list[dict[str, Any]]:
        for other in self.others:
            other.send(pack)
        results = self.bench.run(pack)
        alone = any(result["state"] == "failed" for result in results)
        for other in self.others:
            if alone and not other.poll(APART):
                raise RuntimeError("a cell failed in one process and not in those that share it")
            other.recv()
            other.send("go on")
        return results

    def close(self) -> None:
        self.over = True
        for other in self.others:
            other.close()
        distributed.destroy_process_group()
        self.folder.cleanup()


def joined(profile: Profile, store: Store, rank: int, meeting: str) -> Bench:
    """Meet the other processes, then load the backbone on this one's device, or its share of it."""
    cuda = profile.backbone.device != "cpu" and torch.cuda.is_available()
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # nobody else is asked to listen
    if cuda:
        torch.cuda.set_device(rank)
        profile = replace(profile, backbone=replace(profile.backbone, device=f"cuda:{rank}"))
    distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if cuda else "gloo",
        init_method=f"file://{meeting}",
        rank=rank,
        world_size=profile.devices,
    )
    return Bench(profile, store)


def follow(pipe: Connection) -> None:
    """Run what the first process runs, until it is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=leave_with, args=(os.getppid(),), daemon=True).start()
    try:
        profile, rank, meeting, tried = pipe.recv()
        bench = joined(profile, Silent(profile.folder, tried), rank, meeting)
        gc.freeze()
        while True:
            results = bench.run(pipe.recv())
            pipe.send("over")
            if any(result["state"] == "failed" for result in results) and not pipe.poll(APART):
                sys.exit("a cell failed in one process and not in those that share it")
            pipe.recv()
    except (EOFError, ConnectionResetError, BrokenPipeError):
        os._exit(0)  # what is left of the group would wait for the others


def leave_with(parent: int) -> None:
    while os.getppid() == parent:
        sleep(1)
    os._exit(1)


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    follow(Connection(int(sys.argv[1])))
