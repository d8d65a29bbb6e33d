import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from methods.base import SOURCE_STAGE, TARGET_STAGE, OptimizerGroup
from methods.mpt import MPT
from methods.prompt import Prompt
from tasks.core.types import UsageError
from tests.support.stages import away, batch_of, logits, prompts, step


def ready(backbone, sources=3, options=None) -> MPT:
    method = MPT(backbone, {"length": 4} | (options or {}))
    method.load_source_states(prompts(sources, backbone))
    method.begin_stage(SOURCE_STAGE, [0] * sources)
    return method


def test_each_rows_prompt_is_the_product_written_out(qwen3):
    method, slots = away(ready(qwen3, options={"rank": 2})), (2, 0, 2)
    method.slot_context.activate(slots, qwen3.device)
    found = method.prompt_embeddings(torch.empty(3, 1, 32), torch.ones(3, 1))
    shared = method.prompt.tensors[0]
    for row, slot in enumerate(slots):
        u, v = method.u.tensors[slot], method.v.tensors[slot]
        want = torch.stack(
            [
                torch.stack([shared[i, j] * sum(u[i, k] * v[k, j] for k in range(2)) for j in range(32)])
                for i in range(4)
            ]
        )
        assert_close(found[row], want)


@pytest.mark.parametrize("rank", [1, 3])
def test_it_starts_as_the_prompt_that_is_the_teachers_mean(backbone, rank):
    method, batch = ready(backbone, options={"rank": rank}), batch_of(2, 0)
    found = logits(method, batch)
    mean = torch.stack([state["prompt.tensors.0"] for state in prompts(3, backbone)]).mean(0)
    plain = Prompt(backbone, {"length": 4})
    plain.load({"prompt.tensors.0": mean})
    assert_close(found, logits(plain, batch._replace(slots=(0, 0))))


def test_the_loss_is_answers_plus_both_distances_written_out(qwen3):
    method, batch = away(ready(qwen3)), batch_of(0, 2, 0)
    found = method.compute_batch_losses(batch)
    student = [method.prompt.tensors[0] * (method.u.tensors[slot] @ method.v.tensors[slot]) for slot in (0, 1, 2)]
    want = {}
    for slot in (0, 2):
        answers, kls, squares, places = [], [], 0.0, 0
        for row in (i for i, other in enumerate(batch.slots) if other == slot):
            size = int(batch.attention_mask[row].sum())
            ids, mask = batch.input_ids[row : row + 1, :size], torch.ones(1, size + 4, dtype=torch.long)
            hidden = []
            for prompt in (student[slot], method.teacher_prompts[slot]):
                embeds = torch.cat([prompt[None], qwen3.embed(ids)], 1)
                hidden.append(
                    qwen3.compute_hidden_states(
                        inputs_embeds=embeds, attention_mask=mask, position_ids=torch.arange(size + 4)[None]
                    )[0, 4:]
                )
            squares, places = squares + (hidden[0] - hidden[1]).square().mean(-1).sum(), places + size
            for place in range(size - 1):
                if batch.labels[row, place + 1] == -100:
                    continue
                own, teacher = (qwen3.compute_logits(h[place : place + 1]) for h in hidden)
                answers.append(cross_entropy(own, batch.labels[row, place + 1 : place + 2]))
                p = teacher.softmax(-1)
                kls.append((p * (teacher.log_softmax(-1) - own.log_softmax(-1))).sum())
        want[slot] = sum(answers) / len(answers) + 0.9 * (sum(kls) / len(kls) + squares / places)
    assert_close(found, torch.stack([want[0], want[2]]), rtol=1e-4, atol=1e-4)


def test_a_student_that_is_its_teacher_pays_for_answers_only(qwen3):
    alike, batch, found = prompts(1, qwen3) * 2, batch_of(0, 1), []
    for distill in (0.0, 0.9):
        method = MPT(qwen3, {"length": 4, "distillation_weight": distill})
        method.load_source_states(alike)
        method.begin_stage(SOURCE_STAGE, [0, 0])
        found.append(method.compute_batch_losses(batch).detach())
    assert_close(found[1], found[0])


