"""The parts of the bench. Each says after every step how it went and gives all figures so far, so that none are lost."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from benchmark.results.store import ResultStore
from benchmark.system.hardware import count_cpu_cores
from benchmark.system.resources import measure_peak_memory
from tests.performance import results_folder as folder
from tests.performance.runners import Figures, command, peer, suite, suite_figures
from tests.performance.workload import LONGEST, STEPS, TINY, Work, place

Steps = Iterator[tuple[str, Figures]]
OPERATIONS = 10  # that a profile names
# Lightning takes a whole step within the optimiser's, so what the profiler books there is all that is no operation.
AROUND = {"Optimizer.step#AdamW.step": "Python around them"}
TARGET = "random-4.7M"  # the size that the targets are stated for
BACKBONES = (TARGET, TINY)
KINDS = ("scoring", "few-shot", "full", "plan", "memory", "profile", "packs", "grids", "sizes", "demo")
QUICK = KINDS[:7]


@dataclass(frozen=True)
class Options:
    """What a run of the bench was asked for."""

    scratch: Path
    quick: bool = False
    long: bool = False
    data_dir: str | None = None
    seeds: int = 4  # of the suite
    naive_seeds: int = 1
    steps: int = STEPS
    packs: tuple[int, ...] = (1, 2, 4, 8)
    cells: tuple[int, ...] = (10_000,)
    methods: tuple[str, ...] = ("lora", "prompt")
    limit_test: int | None = None
    tasks: tuple[str, ...] = Work.tasks

    def work(self, backbone: str, *, seeds: int = 1, **more: Any) -> Work:
        limit = {"test": self.limit_test} if self.limit_test else None
        given = {"methods": self.methods, "steps": self.steps, "data_dir": self.data_dir, "limit": limit}
        return Work(backbone, seeds=tuple(range(seeds)), **given | more)


def few_shot(options: Options, backbone: str) -> Steps:
    """16 shots: all cores against all cores, and one process against one (of the first method, unless asked for long)."""
    tasks = ("chnsent", "tnews") if options.quick else options.tasks
    work, most, where = partial(options.work, backbone, tasks=tasks), count_cpu_cores(), options.scratch
    many = work(seeds=2 if options.quick else options.seeds)
    once = work(seeds=options.naive_seeds)
    one = once if options.long else replace(once, methods=once.methods[:1])
    alone = replace(one, seeds=many.seeds)
    sides = {
        ("naive", most): lambda: peer(once, where, most),
        ("packed", most): lambda: suite(many, where, workers=most),
    }
    if backbone == TARGET or options.long:
        sides |= {("naive", 1): lambda: peer(one, where), ("solo", 1): lambda: suite(alone, where, pack=1, workers=1)}
    else:  # the peer alone on one core would cost the most, and the targets do not ask for it here
        sides |= {("solo", 1): lambda: suite(once, where, pack=1, workers=1)}
    if options.long:
        sides |= {("packed", 1): lambda: suite(many, where, workers=1)}
    yield from compared(many, sides)


def full_data(options: Options, backbone: str) -> Steps:
    """All training examples, one epoch, one process against one. The embedded backbone has the methods left over."""
    rows = options.methods if backbone == TARGET else ("lora",) if options.quick else ("full", "prefix")
    tasks = ("chnsent", "tnews") if options.long else ("chnsent",)
    work = options.work(backbone, tasks=tasks, shots="full", methods=rows)
    sides = {
        ("naive", 1): lambda: peer(work, options.scratch),
        ("solo", 1): lambda: suite(work, options.scratch, pack=1, workers=1),
    }
    yield from compared(work, sides)


def compared(work: Work, sides: Mapping[tuple[str, int], Callable[[], Figures]]) -> Steps:
    """Run the sides one after another. -> figures by `side/processes`."""
    given = {name: getattr(work, name) for name in ("backbone", "shots", "tasks", "steps", "source", "limit")}
    found: Figures = given | {"sides": {}}
    for (name, processes), run in sides.items():
        said = found["sides"][f"{name}/{processes}"] = run()
        each = said["seconds"] * processes / said["cells"]
        cells = f"{said['cells']} cells, {each:.1f} s of a core each"
        yield f"{work.backbone} {name}, {processes} at a time: {cells}", found


# -------------------------------------------------------------------- scoring alone


def scoring(options: Options, backbone: str) -> Steps:
    """The same rows and weights through the peer's loop and the suite's, in this process, in turn."""
    import torch

    import tasks
    from benchmark.evaluation.scoring import predict
    from methods import load_method
    from methods.core.backbone import Backbone
    from tests.performance import naive

    torch.set_num_threads(1)
    found: Figures = {"backbone": backbone, "tasks": {}}
    where = place(backbone, options.scratch)
    loaded = Backbone.load(where)
    method = load_method("zero_shot")(loaded)
    for name, rows in (("chnsent", 240), ("tnews", 48)):
        work = options.work(backbone)
        task = tasks.load_task(name)(
            loaded.tokenizer,
            data_source=work.source,
            data_dir=work.data_dir,
            max_per_split={"test": rows},
            max_length=LONGEST,
        )
        items = task.encode_split("test")
        given = naive.tokenised(loaded.tokenizer, [item.example._asdict() for item in items], LONGEST)
        theirs, ours = [], []
        for _ in range(2):  # the first pass of each warms up what there is to warm up
            begin = perf_counter()
            said, _ = naive.predicted(loaded.model, loaded.tokenizer, given, 0)
            theirs.append(perf_counter() - begin)
            for _ in range(3):
                begin = perf_counter()
                mine = predict(method, items, 0)
                ours.append(perf_counter() - begin)
        same = sum(a == b.text for a, b in zip(said, mine, strict=True)) / len(items)
        labels = len(items[0].choice_ids)
        found["tasks"][name] = {
            "labels": labels, "rows": len(items), "naive_seconds": min(theirs), "suite_seconds": median(ours),
            "ratio": min(theirs) / median(ours), "same_predictions": same, "padded_share": scoring_padding(items),
        }  # fmt: skip
        yield f"{backbone} scoring, {labels} labels: x{min(theirs) / median(ours):.1f}, {same:.0%} equal", found
    method.close()


def scoring_padding(items: list) -> float:
    """Share of padding in the suite's batches of these items: rows go to the longest of their batch."""
    from benchmark.evaluation.answer_tree import build_answer_tree
    from tasks.core.encoding import group_by_length

    sizes = [len(item.prompt) - item.prefix_length + len(build_answer_tree(item.choices).token_ids) for item in items]
    return 1 - sum(sizes) / sum(len(places) * sizes[places[0]] for places in group_by_length(sizes, 4096))


