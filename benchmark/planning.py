"""The plan of a grid, drawn: cells, packs and prices by method, and what rests on what."""

from collections import Counter, defaultdict

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmark import hardware, memory, past
from benchmark.grid import TARGET, Cell, Planned
from benchmark.packs import Pack
from benchmark.price import LARGE, Prices, parameters, spoken
from benchmark.profile import Profile


def draw(
    say: Console,
    found: Profile,
    cells: list[Planned],
    states: list[tuple[str, str]],
    prices: Prices,
    due_packs: list[Pack],
) -> None:
    """Per method: cells due and cached, in how many packs, seconds each, and all of them."""
    table = Table(
        title=f"{found.title}: {found.about}" if found.about else found.title,
        title_justify="left",
        title_style="bold",
        header_style="dim",
        box=SIMPLE_HEAD,
        padding=(0, 0, 0, 1),
    )
    needs = memory_of(found, due_packs)
    for name in ("method", "cells", "cached", "due", "packs", "per cell", "in all", *(["memory"] if needs else [])):
        table.add_column(name, justify="left" if name == "method" else "right")
    rows: dict[str, list[tuple[Planned, str]]] = defaultdict(list)
    for cell, (state, _) in zip(cells, states, strict=True):
        rows[row_of(cell)].append((cell, state))
    in_packs = Counter(row_of(pack[0]) for pack in due_packs)
    total, measured = 0.0, True
    for name, own in rows.items():
        due = [prices.seconds(cell) for cell, state in own if state != "done"]
        seconds = sum(price for price, _ in due)
        total, measured = total + seconds, measured and all(known for _, known in due)
        each = spoken(seconds / len(due)) if due else ""
        counts = (len(own), len(own) - len(due), len(due), in_packs[name])
        table.add_row(
            name, *map(str, counts), each, spoken(seconds) if due else "", *([needs.get(name)] if needs else [])
        )
    say.print(table)
    if needs:
        most = f"{memory.limit() / 1e9:.0f} GB"
        each = f" on each of {found.devices} devices" if found.devices > 1 else ""
        parts = "no step goes in parts" if found.devices > 1 else f"in parts where {most} have no room"
        say.print(f"memory: of the largest pack{each}, rows of {found.max_length} tokens; {parts}")
    due = sum(state != "done" for state, _ in states)
    count = hardware.workers(found, due)
    basis = (
        "measured on cells of this folder" if measured else "a rough figure from sizes and steps, until cells are done"
    )
    if due:
        processes = f"{count} processes" if count > 1 else "one process"
        say.print(f"{due} cells due, {len(cells) - due} cached; about {spoken(total / count)} in {processes} ({basis})")
        if said := past.error(found.folder):
            say.print(said)
        if prices.device == "cpu" and parameters(found.backbone.name) > LARGE:
            gpu = Prices(found, (), "cuda")
            waits = [gpu.rough(cell) for cell, (state, _) in zip(cells, states, strict=True) if state != "done"]
            there = f"{found.devices} large GPUs" if found.devices > 1 else "one large GPU"
            say.print(f"that is this machine's CPU; on {there} about {spoken(sum(waits))} (a rough figure)")
    else:
        say.print(f"nothing is due: all {len(cells)} cells are cached in {found.folder}")


def memory_of(found: Profile, due_packs: list[Pack]) -> dict[str, str]:
    """Of a large backbone: what each method's largest pack needs on a GPU."""
    largest: dict[str, Pack] = {}
    for pack in due_packs if parameters(found.backbone.name) > LARGE else ():
        name = row_of(pack[0])
        largest[name] = max(largest.get(name, ()), pack, key=len)
    needs = {name: memory.of(found, pack[0], len(pack)) for name, pack in largest.items()}
    return {name: memory.spoken(need) for name, need in needs.items() if need}


def row_of(planned: Planned) -> str:
    """What a plan counts together."""
    cell = planned.cell
    return cell.method if cell.stage == TARGET else f"{cell.method} ({cell.stage} stage)"


def kind(cell: Cell) -> str:
    return cell.method if cell.stage == TARGET else f"{cell.method}.{cell.stage}"


def draw_parents(say: Console, cells: list[Planned]) -> None:
    """What rests on what, one line per kind."""
    by_identity = {cell.identity: cell.cell for cell in cells}
    edges: dict[tuple[str, str], tuple[set, set]] = defaultdict(lambda: (set(), set()))
    for cell in cells:
        for parent in cell.parents:
            kinds = kind(by_identity[parent]), kind(cell.cell)
            edges[kinds][0].add(parent)
            edges[kinds][1].add(cell.identity)
    if edges:
        say.print("what rests on what", style="bold")
    for (above, below), (parents, children) in edges.items():
        say.print(f"  {above} ({len(parents)} cells) -> {below} ({len(children)} cells)")
