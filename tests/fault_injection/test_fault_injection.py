"""The short form of `make faults`."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_disturbed_grid_comes_out_as_if_nothing_had_happened():
    said = subprocess.run(
        [sys.executable, "-m", "tests.fault_injection", "--short"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert said.returncode == 0, said.stdout + said.stderr
    assert said.stdout.count("as if nothing had happened") == 3
