"""Suites as data, and the tasks of the multilingual one: a language each, in the formats of the hub's copies."""

import json
from random import Random

import pytest

import tasks
from tasks import multilingual
from tasks.suites import CHINESE, MULTILINGUAL, SUITES
from tasks.synthetic import multilingual as told

NAMES = ("entailment", "neutral", "contradiction")


def test_every_task_of_the_index_is_of_one_suite_and_one_role():
    listed = [name for suite in SUITES.values() for name in suite.tasks]
    assert sorted(listed) == sorted(set(tasks.TASK_NAMES))
    assert [suite.name for suite in SUITES.values()] == list(SUITES)
    assert (CHINESE.get_role("bq"), CHINESE.get_role("lcqmc"), CHINESE.get_role("xnli_de")) == (
        "source",
        "target",
        None,
    )


def test_sources_and_targets_of_the_multilingual_suite_share_families_and_no_language():
    sources, targets = (
        {(tasks.load_task(name).family, name[-2:]) for name in names}
        for names in (MULTILINGUAL.sources, MULTILINGUAL.targets)
    )
    assert {family for family, _ in sources} == {family for family, _ in targets} == {"inference", "paraphrase"}
    assert not {code for _, code in sources} & {code for _, code in targets}


@pytest.mark.parametrize("name", MULTILINGUAL.tasks)
def test_a_task_asks_and_answers_in_its_language_and_reads_its_configuration(name):
    task, others = (
        tasks.load_task(name),
        [tasks.load_task(other) for other in MULTILINGUAL.tasks if other[-2:] != name[-2:]],
    )
    assert task.hub.config == name[-2:]
    assert all(task.template != other.template for other in others)
    assert all(word in task.template.partition("{}")[0] for word in task.words.values())
    assert len(set(task.words.values())) == len(task.words) == (3 if name.startswith("xnli") else 2)


def test_labels_of_xnli_are_names_on_the_hub_and_numbers_in_what_to_json_writes(local):
    rows = [{"premise": f"P{i}.", "hypothesis": f"H{i}.", "label": [i % 3, NAMES[i % 3]][i % 2]} for i in range(12)]
    lines = "".join(f"{row}\n" for row in map(json.dumps, rows))
    found = list(local("xnli_de", {"train.jsonl": lines, "test.jsonl": lines}).read_examples("test"))
    assert [example.answers[0] for example in found] == ["ja", "vielleicht", "nein"] * 4
    assert found[0].prompt.endswith("Erster: P0.\nZweiter: H0.\nAntwort:\n")


def test_pairs_that_were_never_translated_are_left_out_and_counted(local):
    rows = [("A gab B etwas.", "B erhielt etwas von A."), ("", "Ein Satz."), ("Ein Satz.", " ")]
    lines = "".join(
        json.dumps({"id": n, "sentence1": a, "sentence2": b, "label": 1}) + "\n" for n, (a, b) in enumerate(rows)
    )
    task = local("paws_de", {"train.jsonl": lines, "test.jsonl": lines})
    assert [example.answers for example in task.read_examples("train")] == [("ja",)]
    assert task.report["rows"]["train"] == 3
    assert task.report["dropped"]["train"] == {"empty sentence": 2}


def test_a_language_more_is_a_line_more():
    language = multilingual.GERMAN._replace(code="ru", role="source")

    class XNLIru(multilingual.XNLI, language=language): ...

    class Briefly(multilingual.XNLIGerman):
        template = "{}\n{}\n"

    assert (XNLIru.name, XNLIru.role, XNLIru.hub.config) == ("xnli_ru", "source", "ru")
    assert (Briefly.name, Briefly.words) == ("xnli_de", multilingual.XNLIGerman.words)


@pytest.mark.parametrize("code", told.LANGUAGES)
def test_word_overlap_does_not_tell_a_paraphrase(code):
    """What PAWS is for: pairs that mean the same share no more of their words than pairs that do not."""

    def overlap(same: int) -> float:
        rng, found = Random(7), []
        for _ in range(400):
            a, b = (
                set(text.rstrip(".。").split() if code != "zh" else text)
                for text in told.make_paraphrase_pair(rng, same, code)
            )
            found.append(len(a & b) / len(a | b))
        return sum(found) / len(found)

    assert abs(overlap(1) - overlap(0)) < 0.03


@pytest.mark.parametrize("code", [code for code in told.LANGUAGES if code != "zh"])
def test_sentences_of_every_language_are_whole(code):
    rng = Random(3)
    for label in NAMES * 100:
        for text in told.make_nli_pair(rng, label, code):
            assert text.endswith(".")
            assert not set("{}") & set(text)
            assert "  " not in text
            assert " ." not in text
