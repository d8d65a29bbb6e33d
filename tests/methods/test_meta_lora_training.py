"""What may never leave an outer step of MeTA-LoRA, whoever takes it, and its stages in the harness."""

from pathlib import Path

import lightning as L
import pytest
import torch
from torch.testing import assert_close
from torch.utils.data import DataLoader, IterableDataset

import tasks
from benchmark.config.budget import Budget
from benchmark.training.stage import train_stage
from methods.base import TARGET_STAGE
from methods.conformance.episodes import compute_outer_gradient
from methods.conformance.fixtures import make_episode, run_trainer
from methods.core.backbone import Backbone
from methods.meta_lora import MetaLoRA
from methods.shared_lora import SharedLoRA
from tasks.core.batching import MultiTaskDataModule, return_batch_unchanged
from tasks.core.types import UsageError
from tests.support.metalora import SOURCE, meta

# -------------------------------------------------------------------- theta, and nothing else, outside a forward pass


def test_an_exception_in_the_inner_loop_leaves_theta(qwen3: Backbone, monkeypatch: pytest.MonkeyPatch):
    method, given = meta(qwen3), make_episode(0, 1)
    before = {name: tensor.clone() for name, tensor in method.trained_state_dict().items()}
    own = dict(method.named_parameters())
    right, calls = method.compute_slot_losses, []

    def breaks(plan):
        calls.append(plan)
        if len(calls) == 6:  # in the second task's inner loop
            raise ArithmeticError("on purpose")
        return right(plan)

    monkeypatch.setattr(method, "compute_slot_losses", breaks)
    with pytest.raises(ArithmeticError):
        compute_outer_gradient(method, given)
    assert all(method.get_parameter(name) is p for name, p in own.items())
    assert all(torch.equal(before[name], tensor) for name, tensor in method.trained_state_dict().items())


def test_a_second_pass_of_a_layer_finds_the_adapted_weights(qwen3: Backbone, model_folders: dict[str, Path]):
    """Under activation checkpointing; what goes back through earlier passes would not, nor where layers are shared out."""
    again, given = Backbone.load(str(model_folders["qwen3"]), checkpointing=True), make_episode(0, 2)
    want, found = (compute_outer_gradient(meta(backbone, inner_lr=0.5), given) for backbone in (qwen3, again))
    for name, gradient in want.items():
        assert_close(found[name], gradient, rtol=1e-4, atol=1e-5)
    with pytest.raises(UsageError, match="set second_order to false"):
        meta(again, second_order=True)
    again.checkpointed_layers, again.is_sharded = None, True
    with pytest.raises(UsageError, match="set second_order to false"):
        meta(again, second_order=True)


