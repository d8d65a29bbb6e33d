"""Preflight checks: devices, backbone files, tokenizer, label words and shot counts are validated before any cell runs.

Problems raise a UsageError of one line. The checks need no torch, and statistics of the data are cached.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from benchmark.config.profile import Profile
from benchmark.grid import dataset_stats, specs
from benchmark.grid.cells import PlannedCell
from benchmark.system import hardware
from methods.core import backbone_files
from tasks.core.types import UsageError


def check_cells(profile: Profile, due_cells: Sequence[PlannedCell]) -> None:
    """Raise UsageError if the due cells cannot be run with this profile."""
    check_device(profile.backbone.device)
    check_shared_devices(profile, due_cells)
    name = profile.backbone.name
    folder = backbone_files.find_or_download_backbone(name, profile.backbone.revision)
    backbone_files.validate_backbone_files(folder, name)
    encode = load_encoder(folder, name)
    max_shots: dict[str, int] = {}
    for planned in due_cells:
        shots = planned.cell.shots if isinstance(planned.cell.shots, int) else 0
        for task in planned.training_tasks:
            max_shots[task] = max(shots, max_shots.get(task, 0))
    for task, shots in max_shots.items():
        check_label_words(profile, task, encode)
        counts = dataset_stats.count_labels(task, profile.source, profile.data_dir)
        max_count = max(counts.values(), default=0)
        if shots > 0 and shots > max_count:
            has_labels = any(counts)
            available = f"no label has more than {max_count}" if has_labels else f"there are {max_count}"
            raise UsageError(f"{task}: {shots} shots, and {available} training examples; use fewer, or full")


def check_device(device_name: str) -> None:
    """Raise UsageError if the profile names a GPU that this machine does not have."""
    index = int(device_name.partition(":")[2] or 0)
    num_gpus = len(hardware.get_gpu_memory_mib())
    if device_name.startswith("cuda") and index >= num_gpus:
        raise UsageError(f"no device {device_name!r}: torch sees {num_gpus} CUDA devices here")


def check_shared_devices(profile: Profile, due_cells: Sequence[PlannedCell]) -> None:
    """Raise UsageError if the devices that share a cell do not exist or a method uses dropout.

    With dropout the result would depend on which device processes a row.
    """
    if profile.devices == 1:
        return
    if hardware.is_cuda_device(profile.backbone.device):
        num_gpus = len(hardware.get_gpu_memory_mib())
        if num_gpus < profile.devices:
            raise UsageError(f"devices {profile.devices}: this machine has {num_gpus} GPUs")
    for planned in due_cells:
        for name, value in planned.options.items():
            if "dropout" in name and value:
                setting = f"{planned.cell.method}.{name} {value}"
                raise UsageError(
                    f"{setting} cannot be shared by {profile.devices} devices; set it to 0, or devices to 1"
                )


def load_encoder(backbone_folder: Path, backbone_name: str) -> Callable[[str], tuple[int, ...]] | None:
    """Load the function text -> token ids of the backbone; None if there is no tokenizer.json (transformers only).

    Raises UsageError if the file cannot be read.
    """
    from tokenizers import Tokenizer

    path = backbone_folder / "tokenizer.json"
    if not path.is_file():
        return None
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises no narrower class
        raise UsageError(f"backbone {backbone_name!r}: tokenizer.json cannot be read ({error})") from error
    return lambda text: tuple(tokenizer.encode(text, add_special_tokens=False).ids)


def check_label_words(profile: Profile, task: str, encode: Callable[[str], tuple[int, ...]]) -> None:
    """Raise UsageError if label words have no tokens or the same tokens, or if max_length is too short for the task."""
    spec = specs.get_task_spec(task)
    if encode is None:
        return
    word_by_ids: dict[tuple[int, ...], str] = {}
    for word in spec.words.values():
        ids = encode(word)
        if not ids:
            raise UsageError(f"{task}: label word {word!r} has no tokens in this tokenizer; choose another word")
        if ids in word_by_ids:
            both = f"{word_by_ids[ids]!r} and {word!r}"
            raise UsageError(f"{task}: label words {both} have the same tokens {list(ids)}; choose other words")
        word_by_ids[ids] = word
    prefix_length = len(encode(spec.template.partition("{}")[0]))
    needed = prefix_length + max(map(len, word_by_ids), default=1) + 2
    if needed > profile.max_length:
        raise UsageError(f"{task}: max_length {profile.max_length} is too short: instruction and answer take {needed}")
