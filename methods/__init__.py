# ruff: noqa: E701, I001
# fmt: off
# The index. One row per method; a row imports only what it names, because Lightning and the model classes take seconds.
"""How the backbone is adapted: `load("lora")` gives the class. A method of your own: `load("package.module:Class")`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from methods.core.backbone import Backbone
    from methods.base import Method

NAMES = (
    "zero_shot", "majority", "head_only", "full", "bitfit", "adapter", "lora", "prompt", "prefix", "llama_adapter",
    "peft",
    "spot_generic", "spot", "attempt", "mpt", "shared_lora", "hydra_lora", "mtl_lora", "moe_lora",  # sources first
    "ta_lora", "meta_lora",
)


def parse_method_name(variant: str) -> str:
    """The method behind a row of a table: `lora:rank-2` is lora under other options, so is `package.module:Class:x`."""
    first, *more = variant.split(":")
    return first if first in NAMES else ":".join([first, *more[:1]])


def load_method(method_name: str) -> "type[Method]":
    """The method's class, by its name (or a row's) or by import path."""
    match parse_method_name(method_name):
        case "zero_shot": from methods.baselines import ZeroShot as found
        case "majority": from methods.baselines import Majority as found
        case "head_only": from methods.head_only import HeadOnly as found
        case "full": from methods.full import Full as found
        case "bitfit": from methods.bitfit import BitFit as found
        case "adapter": from methods.adapter import Adapter as found
        case "lora": from methods.lora import LoRA as found
        case "prompt": from methods.prompt import Prompt as found
        case "prefix": from methods.prefix import Prefix as found
        case "llama_adapter": from methods.llama_adapter import LlamaAdapter as found
        case "peft": from methods.peft import Peft as found
        case "spot_generic": from methods.spot import SpotGeneric as found
        case "spot": from methods.spot import SPoT as found
        case "attempt": from methods.attempt import ATTEMPT as found
        case "mpt": from methods.mpt import MPT as found
        case "shared_lora": from methods.shared_lora import SharedLoRA as found
        case "hydra_lora": from methods.hydra_lora import HydraLoRA as found
        case "mtl_lora": from methods.mtl_lora import MTLLoRA as found
        case "moe_lora": from methods.moe_lora import MoELoRA as found
        case "ta_lora": from methods.ta_lora import TALoRA as found
        case "meta_lora": from methods.meta_lora import MetaLoRA as found
        case _: return _load_custom_class(parse_method_name(method_name))
    return found


def resolve_backbone_folder(backbone_name: str) -> "Path":
    """Where a backbone lies that is no hub id: the embedded one, or the folder of this name."""
    from pathlib import Path

    return Path(__file__).parent / "tiny" if backbone_name == "tiny" else Path(backbone_name).expanduser()


def load_adapter(folder: "str | Path", backbone: "Backbone") -> "Method":
    """The method that `benchmark export` left in a folder, ready to answer on the backbone it was learned on."""
    from methods.core.export import load_adapter as found

    return found(folder, backbone)


def _load_custom_class(import_path: str) -> "type[Method]":
    from methods.base import Method
    from tasks.core.types import UsageError
    from tasks.core.import_path import import_class
    from tasks.core.suggestions import suggest_name

    if ":" not in import_path:
        raise UsageError(f"no method {import_path!r}; {suggest_name(import_path, NAMES)} (or your own as package.module:Class)")
    return import_class(import_path, Method, "method")
