"""Finding, checking and naming a backbone's files. Imports no torch: a plan can name a backbone by its content."""

import hashlib
import json
import re
from functools import lru_cache, partial
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.constants import HF_HUB_OFFLINE
from huggingface_hub.errors import LocalEntryNotFoundError

from methods import resolve_backbone_folder
from tasks.core import download
from tasks.core.types import UsageError

DECODER_SITES = {
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
SITES_BY_MODEL_TYPE = {
    "qwen2": DECODER_SITES,
    "qwen3": DECODER_SITES,
    "llama": DECODER_SITES,
}  # an architecture is one row: short name -> module
DOWNLOAD_PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.model"]  # never pickles, never code


def find_or_download_backbone(backbone_name: str, revision: str | None = None) -> Path:
    """The folder of a backbone. Only something that looks like a hub id (org/name) can ever touch the network."""
    folder = resolve_backbone_folder(backbone_name)
    if folder.is_dir():
        return _require_model_files(folder, backbone_name)
    head = backbone_name.split("/")[0]
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", backbone_name) or Path(head).is_dir():
        raise UsageError(
            f"no backbone {backbone_name!r}: no such folder; give 'tiny', a folder, or a hub id (org/name)"
        )
    fetch = partial(
        snapshot_download,
        backbone_name,
        revision=revision,
        allow_patterns=DOWNLOAD_PATTERNS,
        etag_timeout=download.READ_TIMEOUT_SECONDS,
    )
    try:
        return _require_model_files(Path(fetch(local_files_only=True)), backbone_name)
    except (LocalEntryNotFoundError, UsageError) as missing:
        if HF_HUB_OFFLINE:
            raise UsageError(
                f"backbone {backbone_name!r}: no folder, not in the hub's cache, and HF_HUB_OFFLINE is set; "
                "fetch it with a network first, or give --backbone tiny"
            ) from missing
    advice = "give --backbone tiny, or a folder"
    with download.translate_errors(
        f"backbone {backbone_name!r} is no folder here", advice, f"{download.RETRY_ADVICE}, or {advice}"
    ):
        found = HfApi().model_info(backbone_name, revision=revision, timeout=download.make_timeout())
        names = [file.rfilename for file in found.siblings or ()]
        if not any(file.endswith(".safetensors") for file in names):
            pickled = ", ".join(file for file in names if file.endswith((".bin", ".pt", ".pth")))
            weights = f"its weights are pickles ({pickled}), which can run code" if pickled else "it has no weights"
            raise UsageError(
                f"backbone {backbone_name!r}: no *.safetensors in the hub's repository, {weights}; {advice}"
            )
        return _require_model_files(Path(fetch()), backbone_name)


def _require_model_files(folder: Path, backbone_name: str) -> Path:
    for pattern in ("config.json", "*.safetensors"):  # pickled weights are not read
        if not any(folder.glob(pattern)):
            raise UsageError(f"backbone {backbone_name!r}: no {pattern} in {folder}")
    return folder


def validate_backbone_files(folder: Path, backbone_name: str) -> None:
    """Whether the files belong together and are whole, from their headers alone."""
    config = _load_json_object(folder / "config.json", backbone_name)
    if config.get("model_type") not in SITES_BY_MODEL_TYPE:
        kinds = f"there are: {', '.join(SITES_BY_MODEL_TYPE)}"
        raise UsageError(f"backbone {backbone_name!r}: no model type {config.get('model_type')!r}; {kinds}")
    shapes: dict[str, list[int]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        shapes |= _read_tensor_shapes(path, backbone_name)
    index = folder / "model.safetensors.index.json"
    wanted = set(_load_json_object(index, backbone_name).get("weight_map", {}).values()) if index.is_file() else set()
    if lost := sorted(file for file in wanted if not (folder / file).is_file()):
        raise UsageError(f"backbone {backbone_name!r}: no {lost[0]} in {folder}, which {index.name} names")
    rows = next((shape[0] for key, shape in shapes.items() if key.endswith("embed_tokens.weight")), None)
    if rows is None:
        raise UsageError(f"backbone {backbone_name!r}: no embedding (embed_tokens.weight) in its safetensors")
    if (folder / "tokenizer.json").is_file():
        _validate_tokenizer(folder, backbone_name, rows)


def _validate_tokenizer(folder: Path, backbone_name: str, num_embedding_rows: int) -> None:
    """Whether a tokenizer's ids have rows in the embedding, and answers can end."""
    model = _load_json_object(folder / "tokenizer.json", backbone_name)
    listed = model.get("model", {}).get("vocab", {})
    ids = [*listed.values()] if isinstance(listed, dict) else range(len(listed))
    most = max([*ids, *(token["id"] for token in model.get("added_tokens") or [])], default=-1)
    if most >= num_embedding_rows:
        found = f"its tokenizer has ids up to {most}, its embedding {num_embedding_rows} rows"
        raise UsageError(f"backbone {backbone_name!r}: {found}; the tokenizer is another model's")
    known = [folder / file for file in ("tokenizer_config.json", "special_tokens_map.json")]
    if not any(_load_json_object(path, backbone_name).get("eos_token") for path in known if path.is_file()):
        raise UsageError(f"backbone {backbone_name!r}: its tokenizer names no eos_token, so no answer could ever end")


def _load_json_object(path: Path, backbone_name: str) -> dict:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"backbone {backbone_name!r}: {path.name} cannot be read ({' '.join(str(error).split())})"
        ) from error
    if not isinstance(found, dict):
        raise UsageError(f"backbone {backbone_name!r}: {path.name} holds no fields but {type(found).__name__}")
    return found


def _read_tensor_shapes(path: Path, backbone_name: str) -> dict[str, list[int]]:
    """Tensor -> its shape, from the header of a safetensors file: its length in 8 bytes, then JSON."""
    with path.open("rb") as file:
        length, size = int.from_bytes(file.read(8), "little"), path.stat().st_size
        text = file.read(length) if length < size else b""
    try:
        found = json.loads(text)
        found.pop("__metadata__", None)
        ends = 8 + length + max(fact["data_offsets"][1] for fact in found.values())
        shapes = {key: fact["shape"] for key, fact in found.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(
            f"backbone {backbone_name!r}: {path.name} is no safetensors file, or torn; fetch it anew"
        ) from error
    if ends != size:
        raise UsageError(f"backbone {backbone_name!r}: {path.name} is torn: {size:,} bytes of {ends:,}; fetch it anew")
    return shapes


def compute_fingerprint(folder: Path) -> str:
    """sha256 over what decides a backbone's numbers: config, tokenizer and weights, wherever the folder lies."""
    names = sorted([*folder.glob("config.json"), *folder.glob("tokenizer.json"), *folder.glob("*.safetensors")])
    lines = [f"{path.name}:{_hash_file(path.resolve(), path.stat().st_mtime_ns)}\n" for path in names]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@lru_cache
def _hash_file(path: Path, _modified_ns: int) -> str:
    if re.fullmatch(r"[0-9a-f]{64}", path.name):  # the hub's cache names large files by their sha256
        return path.name
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
