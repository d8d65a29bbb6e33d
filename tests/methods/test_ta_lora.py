import pytest
import torch
from stages import away as anywhere
from stages import batch_of, logits
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, Qwen2Config

from benchmark.proofs.material import batch, fit, items, run
from methods.backbone import Backbone
from methods.base import SOURCE, TARGET, Rate
from methods.llama_adapter import LlamaAdapter
from methods.prompt import Prompt
from methods.spot import mean_loss
from methods.ta_lora import PROMPT, TALoRA, part
from tasks.example import UsageError

SMALL = {"length": 4, "tokens": 5, "rank": 2}
READINGS = [
    {}, {"slow_factor": "A"}, {"low_rank": False}, {"gate": "shared"}, {"gate": "none"}, {"gate_fn": "identity"}, {"norm": True},
]  # fmt: skip


def ready(backbone: Backbone, stage=SOURCE, slots=3, sources=3, **options) -> TALoRA:
    """Brought to the start of a stage; what the sources learned is made up."""
    method = TALoRA(backbone, SMALL | options)
    for own in TALoRA.stages[: TALoRA.stages.index(stage) + 1]:
        count = slots if own == TARGET else sources
        if own == TARGET:
            anywhere(method)
        method.enter(own, list(range(count)), [items(6, 100 + i) for i in range(count)])
    return method


def away(method: TALoRA) -> TALoRA:
    return anywhere(method).eval()


def bank(method: TALoRA, name: str, layer: int = 0):
    return method.prompt if name == "prompt" else getattr(method.layers[str(layer)], name)


def named(method: TALoRA, *parts: str) -> dict[str, torch.Tensor]:
    """A copy of what these banks hold."""
    return {name: t.clone() for name, t in method.learned().items() if part(name) in parts}


# -------------------------------------------------------------------- equations


def delta_of(method: TALoRA, slot: int, layer: int = 0) -> torch.Tensor:
    """(2) and (3), number by number."""
    a0, a = bank(method, "a0", layer).of(slot), bank(method, "a", layer).of(slot)
    if not method.config.low_rank:
        return a0 + a
    b = bank(method, "b", layer).of(slot)
    left, right = (a0, b + a) if method.config.slow_factor == "A" else (a0 + a, b)
    rows = [
        [sum(left[i, k] * right[k, j] for k in range(len(b))) for j in range(right.shape[1])] for i in range(len(a0))
    ]
    return torch.stack([torch.stack(row) for row in rows])


