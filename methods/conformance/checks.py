"""Conformance checks that every method must pass.

A check takes a method class and a backbone. It returns None if it holds or the reason why it does not apply, and raises
AssertionError if it fails. No check refers to a method by name.
"""

import copy
from collections.abc import Callable
from dataclasses import fields, replace
from itertools import pairwise
from tempfile import TemporaryDirectory
from typing import Any

import torch
from peft import PeftModel
from torch.testing import assert_close

from methods.base import Method
from methods.conformance.episodes import check_episode_gradient_mean
from methods.conformance.fixtures import (
    assign_slots,
    compute_row_states,
    copy_backbone_weights,
    make_batch,
    move_to_backbone,
    run_training_steps,
)
from methods.conformance.gradients import check_step_gradient
from methods.core.backbone import Backbone
from methods.core.export import save_peft_files
from methods.core.instantiate import (
    NUM_SLOTS,
    begin_synthetic_stage,
    create_source_states,
    generate_examples,
    instantiate_method,
    perturb_parameters,
)
from methods.core.step_plan import StepPlan, build_step_plan

STEPS_PER_CELL = (12, 20, 16)  # the cells of a pack end at different steps
BATCH_SIZE_PER_CELL = (4, 2, 3)  # rows per batch of each cell


def check_initial_equivalence(method_class: type[Method], backbone: Backbone) -> str | None:
    """Check that an untrained method gives exactly the frozen model's hidden states (T-init)."""
    row = generate_examples(1, 1)[0].prompt_ids
    plain = compute_row_states(Method(backbone), row)
    method = instantiate_method(method_class, backbone, perturb=False)
    if method.num_virtual_tokens:
        return "virtual tokens change the input from the start"
    for slot in range(method.num_slots):
        assert torch.equal(compute_row_states(method, row, slot), plain)
    return None


def check_backbone_unchanged(method_class: type[Method], backbone: Backbone) -> str | None:
    """Check that three steps leave frozen weights unchanged and that `close` restores the backbone (T-frozen)."""
    backbone.detach()
    before = copy_backbone_weights(backbone)
    method = instantiate_method(method_class, backbone)
    if method_class.uses_gradient_descent:
        method.slot_steps = [3] * method.num_slots
        learning = {name for name, p in backbone.model.named_parameters() if p.requires_grad}
        run_training_steps(method.train(), [make_batch(generate_examples(6, 2), assign_slots(method, 6))] * 3)
        after = copy_backbone_weights(backbone)
        tied = {"lm_head.weight"} if "model.embed_tokens.weight" in learning else set()
        for name in before.keys() - learning - tied:
            assert torch.equal(before[name], after[name]), name
        for slot, named in method.trainable_by_slot().items():
            assert named, slot
    method.close()
    for name, tensor in copy_backbone_weights(backbone).items():
        assert torch.equal(before[name], tensor), name
    assert not any(p.requires_grad for p in backbone.model.parameters())
    return None


def check_absent_slots_unchanged(method_class: type[Method], backbone: Backbone) -> str | None:
    """Check that a slot absent from the batch keeps its tensors and its optimiser state (T-leak)."""
    if not (method_class.uses_gradient_descent and method_class.is_packable):
        return "one cell at a time"
    method = instantiate_method(method_class, backbone)
    method.slot_steps = [8] * method.num_slots
    all_slots = make_batch(generate_examples(6, 3), [0, 1, 2, 0, 1, 2])
    without_slot_1 = make_batch(generate_examples(4, 4), [0, 2, 2, 0])
    optimizers = method.configure_optimizers()
    method.configure_optimizers = lambda: optimizers  # type: ignore[method-assign]  # one optimiser for both parts
    run_training_steps(method, [all_slots])
    parameters = method.trainable_by_slot()[1]
    before = {name: p.detach().clone() for name, p in parameters.items()}
    moments = {name: optimizers["optimizer"].state[p]["exp_avg"].clone() for name, p in parameters.items()}
    run_training_steps(method, [without_slot_1] * 3)
    for name, p in parameters.items():
        assert torch.equal(before[name], p), name
        assert torch.equal(moments[name], optimizers["optimizer"].state[p]["exp_avg"]), name
    return None


