"""An adapter in a folder: what was learned, how it was configured, a card, and files for peft where it has the method.

learned.safetensors, method.json                    what `load_adapter` reads, for every method
adapter_model.safetensors, adapter_config.json      what `peft.PeftModel.from_pretrained` reads
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
PEFT_WEIGHTS_FILE = "adapter_model.safetensors"  # peft's own names
PEFT_CONFIG_FILE = "adapter_config.json"


def save_adapter(method: Method, folder: str | Path, slot: int | None = 0, description: str = "") -> list[str]:
    """Write one slot, or with `slot=None` all of them and no peft files. `about` goes on the card. -> names of files"""
    folder = Path(folder)
    state = method.trained_state_dict() if slot is None else method.slot_state_dict(slot)
    if not state:
        raise UsageError(f"method {method.name} learns nothing, so there is nothing to write")
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / METADATA_FILE).is_file())):
        raise UsageError(f"{folder} holds other files; name a new folder or an empty one")
    folder.mkdir(parents=True, exist_ok=True)
    for name in (PEFT_WEIGHTS_FILE, PEFT_CONFIG_FILE):  # of an earlier export
        (folder / name).unlink(missing_ok=True)
    save_file(copy_to_cpu(state), folder / STATE_FILE)
    (folder / METADATA_FILE).write_text(format_json(build_metadata(method)), encoding="utf-8")
    given = None if slot is None else method.peft_format(slot)
    if given:
        save_peft_files(folder, *given, base_model=get_display_name(method.backbone))
    (folder / MODEL_CARD_FILE).write_text(build_model_card(method, description, given is not None), encoding="utf-8")
    return sorted(path.name for path in folder.iterdir())


def load_adapter(folder: str | Path, backbone: Backbone) -> Method:
    """The method of a folder, ready to answer. It takes the backbone over: one method at a time."""
    folder = Path(folder)
    try:
        known = json.loads((folder / METADATA_FILE).read_text(encoding="utf-8"))
        state = load_file(folder / STATE_FILE, device=str(backbone.device))
    except (OSError, ValueError, SafetensorError) as error:
        raise UsageError(f"no adapter in {folder}: {METADATA_FILE} and {STATE_FILE} cannot be read") from error
    if known["backbone"]["fingerprint"] != backbone.fingerprint:
        raise UsageError(
            f"the adapter in {folder} was learned on backbone {known['backbone']['name']!r}; "
            f"{get_display_name(backbone)!r} has other weights"
        )
    method = load_method(known["method"])(backbone, known["options"])
    method.load(state)
    return method.eval()


def save_peft_files(
    folder: str | Path, config: dict[str, Any], tensors: dict[str, Tensor], base_model: str = ""
) -> None:
    """The two files that `peft.PeftModel.from_pretrained(model, folder)` reads."""
    fixed = {"task_type": "CAUSAL_LM", "inference_mode": True, "base_model_name_or_path": base_model}
    (Path(folder) / PEFT_CONFIG_FILE).write_text(format_json({**config, **fixed}), encoding="utf-8")
    save_file(copy_to_cpu(tensors), Path(folder) / PEFT_WEIGHTS_FILE, metadata={"format": "pt"})


def build_metadata(method: Method) -> dict[str, Any]:
    """What it takes to build the method again."""
    kind = type(method)
    indexed = method.name in NAMES and load_method(method.name) is kind
    return {
        "method": method.name if indexed else f"{kind.__module__}:{kind.__qualname__}",
        "options": asdict(method.config),
        "backbone": {"name": get_display_name(method.backbone), "fingerprint": method.backbone.fingerprint},
    }


def get_display_name(backbone: Backbone) -> str:
    """A backbone's name; of a folder its last part, because where it lies is nobody's business."""
    folder = Path(backbone.name).expanduser()
    return folder.resolve().name if folder.is_dir() else backbone.name


def build_model_card(method: Method, description: str, has_peft_files: bool) -> str:
    """What the folder is and how to load it, in Markdown."""
    base = get_display_name(method.backbone)
    by_peft = f"""
With [peft](https://github.com/huggingface/peft), on any copy of the same backbone:

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{base}"), "this folder")
```
"""
    return f"""---
base_model: {base}
{"library_name: peft" if has_peft_files else "library_name: adapterbench"}
---
# {method.name} on {base}

Learned: {method.trained_part}. Method: {method.paper or method.name}. The backbone's own weights are not in here.
{description}
## Loading it
{by_peft if has_peft_files else ""}
With adapterbench:

```python
import methods
from methods.core.backbone import Backbone

method = methods.load_adapter("this folder", Backbone.load("{base}"))
```
"""


def copy_to_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as a file takes them: on the CPU, each with memory of its own."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def format_json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1, default=encode_json_value) + "\n"


def encode_json_value(value: Any) -> Any:
    """A set as a list, since JSON knows no sets; anything else as its text."""
    return sorted(value) if isinstance(value, set | frozenset) else str(value)
