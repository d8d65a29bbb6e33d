"""Memory model: device memory that a cell needs, computed before anything is loaded.

In bytes, for a backbone of P parameters, hidden size d, attention width h = heads x head size, MLP width f, L layers:

    weights      P x w                                             w bytes per parameter, shared by the pack
    adapter      n x 20 per cell of a pack                         n parameters in fp32: value, gradient, AdamW's two
                                                                   moments, best value so far
    activations  tokens x (L (8 d + 8 h + 6 f + 4 (d + h)) + 8 d)  saved for the backward pass (bf16)
    logits       answer tokens x vocabulary x 16                   in bf16 and fp32, and their gradients

Activations per token and layer: inputs of both norms in fp32 (8 d); queries, keys and values of all query heads, and
the attention output (8 h); gate, SiLU and up projection (6 f); inputs and outputs of adapters (4 (d + h), an upper
bound). In fp32 everything but the norms takes twice that. If the backbone itself is trained, each weight also needs a
gradient, two moments, its best and its pretrained value, all in its own type, and the inputs of the linear layers are
saved too.

A step that does not fit is split into micro-batches (`benchmark.training.stage`), so its rows are halved here until it
fits. All rows count with the maximum length of the profile: most batches need less. `tests.gpu_acceptance` measures the
same on a device.

If n devices share a cell, each has 1/n of the rows. Adapters are replicated, with a copy of their gradients in DDP's
buckets. Under FSDP a device holds 1/n of the backbone, and of its optimizer state, plus the largest module that a
forward pass gathers; embeddings tied to the output layer stay whole. Micro-batches are not used there.
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

DEFAULT_GPU_BYTES = 80 * 2**30  # memory of the GPU that is assumed if this machine has none
ANSWER_TOKENS_PER_ROW = 4  # answer tokens per row, including the end token
BYTES_PER_WEIGHT = {"float32": 4, "bfloat16": 2, "mixed": 4}  # by dtype of the backbone
BYTES_PER_ADAPTER_PARAMETER = 5 * 4  # value, gradient, two moments, best value; fp32
EXTRA_COPIES_PER_TRAINED_WEIGHT = 5  # gradient, two moments, best and pretrained value


class MemoryEstimate(NamedTuple):
    """Bytes per device of a pack: backbone, trainable parameters, and activations of one micro-batch."""

    weight_bytes: float
    trainable_bytes: float
    activation_bytes: float
    num_micro_batches: int = 1

    @property
    def total_bytes(self) -> float:
        """Peak memory in bytes."""
        return self.weight_bytes + self.trainable_bytes + self.activation_bytes


def estimate_memory(profile: Profile, planned_cell: PlannedCell, num_cells: int = 1) -> MemoryEstimate | None:
    """Estimate the memory per device of a pack of `num_cells` cells like this one.

    The number of micro-batches is the smallest power of two with which a step fits on the GPU. None if the shape of the
    backbone or the parameters of the method are not known.
    """
    shape = find_model_shape(profile.backbone.name)
    if shape is None:
        return None
    cell = planned_cell.cell
    spec = specs.get_method_spec(cell.method)
    bytes_per_weight = BYTES_PER_WEIGHT[profile.backbone.dtype]
    bytes_per_activation = 4 if profile.backbone.dtype == "float32" else 2
    is_sharded = profile.strategy == "fsdp"
    has_gradient_buckets = profile.devices > 1
    weights_per_device = shape.parameters_per_device(profile.devices) if is_sharded else shape.num_parameters
    gathered_weights = shape.max_gathered_parameters if is_sharded else 0
    weight_bytes: float = (weights_per_device + gathered_weights) * bytes_per_weight
    if not spec.uses_gradient_descent:
        return MemoryEstimate(weight_bytes, 0, 0)
    counts = count_parameters(cell.method, planned_cell.options, shape)
    if counts is None:
        return None
    if counts["copies"]:
        weight_bytes *= 2
    is_target_cell = cell.stage == TARGET_STAGE
    stage = spec.stages[-1].name if is_target_cell else cell.stage
    num_slots = num_cells if is_target_cell else len(planned_cell.training_tasks)
    shared_parameters, slot_parameters = counts["stages"][stage]
    trained_weights = counts["weights"]
    if trained_weights and is_sharded:
        sharded_weights = trained_weights * weights_per_device / shape.num_parameters
        trainable_bytes = (sharded_weights * EXTRA_COPIES_PER_TRAINED_WEIGHT + gathered_weights) * bytes_per_weight
    elif trained_weights:
        num_copies = EXTRA_COPIES_PER_TRAINED_WEIGHT + (1 if has_gradient_buckets else 0)
        trainable_bytes = trained_weights * bytes_per_weight * num_copies
    else:
        bytes_per_parameter = BYTES_PER_ADAPTER_PARAMETER + (4 if has_gradient_buckets else 0)
        trainable_bytes = (shared_parameters + num_slots * slot_parameters) * bytes_per_parameter
    num_rows = planned_cell.budget.batch_size * (num_cells if is_target_cell else 1)
    num_rows = ceil(num_rows / profile.devices)
    estimate_activations = estimate_activation_bytes
    if profile.backbone.checkpointing:
        estimate_activations = estimate_checkpointed_activation_bytes
    num_micro_batches = 1
    while True:
        rows = ceil(num_rows / num_micro_batches)
        num_tokens = rows * (profile.max_length + counts["virtual"])
        activation_bytes = estimate_activations(shape, num_tokens, bytes_per_activation, bool(trained_weights))
        activation_bytes += rows * ANSWER_TOKENS_PER_ROW * shape.vocab_size * 16
        estimate = MemoryEstimate(weight_bytes, trainable_bytes, activation_bytes, num_micro_batches)
        fits = estimate.total_bytes <= get_gpu_memory_bytes()
        if fits or num_micro_batches >= num_rows or profile.devices > 1:
            return estimate
        num_micro_batches *= 2


def estimate_activation_bytes(
    shape: ModelShape, num_tokens: int, bytes_per_number: int, trains_backbone: bool
) -> float:
    """Estimate the bytes of the activations of `num_tokens` tokens that a forward pass saves for the backward pass.

    `bytes_per_number` is 2 or 4. The MLP of the last layer is left out: it runs on few tokens
    (`methods.core.sparse_last_layer`).
    """
    layer_bytes, mlp_bytes = estimate_layer_bytes_per_token(shape, bytes_per_number, trains_backbone)
    return num_tokens * (shape.num_hidden_layers * layer_bytes - mlp_bytes + 8 * shape.hidden_size)


def estimate_checkpointed_activation_bytes(
    shape: ModelShape, num_tokens: int, bytes_per_number: int, trains_backbone: bool
) -> float:
    """Estimate the same under activation checkpointing: the input of every layer, and all activations of one layer."""
    layer_bytes, _ = estimate_layer_bytes_per_token(shape, bytes_per_number, trains_backbone)
    input_bytes = shape.num_hidden_layers * shape.hidden_size * bytes_per_number
    return num_tokens * (layer_bytes + 8 * shape.hidden_size + input_bytes)


def estimate_layer_bytes_per_token(
    shape: ModelShape, bytes_per_number: int, trains_backbone: bool
) -> tuple[float, float]:
    """Estimate the bytes that a layer saves per token, and how many of them belong to its MLP.

    Letters and terms are those of the module docstring; `scale` is relative to 2-byte numbers.
    """
    d = shape.hidden_size
    h = shape.attention_width
    f = shape.intermediate_size
    scale = bytes_per_number / 2
    mlp_bytes = 6 * f * scale
    other_bytes = 8 * d + scale * (8 * h + 4 * (d + h))
    if trains_backbone:
        mlp_bytes += 2 * f * scale
        other_bytes += scale * (8 * d + 2 * h)
    return mlp_bytes + other_bytes, mlp_bytes


def get_gpu_memory_bytes() -> float:
    """Return the memory of the largest GPU of this machine, or DEFAULT_GPU_BYTES if it has none."""
    return max(hardware.get_gpu_memory_mib(), default=0) * 2**20 or DEFAULT_GPU_BYTES


def count_parameters(method: str, options: Mapping[str, Any], shape: ModelShape) -> dict[str, Any] | None:
    """Count the parameters that a method trains on a backbone of this shape, by stage; cached on disk.

    See `methods.core.meta_backbone.count_parameters_by_stage` for the fields.
    """
    spec = specs.get_method_spec(method)

    def count() -> dict[str, Any] | None:
        from methods.core.meta_backbone import count_parameters_by_stage

        return count_parameters_by_stage(spec.name, options, shape)

    code = code_hash.hash_code("methods.core.meta_backbone", "methods.core.instantiate")
    return disk_cache.load_or_compute(["memory", spec.name, spec.code_hash, code, dict(options), list(shape)], count)


def format_memory_estimate(estimate: MemoryEstimate) -> str:
    """Format an estimate, e.g. `57 GB`, `74 GB in 2 micro-batches`, or `98 GB: does not fit`."""
    size = format_bytes(estimate.total_bytes)
    if estimate.total_bytes > get_gpu_memory_bytes():
        return f"{size}: does not fit"
    return size if estimate.num_micro_batches == 1 else f"{size} in {estimate.num_micro_batches} micro-batches"