def check_slot_routing(method_class: type[Method], backbone: Backbone) -> str | None:
    """Check that a row in a mixed batch gives the same hidden states as alone (T-route)."""
    method = instantiate_method(method_class, backbone)
    examples = generate_examples(6, 5)
    slots = assign_slots(method, len(examples))
    mixed = move_to_backbone(method, make_batch(examples, slots))
    source = (mixed.labels == -100) & mixed.attention_mask.bool()
    with torch.no_grad():
        together = method.compute_hidden_states(mixed.input_ids, mixed.attention_mask, mixed.slots, prompt_mask=source)
    for row, (item, slot) in enumerate(zip(examples, slots, strict=True)):
        assert_close(
            together[row, : len(item.prompt_ids)],
            compute_row_states(method, item.prompt_ids, slot),
            rtol=1e-4,
            atol=1e-5,
        )
    if method.num_slots > 1 and any(method.trainable_by_slot().values()):
        assert not torch.allclose(
            compute_row_states(method, examples[0].prompt_ids, 0),
            compute_row_states(method, examples[0].prompt_ids, 1),
            atol=1e-4,
        ), "all slots alike"
    return None


def check_padding_invariance(method_class: type[Method], backbone: Backbone) -> str | None:
    """Check that side and amount of padding do not change a row's hidden states (T-pad)."""
    method = instantiate_method(method_class, backbone)
    examples = [item._replace(answer_ids=()) for item in generate_examples(4, 6)]
    slots = assign_slots(method, len(examples))
    for side in ("left", "right"):
        padded = move_to_backbone(method, make_batch(examples, slots, side))
        with torch.no_grad():
            states = method.compute_hidden_states(padded.input_ids, padded.attention_mask, padded.slots)
        for row, item in enumerate(examples):
            real = states[row][padded.attention_mask[row].bool()]
            assert_close(real, compute_row_states(method, item.prompt_ids, slots[row]), rtol=1e-4, atol=1e-5)
    return None


def check_cache_equivalence(method_class: type[Method], backbone: Backbone) -> str | None:
    """Check that decoding token by token with a cache equals one forward pass (T-cache)."""
    method = instantiate_method(method_class, backbone)
    ids = generate_examples(1, 8)[0].prompt_ids
    num_prompt_tokens = 9
    whole = compute_row_states(method, ids, method.num_slots - 1, num_prompt_tokens)
    cache = backbone.create_cache()
    states = []
    prompt = (
        ((0, 5), (5, num_prompt_tokens)) if method.can_share_prefix else ((0, num_prompt_tokens),)
    )  # a row-dependent prompt needs the whole text at once
    with torch.no_grad():
        for first, last in (*prompt, *((i, i + 1) for i in range(num_prompt_tokens, len(ids)))):
            row = move_to_backbone(method, torch.tensor([ids[first:last]]))
            seen = move_to_backbone(method, torch.ones(1, last, dtype=torch.long))
            states.append(method.compute_hidden_states(row, seen, (method.num_slots - 1,), cache)[0])
    assert_close(torch.cat(states), whole, rtol=1e-4, atol=1e-5)
    return None


def check_shared_prefix_equivalence(method_class: type[Method], backbone: Backbone) -> str | None:
    """Check that losses and gradients with a shared prefix equal those of whole rows."""
    method = instantiate_method(method_class, backbone)
    if not method.can_share_prefix:
        return "virtual tokens depend on the row"
    batch = make_batch(generate_examples(6, 9, prefix_length=40), assign_slots(method, 6))
    results = []
    for has_prefix in (False, True):
        step_plan = build_step_plan(batch, num_virtual_tokens=method.num_virtual_tokens, share_prefix=has_prefix)
        assert (step_plan.shared_prefix is not None) == has_prefix
        losses = method.compute_slot_losses(move_to_backbone(method, step_plan))
        grads = [p for p in method.parameters() if p.requires_grad]
        results.append((losses, torch.autograd.grad(losses.sum(), grads) if grads else ()))
    assert_close(results[1], results[0], rtol=2e-4, atol=2e-5)
    return None


