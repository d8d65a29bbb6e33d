"""The device: its memory by allocation counters, its clock, and what it can do at most."""

import gc
from statistics import median
from time import perf_counter

import torch

MATMUL = {"cuda": 8192, "cpu": 128}  # of the square product that tells the peak


class Device:
    """`name` is cpu, cuda or cuda:1. On a CPU nothing is counted: None stands for bytes that nobody counted."""

    def __init__(self, name: str) -> None:
        self.place = torch.device(name)
        self.counts = self.place.type == "cuda"

    def wait(self) -> None:
        if self.counts:
            torch.cuda.synchronize(self.place)

    def clock(self) -> float:
        self.wait()
        return perf_counter()

    def tidy(self) -> None:
        """Let go of what nobody holds, and count the highest memory anew."""
        if self.counts:
            gc.collect()
            torch.cuda.synchronize(self.place)
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.place)

    def held(self) -> int | None:
        """Bytes that tensors hold now."""
        return torch.cuda.memory_allocated(self.place) if self.counts else None

    def peak(self) -> int | None:
        """The most that they held since `tidy`."""
        return torch.cuda.max_memory_allocated(self.place) if self.counts else None

    def size(self) -> int | None:
        """Bytes of memory of the whole device."""
        return torch.cuda.get_device_properties(self.place).total_memory if self.counts else None


def peak(device: Device) -> dict[str, float]:
    """bf16 matrix product on random data, and a copy within the device: medians of ten after three to warm up."""
    n = MATMUL[device.place.type]
    a, b = (torch.randn(n, n, device=device.place, dtype=torch.bfloat16) for _ in range(2))
    seconds = timed(device, lambda: a @ b)
    source = torch.empty(16 * n * n, dtype=torch.bfloat16, device=device.place).normal_()
    target = torch.empty_like(source)
    copy = timed(device, lambda: target.copy_(source))
    size = 2 * source.numel() * source.element_size()  # read and written
    return {"matmul": n, "flops": 2 * n**3 / seconds, "bytes_per_second": size / copy}


def timed(device: Device, do, repeat: int = 10, warm: int = 3) -> float:
    """Median seconds of a call."""
    for _ in range(warm):
        do()
    seconds = []
    for _ in range(repeat):
        start = device.clock()
        do()
        seconds.append(device.clock() - start)
    return median(seconds)
