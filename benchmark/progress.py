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

from benchmark.grid import Planned
from benchmark.price import spoken


class Progress:
    """Counts, what runs now, time left; one line for each finished cell."""

    def __init__(
        self, due: Sequence[Planned], cached: int, prices: Mapping[str, float], workers: int, console: Console
    ) -> None:
        self.total, self.cached, self.workers, self.console = len(due), cached, max(1, workers), console
        self.prices = {planned.identity: prices[planned.identity] for planned in due}
        self.done = self.failed = self.shared = 0
        self.running: dict[str, tuple[str, float]] = {}  # identity -> (key of its pack's first, since)
        self.waiting = "loading the backbone"
        self.begun = monotonic()
        self.spent = self.expected = 0.0  # seconds measured and expected of the finished cells
        self.live = Live(get_renderable=self.view, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> "Progress":
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    # ---------------------------------------------------------------- what happens

    def start(self, pack: Sequence[Planned]) -> None:
        """Cells that train together begin."""
        self.waiting = ""
        self.running |= dict.fromkeys((planned.identity for planned in pack), (pack[0].cell.key, monotonic()))

    def finish(self, planned: Planned, result: Mapping[str, Any]) -> None:
        """One cell is over: a line."""
        self.running.pop(planned.identity, None)
        self.spent += result["times"]["seconds"]
        self.expected += self.prices.pop(planned.identity, 0.0)
        failed = result["state"] == "failed"
        self.failed += failed
        self.done += not failed
        place = f"{self.done + self.failed + self.shared:>{len(str(self.total))}}/{self.total}"
        if failed:
            self.line(f"{place}  failed  {planned.cell.key:<32}  {result['error']['reason']}", "red")
        else:
            self.line(f"{place}  {score(result):<16}  {planned.cell.key:<32}  {result['times']['seconds']:6.1f} s", "")

    def elsewhere(self, planned: Planned, result: Mapping[str, Any]) -> None:
        """Another process did it."""
        self.running.pop(planned.identity, None)
        self.prices.pop(planned.identity, None)
        if result["state"] == "done":
            self.shared += 1
            return
        self.failed += 1
        self.line(f"failed elsewhere  {planned.cell.key:<32}  {result['error']['reason']}", "red")

    def put_back(self, planned: Planned) -> None:
        self.running.pop(planned.identity, None)

    def again(self, pack: Sequence[Planned], reason: str) -> None:
        """A pack lost its process, and comes up again."""
        for planned in pack:
            self.put_back(planned)
        more = f" and {len(pack) - 1} more" if len(pack) > 1 else ""
        self.line(f"again  {pack[0].cell.key}{more}: {reason}", "yellow")

    def line(self, text: str, style: str) -> None:
        self.console.print(Text(text, style=style), soft_wrap=True, highlight=False)

    # ---------------------------------------------------------------- what is shown

    @property
    def left(self) -> float:
        """Seconds to go: expected ones, corrected by how the finished cells went."""
        pace = self.spent / self.expected if self.expected else 1.0
        return pace * sum(self.prices.values()) / self.workers

    def view(self) -> RenderableType:
        over = self.done + self.failed + self.shared
        grid = Table.grid(padding=(0, 1))
        counts = Text.assemble(
            (f"{self.done} done", "green"), "  ", (f"{self.failed} failed", "red" if self.failed else "dim"), "  ",
            (f"{self.cached} cached", "dim"), *([("  " + f"{self.shared} elsewhere", "dim")] if self.shared else []),
            f"  of {self.total + self.cached}   ",
            f"{spoken(monotonic() - self.begun)} so far, about {spoken(self.left)} left",
        )  # fmt: skip
        grid.add_row(ProgressBar(total=max(1, self.total), completed=over, width=24), counts)
        packs = Counter(self.running.values())
        now = [
            f"{key}{f' and {count - 1} more' if count > 1 else ''} ({monotonic() - since:.0f} s)"
            for (key, since), count in packs.items()
        ]
        text = Text(
            "now  " + ("   ".join(now) or self.waiting or "waiting for another process"),
            style="dim",
            overflow="ellipsis",
        )
        text.no_wrap = True
        return Group(grid, text)


def score(result: Mapping[str, Any]) -> str:
    """accuracy 71.5"""
    metric = result["task"]["metric"]
    test = result["metrics"].get("test")
    if test:
        return f"{metric} {100 * test[metric]:.1f}"
    dev = [value for value in result["metrics"]["dev"].values() if value == value]
    return f"dev {100 * sum(dev) / len(dev):.1f}" if dev else "trained"
