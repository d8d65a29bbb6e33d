"""Removal of secrets and private paths from texts that are printed or saved."""

import os
import sys
import traceback
from pathlib import Path
from typing import NamedTuple

from benchmark.system.environment import ROOT

SECRET_NAME_WORDS = {"KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIALS"}  # in names of variables
MIN_SECRET_LENGTH = 8  # characters; shorter values are too likely to be ordinary words


def redact_private_text(text: str, *, redact_folders: bool = True) -> str:
    """Replace the values of secret environment variables and, with `redact_folders`, this machine's folders."""
    for name, value in os.environ.items():
        if len(value) >= MIN_SECRET_LENGTH and set(name.upper().split("_")) & SECRET_NAME_WORDS:
            text = text.replace(value, f"<{name}>")
    for folder, name in ((ROOT, "."), (Path(sys.prefix), "<python>"), (Path.cwd(), "."), (Path.home(), "~")):
        if redact_folders and len(str(folder)) > 1:
            text = text.replace(str(folder), name)
    return text


class FailureDescription(NamedTuple):
    """Reason of a failure in one line, and its traceback (empty if there is none), both redacted."""

    reason: str
    traceback: str = ""


def describe_failure(error: BaseException) -> FailureDescription:
    """Return the reason of a failure in one line and its traceback, both redacted."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return FailureDescription(
        redact_private_text(reason), redact_private_text("".join(traceback.format_exception(error)))
    )


def get_backbone_display_name(backbone_name: str) -> str:
    """Return a backbone's name; of a local path only the last component, so that results contain no private paths."""
    folder = Path(backbone_name).expanduser()
    return folder.resolve().name if folder.is_dir() else backbone_name
