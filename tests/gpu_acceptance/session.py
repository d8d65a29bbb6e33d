"""The checks in their order, each on its own, under one budget of time."""

import json
import os
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import torch

from benchmark.system.environment import collect_environment
from benchmark.system.redaction import describe_failure
from methods.core.backbone import Backbone
from tests.gpu_acceptance import all_methods as every
from tests.gpu_acceptance import exactness as exact
from tests.gpu_acceptance import few_shot as race
from tests.gpu_acceptance import model_shapes as shapes
from tests.gpu_acceptance import multi_stage as systems
from tests.gpu_acceptance import utilization as share
from tests.gpu_acceptance.device import Device, peak
from tests.gpu_acceptance.workload import Size

Found = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """How large each part is."""

    small: str  # shape of the backbone for what compares many cells
    large: str  # for what fills the device
    size: Size
    full: tuple[Size, ...]  # of training steps that fill the device: the first for which there is room
    score: Size
    blocks: tuple[int, ...]  # tokens of a scoring pass
    course: race.Course
    exact: tuple[str, ...] = ()  # methods; none: all


REAL = Plan(
    "0.5B", "7B", Size(), (Size(16, 512), Size(8, 512), Size(4, 512)), Size(128, 512, steps=2),
    (4096, 16384, 32768), race.Course(),
)  # fmt: skip
TINY = Plan(
    "tiny", "tiny", Size(2, 24, pack=2, steps=1, warm=1), (Size(2, 24, steps=1, warm=1),), Size(4, 24, steps=1),
    (64,), race.Course(tasks=("chnsent",), seeds=2, shots=2, steps=2, rows=2, test=4), ("lora", "ta_lora"),
)  # fmt: skip


