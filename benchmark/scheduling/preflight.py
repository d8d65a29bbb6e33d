"""What can be known to go wrong before the first cell: said in one line, while nothing is written.

Backbone, tokenizer, label words and records are read here without torch; what was counted once is remembered.
"""

from collections.abc import Sequence
from pathlib import Path

from benchmark.config.profile import Profile
from benchmark.grid import dataset_stats, specs
from benchmark.grid.cells import PlannedCell
from benchmark.system import hardware
from methods.core import backbone_files
from tasks.core.types import UsageError


def check_cells(profile: Profile, due_cells: Sequence[PlannedCell]) -> None:
    """Raise UsageError where these cells cannot be run as asked."""
    check_device(profile.backbone.device)
    check_shared_devices(profile, due_cells)
    name = profile.backbone.name
    folder = backbone_files.find_or_download_backbone(name, profile.backbone.revision)
    backbone_files.validate_backbone_files(folder, name)
    encode = load_encoder(folder, name)
    shots: dict[str, set[int]] = {}
    for planned in due_cells:
        asked = planned.cell.shots
        for task in planned.training_tasks:
            shots.setdefault(task, set()).update([asked] if isinstance(asked, int) and asked else [])
    for task, asked in shots.items():
        check_label_words(profile, task, encode)
        counts = dataset_stats.count_labels(task, profile.source, profile.data_dir)
        if asked and max(asked) > (most := max(counts.values())):
            found = f"no label has more than {most}" if any(counts) else f"there are {most}"
            raise UsageError(f"{task}: {max(asked)} shots, and {found} training examples; use fewer, or full")


def check_device(device_name: str) -> None:
    """A GPU that was asked for is there."""
    wanted = int(device_name.partition(":")[2] or 0)
    if device_name.startswith("cuda") and wanted >= len(hardware.get_gpu_memory_mib()):
        import torch  # knows of GPUs that nvidia-smi does not

        if wanted >= torch.cuda.device_count():
            raise UsageError(f"no device {device_name!r}: torch sees {torch.cuda.device_count()} CUDA devices here")


def check_shared_devices(profile: Profile, due_cells: Sequence[PlannedCell]) -> None:
    """Where several devices share a cell: they are there, and no pass draws noise, which would depend on who draws."""
    if profile.devices == 1:
        return
    if (
        hardware.is_cuda_device(profile.backbone.device)
        and (count := len(hardware.get_gpu_memory_mib())) < profile.devices
    ):
        raise UsageError(f"devices {profile.devices}: there are {count} here")
    for planned in due_cells:
        for name, value in planned.options.items():
            if "dropout" in name and value:
                said = f"{planned.cell.method}.{name} {value}"
                raise UsageError(f"{said} cannot be shared by {profile.devices} devices; set it to 0, or devices to 1")


def load_encoder(backbone_folder: Path, backbone_name: str):  # -> a function text -> ids, or None
    """Ids of a text as the backbone has them; None for a tokenizer that only transformers can read."""
    from tokenizers import Tokenizer

    path = backbone_folder / "tokenizer.json"
    if not path.is_file():
        return None
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises no narrower one
        raise UsageError(f"backbone {backbone_name!r}: tokenizer.json cannot be read ({error})") from error
    return lambda text: tuple(tokenizer.encode(text, add_special_tokens=False).ids)


def check_label_words(profile: Profile, task: str, encode) -> None:
    """A task's instruction has room, and its label words can be told apart."""
    facts = specs.get_task_spec(task)
    owner: dict[tuple[int, ...], str] = {}
    if encode is None:
        return
    for word in facts.words.values():
        ids = encode(word)
        if not ids:
            raise UsageError(f"{task}: label word {word!r} has no tokens in this tokenizer; choose another word")
        if ids in owner:
            both = f"{owner[ids]!r} and {word!r}"
            raise UsageError(f"{task}: label words {both} have the same tokens {list(ids)}; choose other words")
        owner[ids] = word
    start = len(encode(facts.template.partition("{}")[0]))
    needed = start + max(map(len, owner), default=1) + 2
    if needed > profile.max_length:
        raise UsageError(f"{task}: max_length {profile.max_length} is too short: instruction and answer take {needed}")