def check_overfitting(method_class: type[Method], backbone: Backbone) -> str | None:
    """Check that the loss of six examples falls by 35 % over all stages at one of two learning rates (T-overfit).

    The bound is loose because prompt-like methods can change a random backbone only a little.
    """
    if not method_class.uses_gradient_descent:
        return "learns nothing"
    examples = generate_examples(6, 10, max_text_length=8)
    steps = 80

    def plan_examples(method: Method) -> StepPlan:
        return move_to_backbone(method, method.plan_step(make_batch(examples, assign_slots(method, 6))))

    def learn(method: Method) -> None:
        method.train().slot_steps = [steps] * method.num_slots
        if method.automatic_optimization:  # check_episode_gradient_mean covers stages of episodes
            run_training_steps(method, [plan_examples(method)] * steps, target_loss=0.6 * before)

    start = instantiate_method(method_class, backbone, 1, perturb=False)
    before = start.compute_slot_losses(plan_examples(start)).item()
    for factor in (10, 100):
        defaults = {field.name: getattr(method_class.Config(), field.name) for field in fields(method_class.Config)}
        rates: dict[str, Any] = {
            name: factor * max(defaults[name], 1e-3) for name in defaults if name.endswith("lr") and name != "inner_lr"
        }
        config = replace(method_class.Config(), schedule="constant", **rates)
        method = instantiate_method(method_class, backbone, 1, perturb=False, config=config, after_stage_begin=learn)
        after = method.compute_slot_losses(plan_examples(method)).item()
        if after < 0.65 * before:
            return None
    raise AssertionError(f"the loss went from {before:.3f} to {after:.3f} in {steps} steps")


def check_packing_equivalence(method_class: type[Method], backbone: Backbone) -> str | None:
    """Check that packed cells of unequal length and batch size get the weights and losses of solo runs (T-pack)."""
    if not (method_class.uses_gradient_descent and method_class.is_packable):
        return "one cell at a time"
    cells = [
        [generate_examples(rows, 20 + 7 * cell + step, max_text_length=12 + 8 * cell) for step in range(4)]
        for cell, rows in enumerate(BATCH_SIZE_PER_CELL)
    ]
    batches = []
    for step in range(max(STEPS_PER_CELL)):
        rows = [
            (item, cell) for cell in range(NUM_SLOTS) if step < STEPS_PER_CELL[cell] for item in cells[cell][step % 4]
        ]
        batches.append(make_batch([item for item, _ in rows], [cell for _, cell in rows]))
    pack = instantiate_method(method_class, backbone)
    start = [{name: tensor.clone() for name, tensor in pack.slot_state_dict(slot).items()} for slot in range(NUM_SLOTS)]
    pack.slot_steps = list(STEPS_PER_CELL)
    losses = pack.compute_batch_losses(move_to_backbone(pack, batches[0])).detach()
    run_training_steps(pack, batches)
    packed = [
        {name: tensor.clone() for name, tensor in pack.slot_state_dict(slot).items()} for slot in range(NUM_SLOTS)
    ]
    for cell in range(NUM_SLOTS):
        solo = instantiate_method(method_class, backbone, 1)
        solo.load(start[cell])
        solo.slot_steps = [STEPS_PER_CELL[cell]]
        alone = solo.compute_batch_losses(
            move_to_backbone(solo, make_batch(cells[cell][0], [0] * BATCH_SIZE_PER_CELL[cell]))
        ).detach()
        assert_close(alone, losses[cell : cell + 1], rtol=1e-4, atol=1e-5)
        run_training_steps(
            solo,
            [
                make_batch(cells[cell][step % 4], [0] * BATCH_SIZE_PER_CELL[cell])
                for step in range(STEPS_PER_CELL[cell])
            ],
        )
        for name, tensor in solo.slot_state_dict(0).items():
            moved = (tensor - start[cell][name]).norm()
            assert (tensor - packed[cell][name]).norm() <= 1e-3 * moved + 1e-6, (cell, name, moved)
    return None


