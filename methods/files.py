"""Finding, checking and naming a backbone's files. Imports no torch: a plan can name a backbone by its content."""

import hashlib
import re
from functools import lru_cache, partial
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.constants import HF_HUB_OFFLINE
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from tasks.example import UsageError

FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]  # never pickles, never code
TINY = Path(__file__).parent / "tiny"


def find(name: str, revision: str | None = None) -> Path:
    """The folder of a backbone. Only something that looks like a hub id (org/name) can ever touch the network."""
    folder = TINY if name == "tiny" else Path(name).expanduser()
    if folder.is_dir():
        return _complete(folder, name)
    head = name.split("/")[0]
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", name) or Path(head).is_dir():
        raise UsageError(f"no backbone {name!r}: no such folder; give 'tiny', a folder, or a hub id (org/name)")
    fetch = partial(snapshot_download, name, revision=revision, allow_patterns=FILES, etag_timeout=5)
    try:
        return _complete(Path(fetch(local_files_only=True)), name)
    except (LocalEntryNotFoundError, UsageError) as missing:
        if HF_HUB_OFFLINE:
            raise UsageError(
                f"backbone {name!r}: no folder, not in the hub's cache, and HF_HUB_OFFLINE is set"
            ) from missing
    try:
        return _complete(Path(fetch()), name)
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(f"backbone {name!r} is no folder and could not be fetched from the hub: {reason}") from error


def _complete(folder: Path, name: str) -> Path:
    for pattern in ("config.json", "*.safetensors"):  # pickled weights are not read
        if not any(folder.glob(pattern)):
            raise UsageError(f"backbone {name!r}: no {pattern} in {folder}")
    return folder


def fingerprint(folder: Path) -> str:
    """sha256 over what decides a backbone's numbers: config, tokenizer and weights, wherever the folder lies."""
    names = sorted([*folder.glob("config.json"), *folder.glob("tokenizer.json"), *folder.glob("*.safetensors")])
    lines = [f"{path.name}:{_sha256(path.resolve(), path.stat().st_mtime_ns)}\n" for path in names]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@lru_cache
def _sha256(path: Path, _changed: int) -> str:
    if re.fullmatch(r"[0-9a-f]{64}", path.name):  # the hub's cache names large files by their sha256
        return path.name
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