# -------------------------------------------------------------------- curves


def packs(options: Options, backbone: str) -> Steps:
    """Cells per hour of one process against the most cells in a pack: seeds of one task, in-cell time only."""
    sizes = (1, 4) if options.quick else options.packs
    found: Figures = {"backbone": backbone, "method": "lora", "task": "chnsent", "per_hour": {}}
    for most in sizes:
        work = options.work(backbone, methods=("lora",), tasks=("chnsent",), seeds=max(sizes))
        said = suite(work, options.scratch, pack=most, workers=1)
        each = sum(seconds for name, seconds in said["phases"].items() if name != "start")
        found["per_hour"][str(most)] = {
            "cells_per_hour": 3600 / each,
            "made": said["packs"],
            "peak_bytes": said["peak_bytes"],
        }
        yield f"packs of {most}: {3600 / each:.0f} cells an hour", found


def sizes(options: Options) -> Steps:
    """Cells per hour of one process against the backbone's size, in-cell time only."""
    found: Figures = {"method": "lora", "task": "chnsent", "per_hour": {}}
    for backbone in (TINY, TARGET, "random-20M"):
        work = options.work(backbone, methods=("lora",), tasks=("chnsent",))
        said = suite(work, options.scratch, workers=1)
        each = sum(seconds for name, seconds in said["phases"].items() if name != "start")
        found["per_hour"][backbone] = {
            "cells_per_hour": 3600 / each,
            "made": said["packs"],
            "peak_bytes": said["peak_bytes"],
        }
        yield f"{backbone}: {3600 / each:.0f} cells an hour", found


def grids(options: Options, backbone: str) -> Steps:
    """Cells per hour against tasks x seeds, all cores, everything counted: what starting costs a small grid."""
    found: Figures = {"backbone": backbone, "method": "lora", "per_hour": {}}
    for count in (1, 2, 4):
        work = options.work(backbone, methods=("lora",), tasks=Work.tasks[:count], seeds=count)
        said = suite(work, options.scratch)
        found["per_hour"][f"{count} x {count}"] = {"cells_per_hour": said["cells_per_hour"], "seconds": said["seconds"]}
        yield f"{count} tasks x {count} seeds: {said['cells_per_hour']:.0f} cells an hour", found


