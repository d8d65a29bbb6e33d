"""MeTA-LoRA against its equations written out with torch.func on merged weights."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch.func import functional_call, grad
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing import assert_close

from methods.conformance.episodes import check_episode_gradient_mean, compute_outer_gradient
from methods.conformance.fixtures import make_batch, make_episode
from methods.core.backbone import Backbone
from methods.core.instantiate import generate_examples
from methods.meta_lora import MetaLoRA, clip_gradient, summarize_updates
from methods.shared_lora import SharedLoRA
from tasks.core.types import Batch, Episode, UsageError
from tests.support.metalora import meta

Factors = dict[str, torch.Tensor]

# -------------------------------------------------------------------- (2) and (3), written out


class Reference:
    """The loss as a function of A and B, on a plain model with W + (alpha / r) B A in place of W."""

    def __init__(self, folder: Path, method: MetaLoRA) -> None:
        self.model = Backbone.load(str(folder)).model  # another one: the method's has hooks
        self.paths = {key: method.backbone.get_module_path(key) for key in method.deltas}
        self.c, self.scale = method.config, method.config.alpha / method.config.rank

    def loss(self, theta: Factors, given: Batch) -> torch.Tensor:
        weights = {}
        for key, path in self.paths.items():
            a, b = theta[f"deltas.{key}.a.tensors.0"], theta[f"deltas.{key}.b.tensors.0"]
            weights[f"{path}.weight"] = self.model.get_parameter(f"{path}.weight") + self.scale * b @ a
        inputs = {"input_ids": given.input_ids, "attention_mask": given.attention_mask}
        logits = functional_call(self.model, weights, (), inputs).logits
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), given.labels[:, 1:].flatten(), ignore_index=-100)

    def adapted(self, theta: Factors, support: tuple[Batch, ...]) -> Factors:
        for given in support:
            found = grad(self.loss)(theta, given)
            norm = torch.cat([g.flatten() for g in found.values()]).norm()
            scale = torch.clamp(self.c.inner_clip / norm, max=1.0) if self.c.inner_clip else 1.0
            theta = {name: tensor - self.c.inner_lr * scale * found[name] for name, tensor in theta.items()}
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
    method = meta(qwen3, inner_lr=rate, inner_clip=clip, second_order=second)
    theta = {name: p.detach().clone() for name, p in method.named_parameters()}
    given = make_episode(0, 2, num_support_batches=3)
    want = Reference(model_folders["qwen3"], method).gradient(theta, given)
    found = compute_outer_gradient(method, given)
    assert found.keys() == want.keys()
    size = torch.cat([g.flatten() for g in want.values()]).norm()
    for name in want:
        assert (found[name] - want[name]).norm() < 1e-4 * size, name
    first = compute_outer_gradient(meta(qwen3, inner_lr=rate, inner_clip=clip), given)
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
        assert_close(clip_gradient(given, most), [p.grad for p in held])


def test_without_inner_steps_it_is_shared_lora_on_the_query_sets(qwen3: Backbone):
    given = make_episode(0, 1, num_support_batches=0)
    method = meta(qwen3, inner_steps=0)
    state = {name: tensor.clone() for name, tensor in method.trained_state_dict().items()}
    found = compute_outer_gradient(method, given)
    plain = SharedLoRA(qwen3)
    plain.begin_stage(SharedLoRA.stages[0], [0, 0, 0])
    plain.load(state)
    (
        plain.compute_batch_losses(
            make_batch(
                [*generate_examples(3, 200, max_text_length=8), *generate_examples(3, 210, max_text_length=8)],
                [0] * 3 + [1] * 3,
            )
        ).sum()
        / 2
    ).backward()
    for name, p in plain.named_parameters():
        assert_close(found[name], p.grad, rtol=1e-4, atol=1e-6)
    standing = compute_outer_gradient(meta(qwen3, inner_lr=0.0), make_episode(0, 1))
    for name, gradient in standing.items():
        assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)


# -------------------------------------------------------------------- the inner optimiser


def test_inner_adamw_starts_afresh_for_every_task_and_step(qwen3: Backbone):
    """Its first step is a sign step; with moments of another task it would not be."""
    method = meta(qwen3, inner_optimizer="adamw", inner_lr=0.01, inner_clip=0.0)
    theta = dict(method.named_parameters())
    for slot in (0, 1, 0):
        own, _ = method.adapt(theta, [[method.plan_step(make_episode(slot).support[0][0])]])
        moved = torch.cat([(own[name] - p).detach().flatten().abs() for name, p in theta.items()])
        assert_close(moved.median(), torch.tensor(0.01), rtol=1e-2, atol=0)
        assert moved.max() < 0.0101


class InnerAdamW(MetaLoRA):
    @dataclass(frozen=True)
    class Config(MetaLoRA.Config):
        inner_optimizer: str = "adamw"
        inner_lr: float = 0.01


def test_tasks_do_not_meet_in_inner_adamw_either(qwen3: Backbone):
    assert check_episode_gradient_mean(InnerAdamW, qwen3) is None


# -------------------------------------------------------------------- what an outer step says of itself


def test_watched_tells_how_the_inner_loop_went(qwen3: Backbone):
    method, given = meta(qwen3, inner_lr=0.05), make_episode(0, 1)
    theta = dict(method.named_parameters())
    plans = [[[method.plan_step(one)] for one in support] for support in given.support]
    trials = [
        method.compute_task_update(theta, s, [method.plan_step(q)]) for s, q in zip(plans, given.query, strict=True)
    ]
    found = summarize_updates(trials)
    assert set(found) == {"moved", "support_before", "support_after", "query", "agreement"}
    assert found["support_after"] < found["support_before"]
    one, other = (trial.gradient for trial in trials)
    assert_close(found["agreement"], torch.cosine_similarity(one, other, dim=0))
    before = sum(method.compute_slot_losses(support[0][0]).item() for support in plans) / 2
    assert found["support_before"].item() == pytest.approx(before, rel=1e-4)
    far = []
    for support in plans:
        own, _ = method.adapt(theta, support)
        change = torch.cat([(own[name] - p).detach().flatten() for name, p in theta.items()])
        far.append(change.norm() / torch.cat([p.detach().flatten() for p in theta.values()]).norm())
    assert_close(found["moved"], sum(far) / 2)
    assert set(summarize_updates(trials[:1])) == set(found) - {"agreement"}


# -------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": 0}, "tasks >= 1"),
        ({"inner_steps": -1}, "inner_steps >= 0"),
        ({"pool": 1}, "pool of 2 or more"),
        ({"pool": -1}, "or 0 for all"),
        ({"inner_optimizer": "sdg"}, "no inner_optimizer 'sdg'; there are: sgd, adamw"),
        ({"second_order": True, "inner_optimizer": "adamw"}, "set inner_optimizer to sgd"),
    ],
)
def test_options_that_make_no_sense(options: dict, message: str):
    with pytest.raises(UsageError, match=message):
        MetaLoRA.parse_config(options)


def test_batches_of_another_kind_are_refused(qwen3: Backbone):
    method = meta(qwen3)
    with pytest.raises(UsageError, match="learns from episodes"):
        method.training_step(make_batch(generate_examples(2, 1), [0, 1]), 0)
