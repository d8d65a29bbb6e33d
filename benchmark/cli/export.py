"""Write what a cell learned to a folder that others can load."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmark.config.profile import Profile
from benchmark.grid import data_hash
from benchmark.grid.cells import TARGET_STAGE
from benchmark.results.store import ResultStore
from tasks.core.types import UsageError


def export_cell(profile: Profile, results: Sequence[Mapping[str, Any]], folder: Path, console: Console) -> int:
    """The newest of these results of one cell, as a folder."""
    if len({result["key"] for result in results}) > 1:
        raise UsageError(f"several cells match: {', '.join(sorted({result['key'] for result in results}))}; name one")
    done = [result for result in results if result["state"] == "done"]
    if not done:
        raise UsageError(f"cell {results[-1]['key']} failed: {results[-1]['error']['reason']}")
    result, store = done[-1], ResultStore(profile.results_folder)
    path = store.get_adapter_path(result["identity"])
    if not path.is_file():
        raise UsageError(
            f"cell {result['key']}: what it learned was not kept; this keeps it: {format_rerun_command(profile, result)}"
        )
    weights = profile.backbone
    if result["parts"]["backbone"] != data_hash.hash_backbone(weights.name, weights.revision):
        base = result["backbone"]["name"]
        raise UsageError(f"cell {result['key']} was learned on backbone {base}, not on {weights.name}; use --backbone")
    files = write_adapter(profile, result, path, folder)
    kind = "peft.PeftModel.from_pretrained and methods" if "adapter_config.json" in files else "methods"
    console.print(f"{result['key']} in {folder}: {', '.join(files)}; load it with {kind}.load_adapter", soft_wrap=True)
    return 0


def write_adapter(profile: Profile, result: Mapping[str, Any], artifact_path: Path, folder: Path) -> list[str]:
    """Build the method again from the result, and let it write itself."""
    from safetensors.torch import load_file

    import methods
    from methods.core.backbone import Backbone
    from methods.core.export import save_adapter

    weights, settings = profile.backbone, result["parts"]["settings"]
    backbone = Backbone.load(
        weights.name, revision=weights.revision, dtype=settings["dtype"], attention=settings["attention"]
    )
    method = methods.load_method(result["cell"]["method"])(backbone, result["parts"]["options"])
    state = load_file(artifact_path)
    if state:  # else there is nothing to load, and `save_adapter` says so
        method.load(state)
    slot = 0 if result["cell"]["stage"] == TARGET_STAGE else None
    return save_adapter(method, folder, slot, format_card_text(result))


def format_card_text(result: Mapping[str, Any]) -> str:
    """For the card: the cell, its score and its cost."""
    cell, task = result["cell"], result["task"]
    scores = [f"{name} {value:.4f}" for name, value in result["metrics"].get("test", {}).items()]
    lines = [
        f"Cell `{result['key']}` of grid `{result['grid']}`, identity `{result['identity'][:20]}`.",
        f"Trained on: {', '.join(result['parts']['settings']['members'])}; {cell['shots']} examples per class, "
        f"seed {cell['seed']}. Licence of the records: {task['licence']}.",
        f"On test: {', '.join(scores)}." if scores else "",
        f"Trained parameters: {result['cost']['trained_parameters']:,}.",
    ]
    return "\n" + "\n\n".join(line for line in lines if line) + "\n"


def format_rerun_command(profile: Profile, result: Mapping[str, Any]) -> str:
    """The command that runs the cell once more and keeps what it learned."""
    cell = result["cell"]
    picked = f"--methods {cell['method']} --tasks {cell['task']} --seeds {cell['seed']}"
    shots = f" --shots {cell['shots']}" if cell["shots"] else ""
    return f"python -m benchmark run {profile.cli_flags} {picked}{shots} --set keep_adapters=true"
