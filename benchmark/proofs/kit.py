"""What every method has to prove. A proof takes a method's class and a backbone; it returns why it does not apply, or
None when it holds, and raises AssertionError when it does not. No proof knows a method by name.
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

from benchmark.proofs.material import SLOTS, batch, built, enter, fit, items, move, on, parents, run, slots_of, weights
from benchmark.proofs.meta import tasks_of_an_episode_meet_in_their_mean
from benchmark.proofs.step import a_step_follows_the_gradient
from methods.adapters import write_peft
from methods.backbone import Backbone
from methods.base import Method
from methods.plan import Plan, plan

STEPS = (12, 20, 16)  # cells of a pack end at different steps
ROWS = (4, 2, 3)  # and have batches of different sizes


def starts_as_the_backbone(cls: type[Method], backbone: Backbone) -> str | None:
    """Bit by bit the frozen model's hidden states before the first step (T-init)."""
    row = items(1, 1)[0].prompt
    plain = run(Method(backbone), row)
    method = built(cls, backbone, away=False)
    if method.virtual:
        return "virtual tokens change the input from the start"
    for slot in range(method.slots):
        assert torch.equal(run(method, row, slot), plain)
    return None


def leaves_the_backbone_alone(cls: type[Method], backbone: Backbone) -> str | None:
    """Three steps change nothing of the frozen model, and `close` leaves all of it as it was loaded (T-frozen)."""
    backbone.detach()
    before = weights(backbone)
    method = built(cls, backbone)
    if cls.trains:
        method.steps = [3] * method.slots
        learning = {name for name, p in backbone.model.named_parameters() if p.requires_grad}
        fit(method.train(), [batch(items(6, 2), slots_of(method, 6))] * 3)
        after = weights(backbone)
        tied = {"lm_head.weight"} if "model.embed_tokens.weight" in learning else set()
        for name in before.keys() - learning - tied:
            assert torch.equal(before[name], after[name]), name
        for slot, named in method.owned().items():
            assert named, slot
    method.close()
    for name, tensor in weights(backbone).items():
        assert torch.equal(before[name], tensor), name
    assert not any(p.requires_grad for p in backbone.model.parameters())
    return None


def absent_slots_keep_still(cls: type[Method], backbone: Backbone) -> str | None:
    """A slot that is not in the batch keeps its tensors and its optimiser's state, momentum or not (T-leak)."""
    if not (cls.trains and cls.packable):
        return "one cell at a time"
    method = built(cls, backbone)
    method.steps = [8] * method.slots
    everybody, some = batch(items(6, 3), [0, 1, 2, 0, 1, 2]), batch(items(4, 4), [0, 2, 2, 0])
    made = method.configure_optimizers()
    method.configure_optimizers = lambda: made  # type: ignore[method-assign]  # one optimiser for both parts
    fit(method, [everybody])
    own = method.owned()[1]
    before = {name: p.detach().clone() for name, p in own.items()}
    moments = {name: made["optimizer"].state[p]["exp_avg"].clone() for name, p in own.items()}
    fit(method, [some] * 3)
    for name, p in own.items():
        assert torch.equal(before[name], p), name
        assert torch.equal(moments[name], made["optimizer"].state[p]["exp_avg"]), name
    return None


def rows_get_their_own_slot(cls: type[Method], backbone: Backbone) -> str | None:
    """A row among others of other slots comes out as it does alone (T-route)."""
    method = built(cls, backbone)
    of = items(6, 5)
    slots = slots_of(method, len(of))
    mixed = on(method, batch(of, slots))
    source = (mixed.labels == -100) & mixed.attention_mask.bool()
    with torch.no_grad():
        together = method.hidden(mixed.input_ids, mixed.attention_mask, mixed.slots, source=source)
    for row, (item, slot) in enumerate(zip(of, slots, strict=True)):
        assert_close(together[row, : len(item.prompt)], run(method, item.prompt, slot), rtol=1e-4, atol=1e-5)
    if method.slots > 1 and any(method.owned().values()):
        assert not torch.allclose(run(method, of[0].prompt, 0), run(method, of[0].prompt, 1), atol=1e-4), (
            "all slots alike"
        )
    return None


def padding_changes_nothing(cls: type[Method], backbone: Backbone) -> str | None:
    """Left or right, much or little: a row's hidden states stay (T-pad)."""
    method = built(cls, backbone)
    of = [item._replace(answer=()) for item in items(4, 6)]
    slots = slots_of(method, len(of))
    for side in ("left", "right"):
        padded = on(method, batch(of, slots, side))
        with torch.no_grad():
            found = method.hidden(padded.input_ids, padded.attention_mask, padded.slots)
        for row, item in enumerate(of):
            real = found[row][padded.attention_mask[row].bool()]
            assert_close(real, run(method, item.prompt, slots[row]), rtol=1e-4, atol=1e-5)
    return None


