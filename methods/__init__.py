# ruff: noqa: E701, I001
# fmt: off
# One line per method. Each class is imported only when it is loaded: Lightning and the model classes take seconds.
"""Index of the methods: `load_method("lora")` returns the class, `load_method("package.module:Class")` a custom one."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from methods.core.backbone import Backbone
    from methods.base import Method

NAMES = (
    "zero_shot", "majority", "head_only", "full", "bitfit", "adapter", "lora", "dora", "prompt", "prefix",
    "llama_adapter", "peft",
    "spot_generic", "spot", "attempt", "mpt", "shared_lora", "hydra_lora", "mtl_lora", "moe_lora",  # sources first
    "ta_lora", "meta_lora",
)


def parse_method_name(variant: str) -> str:
    """Method name of a variant: `lora` for `lora:rank-2`, `package.module:Class` for `package.module:Class:x`."""
    first, *more = variant.split(":")
    return first if first in NAMES else ":".join([first, *more[:1]])


def load_method(method_name: str) -> "type[Method]":
    """Import the class of a method, by name, variant or import path. Raises UsageError if there is no such method."""
    match parse_method_name(method_name):
        case "zero_shot": from methods.baselines import ZeroShot as method_class
        case "majority": from methods.baselines import Majority as method_class
        case "head_only": from methods.head_only import HeadOnly as method_class
        case "full": from methods.full import Full as method_class
        case "bitfit": from methods.bitfit import BitFit as method_class
        case "adapter": from methods.adapter import Adapter as method_class
        case "lora": from methods.lora import LoRA as method_class
        case "dora": from methods.dora import DoRA as method_class
        case "prompt": from methods.prompt import Prompt as method_class
        case "prefix": from methods.prefix import Prefix as method_class
        case "llama_adapter": from methods.llama_adapter import LlamaAdapter as method_class
        case "peft": from methods.peft import Peft as method_class
        case "spot_generic": from methods.spot import SpotGeneric as method_class
        case "spot": from methods.spot import SPoT as method_class
        case "attempt": from methods.attempt import ATTEMPT as method_class
        case "mpt": from methods.mpt import MPT as method_class
        case "shared_lora": from methods.shared_lora import SharedLoRA as method_class
        case "hydra_lora": from methods.hydra_lora import HydraLoRA as method_class
        case "mtl_lora": from methods.mtl_lora import MTLLoRA as method_class
        case "moe_lora": from methods.moe_lora import MoELoRA as method_class
        case "ta_lora": from methods.ta_lora import TALoRA as method_class
        case "meta_lora": from methods.meta_lora import MetaLoRA as method_class
        case _: return _load_custom_class(parse_method_name(method_name))
    return method_class


def load_adapter(folder: "str | Path", backbone: "Backbone") -> "Method":
    """Load the method that `benchmark export` wrote to a folder, onto the backbone that it was trained on."""
    from methods.core.export import load_adapter as load_exported_adapter

    return load_exported_adapter(folder, backbone)


def _load_custom_class(import_path: str) -> "type[Method]":
    """Class at `package.module:Class`. Raises UsageError if it cannot be imported or is not a Method."""
    from methods.base import Method
    from tasks.core.types import UsageError
    from tasks.core.import_path import import_class
    from tasks.core.suggestions import suggest_name

    if ":" not in import_path:
        advice = f"{suggest_name(import_path, NAMES)} (or your own as package.module:Class)"
        raise UsageError(f"no method {import_path!r}; {advice}")
    return import_class(import_path, Method, "method")
