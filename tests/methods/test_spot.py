import pytest
import torch
from torch.nn.functional import cosine_similarity
from torch.testing import assert_close

from methods.base import SOURCE_STAGE, TARGET_STAGE
from methods.prompt import Prompt
from methods.spot import EMBEDDING_STAGE, SPoT, SpotGeneric, compute_mixing_weights, compute_similarities
from tasks.core.types import UsageError
from tests.support.stages import batch_of, item, logits, prompts, step

DRAW = torch.Generator().manual_seed(0)
OWN, SOURCES = torch.randn(3, 8, generator=DRAW), torch.randn(5, 3, 8, generator=DRAW)


def ready(backbone, options=None, slots=2, count=4) -> SPoT:
    """After the first stage, in which each target's prompt went its own way."""
    method = SPoT(backbone, {"length": 4} | (options or {}))
    method.load_source_states(prompts(count, backbone))
    method.begin_stage(EMBEDDING_STAGE, list(range(slots)))
    step(method, batch_of(*range(slots)), lr=0.5)
    return method


def test_similarities_are_the_paper_written_out():
    means = [cosine_similarity(OWN.mean(0), source.mean(0), dim=0) for source in SOURCES]
    assert_close(compute_similarities(OWN, SOURCES, "mean"), torch.stack(means))
    pairs = [sum(cosine_similarity(own, other, dim=0) for own in OWN for other in source) / 3**2 for source in SOURCES]
    assert_close(compute_similarities(OWN, SOURCES, "tokens"), torch.stack(pairs))
    assert_close(compute_similarities(OWN, OWN[None], "mean"), torch.ones(1))


@pytest.mark.parametrize("near", [[0.5, 0.3, 0.1], [0.5, -0.3, 0.1], [-0.1, -0.2, -0.3]])
def test_weights_sum_to_one_and_none_is_negative(near):
    found = compute_mixing_weights(torch.tensor(near))
    assert_close(found.sum(), torch.tensor(1.0))
    assert found.min() >= 0


def test_the_start_is_the_weighted_average_of_the_nearest_for_each_target(qwen3):
    method = ready(qwen3, {"nearest": 2})
    own = [prompt.detach().clone() for prompt in method.prompt.tensors]
    method.begin_stage(TARGET_STAGE, [0, 1])
    for slot in (0, 1):
        near = [
            (cosine_similarity(own[slot].mean(0), source.mean(0), dim=0).item(), source)
            for source in method.source_prompts
        ]
        (one, first), (two, second) = sorted(near, key=lambda pair: -pair[0])[:2]
        one, two = max(one, 0), max(two, 0)
        assert_close(method.prompt.tensors[slot].detach(), (one * first + two * second) / (one + two))
    assert not torch.equal(method.prompt.tensors[0], method.prompt.tensors[1])


def test_of_one_neighbour_average_and_best_are_that_source_and_answer_as_it_does(qwen3):
    found = []
    for retrieval in ("average", "best"):
        method = ready(qwen3, {"nearest": 1, "retrieval": retrieval})
        method.begin_stage(TARGET_STAGE, [0, 1])
        found.append(method.slot_state_dict(1))
        batch = batch_of(1)
        answer = logits(method, batch)
    assert torch.equal(found[0]["prompt.tensors.0"], found[1]["prompt.tensors.0"])
    assert any(torch.equal(found[0]["prompt.tensors.0"], source) for source in method.source_prompts)
    prompted = Prompt(qwen3, {"length": 4})
    prompted.load(found[0])
    assert_close(logits(prompted, batch._replace(slots=(0,))), answer)


def test_best_is_the_source_that_fits_the_training_examples(qwen3):
    draw = torch.Generator().manual_seed(3)
    train = [[item(draw) for _ in range(10)], [item(draw) for _ in range(10)]]
    method = ready(qwen3, {"nearest": 4, "retrieval": "best"})
    method.begin_stage(TARGET_STAGE, [0, 1], train)
    chosen = [prompt.detach().clone() for prompt in method.prompt.tensors]
    for slot in (0, 1):
        misfits = {method.compute_candidate_loss(slot, source, train[slot]): source for source in method.source_prompts}
        assert torch.equal(chosen[slot], misfits[min(misfits)])
        assert len(misfits) == 4


def test_the_first_prompt_is_the_same_for_all_tasks_and_seeds(qwen3):
    method = ready(qwen3)
    method.begin_stage(EMBEDDING_STAGE, [0, 1])
    plain = Prompt(qwen3, {"length": 4, "start": "common"})
    draw = torch.Generator().manual_seed(0)
    plain.begin_stage(TARGET_STAGE, [7], [[item(draw)]])
    assert all(torch.equal(prompt, plain.prompt.tensors[0]) for prompt in method.prompt.tensors)
    table = qwen3.embed(torch.arange(len(qwen3.tokenizer)))
    assert all((table == row).all(1).any() for row in plain.prompt.tensors[0])


def test_the_target_learns_more_slowly_than_its_first_prompt(qwen3):
    method = ready(qwen3)
    assert method.optimizer_group("prompt.tensors.0").lr == pytest.approx(0.3 * qwen3.embedding_std)
    method.begin_stage(TARGET_STAGE, [0, 1])
    assert method.optimizer_group("prompt.tensors.0").lr == pytest.approx(0.15 * qwen3.embedding_std)
    assert method.count_trained_parameters(2) == 2 * 4 * qwen3.hidden_size
    assert set(method.trained_state_dict()) == {"prompt.tensors.0", "prompt.tensors.1"}  # no source prompt is stored


def test_source_prompts_of_another_length_or_none_are_errors(qwen3):
    method = SPoT(qwen3, {"length": 4})
    with pytest.raises(UsageError, match="come first"):
        method.begin_stage(EMBEDDING_STAGE, [0])
    with pytest.raises(UsageError, match=r"shape \(4, 32\) are needed, found \[\(5, 32\)\]"):
        method.load_source_states(prompts(2, qwen3, length=5))
    assert SPoT.dependency.resolve_options(method.config) == {"start": "common", "length": 4}


def test_generic_learns_one_prompt_on_all_sources_and_starts_every_target_from_it(qwen3):
    method = SpotGeneric(qwen3, {"length": 4})
    method.begin_stage(SOURCE_STAGE, [0, 0, 0])
    step(method, batch_of(0, 2), lr=0.5)
    assert method.count_trained_parameters(3) == 4 * qwen3.hidden_size
    one = method.prompt.tensors[0].detach().clone()
    method.begin_stage(TARGET_STAGE, [0, 1])
    assert all(torch.equal(prompt, one) for prompt in method.prompt.tensors)
    assert method.count_trained_parameters(1) == 4 * qwen3.hidden_size
