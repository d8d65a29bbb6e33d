"""MeTA-LoRA against its equations written out with torch.func on merged weights, and what may never leave a step."""

from dataclasses import dataclass
from pathlib import Path

import lightning as L
import pytest
import torch
from torch.func import functional_call, grad
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing import assert_close
from torch.utils.data import DataLoader, IterableDataset

import tasks
from benchmark.budget import Budget
from benchmark.learn import learn
from benchmark.proofs.material import batch, episode, items, move, train
from benchmark.proofs.meta import outer_gradient, tasks_of_an_episode_meet_in_their_mean
from methods.backbone import Backbone
from methods.base import TARGET
from methods.meta_lora import MetaLoRA, clipped, summary
from methods.shared_lora import SharedLoRA
from tasks.example import Batch, Episode, UsageError
from tasks.group import Group, ready

SOURCE = MetaLoRA.stages[0]
Factors = dict[str, torch.Tensor]


def meta(backbone: Backbone, slots: int = 3, **options: object) -> MetaLoRA:
    """In its source stage, away from its start; the outer gradient is not clipped."""
    method = MetaLoRA(backbone, {"clip": 0.0, **options})
    method.enter(SOURCE, [0] * slots)
    move(method)
    return method


# -------------------------------------------------------------------- (2) and (3), written out


class Reference:
    """The loss as a function of A and B, on a plain model with W + (alpha / r) B A in place of W."""

    def __init__(self, folder: Path, method: MetaLoRA) -> None:
        self.model = Backbone.load(str(folder)).model  # another one: the method's has hooks
        self.paths = {key: method.backbone.path(key) for key in method.deltas}
        self.c, self.scale = method.config, method.config.alpha / method.config.rank

    def loss(self, theta: Factors, given: Batch) -> torch.Tensor:
        weights = {}
        for key, path in self.paths.items():
            a, b = theta[f"deltas.{key}.a.sets.0"], theta[f"deltas.{key}.b.sets.0"]
            weights[f"{path}.weight"] = self.model.get_parameter(f"{path}.weight") + self.scale * b @ a
        inputs = {"input_ids": given.input_ids, "attention_mask": given.attention_mask}
        logits = functional_call(self.model, weights, (), inputs).logits
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), given.labels[:, 1:].flatten(), ignore_index=-100)

    def adapted(self, theta: Factors, support: tuple[Batch, ...]) -> Factors:
        for given in support:
            found = grad(self.loss)(theta, given)
            norm = torch.cat([g.flatten() for g in found.values()]).norm()
            scale = torch.clamp(self.c.inner_clip / norm, max=1.0) if self.c.inner_clip else 1.0
            theta = {name: tensor - self.c.inner_rate * scale * found[name] for name, tensor in theta.items()}
        return theta

    def gradient(self, theta: Factors, given: Episode) -> Factors:
        found = []
        with sdpa_kernel(SDPBackend.MATH):
            for support, query in zip(given.support, given.query, strict=True):
                if self.c.second_order:
                    far = lambda start, s=support, q=query: self.loss(self.adapted(start, s), q)  # noqa: E731
                    found.append(grad(far)(theta))
                else:
                    found.append(grad(self.loss)(self.adapted(theta, support), query))
        return {name: torch.stack([each[name] for each in found]).mean(0) for name in theta}


@pytest.mark.parametrize(("rate", "clip"), [(0.05, 0.0), (0.5, 0.3)])
@pytest.mark.parametrize("second", [False, True])
def test_the_outer_gradient_is_the_papers(qwen3: Backbone, model_folders, second: bool, rate: float, clip: float):
    method = meta(qwen3, inner_rate=rate, inner_clip=clip, second_order=second)
    theta = {name: p.detach().clone() for name, p in method.named_parameters()}
    given = episode(0, 2, support=3)
    want = Reference(model_folders["qwen3"], method).gradient(theta, given)
    found = outer_gradient(method, given)
    assert found.keys() == want.keys()
    size = torch.cat([g.flatten() for g in want.values()]).norm()
    for name in want:
        assert (found[name] - want[name]).norm() < 1e-4 * size, name
    first = outer_gradient(meta(qwen3, inner_rate=rate, inner_clip=clip), given)
    apart = torch.cat([(found[name] - first[name]).flatten() for name in first]).norm()
    assert apart > 1e-2 * size if second else apart == 0


