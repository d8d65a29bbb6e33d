"""A stage of training: budgets, selection, early stops, packs, and failures that name their step."""

import os
import signal
from pathlib import Path

import lightning as L
import pytest
import torch

import tasks
from benchmark.config.budget import Budget
from benchmark.evaluation import evaluate
from benchmark.evaluation.scoring import predict
from benchmark.training import model_selection
from benchmark.training.stage import train_stage
from methods import load_method
from methods.base import SOURCE_STAGE, TARGET_STAGE, Method
from methods.core.backbone import Backbone
from methods.lora import LoRA
from methods.meta_lora import MetaLoRA
from methods.prompt import Prompt
from methods.shared_lora import SharedLoRA
from tasks.base import Task
from tasks.core.batching import MultiTaskDataModule
from tasks.core.types import UsageError


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ADAPTERBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "records"))


def task(name: str, backbone: Backbone, shots: int = 2, seed: int = 0, batch_size: int = 4, most: int = 200) -> Task:
    made = tasks.load_task(name)(
        backbone.tokenizer, shots=shots, seed=seed, batch_size=batch_size, max_per_split={"test": 12}, max_length=most
    )
    made.setup()
    return made


def flat(method: Method, slot: int = 0) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in method.slot_state_dict(slot).values()])


@pytest.mark.parametrize("name", ["lora", "prompt"])
def test_a_pack_of_real_cells_equals_each_alone(qwen3: Backbone, name: str):
    """Two choice tasks and a span task of different sizes through the Trainer: weights, dev scores and predictions."""
    cells = [task("chnsent", qwen3), task("ocnli", qwen3, seed=1), task("cote_bd", qwen3, shots=5)]
    budget, options = Budget(epochs=5, max_steps=9), {"lr": 1e-2 if name == "lora" else 0.3}
    pack = load_method(name)(qwen3, options)
    together = train_stage(pack, MultiTaskDataModule(cells), TARGET_STAGE, budget, seeds=[0, 1, 2])
    assert [history.num_steps for history in together] == [5, 9, 9]
    packed = [flat(pack, slot).clone() for slot in range(3)]
    answers = [predict(pack, cell.encode_split("test"), slot) for slot, cell in enumerate(cells)]
    for slot, cell in enumerate(cells):
        solo = load_method(name)(qwen3, options)
        [history] = train_stage(solo, MultiTaskDataModule([cell]), TARGET_STAGE, budget, seeds=[slot])
        assert (flat(solo) - packed[slot]).norm() < 1e-3 * packed[slot].norm()
        assert history.best_step == together[slot].best_step
        assert history.num_tokens == together[slot].num_tokens
        for one, other in zip(history.dev_scores, together[slot].dev_scores, strict=True):
            assert one == pytest.approx(other, rel=1e-3)
        assert [loss for _, loss in history.loss_curve] == pytest.approx(
            [loss for _, loss in together[slot].loss_curve], rel=1e-3
        )
        assert [row.text for row in predict(solo, cell.encode_split("test"))] == [row.text for row in answers[slot]]


def test_dev_is_scored_as_test_will_be(qwen3: Backbone, monkeypatch: pytest.MonkeyPatch):
    """Per token where answers are chosen so; the loss is the sum in both."""
    asked: list[str] = []
    real, cell = evaluate.predict, task("ocnli", qwen3, shots=1)
    monkeypatch.setattr(evaluate, "predict", lambda *a, **given: asked.append(given["normalise"]) or real(*a, **given))
    losses = [
        evaluate.evaluate_on_dev(load_method("zero_shot")(qwen3), [cell], [0], how)[0][1] for how in ("sum", "mean")
    ]
    assert max(len(choice) for item in cell.encode_split("dev") for choice in item.choice_ids) > 1
    assert (losses[0], asked) == (pytest.approx(losses[1]), ["sum", "mean"])
    asked.clear()
    monkeypatch.setattr(model_selection, "evaluate_on_dev", lambda *given: asked.append(given[3]) or [(0.0, 0.0)])
    budget = Budget(epochs=1, max_steps=1, evaluations=1)
    train_stage(LoRA(qwen3), MultiTaskDataModule([cell]), TARGET_STAGE, budget, seeds=[0], normalise="mean")
    assert asked == ["mean"]