def check_state_round_trip(method_class: type[Method], backbone: Backbone) -> str | None:
    """Check that `trained_state_dict` and `slot_state_dict` restore a method and hold no frozen weight."""
    method = instantiate_method(method_class, backbone)
    ids = generate_examples(1, 11)[0].prompt_ids
    state = {name: t.clone() for name, t in method.trained_state_dict().items()}
    alone = {name: t.clone() for name, t in method.slot_state_dict(method.num_slots - 1).items()}
    expected = [compute_row_states(method, ids, slot) for slot in range(method.num_slots)]
    method_parameters = {id(p) for p in method.parameters()}
    assert not any(id(p) in method_parameters for p in backbone.model.parameters() if not p.requires_grad)
    fresh = instantiate_method(method_class, backbone, 1, perturb=False)
    fresh.load(state)
    for slot, hidden in enumerate(expected):
        assert torch.equal(compute_row_states(fresh, ids, slot), hidden)
    fresh.load(alone)
    assert torch.equal(compute_row_states(fresh, ids, 0), expected[-1])
    return None


def check_stage_resumption(method_class: type[Method], backbone: Backbone) -> str | None:
    """Check that a stage resumed from a saved state equals exactly one that continues in the same process."""
    if method_class.stages[0].trained_on != "sources":
        return "no stage on the sources"
    states = create_source_states(method_class, backbone)
    states_by_stage = {}

    def store(method: Method) -> None:
        perturb_parameters(method)
        states_by_stage[method.current_stage] = {
            name: tensor.clone() for name, tensor in method.trained_state_dict().items()
        }

    instantiate_method(method_class, backbone, perturb=False, after_stage_begin=store)
    for before, stage in pairwise(method_class.stages):
        method = method_class(backbone)
        if states:
            method.load_source_states(states)
        for _ in range(2):  # a second pack finds the same start as the first
            method.load(states_by_stage[before])
            begin_synthetic_stage(method, stage, NUM_SLOTS)
            perturb_parameters(method)
            state = method.trained_state_dict()
            expected = states_by_stage[stage]
            assert state.keys() == expected.keys()
            assert all(torch.equal(state[name], expected[name]) for name in expected)
    return None


def check_merge_equivalence(method_class: type[Method], backbone: Backbone) -> str | None:
    """Check that the backbone with merged weights gives the slot's hidden states (T-merge)."""
    method = instantiate_method(method_class, backbone)
    if not method.is_mergeable:
        return "cannot be folded into the weights"
    ids = generate_examples(1, 12)[0].prompt_ids
    slot = method.num_slots - 1
    expected = compute_row_states(method, ids, slot)
    folded = method.merged_weights(slot)
    method.close()
    plain = Method(backbone)
    backbone.unfreeze(lambda name: name in folded)
    backbone.model.load_state_dict(folded, strict=False)
    assert_close(compute_row_states(plain, ids), expected, rtol=1e-4, atol=1e-4)
    return None


def check_peft_equivalence(method_class: type[Method], backbone: Backbone) -> str | None:
    """Check that a slot exported in peft's format gives the same logits in peft (T-peft)."""
    method = instantiate_method(method_class, backbone)
    ids = generate_examples(1, 13)[0].prompt_ids
    slot = method.num_slots - 1
    peft_files = method.peft_format(slot)
    if peft_files is None:
        return "peft has no such method"
    expected = backbone.compute_logits(compute_row_states(method, ids, slot))
    method.close()
    with TemporaryDirectory() as folder, torch.no_grad():
        save_peft_files(folder, *peft_files)
        adapted = PeftModel.from_pretrained(copy.deepcopy(backbone.model), folder).eval()
        row = move_to_backbone(method, torch.tensor([ids]))
        logits = adapted(input_ids=row, attention_mask=torch.ones_like(row)).logits[0, -len(ids) :]
    assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    return None


CHECKS: dict[str, Callable[[type[Method], Backbone], str | None]] = {
    proof.__name__: proof
    for proof in (
        check_initial_equivalence,
        check_backbone_unchanged,
        check_absent_slots_unchanged,
        check_slot_routing,
        check_padding_invariance,
        check_cache_equivalence,
        check_shared_prefix_equivalence,
        check_overfitting,
        check_step_gradient,
        check_packing_equivalence,
        check_state_round_trip,
        check_stage_resumption,
        check_episode_gradient_mean,
        check_merge_equivalence,
        check_peft_equivalence,
    )
}