class Saves(L.Callback):
    """A checkpoint right before the outer step and right after it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.learned = folder, {}

    def save(self, trainer: L.Trainer, method: MetaLoRA, name: str) -> None:
        trainer.save_checkpoint(self.folder / name)
        self.learned[name] = {key: tensor.clone() for key, tensor in method.trained_state_dict().items()}

    def on_before_optimizer_step(self, trainer, method, optimizer):
        self.save(trainer, method, "before")

    def on_train_batch_end(self, trainer, method, outputs, batch, batch_idx):
        self.save(trainer, method, "after")


def test_a_checkpoint_holds_theta_and_never_an_adapted_one(qwen3: Backbone, tmp_path: Path):
    method, saves = meta(qwen3, lr=0.1, warmup=0.0), Saves(tmp_path)
    start = {name: tensor.clone() for name, tensor in method.trained_state_dict().items()}
    method.slot_steps = [4] * 3
    run_trainer(method, [make_episode(0, 1)], saves)
    for name in ("before", "after"):
        held = torch.load(tmp_path / name, weights_only=True)["state_dict"]
        assert held.keys() == start.keys()
        assert all(torch.equal(held[key], saves.learned[name][key]) for key in held)
    assert all(torch.equal(saves.learned["before"][key], start[key]) for key in start)
    moved = {key: (saves.learned["after"][key] - start[key]).abs() for key in start}
    assert all(distance.median() == pytest.approx(0.1, rel=1e-2) for distance in moved.values())  # AdamW's first step


def test_training_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(qwen3: Backbone, tmp_path: Path):
    """The outer moments and the schedule are in it."""

    def trained(epochs: int, ckpt: Path | None = None) -> MetaLoRA:
        method = meta(qwen3, lr=0.05)
        method.slot_steps = [8] * 3
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = L.Trainer(accelerator="cpu", max_epochs=epochs, enable_model_summary=False, **quiet)
        trainer.fit(
            method, DataLoader([make_episode(0, 1)], batch_size=None, collate_fn=return_batch_unchanged), ckpt_path=ckpt
        )
        assert trainer.global_step == epochs
        assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.05 * method.lr_multiplier(epochs, 8))
        assert {int(state["step"]) for state in trainer.optimizers[0].state.values()} == {epochs}
        trainer.save_checkpoint(tmp_path / str(epochs))
        return method

    trained(2)
    resumed, through = trained(3, tmp_path / "2"), None
    got = {name: tensor.clone() for name, tensor in resumed.trained_state_dict().items()}
    through = trained(3).trained_state_dict()
    assert all(torch.equal(got[name], through[name]) for name in got)


@pytest.mark.parametrize("second", [False, True])
def test_processes_share_the_tasks_of_an_episode(qwen3: Backbone, second: bool):
    """Two of them arrive at the theta of one, with three tasks and then with two."""

    class Twice(IterableDataset):
        def __iter__(self):
            return iter([make_episode(0, 1, 2), make_episode(2, 0)])

    def trained(**how: object) -> dict[str, torch.Tensor]:
        method = meta(qwen3, lr=0.05, second_order=second)
        method.slot_steps = [8] * 3
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = L.Trainer(accelerator="cpu", max_steps=2, enable_model_summary=False, **quiet, **how)
        trainer.fit(method, DataLoader(Twice(), batch_size=None, collate_fn=return_batch_unchanged))
        return {name: tensor.clone() for name, tensor in method.trained_state_dict().items()}

    alone, together = trained(devices=1), trained(devices=2, strategy="ddp_fork")
    start = meta(qwen3).trained_state_dict()
    for name, tensor in alone.items():
        assert (tensor - together[name]).norm() < 1e-3 * (tensor - start[name]).norm(), name


# -------------------------------------------------------------------- a stage of the harness


@pytest.fixture
def sources(qwen3: Backbone, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ADAPTERBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "records"))

    def opened(**options: object) -> list[tasks.base.Task]:
        limit = {"train": 64, "dev": 4, "test": 4}
        given = {"batch_size": 4, "max_per_split": limit, "max_length": 120} | options
        return [tasks.load_task(name)(qwen3.tokenizer, **given) for name in ("bq", "afqmc", "cote_mfw")]

    return opened


def test_a_stage_on_the_sources_then_one_on_the_target(qwen3: Backbone, sources):
    method = MetaLoRA(qwen3, {"tasks": 2, "inner_steps": 1, "lr": 0.02, "pool": 16})
    members = sources(max_train_examples=16)
    group = MultiTaskDataModule(members, "episodes", batch_size=4, **method.batching_options(SOURCE))
    budget = Budget(batch_size=4, epochs=1, max_steps=16, evaluations=2, patience=0)
    histories = train_stage(method, group, SOURCE, budget, seeds=[0, 0, 0])
    assert {history.num_steps for history in histories} == {4}  # 16 gradients, 2 (1 + 1) to a step
    assert {history.num_gradients for history in histories} == {16}
    assert all([step for step, _, _ in history.dev_scores] == [2, 4] for history in histories)
    assert len({history.best_step for history in histories}) == 1
    for history in histories:
        assert {len(curve) for curve in history.diagnostics.values()} == {4}
        assert "agreement" in history.diagnostics
        assert all(0 < step <= 4 for step, _ in history.loss_curve)
    assert sum(len(history.loss_curve) for history in histories) == 4 * 2
    learned = method.trained_state_dict()
    target = sources(shots=2)[:1]
    method.load(learned)
    [history] = train_stage(
        method, MultiTaskDataModule(target), TARGET_STAGE, Budget(epochs=2, evaluations=1), seeds=[0]
    )
    assert method.automatic_optimization
    assert history.num_steps == len(history.loss_curve) == history.num_gradients == 2
    assert history.diagnostics == {}


def test_tokens_are_those_of_support_and_query(qwen3: Backbone, sources):
    method = MetaLoRA(qwen3, {"tasks": 3, "inner_steps": 2})
    group = MultiTaskDataModule(
        sources(max_train_examples=16), "episodes", batch_size=4, **method.batching_options(SOURCE)
    )
    budget = Budget(batch_size=4, epochs=1, max_steps=9, evaluations=0)
    histories = train_stage(method, group, SOURCE, budget, seeds=[0, 0, 0])
    [given] = list(group.train_dataloader())
    for history, support, query in zip(histories, given.support, given.query, strict=True):
        assert history.num_tokens == sum(int(one.attention_mask.sum()) for one in (*support, query))


def test_the_control_takes_as_many_gradients_on_the_same_examples(qwen3: Backbone, sources):
    found = {}
    for kind in (MetaLoRA, SharedLoRA):
        method = kind(qwen3, {"pool": 16})
        members, stage = sources(max_train_examples=16), kind.stages[0]
        group = MultiTaskDataModule(members, stage.batch_mode, batch_size=4, **method.batching_options(stage))
        budget = Budget(batch_size=4, epochs=2, max_steps=24, evaluations=0)
        histories = train_stage(method, group, stage, budget, seeds=[0, 0, 0])
        found[kind] = histories[0].num_gradients, [member.hash_split("train") for member in members]
    assert found[MetaLoRA] == found[SharedLoRA]
    assert found[MetaLoRA][0] == 24