def test_every_method_runs_a_stage(qwen3: Backbone, method_name: str):
    cls = load_method(method_name)
    if cls.dependency or len(cls.stages) > 1:
        pytest.skip("several stages: walked by the run's own test")
    method = cls(qwen3)
    cell = task("chnsent", qwen3)
    [history] = train_stage(method, MultiTaskDataModule([cell]), TARGET_STAGE, Budget(epochs=1, max_steps=1), seeds=[0])
    assert history.num_steps == (1 if cls.uses_gradient_descent else 0)
    assert len(predict(method, cell.encode_split("test"))) == 12


def scripted(monkeypatch: pytest.MonkeyPatch, scores: list[tuple[float, float]]) -> list[torch.Tensor]:
    """Let dev give these (score, loss) one after the other; the weights seen at each are returned."""
    seen, left = [], iter(scores)

    def evaluate(method: Method, _tasks: list[Task], slots: list[int], _normalise: str) -> list[tuple[float, float]]:
        seen.extend(flat(method, slot).clone() for slot in slots)
        return [next(left) for _ in slots]

    monkeypatch.setattr(model_selection, "evaluate_on_dev", evaluate)
    return seen


def test_the_best_weights_are_kept_and_ties_go_to_the_lower_loss(qwen3: Backbone, monkeypatch: pytest.MonkeyPatch):
    seen = scripted(monkeypatch, [(0.5, 1.0), (0.7, 3.0), (0.7, 2.0), (0.6, 0.1)])
    method = LoRA(qwen3, {"lr": 1e-2})
    [history] = train_stage(
        method, MultiTaskDataModule([task("chnsent", qwen3)]), TARGET_STAGE, Budget(epochs=8, patience=0), seeds=[0]
    )
    assert [step for step, _, _ in history.dev_scores] == [2, 4, 6, 8]
    assert (history.best_step, history.best_dev_score, history.stopped_step) == (6, 0.7, 0)
    assert torch.equal(flat(method), seen[2])
    assert not torch.equal(seen[2], seen[3])


def test_a_slot_stops_alone_when_dev_no_longer_improves(qwen3: Backbone, monkeypatch: pytest.MonkeyPatch):
    seen = scripted(monkeypatch, [(0.9, 1.0), (0.1, 1.0), (0.8, 1.0), (0.2, 1.0), (0.7, 1.0), (0.3, 1.0), (0.4, 1.0)])
    method = LoRA(qwen3, {"lr": 1e-2})
    cells = [task("chnsent", qwen3), task("lcqmc", qwen3)]
    first, second = train_stage(
        method, MultiTaskDataModule(cells), TARGET_STAGE, Budget(epochs=8, evaluations=4, patience=2), seeds=[0, 1]
    )
    assert (first.best_step, first.stopped_step, len(first.dev_scores)) == (2, 6, 3)
    assert (second.best_step, second.stopped_step, len(second.dev_scores)) == (8, 0, 4)
    assert torch.equal(flat(method, 0), seen[0])
    assert torch.equal(flat(method, 1), seen[-1])
    assert max(step for step, _ in first.loss_curve) <= 7  # at most the batch that was already on its way
    assert max(step for step, _ in second.loss_curve) == 8


def test_no_evaluations_keep_the_last_weights(qwen3: Backbone):
    method = LoRA(qwen3)
    [history] = train_stage(
        method, MultiTaskDataModule([task("chnsent", qwen3)]), TARGET_STAGE, Budget(epochs=2, evaluations=0), seeds=[0]
    )
    assert (history.dev_scores, history.best_step, len(history.loss_curve)) == ([], 2, 2)


