"""Data-parallel group: several processes of one machine, one device each, train each cell together (`ddp` or `fsdp`).

All ranks run the same cells in the same order; only rank 0 writes results. If a process dies, the group ends and the
current cell fails. If a cell fails on one rank only, the other ranks would wait for its gradients, so the group ends
after DESYNC_TIMEOUT_SECONDS.
"""

import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from time import sleep

import torch
from torch import distributed

from benchmark.config.profile import Profile
from benchmark.execution.cell_runner import CellRunner
from benchmark.grid.cells import PlannedCell
from benchmark.results.cell_result import CellResult
from benchmark.results.schema import FileRecord
from benchmark.results.store import ResultStore
from benchmark.system import hardware

DESYNC_TIMEOUT_SECONDS = 60.0  # seconds that a rank whose cell failed waits for the other ranks


class NullStore(ResultStore):
    """Result store of the followers: writes nothing, because rank 0 has the same results."""

    def save_result(self, planned_cell: PlannedCell, result: CellResult) -> None:
        """Discard the result."""

    def save_file(self, path: Path, data: bytes) -> FileRecord:
        """Discard the file and return a record of it."""
        return FileRecord(path.relative_to(self.folder).as_posix(), "", len(data))


class DeviceGroup:
    """Rank 0 of the group: runs cells together with the follower processes that it starts."""

    def __init__(self, profile: Profile, store: ResultStore) -> None:
        self.store = store
        self.is_closed = False
        self.rendezvous_folder = TemporaryDirectory(prefix="ranks-")
        rendezvous_file = f"{self.rendezvous_folder.name}/meeting"
        self.follower_pipes = [
            self.start_follower(profile, rank, rendezvous_file) for rank in range(1, profile.devices)
        ]
        self.cell_runner = join_process_group(profile, store, 0, rendezvous_file)

    def start_follower(self, profile: Profile, rank: int, rendezvous_file: str) -> Connection:
        """Start the process of one rank. -> this side's end of the pipe to it."""
        parent_pipe, child_pipe = Pipe()
        command = [sys.executable, "-m", "benchmark.execution.device_group", str(child_pipe.fileno())]
        process = subprocess.Popen(command, pass_fds=[child_pipe.fileno()], stdout=subprocess.DEVNULL)
        child_pipe.close()
        parent_pipe.send((profile, rank, rendezvous_file, self.store.previous_attempts))
        threading.Thread(target=self.watch_follower, args=(process,), daemon=True).start()
        return parent_pipe

    def watch_follower(self, process: subprocess.Popen) -> None:
        """End this process if the follower exits: collective operations would wait for it forever."""
        exit_code = process.wait()
        if not self.is_closed:
            print(f"a process of the device group exited with code {exit_code}", file=sys.stderr, flush=True)
            os._exit(1)

    def run(self, pack: Sequence[PlannedCell]) -> list[CellResult]:
        """Run a pack on all ranks. -> rank 0's results; raises RuntimeError if a cell failed on this rank only."""
        for pipe in self.follower_pipes:
            pipe.send(pack)
        results = self.cell_runner.run(pack)
        has_failed = not all(result.is_done for result in results)
        for pipe in self.follower_pipes:
            if has_failed and not pipe.poll(DESYNC_TIMEOUT_SECONDS):
                raise RuntimeError("a cell failed in one process of the device group but not in the others")
            pipe.recv()
            pipe.send("go on")
        return results

    def close(self) -> None:
        """Close the pipes, which ends the followers, and leave the process group."""
        self.is_closed = True
        for pipe in self.follower_pipes:
            pipe.close()
        distributed.destroy_process_group()
        self.rendezvous_folder.cleanup()


def join_process_group(profile: Profile, store: ResultStore, rank: int, rendezvous_file: str) -> CellRunner:
    """Join the process group as `rank`, then load the backbone, or its shard, on the device of this rank."""
    uses_cuda = hardware.is_cuda_device(profile.backbone.device)
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # listen on the loopback interface only
    if uses_cuda:
        torch.cuda.set_device(rank)
        profile = replace(profile, backbone=replace(profile.backbone, device=f"cuda:{rank}"))
    distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if uses_cuda else "gloo",
        init_method=f"file://{rendezvous_file}",
        rank=rank,
        world_size=profile.devices,
    )
    return CellRunner(profile, store)


def run_follower(pipe: Connection) -> None:
    """Main loop of a follower: run every pack that rank 0 sends, until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=exit_with_parent, args=(os.getppid(),), daemon=True).start()
    try:
        profile, rank, rendezvous_file, previous_attempts = pipe.recv()
        store = NullStore(profile.results_folder, previous_attempts)
        cell_runner = join_process_group(profile, store, rank, rendezvous_file)
        gc.freeze()
        while True:
            results = cell_runner.run(pipe.recv())
            pipe.send("over")
            if not all(result.is_done for result in results) and not pipe.poll(DESYNC_TIMEOUT_SECONDS):
                sys.exit("a cell failed in one process of the device group but not in the others")
            pipe.recv()
    except (EOFError, ConnectionResetError, BrokenPipeError):
        os._exit(0)  # a normal exit would wait for the other ranks


def exit_with_parent(parent_pid: int) -> None:
    """End this process once its parent process is gone."""
    while os.getppid() == parent_pid:
        sleep(1)
    os._exit(1)


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    run_follower(Connection(int(sys.argv[1])))
