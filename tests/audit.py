"""`python -m tests.audit`: pip-audit over the pinned packages. Without a network it is skipped, and says why.

pip-audit is fetched into a folder of its own for the moment: nothing here depends on it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

PINS = Path(__file__).parents[1] / "constraints.txt"
AUDIT = ("-m", "pip_audit", "--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off")
LIMIT = 90.0  # seconds for each of the two steps


class Said(NamedTuple):
    code: int
    text: str
    error: str


def main() -> int:
    with TemporaryDirectory(prefix="audit-") as folder:
        there = said("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", folder, "pip-audit")
        if there.code:
            print(f"audit skipped: pip-audit cannot be fetched ({reason(there)})")
            return 0
        code, text = verdict(said(*AUDIT, "--requirement", str(PINS), PYTHONPATH=folder))
        print(text)
        return code


def said(*words: str, **environment: str) -> Said:
    """What Python says to these words."""
    try:
        found = subprocess.run(
            [sys.executable, *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT,
            env=os.environ | environment,
        )
    except subprocess.TimeoutExpired:
        return Said(124, "", f"no answer within {LIMIT:.0f} s")
    return Said(found.returncode, found.stdout, found.stderr)


def verdict(found: Said) -> tuple[int, str]:
    """(exit code, what to say). It ends with 1 for a vulnerability and for no network alike: only a list is a list."""
    try:
        packages = json.loads(found.text)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return 0, f"audit skipped: the list of known vulnerabilities cannot be asked ({reason(found)})"
    left_out = [package["name"] for package in packages if "skip_reason" in package]
    bad = [f"{package['name']} {package['version']}: {one['id']}, mended in {', '.join(one['fix_versions']) or 'none yet'}"
           for package in packages for one in package.get("vulns", ())]  # fmt: skip
    known = len(packages) - len(left_out)
    if not known:
        return 0, "audit skipped: whoever was asked knows none of the pinned versions"
    more = f"; not known there: {', '.join(left_out)}" if left_out else ""
    if bad:
        return 1, "\n".join([*bad, f"{len(bad)} known vulnerabilities in {known} pinned packages{more}"])
    return 0, f"no known vulnerability in {known} pinned packages{more}"


def reason(found: Said) -> str:
    """The last line that says something."""
    lines = [line.strip() for line in found.error.splitlines() if line.strip()]
    return lines[-1][:200] if lines else f"exit code {found.code}"


if __name__ == "__main__":
    sys.exit(main())