def test_clipping_is_torchs_own():
    torch.manual_seed(0)
    for most in (0.1, 100.0):
        given = [torch.randn(3, 4), torch.randn(5)]
        held = [torch.nn.Parameter(g.clone()) for g in given]
        for p, g in zip(held, given, strict=True):
            p.grad = g.clone()
        torch.nn.utils.clip_grad_norm_(held, most)
        assert_close(clipped(given, most), [p.grad for p in held])


def test_without_inner_steps_it_is_shared_lora_on_the_query_sets(qwen3: Backbone):
    given = episode(0, 1, support=0)
    method = meta(qwen3, inner_steps=0)
    state = {name: tensor.clone() for name, tensor in method.learned().items()}
    found = outer_gradient(method, given)
    plain = SharedLoRA(qwen3)
    plain.enter(SharedLoRA.stages[0], [0, 0, 0])
    plain.load(state)
    (plain.loss(batch([*items(3, 200, most=8), *items(3, 210, most=8)], [0] * 3 + [1] * 3)).sum() / 2).backward()
    for name, p in plain.named_parameters():
        assert_close(found[name], p.grad, rtol=1e-4, atol=1e-6)
    standing = outer_gradient(meta(qwen3, inner_rate=0.0), episode(0, 1))
    for name, gradient in standing.items():
        assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)


# -------------------------------------------------------------------- the inner optimiser


def test_inner_adamw_starts_afresh_for_every_task_and_step(qwen3: Backbone):
    """Its first step is a sign step; with moments of another task it would not be."""
    method = meta(qwen3, inner="adamw", inner_rate=0.01, inner_clip=0.0)
    theta = dict(method.named_parameters())
    for slot in (0, 1, 0):
        own, _ = method.adapt(theta, [[method.plan(episode(slot).support[0][0])]])
        moved = torch.cat([(own[name] - p).detach().flatten().abs() for name, p in theta.items()])
        assert_close(moved.median(), torch.tensor(0.01), rtol=1e-2, atol=0)
        assert moved.max() < 0.0101


class InnerAdamW(MetaLoRA):
    @dataclass(frozen=True)
    class Config(MetaLoRA.Config):
        inner: str = "adamw"
        inner_rate: float = 0.01


def test_tasks_do_not_meet_in_inner_adamw_either(qwen3: Backbone):
    assert tasks_of_an_episode_meet_in_their_mean(InnerAdamW, qwen3) is None


# -------------------------------------------------------------------- theta, and nothing else, outside a forward pass


def test_an_exception_in_the_inner_loop_leaves_theta(qwen3: Backbone, monkeypatch: pytest.MonkeyPatch):
    method, given = meta(qwen3), episode(0, 1)
    before = {name: tensor.clone() for name, tensor in method.learned().items()}
    own = dict(method.named_parameters())
    right, calls = method.losses, []

    def breaks(plan):
        calls.append(plan)
        if len(calls) == 6:  # in the second task's inner loop
            raise ArithmeticError("on purpose")
        return right(plan)

    monkeypatch.setattr(method, "losses", breaks)
    with pytest.raises(ArithmeticError):
        outer_gradient(method, given)
    assert all(method.get_parameter(name) is p for name, p in own.items())
    assert all(torch.equal(before[name], tensor) for name, tensor in method.learned().items())


