"""What the suite promises of its speed, each with where its figure is measured. Data, and one verdict."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Parts = Mapping[str, Mapping[str, Any]]  # name of a part -> its figures


class Target(NamedTuple):
    """One line of the table. `figure` reads the parts; it fails with a KeyError where something was not measured."""

    what: str
    wanted: float
    unit: str
    least: bool  # whether the figure must be at least as large, or at most
    figure: Callable[[Parts], float]
    profile: str = ""  # the part that says where the time goes, if it is missed

    @property
    def asked(self) -> str:
        return f"{'at least' if self.least else 'at most'} {spoken(self.wanted, self.unit)}"

    def measured(self, parts: Parts) -> float | None:
        """The figure, or None where a part of it was not measured."""
        try:
            return self.figure(parts)
        except (KeyError, IndexError):
            return None

    def met(self, figure: float) -> bool:
        return figure >= self.wanted if self.least else figure <= self.wanted


def spoken(value: float, unit: str) -> str:
    """12.3x, 85 %, 1.8 s, 5.2 min"""
    if unit == "x":
        return f"{value:.3g}x"
    return f"{round(100 * value, 1):g} %" if unit == "%" else f"{value:.3g} {unit}"


def ratio(parts: Parts, part: str, ours: str, theirs: str) -> float:
    sides = parts[part]["sides"]
    return sides[ours]["cells_per_hour"] / sides[theirs]["cells_per_hour"]


def all_cores(parts: Parts, part: str) -> float:
    """Packed against the peer, both on as many processes as were used."""
    most = max(int(name.partition("/")[2]) for name in parts[part]["sides"])
    return ratio(parts, part, f"packed/{most}", f"naive/{most}")


def worst_full(parts: Parts) -> float:
    """The smallest ratio of a method on full data, over the backbones measured."""
    return min(min(by_method(parts[part]).values()) for part in ("full tiny", "full random-4.7M"))


def by_method(figures: Mapping[str, Any]) -> dict[str, float]:
    """Seconds of a cell at the peer over the suite's, cell by cell: mean of each method."""
    theirs, ours = (figures["sides"][name]["each"] for name in ("naive/1", "solo/1"))
    found: dict[str, list[float]] = {}
    for key, seconds in theirs.items():
        found.setdefault(key.partition("/")[0], []).append(seconds / ours[key])
    return {name: sum(values) / len(values) for name, values in found.items()}


ORIGINAL = " on original files"  # ends the name of a part that was measured on them
FEW, FULL, SCORING = "few-shot random-4.7M", "full random-4.7M", "scoring random-4.7M"
TARGETS = (
    Target("few-shot cells per hour on all cores, 4.7 M parameters, packed against the peer: embedded records", 12, "x",
           True, lambda parts: all_cores(parts, FEW), "profile random-4.7M"),
    Target("all cores on the original files, with their whole test sets", 12, "x", True,
           lambda parts: all_cores(parts, FEW + ORIGINAL), "profile random-4.7M"),
    Target("few-shot cells per hour, one process against one, cells alone: embedded records", 6, "x", True,
           lambda parts: ratio(parts, FEW, "solo/1", "naive/1"), "profile random-4.7M"),
    Target("one process against one on the original files", 6, "x", True,
           lambda parts: ratio(parts, FEW + ORIGINAL, "solo/1", "naive/1"), "profile random-4.7M"),
    Target("scoring alone, 2 labels, same predictions", 3, "x", True,
           lambda parts: parts[SCORING]["tasks"]["chnsent"]["ratio"], "profile random-4.7M"),
    Target("scoring alone, 15 labels, same predictions", 40, "x", True,
           lambda parts: parts[SCORING]["tasks"]["tnews"]["ratio"], "profile random-4.7M"),
    Target("full-data cells, suite against the peer", 2, "x", True,
           lambda parts: ratio(parts, FULL, "solo/1", "naive/1"), "profile random-4.7M"),
    Target("full-data cells, the slowest method against the peer", 1, "x", True, worst_full, "profile tiny"),
    Target("share of wall clock in steps and scoring, demo grid", 0.85, "%", True,
           lambda parts: parts["demo"]["scoring_share"], "profile tiny"),
    Target("padded tokens, demo grid", 0.10, "%", False, lambda parts: parts["demo"]["padded_share"]),
    Target("demo grid, all methods x 16 tasks x 1 seed", 6, "min", False, lambda parts: parts["demo"]["seconds"] / 60,
           "profile tiny"),
    Target("plan of 10,000 cells", 2, "s", False,
           lambda parts: ten_thousand(parts)["plan, nothing done"]),
    Target("resume of a finished folder of 10,000 cells", 5, "s", False,
           lambda parts: ten_thousand(parts)["finished, resume"]),
    Target("growth of memory over 200 cells in one process", 0.02, "%", False,
           lambda parts: parts["memory"]["last_bytes"] / parts["memory"]["first_bytes"] - 1),
)  # fmt: skip


def ten_thousand(parts: Parts) -> Mapping[str, float]:
    return {grid["cells"]: grid["seconds"] for grid in parts["plan"]["grids"]}[10_000]
