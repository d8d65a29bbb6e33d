"""Cells that several processes train together come out as those of one."""

import os
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load as load_tensors
from torch import distributed

import tasks
from benchmark.cli import run
from benchmark.config import loading, validation
from benchmark.config.budget import Budget
from benchmark.config.profile import Profile
from benchmark.execution.cell_runner import CellRunner
from benchmark.execution.device_group import DeviceGroup
from benchmark.grid import planner
from benchmark.results.store import ResultStore
from benchmark.scheduling import preflight
from benchmark.training.stage import train_stage
from methods.base import TARGET_STAGE
from methods.conformance import tiny_models
from methods.core.backbone import Backbone
from methods.core.step_plan import partition_step
from methods.full import Full
from methods.lora import LoRA
from methods.ta_lora import TALoRA
from tasks.core.batching import MultiTaskDataModule
from tasks.core.encoding import collate
from tasks.core.types import UsageError

TWO = {"devices": 2, "strategy": "ddp"}


@pytest.fixture
def two_stages(tmp_path: Path, model_folders: dict[str, Path]) -> Profile:
    """Few steps of LoRA and of both methods that learn from sources; gradients are clipped, batches do not halve."""
    return loading.load_profile("smoke", {
        "methods": ["lora", "ta_lora", "meta_lora"], "tasks": ["chnsent"], "seeds": [0], "sources": ["afqmc", "bq"],
        "backbone": {"name": str(model_folders["qwen3"]), "device": "cpu"}, "keep_adapters": True,
        "budget": {"batch_size": 5, "max_steps": 2, "evaluations": 1}, "config": {"method": {"clip": 0.1}},
        "source_budget": {"batch_size": 5, "max_steps": 8, "evaluations": 1}, "limit": {"test": 8, "dev": 4},
        "results": str(tmp_path / "one"),
    })  # fmt: skip


def test_two_processes_give_the_cells_of_one(two_stages: Profile, tmp_path: Path):
    """Sources in a mixture and in episodes, then targets: learned tensors, curves, tokens, scores."""
    shared = validation.validate_profile(replace(two_stages, **TWO, results=str(tmp_path / "two")))
    cells, alone = planner.plan_grid(two_stages), CellRunner(two_stages, ResultStore(two_stages.results_folder))
    assert [cell.identity for cell in planner.plan_grid(shared)] == [cell.identity for cell in cells]
    expected = [alone.run([cell])[0] for cell in cells]
    crew = DeviceGroup(shared, ResultStore(shared.results_folder))
    try:
        for cell, one in zip(cells, expected, strict=True):
            [two] = crew.run([cell])
            assert one.error == two.error is None
            assert two.details.environment.num_devices == 2
            assert two.costs.num_tokens == one.costs.num_tokens
            assert two.metrics == one.metrics
            for (step, loss), (other, want) in zip(two.details.training.loss, one.details.training.loss, strict=True):
                assert (step, loss) == (other, pytest.approx(want, rel=1e-4))
            same(
                *(
                    load_tensors(place.get_adapter_path(cell.identity).read_bytes())
                    for place in (alone.store, crew.store)
                )
            )
    finally:
        crew.close()
    assert len(list((shared.results_folder / "cells").iterdir())) == len(cells)


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    """Up to the order of sums, of which AdamW makes more where a gradient is near 0."""
    for name, tensor in one.items():
        assert (two[name] - tensor).norm() <= 2e-3 * tensor.norm() + 1e-6, name


