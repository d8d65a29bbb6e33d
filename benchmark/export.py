"""Write what a cell learned to a folder that others can load."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmark import catalogue
from benchmark.grid import TARGET
from benchmark.profile import Profile
from benchmark.store import Store
from tasks.example import UsageError


def export(found: Profile, results: Sequence[Mapping[str, Any]], folder: Path, say: Console) -> int:
    """The newest of these results of one cell, as a folder."""
    if len({result["key"] for result in results}) > 1:
        raise UsageError(f"several cells match: {', '.join(sorted({result['key'] for result in results}))}; name one")
    done = [result for result in results if result["state"] == "done"]
    if not done:
        raise UsageError(f"cell {results[-1]['key']} failed: {results[-1]['error']['reason']}")
    result, store = done[-1], Store(found.folder)
    path = store.artefact(result["identity"])
    if not path.is_file():
        raise UsageError(f"cell {result['key']}: what it learned was not kept; this keeps it: {again(found, result)}")
    weights = found.backbone
    if result["parts"]["backbone"] != catalogue.backbone(weights.name, weights.revision):
        base = result["backbone"]["name"]
        raise UsageError(f"cell {result['key']} was learned on backbone {base}, not on {weights.name}; use --backbone")
    files = written(found, result, path, folder)
    kind = "peft.PeftModel.from_pretrained and methods" if "adapter_config.json" in files else "methods"
    say.print(f"{result['key']} in {folder}: {', '.join(files)}; load it with {kind}.load_adapter", soft_wrap=True)
    return 0


def written(found: Profile, result: Mapping[str, Any], path: Path, folder: Path) -> list[str]:
    """Build the method again from the result, and let it write itself."""
    from safetensors.torch import load_file

    import methods
    from methods.adapters import save_adapter
    from methods.backbone import Backbone

    weights, settings = found.backbone, result["parts"]["settings"]
    backbone = Backbone.load(
        weights.name, revision=weights.revision, dtype=settings["dtype"], attention=settings["attention"]
    )
    method = methods.load(result["cell"]["method"])(backbone, result["parts"]["options"])
    state = load_file(path)
    if state:  # else there is nothing to load, and `save_adapter` says so
        method.load(state)
    slot = 0 if result["cell"]["stage"] == TARGET else None
    return save_adapter(method, folder, slot, about(result))


def about(result: Mapping[str, Any]) -> str:
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


def again(found: Profile, result: Mapping[str, Any]) -> str:
    """The command that runs the cell once more and keeps what it learned."""
    cell = result["cell"]
    picked = f"--methods {cell['method']} --tasks {cell['task']} --seeds {cell['seed']}"
    shots = f" --shots {cell['shots']}" if cell["shots"] else ""
    return f"python -m benchmark run {found.flags} {picked}{shots} --set keep_adapters=true"
