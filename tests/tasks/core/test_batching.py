import pytest

import tasks
from tasks.base import UsageError
from tasks.core.batching import MultiTaskDataModule


def member(tokenizer, name="bq", **options):
    task = tasks.load_task(name)(tokenizer, **({"shots": 4, "batch_size": 4} | options))
    task.setup()
    return task


def uids(batch, slot=0):
    return [e.uid for e, s in zip(batch.examples, batch.slots, strict=True) if s == slot]


def test_a_packed_member_sees_what_it_sees_alone(tokenizer):
    settings = [{"name": "bq"}, {"name": "cote_bd", "batch_size": 3}, {"name": "bq", "seed": 1}]
    members = [member(tokenizer, **options) for options in settings]
    packed = list(MultiTaskDataModule(members, requested_steps=[3, 7, 5]).train_dataloader())
    assert len(packed) == 7
    for slot, steps in enumerate([3, 7, 5]):
        alone = list(
            MultiTaskDataModule([member(tokenizer, **settings[slot])], requested_steps=steps).train_dataloader()
        )
        assert [uids(batch, slot) for batch in packed[:steps]] == [uids(batch) for batch in alone]
        assert all(slot not in batch.slots for batch in packed[steps:])


def test_by_default_a_packed_group_is_one_epoch_of_each(tokenizer):
    group = MultiTaskDataModule([member(tokenizer), member(tokenizer, "cote_bd")])
    assert group.num_steps_by_member == [2, 1]
    assert len(list(group.train_dataloader())) == len(group.train_dataloader()) == 2


def test_a_group_walks_the_same_way_every_time(tokenizer):
    for options in ({"batch_mode": "packed"}, {"batch_mode": "mixed", "requested_steps": 5}):
        loader = MultiTaskDataModule([member(tokenizer), member(tokenizer, "cote_bd")], **options).train_dataloader()
        assert [b.examples for b in loader] == [b.examples for b in loader]


def episodes(tokenizer, *names, order=0, seed=0, most=16, steps=6, **options):
    members = [member(tokenizer, name, shots=None, max_train_examples=most, order_seed=order) for name in names]
    return list(
        MultiTaskDataModule(
            members, "episodes", requested_steps=steps, batch_size=4, seed=seed, **options
        ).train_dataloader()
    )


def shown(episode):
    """(slot, uids of each support batch, uids of the query) of each task."""
    return [
        (query.slots[0], [uids(part, part.slots[0]) for part in support], uids(query, query.slots[0]))
        for support, query in zip(episode.support, episode.query, strict=True)
    ]


NAMES = ("bq", "cote_bd", "afqmc")


def test_an_episode_has_tasks_drawn_without_replacement_and_disjoint_support_and_query(tokenizer):
    drawn = set()
    for episode in episodes(tokenizer, *NAMES, tasks_per_episode=2, num_support_batches=2, steps=12):
        slots = [slot for slot, _, _ in shown(episode)]
        assert len(slots) == len(set(slots)) == 2
        drawn.add(tuple(slots))
        for slot, support, query in shown(episode):
            assert {uid.partition(":")[0] for part in (*support, query) for uid in part} == {NAMES[slot]}
            assert [len(part) for part in support] == [4, 4]
            assert len(query) == 4
            assert len({uid for part in support for uid in part}) == 8
            assert not set(query) & {uid for part in support for uid in part}
    assert drawn == {(0, 1), (0, 2), (1, 2)}


def test_episodes_stay_within_the_pool_and_use_all_of_it(tokenizer):
    for most in (8, 16):
        pool = {example.uid for example in member(tokenizer, shots=None, max_train_examples=most).examples["train"]}
        assert len(pool) == most
        seen = [shown(episode)[0] for episode in episodes(tokenizer, "bq", most=most, num_support_batches=2, steps=40)]
        assert {uid for _, support, query in seen for part in support for uid in part} == pool
        assert {uid for _, support, query in seen for uid in query} == pool


def test_a_small_half_is_walked_through_again(tokenizer):
    for _, support, query in (shown(e)[0] for e in episodes(tokenizer, "bq", most=6, num_support_batches=3)):
        assert [len(part) for part in support] == [3, 3, 3]  # of 6 examples half
        assert len({uid for part in support for uid in part}) == len(query) == 3
    [(_, support, query)] = shown(episodes(tokenizer, "bq", most=11, num_support_batches=2, steps=1)[0])
    assert [len(set(part)) for part in support] == [4, 4]  # 6 for support: two of them again
    assert len({uid for part in support for uid in part}) == 6
    assert len(query) == 4


