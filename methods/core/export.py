"""Saving an adapter to a folder and loading it: tensors, options, a model card, and peft files if peft has the method.

learned.safetensors, method.json                    read by `load_adapter`, for every method
adapter_model.safetensors, adapter_config.json      read by `peft.PeftModel.from_pretrained`
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from methods import NAMES, load_method
from methods.base import Method
from methods.core.backbone import Backbone
from tasks.core.types import UsageError

STATE_FILE = "learned.safetensors"
METADATA_FILE = "method.json"
MODEL_CARD_FILE = "README.md"
PEFT_WEIGHTS_FILE = "adapter_model.safetensors"  # file names that peft expects
PEFT_CONFIG_FILE = "adapter_config.json"


def save_adapter(method: Method, folder: str | Path, slot: int | None = 0, description: str = "") -> list[str]:
    """Write one slot, or all slots without peft files if `slot` is None, and return the names of the files.

    `description` is added to the model card. Raises UsageError if the method has no trained tensors or the folder
    contains other files.
    """
    folder = Path(folder)
    state = method.trained_state_dict() if slot is None else method.slot_state_dict(slot)
    if not state:
        raise UsageError(f"method {method.name} learns nothing, so there is nothing to write")
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / METADATA_FILE).is_file())):
        raise UsageError(f"{folder} holds other files; name a new folder or an empty one")
    folder.mkdir(parents=True, exist_ok=True)
    for name in (PEFT_WEIGHTS_FILE, PEFT_CONFIG_FILE):  # from an earlier export
        (folder / name).unlink(missing_ok=True)
    save_file(copy_to_cpu(state), folder / STATE_FILE)
    (folder / METADATA_FILE).write_text(format_json(build_metadata(method)), encoding="utf-8")
    peft_format = None if slot is None else method.peft_format(slot)
    if peft_format:
        save_peft_files(folder, *peft_format, base_model=get_display_name(method.backbone))
    model_card = build_model_card(method, description, peft_format is not None)
    (folder / MODEL_CARD_FILE).write_text(model_card, encoding="utf-8")
    return sorted(path.name for path in folder.iterdir())


def load_adapter(folder: str | Path, backbone: Backbone) -> Method:
    """Load an exported method in evaluation mode onto the backbone, from which any other method is detached.

    Raises UsageError if the folder cannot be read or the adapter belongs to another backbone.
    """
    folder = Path(folder)
    try:
        metadata = json.loads((folder / METADATA_FILE).read_text(encoding="utf-8"))
        state = load_file(folder / STATE_FILE, device=str(backbone.device))
    except (OSError, ValueError, SafetensorError) as error:
        raise UsageError(f"no adapter in {folder}: {METADATA_FILE} and {STATE_FILE} cannot be read") from error
    if metadata["backbone"]["fingerprint"] != backbone.fingerprint:
        raise UsageError(
            f"the adapter in {folder} was trained on backbone {metadata['backbone']['name']!r}; "
            f"{get_display_name(backbone)!r} has other weights"
        )
    method = load_method(metadata["method"])(backbone, metadata["options"])
    method.load(state)
    return method.eval()


def save_peft_files(
    folder: str | Path, config: dict[str, Any], tensors: dict[str, Tensor], base_model: str = ""
) -> None:
    """Write the two files that `peft.PeftModel.from_pretrained(model, folder)` reads."""
    fixed = {"task_type": "CAUSAL_LM", "inference_mode": True, "base_model_name_or_path": base_model}
    (Path(folder) / PEFT_CONFIG_FILE).write_text(format_json({**config, **fixed}), encoding="utf-8")
    save_file(copy_to_cpu(tensors), Path(folder) / PEFT_WEIGHTS_FILE, metadata={"format": "pt"})


def build_metadata(method: Method) -> dict[str, Any]:
    """Name, options and backbone from which `load_adapter` builds the method again."""
    method_class = type(method)
    is_indexed = method.name in NAMES and load_method(method.name) is method_class
    return {
        "method": method.name if is_indexed else f"{method_class.__module__}:{method_class.__qualname__}",
        "options": asdict(method.config),
        "backbone": {"name": get_display_name(method.backbone), "fingerprint": method.backbone.fingerprint},
    }


def get_display_name(backbone: Backbone) -> str:
    """Display name of a backbone; a local path is reduced to its last component, so that no private path is written."""
    folder = Path(backbone.name).expanduser()
    return folder.resolve().name if folder.is_dir() else backbone.name


def build_model_card(method: Method, description: str, has_peft_files: bool) -> str:
    """Model card in Markdown: what the folder contains and how to load it."""
    base_name = get_display_name(method.backbone)
    peft_section = f"""
With [peft](https://github.com/huggingface/peft), on any copy of the same backbone:

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{base_name}"), "this folder")
```
"""
    return f"""---
base_model: {base_name}
{"library_name: peft" if has_peft_files else "library_name: adapterbench"}
---
# {method.name} on {base_name}

Learned: {method.trained_part}. Method: {method.paper or method.name}. The backbone's own weights are not in here.
{description}
## Loading it
{peft_section if has_peft_files else ""}
With adapterbench:

```python
import methods
from methods.core.backbone import Backbone

method = methods.load_adapter("this folder", Backbone.load("{base_name}"))
```
"""


def copy_to_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies of the tensors on the CPU, contiguous and without shared memory, as safetensors requires."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def format_json(value: dict[str, Any]) -> str:
    """Indented JSON text with a final newline."""
    return json.dumps(value, ensure_ascii=False, indent=1, default=encode_json_value) + "\n"


def encode_json_value(value: Any) -> Any:
    """Default encoder for JSON: a set becomes a sorted list, any other object its string."""
    return sorted(value) if isinstance(value, set | frozenset) else str(value)
