"""How much device memory a cell needs, computed before anything is loaded. In bytes, P the backbone's parameters:

    weights   P x w                                               once, of w bytes each
    learned   n x 20, for each cell of a pack                     a number, its gradient, AdamW's two moments and the
                                                                  best so far, in fp32
    kept      tokens x (L (8 d + 8 h + 6 f + 4 (d + h)) + 8 d)    what a pass keeps for its way back (bf16)
    answers   answer tokens x vocabulary x 16                     logits in bf16 and fp32, and their gradients

Of each of the L layers, per token: both norms' input in fp32 (8 d); q, keys and values of every query head, and what
attention gives (8 h, h = heads x head size); gate, silu and up (6 f); what adapters read and add (4 (d + h), a bound).
In fp32 all but the norms is twice that. Where the weights learn, they are numbers of their own type that need a
gradient, two moments, the best and the pretrained value beside them, and the inputs of the linears are kept too.

A step that has no room goes in parts (`benchmark.training.stage`), so its rows are halved here until it fits. Rows count as the
longest that the profile lets through: most batches need less. `tests.gpu_acceptance` measures the same on a device.

Where n devices share a cell, each has 1/n of the rows. What learns beside the backbone is whole on each, with a copy of
its gradient in DDP's buckets. Under fsdp a device has 1/n of the backbone, and of what learns in it, beside the largest
part that a pass gathers; embeddings that are also the head stay whole. No step goes in parts there.
"""

from collections.abc import Mapping
from math import ceil
from typing import Any, NamedTuple

from benchmark.config.profile import Profile
from benchmark.grid import code_hash, specs
from benchmark.grid.cells import TARGET_STAGE, PlannedCell
from benchmark.system import disk_cache, hardware
from benchmark.system.formatting import format_bytes
from methods.core.architecture import ModelShape, find_model_shape

DEFAULT_GPU_BYTES = 80 * 2**30  # bytes of the GPU that is meant where none is here
ANSWER_TOKENS_PER_ROW = 4  # answer tokens of a row, its end token among them
BYTES_PER_WEIGHT = {"float32": 4, "bfloat16": 2, "mixed": 4}  # of a weight
BYTES_PER_ADAPTER_PARAMETER = 5 * 4
EXTRA_COPIES_PER_TRAINED_WEIGHT = 5  # gradient, two moments, best, pretrained value: of a weight that learns


class MemoryEstimate(NamedTuple):
    """Bytes of a pack: the backbone, what learns, and one pass of the step in this many parts."""

    weight_bytes: float
    trainable_bytes: float
    activation_bytes: float
    num_micro_batches: int = 1

    @property
    def total_bytes(self) -> float:
        return self.weight_bytes + self.trainable_bytes + self.activation_bytes


def estimate_memory(profile: Profile, planned_cell: PlannedCell, num_cells: int = 1) -> MemoryEstimate | None:
    """What a pack of so many cells like this one needs on each device, in as few parts as have room on a GPU here."""
    shape = find_model_shape(profile.backbone.name)
    if shape is None:
        return None
    width, facts = BYTES_PER_WEIGHT[profile.backbone.dtype], specs.get_method_spec(planned_cell.cell.method)
    computed = 4 if profile.backbone.dtype == "float32" else 2
    sharded, buckets = profile.strategy == "fsdp", 4 if profile.devices > 1 else 0
    share = shape.parameters_per_device(profile.devices) if sharded else shape.num_parameters
    held = share + (shape.max_gathered_parameters if sharded else 0)
    if not facts.uses_gradient_descent:
        return MemoryEstimate(held * width, 0, 0)
    found = count_parameters(planned_cell.cell.method, planned_cell.options, shape)
    if found is None:
        return None
    stage = planned_cell.cell.stage if planned_cell.cell.stage != TARGET_STAGE else facts.stages[-1].name
    slots = num_cells if planned_cell.cell.stage == TARGET_STAGE else len(planned_cell.training_tasks)
    shared, each = found["stages"][stage]
    learned = (shared + slots * each) * (BYTES_PER_ADAPTER_PARAMETER + buckets)
    if found["weights"] and sharded:
        learned = (
            found["weights"] * share / shape.num_parameters * EXTRA_COPIES_PER_TRAINED_WEIGHT
            + shape.max_gathered_parameters
        ) * width
    elif found["weights"]:
        learned = found["weights"] * width * (EXTRA_COPIES_PER_TRAINED_WEIGHT + bool(buckets))
    weights = held * width * (2 if found["copies"] else 1)
    rows = planned_cell.identity_inputs["budget"]["batch_size"] * (
        num_cells if planned_cell.cell.stage == TARGET_STAGE else 1
    )
    rows, parts = ceil(rows / profile.devices), 1
    passed = estimate_checkpointed_activation_bytes if profile.backbone.checkpointing else estimate_activation_bytes
    while True:
        tokens = ceil(rows / parts) * (profile.max_length + found["virtual"])
        need = MemoryEstimate(weights, learned, passed(shape, tokens, computed, bool(found["weights"])), parts)
        need = need._replace(
            activation_bytes=need.activation_bytes + ceil(rows / parts) * ANSWER_TOKENS_PER_ROW * shape.vocab_size * 16
        )
        if need.total_bytes <= get_gpu_memory_bytes() or parts >= rows or profile.devices > 1:
            return need
        parts *= 2