class Breaks(LoRA):
    """Its loss is not a number from the fourth step on."""

    done = 0

    def compute_slot_losses(self, step_plan):
        self.done += self.training
        return super().compute_slot_losses(step_plan) * (float("nan") if self.done > 3 else 1)


class Small(LoRA):
    """Its device has room for two rows."""

    def compute_slot_losses(self, step_plan):
        if len(step_plan.slots) > 2 and torch.is_grad_enabled():
            raise torch.OutOfMemoryError("three rows do not fit")
        return super().compute_slot_losses(step_plan)


@pytest.mark.parametrize(("names", "parts"), [(["chnsent"], 2), (["chnsent", "ocnli"], 4)])
def test_a_step_that_does_not_fit_goes_in_parts(qwen3: Backbone, names: list[str], parts: int):
    cells, budget, found = [task(name, qwen3) for name in names], Budget(epochs=3), {}
    for kind in (LoRA, Small):
        method = kind(qwen3, {"lr": 1e-2})
        histories = train_stage(method, MultiTaskDataModule(cells), TARGET_STAGE, budget, seeds=[0, 1][: len(cells)])
        found[kind] = histories, [flat(method, slot).clone() for slot in range(len(cells))]
    for one, other in zip(*(found[kind][0] for kind in (LoRA, Small)), strict=True):
        assert (one.num_micro_batches, other.num_micro_batches) == (1, parts)
        assert other.num_tokens == one.num_tokens
        assert [step for step, _ in other.loss_curve] == [step for step, _ in one.loss_curve]
        assert [loss for _, loss in other.loss_curve] == pytest.approx([loss for _, loss in one.loss_curve], rel=1e-3)
    for one, other in zip(*(found[kind][1] for kind in (LoRA, Small)), strict=True):
        assert (one - other).norm() < 1e-3 * one.norm()


class SmallShared(Small, SharedLoRA):
    name = "small_shared"


def test_a_later_stage_that_does_not_fit_begins_again_from_what_the_sources_taught(qwen3: Backbone):
    cells, found = [task("chnsent", qwen3), task("ocnli", qwen3)], []
    for kind in (SharedLoRA, SmallShared):
        source = SharedLoRA(qwen3, {"lr": 1e-2})
        train_stage(source, MultiTaskDataModule(cells, "mixed"), SOURCE_STAGE, Budget(epochs=2), seeds=[0, 1])
        state = {name: tensor.clone() for name, tensor in source.trained_state_dict().items()}
        method = kind(qwen3, {"lr": 1e-2})
        method.load(state)
        train_stage(method, MultiTaskDataModule(cells), TARGET_STAGE, Budget(epochs=2), seeds=[0, 1])
        found.append([flat(method, slot).clone() for slot in range(2)])
    for one, other in zip(*found, strict=True):
        assert (one - other).norm() < 1e-3 * one.norm()


class SmallMeta(Small, MetaLoRA):
    name = "small_meta"


@pytest.mark.parametrize("second_order", [False, True])
def test_an_episode_that_does_not_fit_goes_in_parts(qwen3: Backbone, second_order: bool):
    cells, found = [task("chnsent", qwen3), task("ocnli", qwen3)], []
    for kind in (MetaLoRA, SmallMeta):
        method = kind(qwen3, {"lr": 1e-2, "pool": 0, "inner_steps": 2, "second_order": second_order})
        histories = train_stage(
            method,
            MultiTaskDataModule(cells, "episodes", tasks_per_episode=2, num_support_batches=2),
            kind.stages[0],
            Budget(epochs=2),
            seeds=[0, 1],
        )
        found.append((histories[0], flat(method, 0).clone()))
    (one, first), (other, second) = found
    assert (one.num_micro_batches, other.num_micro_batches) == (1, 2)
    assert [loss for _, loss in other.loss_curve] == pytest.approx([loss for _, loss in one.loss_curve], rel=1e-3)
    assert (first - second).norm() < 1e-3 * first.norm()