@pytest.mark.parametrize("reading", READINGS, ids=str)
def test_each_row_is_the_equations_written_out(backbone, reading):
    """The term of one layer, head by head: key and value heads are shared by groups of query heads."""
    method, slots = away(ready(backbone, **reading)), (2, 0, 2)
    block = backbone.model.model.layers[1]
    attention, norm = block.self_attn, block.input_layernorm
    q = torch.randn(3, 4, 3, 8, generator=torch.Generator().manual_seed(0))  # [b, H, s, d_h]
    method.rows.see(slots, q.device)
    with torch.no_grad():
        got = method.term(attention, q)
        for row, slot in enumerate(slots):
            delta = delta_of(method, slot, layer=1)
            if method.config.norm:
                delta = delta / (delta.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon).sqrt() * norm.weight
            key, value = (part(delta).view(5, 2, 8) for part in (attention.k_proj, attention.v_proj))
            if hasattr(attention, "k_norm"):
                key = key / (key.pow(2).mean(-1, keepdim=True) + attention.k_norm.variance_epsilon).sqrt()
                key = key * attention.k_norm.weight
            for head in range(4):
                gate = torch.tensor(1.0)
                if method.config.gate != "none":
                    gate = bank(method, "g", 1).of(slot)[head]
                    gate = gate.tanh() if method.config.gate_fn == "tanh" else gate
                for place in range(3):
                    weight = torch.softmax(key[:, head // 2] @ q[row, head, place] / 8**0.5, 0)
                    assert_close(got[row, place, head], gate * (weight @ value[:, head // 2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", ["hadamard", "input"])
def test_at_the_input_it_changes_the_shared_prompt(qwen3, form):
    method, slots = away(ready(qwen3, form=form)), (2, 0, 2)
    method.rows.see(slots, qwen3.device)
    found, shared = method.front(torch.empty(3, 1, 32), torch.ones(3, 1)), method.prompt.sets[0]
    for row, slot in enumerate(slots):
        a, b, gate = (getattr(method.layers["input"], name) for name in ("a", "b", "g"))
        delta = (method.layers["input"].a0.of(slot) + a.of(slot)) @ b.of(slot)  # [l0, d]
        change = gate.of(slot).tanh() * delta * (shared if form == "hadamard" else qwen3.sigma)
        assert_close(found[row], shared + change)
    assert method.term(qwen3.model.model.layers[0].self_attn, torch.empty(1, 4, 1, 8)) is None


def test_with_full_rank_and_no_shared_prompt_it_is_llama_adapter(backbone):
    theirs, ids = LlamaAdapter(backbone, {"length": 5, "layers": 1}), items(1, 3)[0].prompt
    theirs.enter(TARGET, [0])
    away(theirs)
    want, prompt, gate = run(theirs, ids), theirs.prompts["1"].sets[0].detach(), theirs.gates["1"].sets[0].detach()
    method = TALoRA(backbone, {"length": 0, "tokens": 5, "rank": 5, "layers": 1})
    method.load({"layers.1.a0.sets.0": torch.eye(5), "layers.1.a.sets.0": torch.zeros(5, 5), "layers.1.b.sets.0": prompt,
                 "layers.1.g.sets.0": gate})  # fmt: skip
    assert torch.equal(run(method, ids), want)


def test_the_rank_of_delta_is_bounded(qwen3):
    for options, rank in (({}, 2), ({"slow_factor": "A"}, 2), ({"low_rank": False}, 5)):
        method = away(ready(qwen3, **options))
        method.rows.see((0, 1, 2), qwen3.device)
        assert torch.linalg.matrix_rank(method.layers["0"].delta()).tolist() == [rank] * 3


# -------------------------------------------------------------------- start


@pytest.mark.parametrize("stage", [SOURCE, TARGET])
@pytest.mark.parametrize("form", ["additive", "hadamard", "input"])
def test_at_first_logits_and_the_prompts_gradient_are_prompt_tunings_to_the_bit(backbone, stage, form):
    method, given = ready(backbone, stage, slots=1, form=form).train(), batch(items(6, 4), [0] * 6)
    found = logits(method, given), method.losses(method.plan(given)), None
    found[1].sum().backward()
    grad, shared = bank(method, "prompt").sets[0].grad, bank(method, "prompt").sets[0].detach().clone()
    plain = Prompt(backbone, {"length": 4})
    plain.load({"prompt.sets.0": shared})
    assert torch.equal(found[0], logits(plain, given))
    losses = plain.losses(plain.plan(given))
    losses.sum().backward()
    assert torch.equal(losses, found[1])
    assert torch.equal(plain.prompt.sets[0].grad, grad)


def test_without_a_gate_it_is_not_prompt_tuning_at_first(qwen3):
    method, given = ready(qwen3, gate="none"), batch_of(0, 1)
    assert not any(part(name) == "g" for name in method.banks())
    shared = method.prompt.sets[0].detach().clone()
    found = logits(method, given)
    plain = Prompt(qwen3, {"length": 4})
    plain.load({"prompt.sets.0": shared})
    assert (found - logits(plain, given)).abs().max() > 1e-3


def test_at_first_only_gates_and_the_prompt_get_gradient(backbone):
    method = ready(backbone)
    for moved in (False, True):
        method.zero_grad()
        method.loss(batch_of(0, 1, 2)).sum().backward()
        grads = {name: parameter.grad.abs().max() > 0 for name, parameter in method.named_parameters()}
        assert {part(name) for name, some in grads.items() if some} == (
            {"prompt", "g", "a", "a0", "b"} if moved else {"prompt", "g"}
        )
        away(method)


# -------------------------------------------------------------------- stages


def test_first_the_prompt_alone_learns_as_plain_prompt_tuning(qwen3):
    method, given = ready(qwen3, PROMPT, gate="none"), batch_of(0, 1, 2)
    assert {name for part in method.owned().values() for name in part} == {"prompt.sets.0"}
    plain = Prompt(qwen3, {"length": 4, "start": "common"})
    plain.enter(TARGET, [0], [items(3, 1)])
    assert torch.equal(plain.prompt.sets[0], method.prompt.sets[0])
    method = ready(qwen3, PROMPT, gate="none")
    found = method.loss(given).detach()
    plain = Prompt(qwen3, {"length": 4})
    plain.load({"prompt.sets.0": method.prompt.sets[0].detach().clone()})
    assert torch.equal(plain.loss(given).detach(), found)
    assert method.rate("prompt.sets.0") == Rate(0.3 * qwen3.sigma)


def test_stages_share_the_sources_budget(qwen3):
    method = TALoRA(qwen3, SMALL)
    assert [method.share(stage) for stage in method.stages] == pytest.approx([1 / 3, 2 / 3, 1])
    for options in ({"first": 0.0}, {"length": 0}):
        assert [TALoRA(qwen3, SMALL | options).share(stage) for stage in method.stages] == [0, 1, 1]


def test_rates_have_two_speeds(qwen3):
    sigma = 0.3 * qwen3.sigma
    for stage, rests in ((SOURCE, True), (TARGET, False)):
        method = ready(qwen3, stage, target="prompt a0 b a g", slow=0.01, lr=0.5)
        rates = {part(name): method.rate(name) for name, _ in method.named_parameters()}
        assert rates == {
            "prompt": Rate(pytest.approx(0.01 * sigma), 0.0, rests),
            "a0": Rate(0.005, 0.02), "b": Rate(0.005, 0.02), "a": Rate(0.5), "g": Rate(0.5),
        }  # fmt: skip
    assert not ready(qwen3, rest=False).rate("prompt.sets.0").rests


def test_an_absent_task_keeps_its_fast_weights(qwen3):
    method = away(ready(qwen3))
    method.steps = [40] * 3
    before = named(method, "prompt", "a0", "b", "a", "g")
    made = method.configure_optimizers()
    method.configure_optimizers = lambda: made  # one optimiser for both parts
    fit(method, [batch_of(0, 1, 2)])
    fit_before = named(method, "prompt", "a0", "b", "a", "g")
    fit(method, [batch_of(0, 2, seed=seed) for seed in range(20)])
    still = {name for name, tensor in method.learned().items() if torch.equal(tensor, fit_before[name])}
    assert still == {f"layers.{layer}.{name}.sets.1" for layer in (0, 1) for name in ("a", "g")}
    assert not any(torch.equal(before[name], tensor) for name, tensor in method.learned().items())


def test_the_prompt_rests_while_the_sources_warm_up(qwen3):
    method = ready(qwen3, warmup=0.4)
    method.steps, moved = [10] * 3, []
    start = named(method, "prompt")["prompt.sets.0"]
    inner = method.on_before_optimizer_step
    method.on_before_optimizer_step = lambda optimizer: (
        moved.append(not torch.equal(start, method.prompt.sets[0])), inner(optimizer)
    )  # fmt: skip
    before = named(method, "g")
    fit(method, [batch_of(0, 1, 2, seed=seed) for seed in range(10)])
    assert moved == [False] * 5 + [True] * 5  # asked before the step
    assert not any(torch.equal(before[name], tensor) for name, tensor in named(method, "g").items())


@pytest.mark.parametrize("stage", [SOURCE, TARGET])
def test_slow_weights_step_on_the_mean_of_several_gradients(qwen3, stage):
    method, slow = ready(qwen3, stage, slow_every=3, target="prompt a0 b a g"), {}
    for step in range(1, 7):
        for parameter in method.parameters():
            parameter.grad = torch.full_like(parameter, float(step))
        method.on_before_optimizer_step(None)
        for name, parameter in method.named_parameters():
            value = None if parameter.grad is None else parameter.grad.unique().item()
            if part(name) in ("a", "g") or stage == TARGET:
                assert value == step
            else:
                slow.setdefault(name, []).append(value)
    assert bool(slow) == (stage == SOURCE)
    assert all(values == [None, None, pytest.approx(2), None, None, pytest.approx(5)] for values in slow.values())


def test_skipped_slow_weights_stay_bit_by_bit(qwen3):
    method = away(ready(qwen3, slow_every=4, warmup=0.0))
    method.steps = [8] * 3
    before = named(method, "prompt", "a0", "b"), named(method, "a", "g")
    for steps, same in ((3, True), (1, False)):
        fit(method, [batch_of(0, 1, 2, seed=seed) for seed in range(steps)])
        after = named(method, "prompt", "a0", "b")
        assert all(torch.equal(after[name], tensor) == same for name, tensor in before[0].items())
    assert not any(torch.equal(named(method, "a", "g")[name], tensor) for name, tensor in before[1].items())


def test_few_shot_a_target_leaves_the_slow_directions_alone(qwen3):
    method = away(ready(qwen3, TARGET, slots=2))
    assert {part(name) for name in method.owned()[1]} == {"prompt", "a", "g"}
    before, rest = named(method, "a0", "b"), named(method, "prompt", "a", "g")
    method.steps = [5, 5]
    fit(method, [batch_of(0, 1, 1, seed=seed) for seed in range(5)])
    assert all(torch.equal(tensor, before[name]) for name, tensor in named(method, "a0", "b").items())
    assert not any(torch.equal(tensor, rest[name]) for name, tensor in named(method, "prompt", "a", "g").items())


def test_on_full_data_each_target_has_its_own_copy_of_all(qwen3):
    method = ready(qwen3, TARGET, slots=2, target="prompt a0 b a g")
    assert {part(name) for name in method.owned()[1]} == {"prompt", "a0", "b", "a", "g"}
    assert all(len(bank.sets) == 2 for bank in method.banks().values())


# -------------------------------------------------------------------- where a target starts


def learned_sources(backbone, **options) -> TALoRA:
    return away(ready(backbone, **options))


@pytest.mark.parametrize("gate", ["per_task", "shared"])
@pytest.mark.parametrize("gate_start", ["zero", "source"])
@pytest.mark.parametrize("start", ["mean", "zero"])
def test_a_target_starts_from_the_sources_mean_or_from_zero(qwen3, start, gate_start, gate):
    method = learned_sources(qwen3, start=start, gate_start=gate_start, gate=gate)
    a, g = (torch.stack(list(bank(method, name).sets)).detach().mean(0) for name in ("a", "g"))
    shared = named(method, "prompt", "a0", "b")
    method.enter(TARGET, [0, 1], [items(4, 1), items(4, 2)])
    for slot in (0, 1):
        assert torch.equal(bank(method, "a").of(slot), a if start == "mean" else torch.zeros_like(a))
        assert torch.equal(bank(method, "g").of(slot), g if gate_start == "source" else torch.zeros_like(g))
        assert torch.equal(method.prompt.of(slot), shared["prompt.sets.0"])
        assert torch.equal(bank(method, "b", 1).of(slot), shared["layers.1.b.sets.0"])


@pytest.mark.parametrize("gate_start", ["zero", "source"])
def test_the_nearest_source_is_the_one_under_which_the_examples_are_likeliest(qwen3, gate_start):
    method = learned_sources(qwen3, start="nearest", gate_start=gate_start)
    state = {name: tensor.clone() for name, tensor in method.learned().items()}
    train = [items(6, 31), items(6, 77)]
    losses = [[mean_loss(method, source, own) for source in range(3)] for own in train]
    nearest = [own.index(min(own)) for own in losses]
    method.enter(TARGET, [0, 1], train)
    for slot, source in enumerate(nearest):
        for layer in (0, 1):
            assert torch.equal(bank(method, "a", layer).of(slot), state[f"layers.{layer}.a.sets.{source}"])
            g = state[f"layers.{layer}.g.sets.{source}"]
            assert torch.equal(bank(method, "g", layer).of(slot), g if gate_start == "source" else torch.zeros_like(g))
    assert len(set(nearest)) == 2, "a fixed choice would pass"
    with pytest.raises(UsageError, match="training examples"):
        learned_sources(qwen3, start="nearest").enter(TARGET, [0])


def test_options_that_come_late_change_nothing_on_the_sources(qwen3):
    found = []
    for late in ({}, {"target": "a", "start": "nearest", "gate_start": "source"}):
        assert set(late) in (set(), set(TALoRA.late))
        method = ready(qwen3, **late)
        method.steps = [4] * 3
        fit(method, [batch_of(0, 1, 2, seed=seed) for seed in range(4)])
        found.append({name: tensor.clone() for name, tensor in method.learned().items()})
    assert all(torch.equal(found[0][name], tensor) for name, tensor in found[1].items())


# -------------------------------------------------------------------- at inference


def test_keys_and_values_of_a_task_are_made_once(backbone):
    method, ids, calls = away(ready(backbone)), items(1, 3)[0].prompt, []
    project = backbone.model.model.layers[1].self_attn.k_proj
    hook = project.register_forward_hook(lambda _module, inputs, _y: calls.append(inputs[0].shape[-2] == 5))
    try:
        for slot in (0, 1, 0, 1, 0):
            run(method, ids, slot)
        assert sum(calls) == 2  # of both tasks, once; the others are the text's own
        with torch.no_grad():
            bank(method, "a", 1).sets[1] += 0.1
        run(method, ids, 0)
        assert sum(calls) == 2
        run(method, ids, 1)
        assert sum(calls) == 3
    finally:
        hook.remove()


def test_what_is_kept_follows_every_change(qwen3):
    method, ids = away(ready(qwen3, TARGET, slots=2)), items(1, 3)[0].prompt
    method.steps = [9, 9]

    def fresh() -> torch.Tensor:
        """With the graph recorded nothing is kept."""
        row = torch.tensor([ids])
        return method.hidden(row, torch.ones_like(row), (1,))[0].detach()

    state, before = {name: tensor.clone() for name, tensor in method.learned().items()}, run(method, ids, 1)
    fit(method, [batch_of(0, 1)] * 3)  # AdamW, in one fused kernel
    assert_close(run(method, ids, 1), fresh(), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(run(method, ids, 1), before, atol=1e-3)
    method.load(state)
    assert_close(run(method, ids, 1), before, rtol=1e-5, atol=1e-5)
    with torch.inference_mode():
        assert_close(run(method, ids, 1), before, rtol=1e-5, atol=1e-5)


# -------------------------------------------------------------------- counts


@pytest.mark.parametrize(
    ("options", "slow", "fast"),
    [
        ({}, 4 * 32 + 2 * (2 * 32 + 5 * 2), 2 * (5 * 2 + 4)),
        ({"slow_factor": "A"}, 4 * 32 + 2 * (2 * 32 + 5 * 2), 2 * (2 * 32 + 4)),
        ({"low_rank": False}, 4 * 32 + 2 * 5 * 32, 2 * (5 * 32 + 4)),
        ({"gate": "none"}, 4 * 32 + 2 * (2 * 32 + 5 * 2), 2 * 5 * 2),
        ({"gate": "shared"}, 4 * 32 + 2 * (2 * 32 + 5 * 2 + 4), 2 * 5 * 2),
        ({"length": 0, "layers": 1}, 2 * 32 + 5 * 2, 5 * 2 + 4),
        ({"form": "input"}, 4 * 32 + 2 * 32 + 4 * 2, 4 * 2 + 1),
    ],
    ids=str,
)
def test_count(qwen3, options, slow, fast):
    assert ready(qwen3, **options).trained_parameters(3) == slow + 3 * fast
    assert ready(qwen3, TARGET, target="prompt a0 b a g", **options).trained_parameters() == slow + fast


class Shape(Backbone):
    """A backbone's modules without their weights."""

    def __init__(self, config: Qwen2Config, tokenizer) -> None:
        with torch.device("meta"):
            self.model = AutoModelForCausalLM.from_config(config).requires_grad_(False)
        self.config, self.width, self.tokenizer, self.name = config, config.hidden_size, tokenizer, "shape"
        self.sigma, self.lease, self._undo, self._kept = 0.02, object(), [], {}
        self.sharded, self.layers = False, None

    device = torch.device("cpu")

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        return torch.zeros(*ids.shape, self.width)


def test_it_trains_one_and_a_quarter_million_numbers_on_a_backbone_of_seven_billion(qwen3):
    shape = Qwen2Config(
        hidden_size=3584, num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4, intermediate_size=18944,
        vocab_size=152064, tie_word_embeddings=False,
    )  # fmt: skip
    backbone = Shape(shape, qwen3.tokenizer)
    assert sum(p.numel() for p in backbone.model.parameters()) == 7_615_616_512
    method = TALoRA(backbone, {"length": 100, "rank": 9, "target": "prompt a0 b a g"})
    method.enter(PROMPT, range(16))
    assert method.trained_parameters(16) == 358_400
    method.enter(SOURCE, range(16))
    assert method.trained_parameters(16) == 1_342_656
    method.enter(TARGET, [0])
    assert method.trained_parameters() == 1_270_416


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"form": "multiplicative"}, "no form 'multiplicative'; there are: additive, hadamard, input"),
        ({"gate": "off"}, "per_task, shared, none"),
        ({"start": "near"}, "mean, zero, nearest"),
        ({"target": "prompt c"}, "some of: prompt a0 b a g"),
        ({"target": "prompt g", "start": "nearest"}, "has to name a"),
        ({"rank": 0}, "rank"),
        ({"first": 1.0}, "0 <= first < 1"),
        ({"form": "input", "length": 0}, "needs length >= 1"),
        ({"layers": 3}, "3 layers"),
    ],
)
def test_wrong_options_are_errors(qwen3, wrong, said):
    with pytest.raises(UsageError, match="ta_lora: ") as caught:
        TALoRA(qwen3, wrong)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_there_is_to_see_after_the_sources(qwen3):
    """Where a_t = 0 the slow weights give all of Delta_t; where a_t = A_0 they leave A_0 B of 2 A_0 B: a quarter."""
    method = ready(qwen3, sources=2)
    assert all(share == 1 for share in list(method.inside(["a", "b"]).values())[1])
    with torch.no_grad():
        for layer in method.layers.values():
            layer.a.sets[0].copy_(layer.a0.sets[0])
            layer.a.sets[1].copy_(layer.a0.sets[0])
    alike, shares = method.inside(["a", "b"]).values()
    assert_close(torch.tensor(alike), torch.ones(2, 2))
    assert shares == pytest.approx([0.75] * len(method.layers))


def test_gates_are_watched_on_the_sources_alone(qwen3):
    method = away(ready(qwen3))
    rows = batch(items(3, 5), [0, 1, 2])
    watched = method.training_step(rows, 0)["watched"]
    gates = torch.stack([own.tanh() for own in method.layers["0"].g.sets])
    assert_close(watched["gate, layer 0"], gates.abs().mean())
    assert "watched" not in away(ready(qwen3, TARGET)).training_step(rows, 0)