def estimate_activation_bytes(
    shape: ModelShape, num_tokens: int, bytes_per_number: int, trains_backbone: bool
) -> float:
    """Bytes that a pass of so many tokens keeps for its way back. `width`: bytes of a number in it, 2 or 4."""
    each, fed = estimate_layer_bytes_per_token(shape, bytes_per_number, trains_backbone)
    return num_tokens * (
        shape.num_hidden_layers * each - fed + 8 * shape.hidden_size
    )  # the last feeds few (methods.core.sparse_last_layer)


def estimate_checkpointed_activation_bytes(
    shape: ModelShape, num_tokens: int, bytes_per_number: int, trains_backbone: bool
) -> float:
    """The same under activation checkpointing: every layer's input, and all of one layer at a time."""
    each, _ = estimate_layer_bytes_per_token(shape, bytes_per_number, trains_backbone)
    return num_tokens * (each + 8 * shape.hidden_size + shape.num_hidden_layers * shape.hidden_size * bytes_per_number)


def estimate_layer_bytes_per_token(
    shape: ModelShape, bytes_per_number: int, trains_backbone: bool
) -> tuple[float, float]:
    """Bytes that a token leaves in a layer, and how many of them in its feed-forward part."""
    d, h, f, b = shape.hidden_size, shape.attention_width, shape.intermediate_size, bytes_per_number / 2
    fed, rest = 6 * f * b, 8 * d + b * (8 * h + 4 * (d + h))
    if trains_backbone:
        fed, rest = fed + 2 * f * b, rest + b * (8 * d + 2 * h)
    return fed + rest, fed


def get_gpu_memory_bytes() -> float:
    """Bytes of the largest GPU here, or of the one that is meant."""
    return max(hardware.get_gpu_memory_mib(), default=0) * 2**20 or DEFAULT_GPU_BYTES


def count_parameters(method: str, options: Mapping[str, Any], shape: ModelShape) -> dict[str, Any] | None:
    """What a method learns on a backbone of this shape, by stage; asked of the method itself once, and remembered."""
    facts = specs.get_method_spec(method)

    def ask() -> dict[str, Any] | None:
        from methods.core.meta_backbone import count_parameters_by_stage

        return count_parameters_by_stage(facts.name, options, shape)

    code = code_hash.hash_code("methods.core.meta_backbone", "methods.core.instantiate")
    return disk_cache.load_or_compute(["memory", facts.name, facts.code_hash, code, dict(options), list(shape)], ask)


def format_memory_estimate(estimate: MemoryEstimate) -> str:
    """`57 GB`, `74 GB in 2 parts`, or `98 GB: no room`."""
    size = format_bytes(estimate.total_bytes)
    if estimate.total_bytes > get_gpu_memory_bytes():
        return f"{size}: no room"
    return size if estimate.num_micro_batches == 1 else f"{size} in {estimate.num_micro_batches} parts"
