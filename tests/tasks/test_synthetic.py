"""The embedded records: enough of them, balanced, the same every time, and no keyword gives the label away."""

import hashlib
from collections import Counter, defaultdict

import pytest

import tasks
from tasks.synthetic import generators


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("samples")
    for name in tasks.TASK_NAMES:
        generators.write_task_files(name, folder)
    return folder


def made(name, folder):
    task = tasks.load_task(name)(data_source="local", data_dir=folder)
    task.prepare_data()
    task.setup()
    return task


def digest(folder):
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*.*")}


def test_two_writings_are_the_same_to_the_byte(folder, tmp_path):
    for name in tasks.TASK_NAMES:
        generators.write_task_files(name, tmp_path)
    assert digest(tmp_path) == digest(folder)


@pytest.mark.parametrize("name", tasks.TASK_NAMES)
def test_there_are_enough_examples_and_labels_are_balanced(name, folder):
    task = made(name, folder)
    sizes = {split: len(examples) for split, examples in task.examples.items()}
    assert sizes["train"] >= 400
    assert sizes["dev"] >= 100
    assert sizes["test"] >= 200
    if task.words:
        counts = Counter(example.answers[0] for example in task.examples["test"])
        assert set(counts) == set(task.words.values())
        assert max(counts.values()) <= 1.5 * min(counts.values())


def pieces(text):
    """Every run of two to four characters; single characters are in them."""
    return {text[i : i + n] for n in (1, 2, 3, 4) for i in range(len(text) - n + 1)}


@pytest.mark.parametrize(
    "name", [name for name in tasks.TASK_NAMES if name not in ("cmrc2018", "drcd", "c3", "cote_mfw", "cote_bd")]
)
def test_no_keyword_alone_tells_a_label(name, folder):
    """The best single keyword of each label: its F1 for "has the word" against "has the label"."""
    examples = made(name, folder).examples["train"]
    labels = Counter(example.answers[0] for example in examples)
    found = defaultdict(Counter)
    for example in examples:
        for piece in pieces(example.prompt[example.prefix_length :]):
            found[piece][example.answers[0]] += 1
    chance = max(2 * n / (len(examples) + n) for n in labels.values())  # F1 of a word that stands everywhere
    best = max(2 * hits / (sum(by.values()) + labels[label]) for by in found.values() for label, hits in by.items())
    assert best <= max(0.75, chance + 0.1)


def test_related_tasks_share_their_words(folder):
    def seen(name):
        return set().union(*(pieces(e.prompt[e.prefix_length :]) for e in made(name, folder).examples["train"][:300]))

    for source, target, stranger in (
        ("amazon", "chnsent", "ocnli"),
        ("cmnli", "ocnli", "tnews"),
        ("thucnews", "tnews", "lcqmc"),
    ):
        near, far = (len(seen(source) & seen(other)) / len(seen(other)) for other in (target, stranger))
        assert near > 2 * far


def test_a_changed_generator_is_never_read_from_an_old_cache(tmp_path, monkeypatch):
    before = generators.hash_generators()
    assert before == generators.hash_generators()
    (tmp_path / "__init__.py").write_text("changed", encoding="utf-8")
    monkeypatch.setattr(generators, "__file__", str(tmp_path / "__init__.py"))
    assert generators.hash_generators() != before
