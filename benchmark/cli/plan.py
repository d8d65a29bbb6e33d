"""Prints the plan of a grid: cells, packs and estimated time by method, and the dependencies between cells."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmark.config.model_size import parse_parameter_count
from benchmark.config.profile import Profile
from benchmark.grid.cells import TARGET_STAGE, Cell, PlannedCell
from benchmark.results import run_log
from benchmark.scheduling import memory_model
from benchmark.scheduling.cost_model import LARGE_MODEL_PARAMETERS, CostModel
from benchmark.scheduling.packing import Pack
from benchmark.scheduling.run_plan import RunPlan
from benchmark.system.formatting import format_bytes, format_duration


def print_plan(console: Console, run_plan: RunPlan) -> None:
    """Print a table of the methods (cells due and cached, packs, time) and the expected duration of the run."""
    profile = run_plan.profile
    table = Table(
        title=f"{profile.grid_name}: {profile.about}" if profile.about else profile.grid_name,
        title_justify="left",
        title_style="bold",
        header_style="dim",
        box=SIMPLE_HEAD,
        padding=(0, 0, 0, 1),
    )
    memory = estimate_memory_by_row(profile, run_plan.packs)
    for name in ("method", "cells", "cached", "due", "packs", "per cell", "total", *(["memory"] if memory else [])):
        table.add_column(name, justify="left" if name == "method" else "right")
    rows: dict[str, list[PlannedCell]] = defaultdict(list)
    for cell in run_plan.cells:
        rows[get_row_name(cell)].append(cell)
    num_packs = Counter(get_row_name(pack[0]) for pack in run_plan.packs)
    for name, cells in rows.items():
        due = [run_plan.estimates[cell.identity] for cell in cells if cell.identity in run_plan.estimates]
        seconds = sum(estimate.seconds for estimate in due)
        table.add_row(
            name,
            str(len(cells)),
            str(len(cells) - len(due)),
            str(len(due)),
            str(num_packs[name]),
            format_duration(seconds / len(due)) if due else "",
            format_duration(seconds) if due else "",
            *([memory.get(name)] if memory else []),
        )
    console.print(table)
    if memory:
        available = format_bytes(memory_model.get_gpu_memory_bytes())
        devices = f" on each of {profile.devices} devices" if profile.devices > 1 else ""
        if profile.devices > 1:
            micro_batches = "no micro-batches"
        else:
            micro_batches = f"with micro-batches where {available} are not enough"
        console.print(f"memory: of the largest pack{devices}, examples of {profile.max_length} tokens; {micro_batches}")
    if run_plan.packs:
        print_duration(console, run_plan)
    else:
        console.print(f"nothing is due: all {len(run_plan.cells)} cells are cached in {profile.results_folder}")


def print_duration(console: Console, run_plan: RunPlan) -> None:
    """Print how many cells are due and how long they will take, and on what the estimate is based."""
    profile = run_plan.profile
    if all(estimate.is_measured for estimate in run_plan.estimates.values()):
        basis = "measured on cells of this folder"
    else:
        basis = "a rough estimate from model size and steps, until cells are done"
    num_due = len(run_plan.estimates)
    processes = f"{run_plan.num_workers} processes" if run_plan.num_workers > 1 else "one process"
    duration = format_duration(run_plan.total_seconds / run_plan.num_workers)
    num_cached = len(run_plan.cells) - num_due
    console.print(f"{num_due} cells due, {num_cached} cached; about {duration} in {processes} ({basis})")
    if estimate_error := run_log.format_estimate_error(profile.results_folder):
        console.print(estimate_error)
    if run_plan.device == "cpu" and parse_parameter_count(profile.backbone.name) > LARGE_MODEL_PARAMETERS:
        gpu = CostModel(profile, (), "cuda")
        seconds = sum(gpu.estimate_seconds_from_flops(cell) for cell in run_plan.due_cells)
        devices = f"{profile.devices} large GPUs" if profile.devices > 1 else "one large GPU"
        console.print(f"on this machine's CPU; on {devices} about {format_duration(seconds)} (a rough estimate)")


def estimate_memory_by_row(profile: Profile, due_packs: Sequence[Pack]) -> dict[str, str]:
    """Estimate the GPU memory of each row's largest pack; empty unless the backbone is large. Row name -> text."""
    if parse_parameter_count(profile.backbone.name) <= LARGE_MODEL_PARAMETERS:
        return {}
    largest: dict[str, Pack] = {}
    for pack in due_packs:
        name = get_row_name(pack[0])
        largest[name] = max(largest.get(name, ()), pack, key=len)
    needs = {name: memory_model.estimate_memory(profile, pack[0], len(pack)) for name, pack in largest.items()}
    return {name: memory_model.format_memory_estimate(need) for name, need in needs.items() if need}


def get_row_name(planned_cell: PlannedCell) -> str:
    """Return the name of the table row that counts this cell: the method, with its stage if it is a source stage."""
    cell = planned_cell.cell
    return cell.method if cell.stage == TARGET_STAGE else f"{cell.method} ({cell.stage} stage)"


def get_stage_name(cell: Cell) -> str:
    """Return the method, with `.stage` appended for a source stage."""
    return cell.method if cell.stage == TARGET_STAGE else f"{cell.method}.{cell.stage}"


def print_dependencies(console: Console, cells: list[PlannedCell]) -> None:
    """Print the dependencies between cells, one line per pair of stages."""
    by_identity = {cell.identity: cell.cell for cell in cells}
    edges: dict[tuple[str, str], tuple[set, set]] = defaultdict(lambda: (set(), set()))
    for cell in cells:
        for dependency in cell.dependencies:
            stages = get_stage_name(by_identity[dependency]), get_stage_name(cell.cell)
            edges[stages][0].add(dependency)
            edges[stages][1].add(cell.identity)
    if edges:
        console.print("dependencies", style="bold")
    for (source, dependant), (dependencies, dependants) in edges.items():
        console.print(f"  {source} ({len(dependencies)} cells) -> {dependant} ({len(dependants)} cells)")
