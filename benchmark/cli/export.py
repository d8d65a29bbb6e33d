"""`benchmark export`: writes the trained adapter of a cell to a folder."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

import methods
from benchmark.config.profile import Profile
from benchmark.grid import data_hash
from benchmark.results.cell_result import CellResult
from benchmark.results.store import ResultStore
from tasks.core.types import UsageError


def export_cell(profile: Profile, results: Sequence[CellResult], folder: Path, console: Console) -> int:
    """Export the newest of these results of one cell. Returns 0.

    Raises `UsageError` if the results belong to several cells, if the cell failed, if its adapter was not kept, or if
    it was trained on another backbone.
    """
    keys = {result.key for result in results}
    if len(keys) > 1:
        raise UsageError(f"several cells match: {', '.join(sorted(keys))}; name one")
    result = next((result for result in reversed(results) if result.is_done), results[-1])
    if result.error:
        raise UsageError(f"cell {result.key} failed: {result.error.reason}")
    path = ResultStore(profile.results_folder).get_adapter_path(result.identity)
    if not path.is_file():
        command = format_rerun_command(profile, result)
        raise UsageError(f"cell {result.key}: its adapter was not kept; to keep it, run: {command}")
    weights = profile.backbone
    if result.details.identity_inputs.backbone != data_hash.hash_backbone(weights.name, weights.revision):
        base = result.backbone.name
        raise UsageError(f"cell {result.key} was trained on backbone {base}, not on {weights.name}; use --backbone")
    files = write_adapter(profile, result, path, folder)
    loaders = "peft.PeftModel.from_pretrained and methods" if "adapter_config.json" in files else "methods"
    console.print(f"{result.key} in {folder}: {', '.join(files)}; load it with {loaders}.load_adapter", soft_wrap=True)
    return 0


def write_adapter(profile: Profile, result: CellResult, artifact_path: Path, folder: Path) -> list[str]:
    """Rebuild the method from the result, load its adapter and save it to `folder`. Returns the names of the files."""
    from safetensors.torch import load_file

    from methods.core.backbone import Backbone
    from methods.core.export import save_adapter

    weights = profile.backbone
    settings = result.details.identity_inputs.settings
    backbone = Backbone.load(
        weights.name, revision=weights.revision, dtype=settings.dtype, attention=settings.attention
    )
    method = methods.load_method(result.cell.method)(backbone, result.details.identity_inputs.options)
    state = load_file(artifact_path)
    if state:  # a method without trained tensors is rejected by `save_adapter`
        method.load(state)
    slot = 0 if result.is_target else None
    return save_adapter(method, folder, slot, format_card_text(result))


def format_card_text(result: CellResult) -> str:
    """Format the text of the model card: the cell, its training data, score and parameter count."""
    cell = result.cell
    scores = [f"{name} {value:.4f}" for name, value in result.get_metrics().test.items()]
    training_tasks = ", ".join(result.details.identity_inputs.training_tasks)
    paragraphs = [
        f"Cell `{result.key}` of grid `{result.grid}`, identity `{result.identity[:20]}`.",
        f"Trained on: {training_tasks}; {cell.shots} examples per class, "
        f"seed {cell.seed}. Licence of the data: {result.task.licence}.",
        f"On test: {', '.join(scores)}." if scores else "",
        f"Trained parameters: {result.get_costs().trained_parameters:,}.",
    ]
    return "\n" + "\n\n".join(paragraph for paragraph in paragraphs if paragraph) + "\n"


def format_rerun_command(profile: Profile, result: CellResult) -> str:
    """Format the command that runs the cell again and keeps its adapter."""
    cell = result.cell
    selection = f"--methods {cell.method} --tasks {cell.task} --seeds {cell.seed}"
    shots = f" --shots {cell.shots}" if cell.shots else ""
    return f"python -m benchmark run {profile.cli_flags} {selection}{shots} --set keep_adapters=true"
