import random
from collections import Counter

import pytest

import tasks
from tasks.core.splits import (
    allocate_quotas,
    choose_train_and_test,
    find_leaks,
    sample_shots,
    sort_by_hash_rank,
    split_off,
)
from tasks.core.types import Example, UsageError


def examples(count, label=lambda i: str(i % 2), group=lambda i: ""):
    return [Example(f"x:{i}", "x", f"文{i}", (label(i),), ("0", "1"), (0, 9), group(i)) for i in range(count)]


def first(example):
    return example.answers[0]


def test_shots_nest_and_count_per_label():
    pool = examples(100)
    few, more = sample_shots(pool, 4, 0, first), sample_shots(pool, 16, 0, first)
    assert Counter(map(first, few)) == {"0": 4, "1": 4}
    assert set(few) < set(more)
    assert set(few) != set(sample_shots(pool, 4, 1, first))


def test_shots_and_cuts_do_not_depend_on_the_order_of_the_file():
    pool = examples(100)
    mixed = random.Random(0).sample(pool, len(pool))
    assert sample_shots(pool, 4, 0, first) == sample_shots(mixed, 4, 0, first)
    taken, again = split_off(pool, 0.1, 1000, "dev", first)[1], split_off(mixed, 0.1, 1000, "dev", first)[1]
    assert sort_by_hash_rank(taken, "") == sort_by_hash_rank(again, "")


def test_a_cut_is_stratified_and_capped():
    pool = examples(1000, label=lambda i: str(int(i % 10 == 0)))
    rest, taken = split_off(pool, 0.1, 1000, "dev", first)
    assert Counter(map(first, taken)) == {"0": 90, "1": 10}
    assert len(rest) == 900
    assert len(split_off(pool, 0.1, 50, "dev", first)[1]) == 50


def test_a_cut_keeps_documents_whole():
    pool = examples(600, group=lambda i: f"g{i // 7}")
    rest, taken = split_off(pool, 0.1, 1000, "dev", first)
    assert not {e.group_id for e in rest} & {e.group_id for e in taken}
    assert 40 <= len(taken) <= 60


def test_quotas_add_up():
    assert allocate_quotas(Counter(a=1, b=1, c=1), 2) == Counter(a=1, b=1)
    assert allocate_quotas(Counter(a=97, b=3), 10) == Counter(a=10)


@pytest.mark.parametrize(
    ("parts", "want"),
    [
        (["train", "dev", "test"], ("train", "test")),
        (["dev", "test"], ("dev", "test")),
        (["train", "dev"], ("train", "dev")),
        (["test"], ("test", "test")),
        (["train"], ("train", "train")),
    ],
)
def test_what_is_there_serves_for_what_is_missing(parts, want):
    assert choose_train_and_test(parts) == want


def test_a_text_of_test_leaves_train_and_a_contradicted_one_leaves_both(local, pair_lines):
    train = pair_lines(40) + "同\t样\t0\n同\t样\t0\n矛\t盾\t0\n矛\t盾\t1\n漏\t题\t1\n"
    task = local("afqmc", {"train.txt": train, "dev.txt": "题\t漏\t0\n" + pair_lines(4, 100)})
    task.setup()
    found = task.report["dropped"]["train"]
    assert found == {"duplicate": 1, "conflicting label": 2, "also in test": 1}  # 题/漏 is 漏/题 in the other order
    assert task.report["splits"] == {"train": 37, "dev": 4, "test": 5}


def test_mirrored_relations_stay_in_one_split_and_several_are_all_accepted(local):
    rows = [(f"甲{i}", f"乙{i}", "收购", f"甲{i}收购乙{i}") for i in range(40)]
    lines = "".join(f"{h}\t{t}\t{r}\t{s}\n\n{t}\t{h}\t被{r}\t{s}\n\n" for h, t, r, s in rows)
    several = "丙\t丁\tunknown\t丙丁\n丙\t丁\t合作\t丙丁\n丙\t丁\t注资\t丙丁\n"
    task = local("finre", {"train.txt": lines + several, "test.txt": "甲0\t乙0\t合作\t甲0收购乙0\n"})
    task.setup()
    train, dev = task.examples["train"], task.examples["dev"]
    assert not {e.group_id for e in train} & {e.group_id for e in dev}
    assert len(dev) == 8
    assert task.report["dropped"]["train"] == {"merged": 2, "also in test": 2}
    (merged,) = (e for e in train + dev if len(e.answers) > 1)
    assert merged.answers == ("注资", "合作")  # in the order of the label list; unknown beside them says nothing


