"""TODO."""

import os
import sys
import traceback
from pathlib import Path

from benchmark.system.environment import ROOT

SECRET_NAME_WORDS = {"KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIALS"}  # words in the name of a variable


MIN_SECRET_LENGTH = 8  # characters: what is shorter is a word like any other


def redact_private_text(text: str, *, redact_folders: bool = True) -> str:
    """A text without the secrets of the environment and, for what is kept, without this machine's folders."""
    for name, value in os.environ.items():
        if len(value) >= MIN_SECRET_LENGTH and set(name.upper().split("_")) & SECRET_NAME_WORDS:
            text = text.replace(value, f"<{name}>")
    for folder, name in ((ROOT, "."), (Path(sys.prefix), "<python>"), (Path.cwd(), "."), (Path.home(), "~")):
        if redact_folders and len(str(folder)) > 1:
            text = text.replace(str(folder), name)
    return text


def describe_failure(error: BaseException) -> dict[str, str]:
    """A reason in one line, and where it happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return {
        "reason": redact_private_text(reason),
        "traceback": redact_private_text("".join(traceback.format_exception(error))),
    }


def get_backbone_display_name(backbone_name: str) -> str:
    """A backbone's name; of a folder its last part, because where it lies is nobody's business."""
    folder = Path(backbone_name).expanduser()
    return folder.resolve().name if folder.is_dir() else backbone_name
