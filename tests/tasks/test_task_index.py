import subprocess
import sys

import pytest

import tasks
from tasks.core.splits import find_leaks, get_main_text
from tasks.core.types import UsageError
from tasks.suites import SUITES


def test_the_index_imports_neither_torch_nor_lightning():
    code = "import sys, tasks; tasks.TASK_NAMES; print({'torch', 'lightning', 'datasets', 'transformers'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


@pytest.mark.parametrize("name", tasks.TASK_NAMES)
def test_each_name_is_its_own_class(name):
    task = tasks.load_task(name)
    assert task.name == name
    assert {task.role} == {suite.get_role(name) for suite in SUITES.values()} - {None}
    assert task.metric == task.metrics[0]


def test_a_task_of_ones_own_is_loaded_by_its_path():
    assert tasks.load_task("tasks.topic:TNews").name == "tnews"


@pytest.mark.parametrize("name", ["nli", "tasks.topic:Nothing", "no.such.module:Task"])
def test_an_unknown_task_says_what_there_is(name):
    with pytest.raises(UsageError, match=name):
        tasks.load_task(name)


@pytest.mark.parametrize("name", tasks.TASK_NAMES)
def test_every_task_reads_its_sample(name, tokenizer):
    task = tasks.load_task(name)(tokenizer, max_length=1024)
    task.setup()
    train, dev, test = (task.examples[split] for split in ("train", "dev", "test"))
    assert len(train) >= 400
    assert len(dev) >= 100
    assert len(test) >= 200
    uids = [example.uid for examples in task.examples.values() for example in examples]
    assert len(uids) == len(set(uids))
    for example in (*train[:20], *test[:20]):
        assert example.prompt[: example.prefix_length] == train[0].prompt[: train[0].prefix_length]
        assert set(example.answers) <= set(example.choices or example.answers)
        assert get_main_text(example), "the main text is the field"
        if task.form == "span":
            assert example.answers[0] in example.prompt[slice(*example.truncatable_span)]
    if task.words:
        assert set(task.report["labels"]["test"]) == set(task.words.values())
        assert min(task.report["labels"]["test"].values()) > 0
    heads = {item.prompt_ids[: item.prefix_length] for item in task.encode_split("dev")}
    assert len(heads) == 1
    assert task.score_predictions({e.uid: e.answers[0] for e in test}) == dict.fromkeys(task.metrics, 1.0)


@pytest.mark.parametrize("suite", SUITES.values(), ids=list(SUITES))
def test_no_sample_of_a_source_is_in_a_targets_test(suite):
    train = [example for name in suite.sources for example in ready(name).examples["train"]]
    for name in suite.targets:
        assert find_leaks(train, ready(name).examples["test"]) == []


def ready(name):
    task = tasks.load_task(name)()
    task.setup()
    return task