def test_a_single_row_that_does_not_fit_is_an_error(qwen3: Backbone, monkeypatch: pytest.MonkeyPatch):
    def full(*_):
        raise torch.OutOfMemoryError("nothing fits")

    monkeypatch.setattr(LoRA, "compute_slot_losses", full)
    with pytest.raises(torch.OutOfMemoryError):
        train_stage(
            LoRA(qwen3), MultiTaskDataModule([task("chnsent", qwen3)]), TARGET_STAGE, Budget(epochs=1), seeds=[0]
        )


def test_a_loss_that_is_no_number_names_its_step(qwen3: Backbone):
    with pytest.raises(FloatingPointError, match="nan at step 4 of 8"):
        train_stage(
            Breaks(qwen3), MultiTaskDataModule([task("chnsent", qwen3)]), TARGET_STAGE, Budget(epochs=8), seeds=[0]
        )


def test_the_loss_falls_and_the_curve_tells(qwen3: Backbone):
    method = LoRA(qwen3, {"lr": 2e-2, "sites": "q k v o gate up down"})
    cell = task("chnsent", qwen3)
    [history] = train_stage(
        method, MultiTaskDataModule([cell]), TARGET_STAGE, Budget(epochs=40, evaluations=1), seeds=[0]
    )
    losses = [loss for _, loss in history.loss_curve]
    assert len(losses) == history.num_steps == 40
    assert sum(losses[-5:]) < 0.3 * sum(losses[:5])
    assert history.num_tokens == 40 * sum(
        len(item.prompt_ids) + len(item.answer_ids) for item in cell.encode_split("train")
    )
    assert history.num_tokens < history.num_padded_tokens
    assert 0 < history.dev_seconds < history.seconds


def test_nothing_is_written(
    qwen3: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
):
    monkeypatch.chdir(tmp_path)
    train_stage(LoRA(qwen3), MultiTaskDataModule([task("chnsent", qwen3)]), TARGET_STAGE, Budget(epochs=1), seeds=[0])
    assert list(tmp_path.iterdir()) == []
    assert "".join(capfd.readouterr()) == ""


class Interrupt(L.Callback):
    def on_train_batch_end(self, *_):
        os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_is_ctrl_c_and_stays_so(qwen3: Backbone):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train_stage(
            LoRA(qwen3),
            MultiTaskDataModule([task("chnsent", qwen3)]),
            TARGET_STAGE,
            Budget(epochs=5),
            seeds=[0],
            callbacks=[Interrupt()],
        )
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(("budget", "examples", "steps"), [
    (Budget(), 8, 20), (Budget(), 9, 40), (Budget(min_steps=60), 8, 60), (Budget(max_steps=5), 900, 5), (Budget(batch_size=32, epochs=3), 100, 12),
])  # fmt: skip
def test_steps_follow_epochs_within_limits(budget: Budget, examples: int, steps: int):
    assert budget.compute_num_steps(examples) == steps


def test_wrong_input_is_one_line(qwen3: Backbone):
    with pytest.raises(UsageError, match="1 or more"):
        Budget(epochs=0)
    with pytest.raises(UsageError, match="2 seeds for 1 members"):
        train_stage(LoRA(qwen3), MultiTaskDataModule([task("chnsent", qwen3)]), TARGET_STAGE, Budget(), seeds=[0, 1])


def test_a_plain_trainer_trains_a_method_on_a_task(qwen3: Backbone):
    """The parts are ordinary Lightning parts."""
    method, cell = Prompt(qwen3), task("chnsent", qwen3)  # nobody enters a stage
    trainer = L.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(method, datamodule=cell)
    assert trainer.global_step == 2
    trained = flat(method).clone()
    method.begin_stage(
        TARGET_STAGE, [0], [cell.encode_split("train")]
    )  # as it started: from the task's own label words
    assert trained.shape == flat(method).shape
    assert not torch.equal(trained, flat(method))