def plans(options: Options) -> Steps:
    """Plan and resume of simulated folders."""
    found: Figures = {"grids": []}
    for cells in (1000,) if options.quick else options.cells:
        for said, figures in folder.resume(cells, options.scratch, report=options.long):
            yield said, {"grids": [*found["grids"], figures]}
        found["grids"].append(figures)


# -------------------------------------------------------------------- memory, profile, the demo grid


def memory(options: Options, backbone: str) -> Steps:
    """Resident memory of one process over many short cells of several methods."""
    from benchmark.execution.cell_runner import CellRunner
    from benchmark.grid import planner

    count = 40 if options.quick else 200
    rows = ("lora", "prompt", "prefix", "adapter", "bitfit")
    work = Work(backbone, rows, ("chnsent", "cote_bd"), seeds=tuple(range(count // 10)), steps=2, limit={"test": 16})
    found = work.profile(options.scratch, results=str(options.scratch / "memory"))
    bench, resident = CellRunner(found, ResultStore(found.results_folder)), []
    for planned in planner.plan_grid(found):
        bench.run([planned])
        resident.append(now_resident())
    tenth = len(resident) // 10
    first, last = median(resident[tenth : 2 * tenth]), median(resident[-tenth:])
    yield f"{len(resident)} cells: {first / 2**20:.0f} MB, then {last / 2**20:.0f} MB", {
        "backbone": backbone, "cells": len(resident), "methods": rows, "first_bytes": first, "last_bytes": last,
        "peak_bytes": measure_peak_memory("cpu").num_bytes,
    }  # fmt: skip


def now_resident() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def profiled(options: Options, backbone: str) -> Steps:
    """Where the time of one cell goes, operation by operation: a fifth of its steps and test, which is profile enough."""
    import torch

    from benchmark.execution.cell_runner import CellRunner
    from benchmark.grid import planner

    torch.set_num_threads(1)
    found: Figures = {"backbone": backbone, "task": "chnsent", "methods": {}}
    for name in options.methods:
        work = options.work(backbone, methods=(name,), tasks=("chnsent",), steps=8, limit={"test": 48})
        grids = work.profile(options.scratch, results=str(options.scratch / f"profile-{name}"))
        bench, (planned,) = CellRunner(grids, ResultStore(grids.results_folder)), planner.plan_grid(grids)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
            (result,) = bench.run([planned])
        rows = sorted(seen.key_averages(), key=lambda row: -row.self_cpu_time_total)
        whole = sum(row.self_cpu_time_total for row in rows)
        top = [
            {"operation": AROUND.get(row.key, row.key), "share": row.self_cpu_time_total / whole, "calls": row.count}
            for row in rows[:OPERATIONS]
        ]
        found["methods"][name] = {"seconds": result.costs.seconds_by_phase, "operations": top}
        yield f"{name}: {top[0]['operation']} takes {top[0]['share']:.0%}", found


def demo(options: Options) -> Steps:
    """The demo grid with every method and one seed, as `make benchmark ARGS='--methods all --seeds 0'` runs it."""
    from benchmark.config import loading

    where = options.scratch / "demo"
    changes = {"methods": "all", "seeds": [0], "results": str(where)}
    found = loading.load_profile("demo", changes)
    seconds = command(found, options.scratch, "run")
    said = suite_figures(found, seconds)
    yield f"demo, all methods: {said['cells']} cells in {seconds / 60:.1f} min", said


def every(options: Options, backbones: Sequence[str]) -> dict[str, Callable[[], Steps]]:
    """All parts by name, in the order to run them: those that the targets rest on first."""
    each = {"scoring": scoring, "few-shot": few_shot, "full": full_data, "profile": profiled}
    lesser = {"packs": packs, "grids": grids, "memory": memory}  # on the embedded backbone
    found = {f"{kind} {name}": partial(run, options, name) for kind, run in each.items() for name in backbones}
    found |= {kind: partial(run, options, TINY) for kind, run in lesser.items()}
    found |= {kind: partial(run, options) for kind, run in (("sizes", sizes), ("plan", plans), ("demo", demo))}
    return {name: found[name] for kind in KINDS for name in found if name.partition(" ")[0] == kind}
