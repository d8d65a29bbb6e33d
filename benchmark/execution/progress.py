"""Progress display: a live status line on a terminal, and one line per finished cell."""

from collections import Counter
from collections.abc import Mapping, Sequence
from time import monotonic

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from benchmark.grid.cells import PlannedCell
from benchmark.results.cell_result import CellResult
from benchmark.system.formatting import format_duration


class Progress:
    """Shows counts, running cells and remaining time, and prints one line per finished cell."""

    def __init__(
        self,
        due_cells: Sequence[PlannedCell],
        num_cached: int,
        expected_cell_seconds: Mapping[str, float],
        num_workers: int,
        console: Console,
    ) -> None:
        self.num_due = len(due_cells)
        self.num_cached = num_cached
        self.num_workers = max(1, num_workers)
        self.console = console
        self.expected_cell_seconds = {
            planned.identity: expected_cell_seconds[planned.identity] for planned in due_cells
        }
        self.num_done = self.num_failed = self.num_elsewhere = 0
        self.running_cells: dict[str, tuple[str, float]] = {}  # identity -> (key of its pack's first cell, start time)
        self.idle_message = "loading the backbone"
        self.start_time = monotonic()
        self.measured_seconds = 0.0  # total time of the finished cells
        self.expected_seconds = 0.0  # total time that was expected for them
        self.live = Live(get_renderable=self.render, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> "Progress":
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    # ---------------------------------------------------------------- events

    def start_pack(self, pack: Sequence[PlannedCell]) -> None:
        """Mark the cells of a pack as running."""
        self.idle_message = ""
        self.running_cells |= dict.fromkeys((planned.identity for planned in pack), (pack[0].cell.key, monotonic()))

    def finish_cell(self, planned_cell: PlannedCell, result: CellResult) -> None:
        """Count a cell that is done or failed, and print its line."""
        self.running_cells.pop(planned_cell.identity, None)
        self.measured_seconds += result.times.seconds
        self.expected_seconds += self.expected_cell_seconds.pop(planned_cell.identity, 0.0)
        if result.is_done:
            self.num_done += 1
        else:
            self.num_failed += 1
        counter = f"{self.num_finished:>{len(str(self.num_due))}}/{self.num_due}"
        key = f"{planned_cell.cell.key:<32}"
        if result.error:
            self.print_line(f"{counter}  failed  {key}  {result.error.reason}", "red")
        else:
            seconds = result.times.seconds
            self.print_line(f"{counter}  {format_score(result):<16}  {key}  {seconds:6.1f} s", "")

    def finish_elsewhere(self, planned_cell: PlannedCell, result: CellResult) -> None:
        """Count a cell that another process has run; print a line if it failed."""
        self.running_cells.pop(planned_cell.identity, None)
        self.expected_cell_seconds.pop(planned_cell.identity, None)
        if result.error is None:
            self.num_elsewhere += 1
            return
        self.num_failed += 1
        self.print_line(f"failed elsewhere  {planned_cell.cell.key:<32}  {result.error.reason}", "red")

    def release_cell(self, planned_cell: PlannedCell) -> None:
        """Mark a cell as no longer running."""
        self.running_cells.pop(planned_cell.identity, None)

    def report_requeue(self, pack: Sequence[PlannedCell], reason: str) -> None:
        """Print that a pack has lost its worker and will run again."""
        for planned in pack:
            self.release_cell(planned)
        others = f" and {len(pack) - 1} more" if len(pack) > 1 else ""
        self.print_line(f"retry  {pack[0].cell.key}{others}: {reason}", "yellow")

    def print_line(self, text: str, style: str) -> None:
        """Print a line above the live display, without wrapping it."""
        self.console.print(Text(text, style=style), soft_wrap=True, highlight=False)

    # ---------------------------------------------------------------- display

    @property
    def num_finished(self) -> int:
        """Due cells that are done or failed, here or in another process."""
        return self.num_done + self.num_failed + self.num_elsewhere

    @property
    def remaining_seconds(self) -> float:
        """Expected seconds of the unfinished cells, scaled by measured over expected time of the finished ones."""
        slowdown = self.measured_seconds / self.expected_seconds if self.expected_seconds else 1.0
        return slowdown * sum(self.expected_cell_seconds.values()) / self.num_workers

    def render(self) -> RenderableType:
        """Build the live display: a progress bar with counts, and the running packs below it."""
        counts = Text.assemble(
            (f"{self.num_done} done", "green"),
            "  ",
            (f"{self.num_failed} failed", "red" if self.num_failed else "dim"),
            "  ",
            (f"{self.num_cached} cached", "dim"),
        )
        if self.num_elsewhere:
            counts.append(f"  {self.num_elsewhere} elsewhere", "dim")
        elapsed = format_duration(monotonic() - self.start_time)
        counts.append(f"  of {self.num_due + self.num_cached}   ")
        counts.append(f"{elapsed} so far, about {format_duration(self.remaining_seconds)} left")
        grid = Table.grid(padding=(0, 1))
        grid.add_row(ProgressBar(total=max(1, self.num_due), completed=self.num_finished, width=24), counts)
        running_packs = []
        for (key, start_time), num_cells in Counter(self.running_cells.values()).items():
            others = f" and {num_cells - 1} more" if num_cells > 1 else ""
            running_packs.append(f"{key}{others} ({monotonic() - start_time:.0f} s)")
        activity = "   ".join(running_packs) or self.idle_message or "waiting for another process"
        text = Text(f"now  {activity}", style="dim", overflow="ellipsis")
        text.no_wrap = True
        return Group(grid, text)


def format_score(result: CellResult) -> str:
    """Format the test score in percent, e.g. `accuracy 71.5`; without a test score, the mean dev score."""
    if result.test_score is not None:
        return f"{result.task.metric} {100 * result.test_score:.1f}"
    dev_scores = result.get_metrics().dev.values()
    return f"dev {100 * sum(dev_scores) / len(dev_scores):.1f}" if dev_scores else "trained"
