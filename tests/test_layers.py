"""Imports go one way: tasks < methods < benchmark."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ("tasks", "methods", "benchmark", "tests")
FILES = [path for layer in LAYERS[:3] for path in sorted((ROOT / layer).rglob("*.py"))]
HEAVY = {"torch", "lightning", "transformers", "pandas", "datasets", "torchmetrics", "wandb", "matplotlib", "numpy"}
LIGHT = [path for path in FILES if path.relative_to(ROOT).parts[:2] in
         {("benchmark", room) for room in ("config", "system", "grid", "results", "scheduling", "cli")}]  # fmt: skip


def packages(nodes: list[ast.stmt]) -> set[str]:
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_layer_imports_nothing_above_it(path: Path):
    layer = LAYERS.index(path.relative_to(ROOT).parts[0])
    every = packages([node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.stmt)])
    assert not every & set(LAYERS[layer + 1 :])


def test_wandb_is_imported_in_one_folder():
    own = {"wandb", "wandb_workspaces"}
    importing = {path.parent.name for path in FILES if own & packages([*ast.walk(ast.parse(path.read_text()))])}
    assert importing == {"wandb"}


@pytest.mark.parametrize("path", LIGHT, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_plan_needs_imports_nothing_heavy_at_the_top(path: Path):
    assert not packages(ast.parse(path.read_text()).body) & HEAVY
