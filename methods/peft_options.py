"""What the `peft` bridge is configured with: which types of the library fit, and their options, checked by name."""

from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PeftConfig, PromptLearningConfig

from methods.config import Config
from tasks.example import UsageError

KINDS = {kind.value: config for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
# what a type needs outside the model; without it the numbers would not be that method's
UNFIT = {
    "ADALORA": "its ranks are allocated between the steps, and it adds a loss of its own, in peft's training loop",
    "SHADOW": "it adds a loss of its own in peft's forward pass",
    "XLORA": "it mixes LoRA adapters that were trained before",
}
OUTSIDE = (  # the same, as options
    "use_asa", "alora_invocation_tokens", "eva_config", "corda_config", "lora_ga_config", "monteclora_config",
    "arrow_config",
)  # fmt: skip
OWN = [option.name for option in fields(Config)]  # of every method
TOKENS = 20  # virtual tokens where none are asked for, as in `prompt`


def read(kind: str, file: str, values: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The type and its options, from the file where one is named; options beside it have the last word."""
    if not file:
        return kind.upper(), dict(values)
    if not Path(file).is_file():
        raise UsageError(f"method peft: no file {file}; give an adapter_config.json, or peft_type")
    found = {**PeftConfig.from_json_file(file), **values}
    return found.pop("peft_type", "").upper(), found


def settings(kind: str, values: Mapping[str, Any]) -> PeftConfig:
    """A type and its options -> peft's configuration, in which a typing error is an error."""
    if kind not in KINDS:
        raise UsageError(f"method peft: no peft_type {kind!r}; there are: {', '.join(sorted(KINDS))}")
    if kind in UNFIT:
        raise UsageError(f"method peft: {kind} does not fit here: {UNFIT[kind]}")
    known = [option.name for option in fields(KINDS[kind])]
    for key in values:
        if key not in known:
            near = get_close_matches(key, [*known, *OWN], 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}"
            raise UsageError(f"method peft: {kind} has no option {key!r}; {hint}")
    try:
        found = KINDS[kind](**{**values, "task_type": "CAUSAL_LM", "inference_mode": False})
    except (ValueError, TypeError, ImportError) as error:
        raise UsageError(f"method peft: {kind} cannot be used: {str(error).strip().splitlines()[0]}") from error
    for option in OUTSIDE:
        if getattr(found, option, None):
            raise UsageError(f"method peft: {kind} with {option} does not fit here: it needs peft's own training loop")
    if isinstance(found, PromptLearningConfig) and not found.num_virtual_tokens:
        found.num_virtual_tokens = TOKENS
    return found