def forked(folder: Path, work: Callable[[], dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """What `work` returns in the first of two processes that have met."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    other = os.fork()
    rank = int(other == 0)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    try:
        found = work()
    finally:
        if rank:
            os._exit(0)
        distributed.destroy_process_group()
        os.waitpid(other, 0)
    return found


@pytest.mark.parametrize("method", [LoRA, Full])
def test_a_backbone_in_shares_learns_what_a_whole_one_learns(method, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("ADAPTERBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(tiny_models.MODEL_DIMENSIONS, "tie_word_embeddings", False)
    model = tiny_models.save_random_model(tmp_path / "model", "qwen2")

    def trained(sharded: bool) -> dict[str, torch.Tensor]:
        backbone = Backbone.load(str(model), sharded=sharded)
        size = sum(getattr(p, "_local_tensor", p).numel() for p in backbone.model.parameters())
        one = tasks.load_task("chnsent")(
            backbone.tokenizer, shots=2, batch_size=3, max_per_split={"test": 8}, max_length=120
        )
        gathered: list[float] = []  # parameters that are whole after the last layer of a pass
        parameters = list(backbone.model.named_parameters())
        last = backbone.model.model.layers[-1]

        def look(*_: object) -> None:
            gathered.append(sum(not hasattr(backbone.model.get_parameter(name), "to_local") for name, _ in parameters))

        last.register_forward_hook(look)
        made = method(backbone, {"lr": 1e-2, "clip": 0.1})
        [history] = train_stage(
            made, MultiTaskDataModule([one]), TARGET_STAGE, Budget(epochs=2, evaluations=1), seeds=[0]
        )
        learned = {
            name: getattr(t, "full_tensor", lambda t=t: t)().clone() for name, t in made.trained_state_dict().items()
        }
        numbers = {"size": float(size), "gathered": max(gathered), "loss": [loss for _, loss in history.loss_curve]}
        return learned | {name: torch.tensor(value) for name, value in numbers.items()}

    whole, shares = trained(False), forked(tmp_path, lambda: trained(True))
    assert shares.pop("size") == whole.pop("size") / 2
    assert (shares.pop("gathered"), whole.pop("gathered") > 20) == (0, True)
    same(whole, shares)


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_the_parts_of_a_step_add_up(qwen3: Backbone, rows: int):
    """Pass by pass, each with one slot or two; also where there are fewer rows than processes."""
    method = TALoRA(qwen3, {"gate": "none"})
    for stage in TALoRA.stages[:2]:
        method.begin_stage(stage, [0, 1])
    one = tasks.load_task("chnsent")(qwen3.tokenizer, shots=4, max_per_split={"test": 8}, max_length=120)
    one.setup()
    batch = collate(one.encode_split("train")[:rows], [int(row > 2) for row in range(rows)], 1)

    def gradient(*plans) -> dict[str, torch.Tensor]:
        method.zero_grad()
        for plan in plans:
            method.compute_slot_losses(plan).sum().backward()
        return {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}

    whole, each = (
        method.plan_step(batch),
        [partition_step(batch, method.plan_step, rank=rank, world_size=3) for rank in range(3)],
    )
    assert sum(sum(plan.num_tokens) for plan in each) == sum(whole.num_tokens)
    want, got = gradient(whole), gradient(*each)
    for name, tensor in want.items():
        torch.testing.assert_close(got[name], tensor, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"devices": 2}, "devices 2 with strategy auto: set both or neither"),
        ({"strategy": "fsdp"}, "devices 1 with strategy fsdp: set both or neither"),
        ({"devices": 0, "strategy": "ddp"}, "devices 0 with strategy ddp"),
        (TWO | {"workers": 2}, "one group of processes takes the first devices"),
        (TWO | {"config": {"lora": {"dropout": 0.1}}}, "lora.dropout 0.1 cannot be shared by 2 devices"),
    ],
)
def test_what_cannot_be_shared_is_refused(two_stages: Profile, changes: dict, said: str):
    def checked() -> None:
        found = validation.validate_profile(replace(two_stages, **changes))
        preflight.check_cells(found, planner.plan_grid(found))

    with pytest.raises(UsageError, match=said):
        checked()


def test_an_actor_of_ray_has_one_device(two_stages: Profile):
    asked = Namespace(engine="ray", address=None)
    with pytest.raises(UsageError, match="devices 2: a Ray actor has one device"):
        run.connect_engine(asked, replace(two_stages, **TWO), [("planned", "")], None, None)
