"""Content hashes of the data of a task and of the weights of a backbone."""

from functools import cache
from pathlib import Path

from benchmark.grid.code_hash import find_module_file, parse_module
from benchmark.grid.specs import get_task_spec
from benchmark.system.disk_cache import hash_file_cached
from benchmark.system.hashing import hash_json
from methods.core.backbone_folder import resolve_backbone_folder
from tasks.core.sources import File, LocalSource, TaskFolderSource, parse_nothing, uses_task_folder
from tasks.core.types import UsageError


@cache
def hash_records(task_name: str, data_source: str, data_dir: str | None) -> str:
    """Return the hash of a task's raw data: its files, the generators of sample data, or a hub dataset's name.

    Raises `UsageError` if the files of the task are missing.
    """
    spec = get_task_spec(task_name)
    files = tuple(File(part, tuple(paths), parse_nothing, names) for part, paths, names in spec.files)
    if uses_task_folder(spec.home, spec.hub, data_source):
        source = TaskFolderSource(spec.own_name, files, spec.home)
    elif data_source == "hub":
        return hash_json([data_source, spec.hub])
    elif data_source == "sample":
        return hash_json([data_source, hash_synthetic_generators()])
    else:
        source = LocalSource(spec.own_name, files, Path(data_dir))
    source.find_parts()  # raises if the files are missing
    paths = sorted({path for file in files for path in (*file.paths, file.label_names_file) if path})
    return hash_json(
        [[path, hash_file_cached(source.folder / path)] for path in paths if (source.folder / path).is_file()]
    )


@cache
def hash_synthetic_generators() -> str:
    """Return the hash of the code that generates the sample data."""
    folder = find_module_file("tasks.synthetic.generators").parent
    return hash_json(
        [[path.stem, parse_module(f"tasks.synthetic.{path.stem}")[0]] for path in sorted(folder.glob("*.py"))]
    )


@cache
def hash_backbone(backbone_name: str, revision: str | None) -> str:
    """Return the hash of a backbone folder's files, or for a hub id `id@revision`.

    Raises `UsageError` if the name is neither a folder nor a hub id.
    """
    folder = resolve_backbone_folder(backbone_name)
    if folder.is_dir():
        paths = sorted(path for pattern in ("*.json", "*.safetensors") for path in folder.glob(pattern))
        return hash_json([[path.name, hash_file_cached(path)] for path in paths])
    if backbone_name.count("/") != 1 or backbone_name.startswith((".", "~", "/")):
        raise UsageError(
            f"no backbone {backbone_name!r}: no such folder; give 'tiny', a folder, or a hub id (org/name)"
        )
    return f"{backbone_name}@{revision or 'main'}"