class Saves(L.Callback):
    """A checkpoint right before the outer step and right after it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.learned = folder, {}

    def save(self, trainer: L.Trainer, method: MetaLoRA, name: str) -> None:
        trainer.save_checkpoint(self.folder / name)
        self.learned[name] = {key: tensor.clone() for key, tensor in method.learned().items()}

    def on_before_optimizer_step(self, trainer, method, optimizer):
        self.save(trainer, method, "before")

    def on_train_batch_end(self, trainer, method, outputs, batch, batch_idx):
        self.save(trainer, method, "after")


def test_a_checkpoint_holds_theta_and_never_an_adapted_one(qwen3: Backbone, tmp_path: Path):
    method, saves = meta(qwen3, lr=0.1, warmup=0.0), Saves(tmp_path)
    start = {name: tensor.clone() for name, tensor in method.learned().items()}
    method.steps = [4] * 3
    train(method, [episode(0, 1)], saves)
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
        method.steps = [8] * 3
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = L.Trainer(accelerator="cpu", max_epochs=epochs, enable_model_summary=False, **quiet)
        trainer.fit(method, DataLoader([episode(0, 1)], batch_size=None, collate_fn=ready), ckpt_path=ckpt)
        assert trainer.global_step == epochs
        assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.05 * method.pace(epochs, 8))
        assert {int(state["step"]) for state in trainer.optimizers[0].state.values()} == {epochs}
        trainer.save_checkpoint(tmp_path / str(epochs))
        return method

    trained(2)
    resumed, through = trained(3, tmp_path / "2"), None
    got = {name: tensor.clone() for name, tensor in resumed.learned().items()}
    through = trained(3).learned()
    assert all(torch.equal(got[name], through[name]) for name in got)


def test_processes_share_the_tasks_of_an_episode(qwen3: Backbone):
    """Two of them arrive at the theta of one, with five tasks and then with two."""

    class Twice(IterableDataset):
        def __iter__(self):
            return iter([episode(0, 1, 2, 3, 4), episode(4, 2)])

    def trained(**how: object) -> dict[str, torch.Tensor]:
        method = meta(qwen3, slots=5, lr=0.05)
        method.steps = [8] * 5
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = L.Trainer(accelerator="cpu", max_steps=2, enable_model_summary=False, **quiet, **how)
        trainer.fit(method, DataLoader(Twice(), batch_size=None, collate_fn=ready))
        return {name: tensor.clone() for name, tensor in method.learned().items()}

    alone, together = trained(devices=1), trained(devices=2, strategy="ddp_fork")
    start = meta(qwen3, slots=5).learned()
    for name, tensor in alone.items():
        assert (tensor - together[name]).norm() < 1e-3 * (tensor - start[name]).norm(), name


# -------------------------------------------------------------------- what an outer step says of itself


def test_watched_tells_how_the_inner_loop_went(qwen3: Backbone):
    method, given = meta(qwen3, inner_rate=0.05), episode(0, 1)
    theta = dict(method.named_parameters())
    plans = [[[method.plan(one)] for one in support] for support in given.support]
    trials = [method.trial(theta, s, [method.plan(q)]) for s, q in zip(plans, given.query, strict=True)]
    found = summary(trials)
    assert set(found) == {"moved", "support_before", "support_after", "query", "agreement"}
    assert found["support_after"] < found["support_before"]
    one, other = (trial.gradient for trial in trials)
    assert_close(found["agreement"], torch.cosine_similarity(one, other, dim=0))
    before = sum(method.losses(support[0][0]).item() for support in plans) / 2
    assert found["support_before"].item() == pytest.approx(before, rel=1e-4)
    far = []
    for support in plans:
        own, _ = method.adapt(theta, support)
        change = torch.cat([(own[name] - p).detach().flatten() for name, p in theta.items()])
        far.append(change.norm() / torch.cat([p.detach().flatten() for p in theta.values()]).norm())
    assert_close(found["moved"], sum(far) / 2)
    assert set(summary(trials[:1])) == set(found) - {"agreement"}


# -------------------------------------------------------------------- a stage of the harness


@pytest.fixture
def sources(qwen3: Backbone, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ADAPTERBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "records"))

    def opened(**options: object) -> list[tasks.base.Task]:
        limit = {"train": 64, "dev": 4, "test": 4}
        given = {"batch_size": 4, "limit": limit, "max_length": 120} | options
        return [tasks.load(name)(qwen3.tokenizer, **given) for name in ("bq", "afqmc", "cote_mfw")]

    return opened


def test_a_stage_on_the_sources_then_one_on_the_target(qwen3: Backbone, sources):
    method = MetaLoRA(qwen3, {"tasks": 2, "inner_steps": 1, "lr": 0.02, "pool": 16})
    members = sources(most=16)
    group = Group(members, "episodes", batch_size=4, **method.grouping(SOURCE))
    budget = Budget(batch_size=4, epochs=1, max_steps=16, evaluations=2, patience=0)
    histories = learn(method, group, SOURCE, budget, seeds=[0, 0, 0])
    assert {history.steps for history in histories} == {4}  # 16 gradients, 2 (1 + 1) to a step
    assert {history.gradients for history in histories} == {16}
    assert all([step for step, _, _ in history.dev] == [2, 4] for history in histories)
    assert len({history.best for history in histories}) == 1
    for history in histories:
        assert {len(curve) for curve in history.watched.values()} == {4}
        assert "agreement" in history.watched
        assert all(0 < step <= 4 for step, _ in history.curve)
    assert sum(len(history.curve) for history in histories) == 4 * 2
    learned = method.learned()
    target = sources(shots=2)[:1]
    method.load(learned)
    [history] = learn(method, Group(target), TARGET, Budget(epochs=2, evaluations=1), seeds=[0])
    assert method.automatic_optimization
    assert history.steps == len(history.curve) == history.gradients == 2
    assert history.watched == {}


def test_tokens_are_those_of_support_and_query(qwen3: Backbone, sources):
    method = MetaLoRA(qwen3, {"tasks": 3, "inner_steps": 2})
    group = Group(sources(most=16), "episodes", batch_size=4, **method.grouping(SOURCE))
    budget = Budget(batch_size=4, epochs=1, max_steps=9, evaluations=0)
    histories = learn(method, group, SOURCE, budget, seeds=[0, 0, 0])
    [given] = list(group.train_dataloader())
    for history, support, query in zip(histories, given.support, given.query, strict=True):
        assert history.tokens == sum(int(one.attention_mask.sum()) for one in (*support, query))


def test_the_control_takes_as_many_gradients_on_the_same_examples(qwen3: Backbone, sources):
    found = {}
    for kind in (MetaLoRA, SharedLoRA):
        method = kind(qwen3, {"pool": 16})
        members, stage = sources(most=16), kind.stages[0]
        group = Group(members, stage.batches, batch_size=4, **method.grouping(stage))
        budget = Budget(batch_size=4, epochs=2, max_steps=24, evaluations=0)
        histories = learn(method, group, stage, budget, seeds=[0, 0, 0])
        found[kind] = histories[0].gradients, [member.digest("train") for member in members]
    assert found[MetaLoRA] == found[SharedLoRA]
    assert found[MetaLoRA][0] == 24


# -------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": 0}, "tasks >= 1"),
        ({"inner_steps": -1}, "inner_steps >= 0"),
        ({"pool": 1}, "pool of 2 or more"),
        ({"pool": -1}, "or 0 for all"),
        ({"inner": "sdg"}, "no inner 'sdg'; there are: sgd, adamw"),
        ({"second_order": True, "inner": "adamw"}, "set inner to sgd"),
    ],
)
def test_options_that_make_no_sense(options: dict, message: str):
    with pytest.raises(UsageError, match=message):
        MetaLoRA.configure(options)


def test_batches_of_another_kind_are_refused(qwen3: Backbone):
    method = meta(qwen3)
    with pytest.raises(UsageError, match="learns from episodes"):
        method.training_step(batch(items(2, 1), [0, 1]), 0)