def test_teachers_stay_and_are_not_stored(qwen3):
    method = away(ready(qwen3))
    teachers = method.teacher_prompts.clone()
    step(method, batch_of(0, 1))
    assert torch.equal(method.teacher_prompts, teachers)
    assert {name.split(".")[0] for name in method.trained_state_dict()} == {"prompt", "u", "v"}


def test_an_absent_source_keeps_its_factors(qwen3):
    method = away(ready(qwen3))
    before = {name: tensor.clone() for name, tensor in method.trained_state_dict().items()}
    step(method, batch_of(0, 2))
    still = {name for name, tensor in method.trained_state_dict().items() if torch.equal(tensor, before[name])}
    assert still == {"u.tensors.1", "v.tensors.1"}


@pytest.mark.parametrize("target", ["prompt u v", "u v"])
def test_a_target_starts_from_the_mean_of_each_factor_and_pays_for_answers_only(qwen3, target):
    method = away(ready(qwen3, options={"trainable_on_target": target}))
    u, v = (torch.stack(list(bank.tensors)).detach().mean(0) for bank in (method.u, method.v))
    shared = method.prompt.tensors[0].detach().clone()
    method.begin_stage(TARGET_STAGE, [0, 1])
    for slot in (0, 1):
        assert torch.equal(method.u.tensors[slot], u)
        assert torch.equal(method.v.tensors[slot], v)
        assert torch.equal(method.prompt.for_slot(slot), shared)
    own = method.trainable_by_slot()
    assert {name.split(".")[0] for name in own[1]} == set(target.split())
    batch = batch_of(0, 0)
    found = method.compute_batch_losses(batch).item()
    plain = Prompt(qwen3, {"length": 4})
    plain.load({"prompt.tensors.0": shared * (u @ v)})
    assert plain.compute_batch_losses(batch).item() == pytest.approx(found, rel=1e-5)


def test_count_and_rates(backbone):
    method, width = ready(backbone, options={"rank": 2, "factor_lr": 0.05}), backbone.hidden_size
    assert method.count_trained_parameters(3) == 4 * width + 3 * 2 * (4 + width)
    method.begin_stage(TARGET_STAGE, [0, 1])
    assert method.count_trained_parameters(1) == 4 * width + 2 * (4 + width)
    rates = {name.split(".")[0]: method.optimizer_group(name) for name in method.trainable_by_slot()[0]}
    assert rates["prompt"].lr == pytest.approx(0.3 * backbone.embedding_std)
    assert rates["prompt"].weight_decay == 1e-5
    assert rates["u"] == rates["v"] == OptimizerGroup(0.05)


def test_the_product_is_pefts_with_copied_weights(qwen3):
    from peft import MultitaskPromptTuningConfig, TaskType
    from peft.tuners.multitask_prompt_tuning import MultitaskPromptEmbedding

    method, slots = away(ready(qwen3, options={"rank": 2})), (2, 0, 1)
    config = MultitaskPromptTuningConfig(
        task_type=TaskType.CAUSAL_LM, num_virtual_tokens=4, token_dim=32, num_transformer_submodules=1, num_ranks=2, num_tasks=3
    )  # fmt: skip
    theirs = MultitaskPromptEmbedding(config, qwen3.model.get_input_embeddings())
    with torch.no_grad():
        theirs.embedding.weight.copy_(method.prompt.tensors[0])
        theirs.prefix_task_cols.copy_(torch.stack(list(method.u.tensors)))
        theirs.prefix_task_rows.copy_(torch.stack(list(method.v.tensors)))
    method.slot_context.activate(slots, qwen3.device)
    want = theirs(torch.arange(4).expand(3, -1), torch.tensor(slots))
    assert_close(method.prompt_embeddings(torch.empty(3, 1, 32), torch.ones(3, 1)), want)


def test_every_source_needs_its_teacher(qwen3):
    method = MPT(qwen3, {"length": 4})
    with pytest.raises(UsageError, match="found 0"):
        method.begin_stage(SOURCE_STAGE, [0, 0])
    method.load_source_states(prompts(3, qwen3))
    with pytest.raises(UsageError, match="2 sources need as many teachers"):
        method.begin_stage(SOURCE_STAGE, [0, 0])
