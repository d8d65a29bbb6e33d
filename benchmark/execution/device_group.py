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

from benchmark.config.profile import Profile
from benchmark.execution.cell_runner import CellRunner
from benchmark.grid.cells import PlannedCell
from benchmark.results.store import ResultStore

DESYNC_TIMEOUT_SECONDS = 60.0  # seconds that a process which failed waits for the others


class NullStore(ResultStore):
    """Writes nothing: the first process has the same results."""

    def save_result(self, planned: PlannedCell, result: Mapping[str, Any]) -> None: ...

    def save_attachment(self, path: Path, data: bytes) -> dict[str, Any]:
        return {}


class DeviceGroup:
    """The first process, and those that follow it."""

    def __init__(self, profile: Profile, store: ResultStore) -> None:
        self.store, self.is_closed = store, False
        self.rendezvous_folder = TemporaryDirectory(prefix="ranks-")
        meeting = f"{self.rendezvous_folder.name}/meeting"
        self.follower_pipes = [self.start_follower(profile, rank, meeting) for rank in range(1, profile.devices)]
        self.cell_runner = join_process_group(profile, store, 0, meeting)

    def start_follower(self, profile: Profile, rank: int, rendezvous_file: str) -> Connection:
        here, there = Pipe()
        words = [sys.executable, "-m", "benchmark.execution.device_group", str(there.fileno())]
        process = subprocess.Popen(words, pass_fds=[there.fileno()], stdout=subprocess.DEVNULL)
        there.close()
        here.send((profile, rank, rendezvous_file, self.store.previous_attempts))
        threading.Thread(target=self.watch_follower, args=(process,), daemon=True).start()
        return here

    def watch_follower(self, process: subprocess.Popen) -> None:
        """Where a follower dies, sums would wait for it for ever."""
        code = process.wait()
        if not self.is_closed:
            print(f"a process that shares the cells left with exit code {code}", file=sys.stderr, flush=True)
            os._exit(1)

    def run(self, pack: Sequence[PlannedCell]) -> list[dict[str, Any]]:
        for other in self.follower_pipes:
            other.send(pack)
        results = self.cell_runner.run(pack)
        alone = any(result["state"] == "failed" for result in results)
        for other in self.follower_pipes:
            if alone and not other.poll(DESYNC_TIMEOUT_SECONDS):
                raise RuntimeError("a cell failed in one process and not in those that share it")
            other.recv()
            other.send("go on")
        return results

    def close(self) -> None:
        self.is_closed = True
        for other in self.follower_pipes:
            other.close()
        distributed.destroy_process_group()
        self.rendezvous_folder.cleanup()


def join_process_group(profile: Profile, store: ResultStore, rank: int, rendezvous_file: str) -> CellRunner:
    """Meet the other processes, then load the backbone on this one's device, or its share of it."""
    cuda = profile.backbone.device != "cpu" and torch.cuda.is_available()
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # nobody else is asked to listen
    if cuda:
        torch.cuda.set_device(rank)
        profile = replace(profile, backbone=replace(profile.backbone, device=f"cuda:{rank}"))
    distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if cuda else "gloo",
        init_method=f"file://{rendezvous_file}",
        rank=rank,
        world_size=profile.devices,
    )
    return CellRunner(profile, store)


def run_follower(pipe: Connection) -> None:
    """Run what the first process runs, until it is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=exit_with_parent, args=(os.getppid(),), daemon=True).start()
    try:
        profile, rank, meeting, tried = pipe.recv()
        bench = join_process_group(profile, NullStore(profile.results_folder, tried), rank, meeting)
        gc.freeze()
        while True:
            results = bench.run(pipe.recv())
            pipe.send("over")
            if any(result["state"] == "failed" for result in results) and not pipe.poll(DESYNC_TIMEOUT_SECONDS):
                sys.exit("a cell failed in one process and not in those that share it")
            pipe.recv()
    except (EOFError, ConnectionResetError, BrokenPipeError):
        os._exit(0)  # what is left of the group would wait for the others


def exit_with_parent(parent_pid: int) -> None:
    while os.getppid() == parent_pid:
        sleep(1)
    os._exit(1)


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    run_follower(Connection(int(sys.argv[1])))
