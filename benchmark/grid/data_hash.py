"""TODO."""

from functools import cache
from pathlib import Path

import methods
from benchmark.grid.code_hash import find_module_file, parse_module
from benchmark.grid.specs import get_task_spec
from benchmark.system.disk_cache import hash_file_cached
from benchmark.system.hashing import hash_json
from tasks.core.sources import File, LocalSource, TaskFolderSource, parse_nothing, uses_task_folder
from tasks.core.types import UsageError


@cache
def hash_records(task_name: str, data_source: str, data_dir: str | None) -> str:
    """Hash of the raw records a task would read; says at once when there are none."""
    facts = get_task_spec(task_name)
    files = tuple(File(part, tuple(paths), parse_nothing, names) for part, paths, names in facts.files)
    home = uses_task_folder(facts.home, facts.hub, data_source)
    if data_source == "hub" and not home:
        return hash_json([data_source, facts.hub])
    if data_source == "sample" and not home:
        return hash_json([data_source, hash_synthetic_generators()])
    local = (
        TaskFolderSource(facts.own_name, files, facts.home)
        if home
        else LocalSource(facts.own_name, files, Path(data_dir))
    )
    local.find_parts()  # raises when nothing is there
    wanted = sorted({path for file in files for path in (*file.paths, file.label_names_file) if path})
    return hash_json(
        [[path, hash_file_cached(local.folder / path)] for path in wanted if (local.folder / path).is_file()]
    )


@cache
def hash_synthetic_generators() -> str:
    """Hash of the generators of the embedded records."""
    folder = find_module_file("tasks.synthetic.generators").parent
    return hash_json(
        [[path.stem, parse_module(f"tasks.synthetic.{path.stem}")[0]] for path in sorted(folder.glob("*.py"))]
    )


@cache
def hash_backbone(backbone_name: str, revision: str | None) -> str:
    """What identifies a backbone's weights: the content of a folder, or a hub id at its revision."""
    folder = methods.resolve_backbone_folder(backbone_name)
    if folder.is_dir():
        kept = sorted(path for pattern in ("*.json", "*.safetensors") for path in folder.glob(pattern))
        return hash_json([[path.name, hash_file_cached(path)] for path in kept])
    if backbone_name.count("/") != 1 or backbone_name.startswith((".", "~", "/")):
        raise UsageError(
            f"no backbone {backbone_name!r}: no such folder; give 'tiny', a folder, or a hub id (org/name)"
        )
    return f"{backbone_name}@{revision or 'main'}"