def test_episodes_are_a_function_of_the_seed_and_not_of_company(tokenizer):
    same = [list(map(shown, episodes(tokenizer, *NAMES))) for _ in range(2)]
    assert same[0] == same[1]
    assert list(map(shown, episodes(tokenizer, *NAMES, order=1))) != same[0]
    assert [[slot for slot, *_ in shown(e)] for e in episodes(tokenizer, *NAMES, tasks_per_episode=1, seed=1)] != [
        [slot for slot, *_ in shown(e)] for e in episodes(tokenizer, *NAMES, tasks_per_episode=1)
    ]
    alone = [part[0][1:] for part in map(shown, episodes(tokenizer, "afqmc"))]
    beside = [task[1:] for episode in map(shown, episodes(tokenizer, *NAMES)) for task in episode if task[0] == 2]
    assert beside == alone[: len(beside)]


def test_without_support_there_are_queries_only(tokenizer):
    assert all(
        episode.support == ((), ())
        for episode in episodes(tokenizer, *NAMES, tasks_per_episode=2, num_support_batches=0)
    )


def test_steps_of_episodes(tokenizer):
    group = MultiTaskDataModule(
        [
            member(tokenizer, shots=None, max_train_examples=16),
            member(tokenizer, "afqmc", shots=None, max_train_examples=16),
        ],
        "episodes",
        num_support_batches=1,
    )
    assert group.gradients_per_step == 4  # at most as many tasks as there are
    assert group.num_steps_by_member == [2, 2]  # an epoch: 32 examples, 4 batches of 4 to a step
    assert len(list(group.train_dataloader())) == len(group.train_dataloader()) == 2
    assert MultiTaskDataModule(group.member_tasks, "mixed").gradients_per_step == 1


def test_one_example_is_not_enough_for_an_episode(tokenizer):
    with pytest.raises(UsageError, match="2 examples or more"):
        episodes(tokenizer, "bq", most=1)


@pytest.mark.parametrize(
    ("sampling", "cap", "share"), [("capped", 10_000, 2 / 3), ("capped", 10, 1 / 2), ("uniform", 1, 1 / 2)]
)
def test_mixed_batches_are_drawn_in_proportion_up_to_a_cap(tokenizer, sampling, cap, share):
    members = [member(tokenizer, shots=20), member(tokenizer, "cote_bd", shots=20)]
    group = MultiTaskDataModule(
        members, "mixed", requested_steps=200, batch_size=8, sampling=sampling, max_sampling_size=cap
    )
    slots = [slot for batch in group.train_dataloader() for slot in batch.slots]
    assert len(slots) == 1600
    assert slots.count(0) / 1600 == pytest.approx(share, abs=0.04)
    for batch in group.train_dataloader():
        for example, slot in zip(batch.examples, batch.slots, strict=True):
            assert example.task_name == members[slot].name


def test_a_mixture_puts_rows_alike_in_length_together(tokenizer):
    """Of each eight batches: their sizes stay, nearly nothing is padded, and long batches have no place of their own."""
    group = MultiTaskDataModule(
        [member(tokenizer, shots=20), member(tokenizer, "cmrc2018", shots=40)], "mixed", requested_steps=43
    )
    batches = list(group.train_dataloader())
    assert len(batches) == 43
    assert all(len(batch.slots) == group.batch_size for batch in batches)
    sizes, real = [batch.input_ids.numel() for batch in batches], [int(b.attention_mask.sum()) for b in batches]
    assert sum(real) > 0.9 * sum(sizes)
    widths = [batch.input_ids.shape[1] for batch in batches]
    assert widths[:8] not in (sorted(widths[:8]), sorted(widths[:8], reverse=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_mode": "folded"}, "unknown batch_mode 'folded'; there are: packed, mixed, episodes"),
        ({"sampling": "odd"}, "unknown sampling 'odd'"),
        (
            {"batch_mode": "episodes", "tasks_per_episode": 0},
            "1 task or more and 0 support batches or more, found 0, 3",
        ),
        ({"requested_steps": [1, 2]}, "2 numbers of steps for 1 members"),
        ({"batch_mode": "mixed", "requested_steps": [1]}, "mixed: steps is one number for all members"),
    ],
)
def test_bad_options_say_what_there_is(tokenizer, options, message):
    with pytest.raises(UsageError, match=message):
        MultiTaskDataModule([member(tokenizer)], **options)


def test_a_group_has_members():
    with pytest.raises(UsageError, match="at least one member"):
        MultiTaskDataModule([])
