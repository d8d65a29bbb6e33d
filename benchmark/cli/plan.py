"""The plan of a grid, drawn: cells, packs and prices by method, and what rests on what."""

from collections import Counter, defaultdict

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
from benchmark.system import hardware
from benchmark.system.formatting import format_bytes, format_duration


def print_plan(
    console: Console,
    profile: Profile,
    cells: list[PlannedCell],
    states: list[tuple[str, str]],
    cost_model: CostModel,
    due_packs: list[Pack],
) -> None:
    """Per method: cells due and cached, in how many packs, seconds each, and all of them."""
    table = Table(
        title=f"{profile.grid_name}: {profile.about}" if profile.about else profile.grid_name,
        title_justify="left",
        title_style="bold",
        header_style="dim",
        box=SIMPLE_HEAD,
        padding=(0, 0, 0, 1),
    )
    needs = estimate_memory_by_row(profile, due_packs)
    for name in ("method", "cells", "cached", "due", "packs", "per cell", "in all", *(["memory"] if needs else [])):
        table.add_column(name, justify="left" if name == "method" else "right")
    rows: dict[str, list[tuple[PlannedCell, str]]] = defaultdict(list)
    for cell, (state, _) in zip(cells, states, strict=True):
        rows[get_row_name(cell)].append((cell, state))
    in_packs = Counter(get_row_name(pack[0]) for pack in due_packs)
    total, measured = 0.0, True
    for name, own in rows.items():
        due = [cost_model.estimate_seconds(cell) for cell, state in own if state != "done"]
        seconds = sum(price for price, _ in due)
        total, measured = total + seconds, measured and all(known for _, known in due)
        each = format_duration(seconds / len(due)) if due else ""
        counts = (len(own), len(own) - len(due), len(due), in_packs[name])
        table.add_row(
            name,
            *map(str, counts),
            each,
            format_duration(seconds) if due else "",
            *([needs.get(name)] if needs else []),
        )
    console.print(table)
    if needs:
        most = format_bytes(memory_model.get_gpu_memory_bytes())
        each = f" on each of {profile.devices} devices" if profile.devices > 1 else ""
        parts = "no step goes in parts" if profile.devices > 1 else f"in parts where {most} have no room"
        console.print(f"memory: of the largest pack{each}, rows of {profile.max_length} tokens; {parts}")
    due = sum(state != "done" for state, _ in states)
    count = hardware.choose_num_workers(profile, due)
    basis = (
        "measured on cells of this folder" if measured else "a rough figure from sizes and steps, until cells are done"
    )
    if due:
        processes = f"{count} processes" if count > 1 else "one process"
        console.print(
            f"{due} cells due, {len(cells) - due} cached; about {format_duration(total / count)} in {processes} ({basis})"
        )
        if said := run_log.format_estimate_error(profile.results_folder):
            console.print(said)
        if cost_model.device == "cpu" and parse_parameter_count(profile.backbone.name) > LARGE_MODEL_PARAMETERS:
            gpu = CostModel(profile, (), "cuda")
            waits = [
                gpu.estimate_seconds_from_flops(cell)
                for cell, (state, _) in zip(cells, states, strict=True)
                if state != "done"
            ]
            there = f"{profile.devices} large GPUs" if profile.devices > 1 else "one large GPU"
            console.print(
                f"that is this machine's CPU; on {there} about {format_duration(sum(waits))} (a rough figure)"
            )
    else:
        console.print(f"nothing is due: all {len(cells)} cells are cached in {profile.results_folder}")


def estimate_memory_by_row(profile: Profile, due_packs: list[Pack]) -> dict[str, str]:
    """Of a large backbone: what each method's largest pack needs on a GPU."""
    largest: dict[str, Pack] = {}
    for pack in due_packs if parse_parameter_count(profile.backbone.name) > LARGE_MODEL_PARAMETERS else ():
        name = get_row_name(pack[0])
        largest[name] = max(largest.get(name, ()), pack, key=len)
    needs = {name: memory_model.estimate_memory(profile, pack[0], len(pack)) for name, pack in largest.items()}
    return {name: memory_model.format_memory_estimate(need) for name, need in needs.items() if need}


def get_row_name(planned_cell: PlannedCell) -> str:
    """What a plan counts together."""
    cell = planned_cell.cell
    return cell.method if cell.stage == TARGET_STAGE else f"{cell.method} ({cell.stage} stage)"


def get_stage_name(cell: Cell) -> str:
    return cell.method if cell.stage == TARGET_STAGE else f"{cell.method}.{cell.stage}"


def print_dependencies(console: Console, cells: list[PlannedCell]) -> None:
    """What rests on what, one line per kind."""
    by_identity = {cell.identity: cell.cell for cell in cells}
    edges: dict[tuple[str, str], tuple[set, set]] = defaultdict(lambda: (set(), set()))
    for cell in cells:
        for parent in cell.dependencies:
            kinds = get_stage_name(by_identity[parent]), get_stage_name(cell.cell)
            edges[kinds][0].add(parent)
            edges[kinds][1].add(cell.identity)
    if edges:
        console.print("what rests on what", style="bold")
    for (above, below), (parents, children) in edges.items():
        console.print(f"  {above} ({len(parents)} cells) -> {below} ({len(children)} cells)")
