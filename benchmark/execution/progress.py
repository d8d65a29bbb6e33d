"""What a person sees while a grid fills: on a terminal a line that lives, elsewhere a plain line per finished cell."""

from collections import Counter
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from benchmark.grid.cells import PlannedCell
from benchmark.system.formatting import format_duration


class Progress:
    """Counts, what runs now, time left; one line for each finished cell."""

    def __init__(
        self,
        due_cells: Sequence[PlannedCell],
        num_cached: int,
        expected_cell_seconds: Mapping[str, float],
        num_workers: int,
        console: Console,
    ) -> None:
        self.num_due, self.num_cached, self.num_workers, self.console = (
            len(due_cells),
            num_cached,
            max(1, num_workers),
            console,
        )
        self.expected_cell_seconds = {
            planned.identity: expected_cell_seconds[planned.identity] for planned in due_cells
        }
        self.num_done = self.num_failed = self.num_elsewhere = 0
        self.running_cells: dict[str, tuple[str, float]] = {}  # identity -> (key of its pack's first, since)
        self.idle_message = "loading the backbone"
        self.start_time = monotonic()
        self.measured_seconds = self.expected_seconds = 0.0  # seconds measured and expected of the finished cells
        self.live = Live(get_renderable=self.render, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> "Progress":
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    # ---------------------------------------------------------------- what happens

    def start_pack(self, pack: Sequence[PlannedCell]) -> None:
        """Cells that train together begin."""
        self.idle_message = ""
        self.running_cells |= dict.fromkeys((planned.identity for planned in pack), (pack[0].cell.key, monotonic()))

    def finish_cell(self, planned_cell: PlannedCell, result: Mapping[str, Any]) -> None:
        """One cell is over: a line."""
        self.running_cells.pop(planned_cell.identity, None)
        self.measured_seconds += result["times"]["seconds"]
        self.expected_seconds += self.expected_cell_seconds.pop(planned_cell.identity, 0.0)
        failed = result["state"] == "failed"
        self.num_failed += failed
        self.num_done += not failed
        place = f"{self.num_done + self.num_failed + self.num_elsewhere:>{len(str(self.num_due))}}/{self.num_due}"
        if failed:
            self.print_line(f"{place}  failed  {planned_cell.cell.key:<32}  {result['error']['reason']}", "red")
        else:
            self.print_line(
                f"{place}  {format_score(result):<16}  {planned_cell.cell.key:<32}  {result['times']['seconds']:6.1f} s",
                "",
            )

    def finish_elsewhere(self, planned_cell: PlannedCell, result: Mapping[str, Any]) -> None:
        """Another process did it."""
        self.running_cells.pop(planned_cell.identity, None)
        self.expected_cell_seconds.pop(planned_cell.identity, None)
        if result["state"] == "done":
            self.num_elsewhere += 1
            return
        self.num_failed += 1
        self.print_line(f"failed elsewhere  {planned_cell.cell.key:<32}  {result['error']['reason']}", "red")

    def release_cell(self, planned_cell: PlannedCell) -> None:
        self.running_cells.pop(planned_cell.identity, None)

    def report_requeue(self, pack: Sequence[PlannedCell], reason: str) -> None:
        """A pack lost its process, and comes up again."""
        for planned in pack:
            self.release_cell(planned)
        more = f" and {len(pack) - 1} more" if len(pack) > 1 else ""
        self.print_line(f"again  {pack[0].cell.key}{more}: {reason}", "yellow")

    def print_line(self, text: str, style: str) -> None:
        self.console.print(Text(text, style=style), soft_wrap=True, highlight=False)

    # ---------------------------------------------------------------- what is shown

    @property
    def remaining_seconds(self) -> float:
        """Seconds to go: expected ones, corrected by how the finished cells went."""
        pace = self.measured_seconds / self.expected_seconds if self.expected_seconds else 1.0
        return pace * sum(self.expected_cell_seconds.values()) / self.num_workers

    def render(self) -> RenderableType:
        over = self.num_done + self.num_failed + self.num_elsewhere
        grid = Table.grid(padding=(0, 1))
        counts = Text.assemble(
            (f"{self.num_done} done", "green"), "  ", (f"{self.num_failed} failed", "red" if self.num_failed else "dim"), "  ",
            (f"{self.num_cached} cached", "dim"), *([("  " + f"{self.num_elsewhere} elsewhere", "dim")] if self.num_elsewhere else []),
            f"  of {self.num_due + self.num_cached}   ",
            f"{format_duration(monotonic() - self.start_time)} so far, about {format_duration(self.remaining_seconds)} left",
        )  # fmt: skip
        grid.add_row(ProgressBar(total=max(1, self.num_due), completed=over, width=24), counts)
        packs = Counter(self.running_cells.values())
        now = [
            f"{key}{f' and {count - 1} more' if count > 1 else ''} ({monotonic() - since:.0f} s)"
            for (key, since), count in packs.items()
        ]
        text = Text(
            "now  " + ("   ".join(now) or self.idle_message or "waiting for another process"),
            style="dim",
            overflow="ellipsis",
        )
        text.no_wrap = True
        return Group(grid, text)


def format_score(result: Mapping[str, Any]) -> str:
    """accuracy 71.5"""
    metric = result["task"]["metric"]
    test = result["metrics"].get("test")
    if test:
        return f"{metric} {100 * test[metric]:.1f}"
    dev = [value for value in result["metrics"]["dev"].values() if value == value]
    return f"dev {100 * sum(dev) / len(dev):.1f}" if dev else "trained"
