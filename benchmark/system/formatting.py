"""Formatting of sizes, durations and counts for console output and reports."""


def format_bytes(num_bytes: float | None) -> str:
    """Format a size as `15.2 GB` or `709 MB`, empty for None. GB is 2**30 bytes everywhere, as in `--memory 8GB`."""
    if num_bytes is None:
        return ""
    return f"{num_bytes / 2**30:.1f} GB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:.0f} MB"


def format_duration(seconds: float) -> str:
    """Format a duration as `45 s`, `12 min`, `3.5 h` or `12.0 d`."""
    for limit, unit, name in ((90, 1, "s"), (5400, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.{1 if name == 'h' else 0}f} {name}"
    return f"{seconds / 86400:.1f} d"


def format_count(number: float | None) -> str:
    """Format a count with three significant digits and k, M or B, as `1.3 M`; empty for None."""
    if number is None:
        return ""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f}"


def format_shots(shots: int | str) -> str:
    """Format a number of shots for headings: `16 shots` or `full data`."""
    return "full data" if shots == "full" else f"{shots} shots"