def a_cache_changes_nothing(cls: type[Method], backbone: Backbone) -> str | None:
    """Token by token from a cache, as decoding does, equals one pass (T-cache)."""
    method = built(cls, backbone)
    ids, given = items(1, 8)[0].prompt, 9
    whole, cache, found = run(method, ids, method.slots - 1, given), backbone.cache(), []
    prompt = ((0, 5), (5, given)) if method.shares_lead else ((0, given),)  # what depends on a prompt sees all of it
    with torch.no_grad():
        for first, last in (*prompt, *((i, i + 1) for i in range(given, len(ids)))):
            row, seen = on(method, torch.tensor([ids[first:last]])), on(method, torch.ones(1, last, dtype=torch.long))
            found.append(method.hidden(row, seen, (method.slots - 1,), cache)[0])
    assert_close(torch.cat(found), whole, rtol=1e-4, atol=1e-5)
    return None


def the_lead_once_equals_every_row(cls: type[Method], backbone: Backbone) -> str | None:
    """Losses and gradients with the common lead passed once per slot equal those of whole rows."""
    method = built(cls, backbone)
    if not method.shares_lead:
        return "virtual tokens depend on the row"
    given = batch(items(6, 9, lead=40), slots_of(method, 6))
    found = []
    for lead in (False, True):
        made = plan(given, virtual=method.virtual, lead=lead)
        assert (made.lead is not None) == lead
        losses = method.losses(on(method, made))
        grads = [p for p in method.parameters() if p.requires_grad]
        found.append((losses, torch.autograd.grad(losses.sum(), grads) if grads else ()))
    assert_close(found[1], found[0], rtol=2e-4, atol=2e-5)
    return None


def learns_by_heart(cls: type[Method], backbone: Backbone) -> str | None:
    """Six examples, and the loss falls by a third and more over all stages, at one of two rates (T-overfit).

    A random backbone holds methods back that only steer it, so this asks that gradients arrive and are followed.
    """
    if not cls.trains:
        return "learns nothing"
    of, steps = items(6, 10, most=8), 80

    def given(method: Method) -> Plan:
        return on(method, method.plan(batch(of, slots_of(method, 6))))

    def learn(method: Method) -> None:
        method.train().steps = [steps] * method.slots
        if method.automatic_optimization:  # a stage of episodes has a proof of its own
            fit(method, [given(method)] * steps, until=0.6 * before)

    start = built(cls, backbone, 1, away=False)
    before = start.losses(given(start)).item()
    for factor in (10, 100):
        own = {field.name: getattr(cls.Config(), field.name) for field in fields(cls.Config)}
        rates: dict[str, Any] = {
            name: factor * max(own[name], 1e-3) for name in own if name.endswith("lr") and name != "inner_lr"
        }
        config = replace(cls.Config(), schedule="constant", **rates)
        method = built(cls, backbone, 1, away=False, config=config, then=learn)
        after = method.losses(given(method)).item()
        if after < 0.65 * before:
            return None
    raise AssertionError(f"the loss went from {before:.3f} to {after:.3f} in {steps} steps")


def packed_equals_solo(cls: type[Method], backbone: Backbone) -> str | None:
    """Cells of unequal length and size, AdamW and clipping: the weights and losses each would have alone (T-pack)."""
    if not (cls.trains and cls.packable):
        return "one cell at a time"
    cells = [
        [items(rows, 20 + 7 * cell + step, most=12 + 8 * cell) for step in range(4)] for cell, rows in enumerate(ROWS)
    ]
    batches = []
    for step in range(max(STEPS)):
        rows = [(item, cell) for cell in range(SLOTS) if step < STEPS[cell] for item in cells[cell][step % 4]]
        batches.append(batch([item for item, _ in rows], [cell for _, cell in rows]))
    pack = built(cls, backbone)
    start = [{name: tensor.clone() for name, tensor in pack.adapter(slot).items()} for slot in range(SLOTS)]
    pack.steps = list(STEPS)
    losses = pack.loss(on(pack, batches[0])).detach()
    fit(pack, batches)
    packed = [{name: tensor.clone() for name, tensor in pack.adapter(slot).items()} for slot in range(SLOTS)]
    for cell in range(SLOTS):
        solo = built(cls, backbone, 1)
        solo.load(start[cell])
        solo.steps = [STEPS[cell]]
        alone = solo.loss(on(solo, batch(cells[cell][0], [0] * ROWS[cell]))).detach()
        assert_close(alone, losses[cell : cell + 1], rtol=1e-4, atol=1e-5)
        fit(solo, [batch(cells[cell][step % 4], [0] * ROWS[cell]) for step in range(STEPS[cell])])
        for name, tensor in solo.adapter(0).items():
            moved = (tensor - start[cell][name]).norm()
            assert (tensor - packed[cell][name]).norm() <= 1e-3 * moved + 1e-6, (cell, name, moved)
    return None