def test_with_only_one_file_the_test_set_is_cut_from_it(local):
    lines = "".join(f'{{"s": "景点{i}很美", "ot": "景点{i}"}}\n' for i in range(100))
    task = local("cote_mfw", {"test.txt": lines})
    task.setup()
    assert task.report["splits"] == {"train": 72, "dev": 8, "test": 20}
    assert "20%" in task.report["from"]["test"]


def test_few_shots_take_what_there_is_and_report_it(local, pair_lines):
    lines = pair_lines(100).replace("\t1\n", "\t0\n") + "甲\t乙\t1\n丙\t丁\t1\n"
    task = local("afqmc", {"train.txt": lines, "dev.txt": pair_lines(10, 200)}, shots=4)
    task.setup()
    assert len(task.examples["train"]) == 4 + 2
    assert task.report["short"]["train"] == {"同义": 2}
    assert task.report["short"]["dev"] == {"同义": 0}


def test_most_draws_as_many_in_total_by_the_seed_and_nests():
    few, more, other, every = (
        tasks.load_task("tnews")(max_train_examples=n, seed=s) for n, s in ((16, 0), (50, 0), (16, 1), (None, 0))
    )
    for task in (few, more, other, every):
        task.setup()
    drawn = [{example.uid for example in task.examples["train"]} for task in (few, more, other, every)]
    assert [len(part) for part in drawn[:3]] == [16, 50, 16]
    assert drawn[0] < drawn[1] < drawn[3]
    assert drawn[0] != drawn[2]
    assert len(few.examples["dev"]) == 16
    assert few.examples["test"] == every.examples["test"]
    assert few.report["offered"] == every.report["splits"]
    assert few.report["splits"]["train"] == 16
    with pytest.raises(UsageError, match="max_train_examples is 0; give 1 or more"):
        tasks.load_task("tnews")(max_train_examples=0)


@pytest.mark.parametrize("name", tasks.TASK_NAMES)
def test_shots_of_every_task_nest_and_dev_is_as_large_as_train(name):
    few, more, other = (tasks.load_task(name)(shots=k, seed=seed) for k, seed in ((2, 0), (4, 0), (2, 1)))
    for task in (few, more, other):
        task.setup()
    assert set(few.examples["train"]) < set(more.examples["train"])
    assert set(few.examples["train"]) != set(other.examples["train"])
    assert few.examples["test"] == other.examples["test"]
    assert len(few.examples["train"]) == 2 * max(1, len(few.words))
    assert len(few.examples["dev"]) + sum(2 - n for n in few.report["short"]["dev"].values()) == 2 * max(
        1, len(few.words)
    )


def test_an_identity_outlives_template_and_words():
    plain = tasks.load_task("chnsent")(shots=2)
    other = tasks.load_task("chnsent")(shots=2, template="好评还是差评？{}\n答：", words={"0": "差评", "1": "好评"})
    plain.setup(), other.setup()
    assert [e.uid for e in plain.examples["train"]] == [e.uid for e in other.examples["train"]]
    assert plain.hash_split("train") != other.hash_split("train")


def test_a_text_that_a_source_and_a_targets_test_share_is_found(local):
    source = local("cote_mfw", {"train.txt": '{"s": "乌镇 很美", "ot": "乌镇"}\n'}).read_examples("train")
    target = local(
        "cote_bd", {"test.txt": '{"s": "乌镇很美", "ot": "乌镇"}\n{"s": "别的", "ot": "别"}\n'}
    ).read_examples("test")
    ((seen, asked),) = find_leaks(source, target)
    assert (seen.task_name, asked.task_name) == ("cote_mfw", "cote_bd")


def test_limits_cap_splits_and_name_them():
    task = tasks.load_task("bq")(max_per_split={"test": 7})
    task.setup()
    assert len(task.examples["test"]) == 7
    with pytest.raises(UsageError, match="tset"):
        tasks.load_task("bq")(max_per_split={"tset": 7})
