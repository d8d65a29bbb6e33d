"""The audit of the pinned packages: a vulnerability fails, no network is a skip with its reason."""

import json

from tests.audit import PINS, Said, verdict

CLEAN = {"name": "torch", "version": "2.13.0", "vulns": []}
BAD = {"name": "old", "version": "1.0", "vulns": [{"id": "CVE-0000-0001", "fix_versions": ["1.1"]}]}
UNKNOWN = {"name": "mine", "skip_reason": "not found"}


def told(*packages: dict, code: int = 0) -> tuple[int, str]:
    return verdict(Said(code, json.dumps({"dependencies": packages, "fixes": []}), ""))


def test_a_known_vulnerability_fails_and_is_named():
    code, text = told(CLEAN, BAD, code=1)
    assert code == 1
    assert "old 1.0: CVE-0000-0001, mended in 1.1" in text


def test_none_is_none_and_what_is_not_known_is_named():
    assert told(CLEAN, UNKNOWN) == (0, "no known vulnerability in 1 pinned packages; not known there: mine")


def test_where_no_package_is_known_nothing_was_audited():
    code, text = told(UNKNOWN)
    assert code == 0
    assert text.startswith("audit skipped")


def test_without_a_network_it_is_skipped_with_the_reason():
    code, text = verdict(Said(1, "", "Traceback ...\nConnectionError: cannot be reached\n"))
    assert code == 0
    assert text.startswith("audit skipped")
    assert "ConnectionError: cannot be reached" in text


def test_every_pin_is_one_version():
    lines = [line for line in PINS.read_text().splitlines() if line and not line.startswith("#")]
    assert len(lines) > 30
    assert all("==" in line for line in lines)