def what_was_learned_is_all_there_is(cls: type[Method], backbone: Backbone) -> str | None:
    """`learned` and `adapter` give a fresh method the same numbers; a checkpoint holds no frozen weight."""
    method = built(cls, backbone)
    ids, state = items(1, 11)[0].prompt, {name: t.clone() for name, t in method.learned().items()}
    alone = {name: t.clone() for name, t in method.adapter(method.slots - 1).items()}
    want = [run(method, ids, slot) for slot in range(method.slots)]
    own = {id(p) for p in method.parameters()}
    assert not any(id(p) in own for p in backbone.model.parameters() if not p.requires_grad)
    fresh = built(cls, backbone, 1, away=False)
    fresh.load(state)
    for slot, hidden in enumerate(want):
        assert torch.equal(run(fresh, ids, slot), hidden)
    fresh.load(alone)
    assert torch.equal(run(fresh, ids, 0), want[-1])
    return None


def a_stored_stage_goes_on_as_if_never_stored(cls: type[Method], backbone: Backbone) -> str | None:
    """A stage that starts from a stored one equals, bit by bit, one trained in the same process."""
    if cls.stages[0].on != "sources":
        return "no stage on the sources"
    states, kept = parents(cls, backbone), {}

    def store(method: Method) -> None:
        move(method)
        kept[method.stage] = {name: tensor.clone() for name, tensor in method.learned().items()}

    built(cls, backbone, away=False, then=store)
    for before, stage in pairwise(cls.stages):
        method = cls(backbone)
        if states:
            method.inherit(states)
        for _ in range(2):  # a second pack finds the same start as the first
            method.load(kept[before])
            enter(method, stage, SLOTS)
            move(method)
            found, want = method.learned(), kept[stage]
            assert found.keys() == want.keys()
            assert all(torch.equal(found[name], want[name]) for name in want)
    return None


def merging_changes_nothing(cls: type[Method], backbone: Backbone) -> str | None:
    """The backbone with a slot folded into its weights gives that slot's numbers (T-merge)."""
    method = built(cls, backbone)
    if not method.mergeable:
        return "cannot be folded into the weights"
    ids, slot = items(1, 12)[0].prompt, method.slots - 1
    want, folded = run(method, ids, slot), method.merged(slot)
    method.close()
    plain = Method(backbone)
    backbone.train(lambda name: name in folded)
    backbone.model.load_state_dict(folded, strict=False)
    assert_close(run(plain, ids), want, rtol=1e-4, atol=1e-4)
    return None


def peft_computes_the_same(cls: type[Method], backbone: Backbone) -> str | None:
    """A slot written in peft's format gives the same logits there (T-peft)."""
    method = built(cls, backbone)
    ids, slot = items(1, 13)[0].prompt, method.slots - 1
    given = method.peft_format(slot)
    if given is None:
        return "peft has no such method"
    want = backbone.head(run(method, ids, slot))
    method.close()
    with TemporaryDirectory() as folder, torch.no_grad():
        write_peft(folder, *given)
        adapted = PeftModel.from_pretrained(copy.deepcopy(backbone.model), folder).eval()
        row = on(method, torch.tensor([ids]))
        found = adapted(input_ids=row, attention_mask=torch.ones_like(row)).logits[0, -len(ids) :]
    assert_close(found, want, rtol=1e-4, atol=1e-4)
    return None


PROOFS: dict[str, Callable[[type[Method], Backbone], str | None]] = {
    proof.__name__: proof
    for proof in (
        starts_as_the_backbone,
        leaves_the_backbone_alone,
        absent_slots_keep_still,
        rows_get_their_own_slot,
        padding_changes_nothing,
        a_cache_changes_nothing,
        the_lead_once_equals_every_row,
        learns_by_heart,
        a_step_follows_the_gradient,
        packed_equals_solo,
        what_was_learned_is_all_there_is,
        a_stored_stage_goes_on_as_if_never_stored,
        tasks_of_an_episode_meet_in_their_mean,
        merging_changes_nothing,
        peft_computes_the_same,
    )
}
