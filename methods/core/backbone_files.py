"""Locate, validate and fingerprint a backbone's files. Imports no torch, so planning can fingerprint a backbone."""

import hashlib
import json
import re
from functools import lru_cache, partial
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.constants import HF_HUB_OFFLINE
from huggingface_hub.errors import LocalEntryNotFoundError

from methods.core.backbone_folder import resolve_backbone_folder
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
# supported architectures: model type -> (site name -> module path in a layer)
SITES_BY_MODEL_TYPE = {"qwen2": DECODER_SITES, "qwen3": DECODER_SITES, "llama": DECODER_SITES}
DOWNLOAD_PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.model"]  # no pickles and no code


def find_or_download_backbone(backbone_name: str, revision: str | None = None) -> Path:
    """Folder of a backbone, downloaded from the hub if necessary. Only a hub id (org/name) can cause network access.

    Raises UsageError if there is no such folder, its files are incomplete, or the hub cannot provide it.
    """
    folder = resolve_backbone_folder(backbone_name)
    if folder.is_dir():
        return _require_model_files(folder, backbone_name)
    first_part = backbone_name.split("/")[0]
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", backbone_name) or Path(first_part).is_dir():
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
        model_info = HfApi().model_info(backbone_name, revision=revision, timeout=download.make_timeout())
        file_names = [file.rfilename for file in model_info.siblings or ()]
        if not any(file.endswith(".safetensors") for file in file_names):
            pickles = ", ".join(file for file in file_names if file.endswith((".bin", ".pt", ".pth")))
            weights = f"its weights are pickles ({pickles}), which can run code" if pickles else "it has no weights"
            raise UsageError(
                f"backbone {backbone_name!r}: no *.safetensors in the hub's repository, {weights}; {advice}"
            )
        return _require_model_files(Path(fetch()), backbone_name)


def _require_model_files(folder: Path, backbone_name: str) -> Path:
    """The folder itself. Raises UsageError if it has no config.json or no safetensors."""
    for pattern in ("config.json", "*.safetensors"):  # pickled weights are not supported
        if not any(folder.glob(pattern)):
            raise UsageError(f"backbone {backbone_name!r}: no {pattern} in {folder}")
    return folder


def validate_backbone_files(folder: Path, backbone_name: str) -> None:
    """Check from their headers that the files are complete and match. Raises UsageError if not."""
    config = _load_json_object(folder / "config.json", backbone_name)
    if config.get("model_type") not in SITES_BY_MODEL_TYPE:
        advice = f"there are: {', '.join(SITES_BY_MODEL_TYPE)}"
        raise UsageError(f"backbone {backbone_name!r}: no model type {config.get('model_type')!r}; {advice}")
    shapes: dict[str, list[int]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        shapes |= _read_tensor_shapes(path, backbone_name)
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = set(_load_json_object(index, backbone_name).get("weight_map", {}).values())
        if missing := sorted(file for file in shards if not (folder / file).is_file()):
            raise UsageError(f"backbone {backbone_name!r}: no {missing[0]} in {folder}, which {index.name} names")
    num_rows = next((shape[0] for key, shape in shapes.items() if key.endswith("embed_tokens.weight")), None)
    if num_rows is None:
        raise UsageError(f"backbone {backbone_name!r}: no embedding (embed_tokens.weight) in its safetensors")
    if (folder / "tokenizer.json").is_file():
        _validate_tokenizer(folder, backbone_name, num_rows)


def _validate_tokenizer(folder: Path, backbone_name: str, num_embedding_rows: int) -> None:
    """Check that all token ids have a row in the embedding and that there is an end token; else raise UsageError."""
    tokenizer = _load_json_object(folder / "tokenizer.json", backbone_name)
    vocabulary = tokenizer.get("model", {}).get("vocab", {})
    ids = [*vocabulary.values()] if isinstance(vocabulary, dict) else range(len(vocabulary))
    max_id = max([*ids, *(token["id"] for token in tokenizer.get("added_tokens") or [])], default=-1)
    if max_id >= num_embedding_rows:
        mismatch = f"its tokenizer has ids up to {max_id}, its embedding {num_embedding_rows} rows"
        raise UsageError(f"backbone {backbone_name!r}: {mismatch}; the tokenizer belongs to another model")
    configs = [folder / file for file in ("tokenizer_config.json", "special_tokens_map.json")]
    if not any(_load_json_object(path, backbone_name).get("eos_token") for path in configs if path.is_file()):
        raise UsageError(f"backbone {backbone_name!r}: its tokenizer has no eos_token, so answers would never end")


def _load_json_object(path: Path, backbone_name: str) -> dict:
    """Content of a JSON file. Raises UsageError if it cannot be read or is not an object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"backbone {backbone_name!r}: {path.name} cannot be read ({' '.join(str(error).split())})"
        ) from error
    if not isinstance(content, dict):
        raise UsageError(f"backbone {backbone_name!r}: {path.name} is not a JSON object but {type(content).__name__}")
    return content


def _read_tensor_shapes(path: Path, backbone_name: str) -> dict[str, list[int]]:
    """Shapes of the tensors of a safetensors file by name, from its header: the length in 8 bytes, then JSON.

    Raises UsageError if the file is invalid or truncated.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        header_length = int.from_bytes(file.read(8), "little")
        header_text = file.read(header_length) if header_length < size else b""
    try:
        header = json.loads(header_text)
        header.pop("__metadata__", None)
        expected_size = 8 + header_length + max(entry["data_offsets"][1] for entry in header.values())
        shapes = {key: entry["shape"] for key, entry in header.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(
            f"backbone {backbone_name!r}: {path.name} is truncated or no safetensors file; download it again"
        ) from error
    if expected_size != size:
        raise UsageError(
            f"backbone {backbone_name!r}: {path.name} is truncated: {size:,} bytes of {expected_size:,}; "
            "download it again"
        )
    return shapes


def compute_fingerprint(folder: Path) -> str:
    """sha256 over the files that determine a backbone's scores (config, tokenizer, weights), not over its path."""
    names = sorted([*folder.glob("config.json"), *folder.glob("tokenizer.json"), *folder.glob("*.safetensors")])
    lines = [f"{path.name}:{_hash_file(path.resolve(), path.stat().st_mtime_ns)}\n" for path in names]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@lru_cache
def _hash_file(path: Path, _modified_ns: int) -> str:
    """sha256 of a file, cached by path and modification time."""
    if re.fullmatch(r"[0-9a-f]{64}", path.name):  # the hub's cache names large files by their sha256
        return path.name
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