@dataclass
class Session:
    """A run on one device. `found` is what is written."""

    place: str
    kind: str
    budget: float
    folder: Path
    start: float = field(default_factory=perf_counter)

    def __post_init__(self) -> None:
        self.device, self.plan = Device(self.place), REAL if self.kind == "real" else TINY
        self.loaded: tuple[str, Backbone] | None = None
        if self.device.counts:  # adapters are drawn on the CPU
            torch.set_num_threads(os.cpu_count() or 1)
        self.found: Found = {
            "schema": 1,
            "environment": vars(collect_environment(self.place)),
            "memory_bytes": self.device.size(),
            "plan": {"shapes": [self.plan.small, self.plan.large]},
            "checks": {},
        }

    @property
    def left(self) -> float:
        return self.budget - (perf_counter() - self.start)

    def backbone(self, shape: str) -> Backbone:
        """Resident; one at a time."""
        if self.loaded is None or self.loaded[0] != shape:
            self.loaded = None
            self.device.tidy()
            self.loaded = shape, shapes.made(shape, self.device.place)
        return self.loaded[1]

    def save(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        scratch = self.folder / "gpu.json.new"
        scratch.write_text(json.dumps(self.found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        scratch.replace(self.folder / "gpu.json")

    def run(self, names: list[str] | None = None) -> Found:
        """All checks, or those of these names, in their order."""
        for name in names or CHECKS:
            if name not in CHECKS:
                raise SystemExit(f"gpu-check: no check {name!r}; there are: {', '.join(CHECKS)}")
        for name in CHECKS if names is None else names:
            said = self.check(name)
            print(f"{name}: {said['state']} in {said['seconds']:.0f} s {said.get('reason', '')}".rstrip(), flush=True)
        from tests.gpu_acceptance.markdown_table import markdown

        (self.folder / "gpu.md").write_text(markdown(self.found) + "\n", encoding="utf-8")
        return self.found

    def check(self, name: str) -> Found:
        """One check: whatever it raises is its result. It yields what is wrong, and is cut off where the time ends."""
        said = self.found["checks"][name] = {"state": "running", "seconds": 0.0, "found": {}}
        begin, wrong, late = perf_counter(), [], self.left <= 0
        try:
            for problem in () if late else CHECKS[name](self, said["found"]):
                wrong += [problem] if problem else []
                if self.left <= 0:
                    late = True
                    break
            said["state"] = "failed" if wrong else "cut short" if late and said["found"] else "held"
        except Exception as error:  # whatever a check raises is its result, and the others go on
            traceback.print_exc()
            said |= {"state": "failed", **describe_failure(error)._asdict()}
        if late and not said["found"]:
            said["state"] = "left out"
        if late:
            said["reason"] = f"the budget of {self.budget:.0f} s was spent"
        if wrong:
            said["reason"] = "; ".join(wrong[:5])
        if self.loaded:
            self.loaded[1].detach()
        self.device.tidy()
        said["seconds"] = round(perf_counter() - begin, 1)
        self.save()
        return said


# -------------------------------------------------------------------- the checks; each yields what is wrong, or ""


def device(own: Session, found: Found) -> Iterator[str]:
    found |= peak(own.device)
    yield ""


def kernels(own: Session, found: Found) -> Iterator[str]:
    """The attention's seam under the flash and the memory-efficient kernel."""
    for name, said in exact.kernels(own.backbone(own.plan.small), own.plan.size).items():
        found[name] = said
        if "skipped" not in said:
            close = said["distance"] < exact.FAR / 2 and said["gradient"] < exact.FAR
            yield "" if said["g = 0 is the backbone"] and close else f"{name}: {said}"


def methods_small(own: Session, found: Found) -> Iterator[str]:
    yield from _methods(own, found, own.plan.small, own.plan.size)


def methods_large(own: Session, found: Found) -> Iterator[str]:
    yield from _methods(own, found, own.plan.large, every.small(own.plan.size))


def _methods(own: Session, found: Found, shape: str, size: Size) -> Iterator[str]:
    """Every method a few steps. The first one twice: it pays for what the device sets up once."""
    backbone, names = own.backbone(shape), every.names()
    found["shape"], found["size"], found["methods"] = shape, vars(size), {}
    found["weights_bytes"] = sum(p.numel() * p.element_size() for p in backbone.model.parameters())
    every.measure(own.device, backbone, "lora", shape, replace(size, steps=1, warm=1))
    for name in names:
        try:
            said = every.measure(own.device, backbone, name, shape, size)
        except Exception as error:  # of one method: the next goes on
            said = {"wrong": [describe_failure(error).reason]}
        backbone.detach()
        own.device.tidy()
        found["methods"][name] = said
        yield f"{name}: {'; '.join(said['wrong'])}" if said["wrong"] else ""


def pack(own: Session, found: Found) -> Iterator[str]:
    """T-pack, T-pad and T-cache in bf16 at real size."""
    backbone = own.backbone(own.plan.small)
    for name in own.plan.exact or every.names():
        if name == "full":
            continue
        found[name] = said = exact.distances(name, backbone, own.plan.size)
        far = [f"{name}: {key} {value:.3f}" for key, value in said.items()
               if not value < exact.FAR / (1 if key == "pack" else 2)]  # fmt: skip
        yield "; ".join(far)


def proofs(own: Session, found: Found) -> Iterator[str]:
    """The kit on the device."""
    with TemporaryDirectory() as folder:
        backbone = exact.load_small(Path(folder), own.device)
        for name in own.plan.exact or every.names():
            found[name] = said = exact.proved(name, backbone)
            yield "; ".join(f"{name}: {proof}: {why}" for proof, why in said.items() if why.startswith("fails"))


def few_shot(own: Session, found: Found) -> Iterator[str]:
    found |= race.run(own.device, own.backbone(own.plan.small), own.plan.course)
    yield ""


def sources(own: Session, found: Found) -> Iterator[str]:
    """TA-LoRA and MeTA-LoRA."""
    backbone, size = own.backbone(own.plan.small), own.plan.size
    for name in systems.NAMES:
        found[name] = systems.stages(own.device, backbone, name, size)
        yield ""
    found["ta_lora, keys and values"] = systems.cache(own.device, backbone, size)
    yield ""


def peak_share(own: Session, found: Found) -> Iterator[str]:
    """Training and scoring on the large backbone against the peak of this very run."""
    if "flops" not in own.found["checks"].get("device", {}).get("found", {}):
        own.check("device")
    top, shape = own.found["checks"]["device"]["found"]["flops"], own.plan.large
    backbone, found["training"], found["scoring"] = own.backbone(shape), {}, {}
    for name in ("lora", "prompt", "ta_lora"):
        found["training"][name] = share.training(own.device, backbone, name, shape, own.plan.full, top)
        yield ""
        found["scoring"][name] = share.scoring(own.device, backbone, name, shape, own.plan.score, own.plan.blocks, top)
        yield ""


CHECKS: dict[str, Callable[[Session, Found], Iterator[str]]] = {  # what matters most comes first
    "device": device,
    "kernels": kernels,
    "race": few_shot,
    "methods": methods_small,
    "sources": sources,
    "pack": pack,
    "share": peak_share,
    "methods-large": methods_large,
    "proofs": proofs,
}
