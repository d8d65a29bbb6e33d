"""The short form of `make soak`, and that it sees what grows."""

from pathlib import Path

import pytest

from tests.fault_injection.soak import Sample, grown, soaked


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory, files and threads are read from /proc")
def test_cells_leave_no_memory_files_or_threads_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ADAPTERBENCH_CACHE", str(tmp_path / "cache"))
    samples, failed = soaked(24, tmp_path)
    assert (len(samples), failed) == (24, 0)
    assert grown(samples) == {}


@pytest.mark.parametrize(("name", "leaks"), [("memory", 10_000), ("files", 0.01), ("threads", 0.01)])  # by each cell
def test_what_grows_is_seen(name: str, leaks: float):
    samples = [Sample(cells, 10**9, 40, 8) for cells in range(10, 1010, 10)]
    starts = [one._replace(memory=10**9 + (index < 3) * 2**28) for index, one in enumerate(samples)]
    doubled = [
        one._replace(memory=10**9 + (index > 70) * 2**23, files=40 + (index > 90)) for index, one in enumerate(samples)
    ]
    assert grown(samples) == grown(starts) == grown(doubled) == {}
    leaking = [one._replace(**{name: getattr(one, name) + int(leaks * one.cells)}) for one in samples]
    assert list(grown(leaking)) == [name]
