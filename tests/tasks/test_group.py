import pytest

import tasks
from tasks.base import UsageError
from tasks.group import Group


def member(tokenizer, name="bq", **options):
    task = tasks.load(name)(tokenizer, **({"shots": 4, "batch_size": 4} | options))
    task.setup()
    return task


def uids(batch, slot=0):
    return [e.uid for e, s in zip(batch.examples, batch.slots, strict=True) if s == slot]


def test_a_packed_member_sees_what_it_sees_alone(tokenizer):
    settings = [{"name": "bq"}, {"name": "cote_bd", "batch_size": 3}, {"name": "bq", "seed": 1}]
    members = [member(tokenizer, **options) for options in settings]
    packed = list(Group(members, steps=[3, 7, 5]).train_dataloader())
    assert len(packed) == 7
    for slot, steps in enumerate([3, 7, 5]):
        alone = list(Group([member(tokenizer, **settings[slot])], steps=steps).train_dataloader())
        assert [uids(batch, slot) for batch in packed[:steps]] == [uids(batch) for batch in alone]
        assert all(slot not in batch.slots for batch in packed[steps:])


def test_by_default_a_packed_group_is_one_epoch_of_each(tokenizer):
    group = Group([member(tokenizer), member(tokenizer, "cote_bd")])
    assert group.steps == [2, 1]
    assert len(list(group.train_dataloader())) == len(group.train_dataloader()) == 2


def test_a_group_walks_the_same_way_every_time(tokenizer):
    for options in ({"batches": "packed"}, {"batches": "mixed", "steps": 5}):
        loader = Group([member(tokenizer), member(tokenizer, "cote_bd")], **options).train_dataloader()
        assert [b.examples for b in loader] == [b.examples for b in loader]


@pytest.mark.parametrize(
    ("sampling", "cap", "share"), [("capped", 10_000, 2 / 3), ("capped", 10, 1 / 2), ("uniform", 1, 1 / 2)]
)
def test_mixed_batches_are_drawn_in_proportion_up_to_a_cap(tokenizer, sampling, cap, share):
    members = [member(tokenizer, shots=20), member(tokenizer, "cote_bd", shots=20)]
    group = Group(members, "mixed", steps=200, batch_size=8, sampling=sampling, cap=cap)
    slots = [slot for batch in group.train_dataloader() for slot in batch.slots]
    assert len(slots) == 1600
    assert slots.count(0) / 1600 == pytest.approx(share, abs=0.04)
    for batch in group.train_dataloader():
        for example, slot in zip(batch.examples, batch.slots, strict=True):
            assert example.task == members[slot].name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batches": "folded"}, "no batches 'folded'; there are: packed, mixed"),
        ({"sampling": "odd"}, "no sampling 'odd'"),
        ({"steps": [1, 2]}, "2 numbers of steps for 1 members"),
    ],
)
def test_bad_options_say_what_there_is(tokenizer, options, message):
    with pytest.raises(UsageError, match=message):
        Group([member(tokenizer)], **options)


def test_a_group_has_members():
    with pytest.raises(UsageError, match="at least one member"):
        Group([])
