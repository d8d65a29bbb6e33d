"""The original files, where they are there: the rows and the traps that their README counts."""

import pytest

import tasks
from tasks.describe import describe
from tasks.split import leaks

ROWS = {  # by the README of the files: every file that is there, read or only counted
    "afqmc": {"train.txt": 34334, "dev.txt": 4316, "test.txt": 3861, "dataclue/dev.json": 2000},
    "thucnews": {"train.txt": 33590, "dev.txt": 10000, "test.txt": 10000},
    "bq": {"dev.csv": 10000, "test.csv": 10000},
    "cmnli": {"dev.txt": 12241, "test.txt": 13880},
    "cmrc2018": {"squad-style-data/cmrc2018_dev.json": 3219, "squad-style-data/cmrc2018_trial.json": 1002}
    | {"data/cmrc2018_dev.json": 3219},
    "sanwen": {"train.txt": 17227, "valid.txt": 1793, "test.txt": 2220},
    "cote_mfw": {"test.txt": 17681},
    "chnsent": {"train.tsv": 9600, "dev.tsv": 1200, "test.tsv": 1200},
    "tnews": {"train.json": 10000, "dev.json": 2000, "test_public.json": 2000}
    | {"fewclue/train_few_all.json": 1185, "fewclue/dev_few_all.json": 1098, "fewclue/test_public.json": 2010},
    "ocnli": {"train.10k.json": 10000, "dev.json": 3000, "test.json": 3000},
    "lcqmc": {"dev.txt": 8802, "test.txt": 12500},
    "drcd": {"DRCD_dev.json": 3524, "DRCD_test.json": 3493},
    "c3": {f"c3-m-{part}.json + c3-d-{part}.json": n for part, n in (("train", 11869), ("dev", 3816), ("test", 3892))},
    "cote_bd": {"train.txt": 8533, "test.txt": 3658},
    "finre": {"train.txt": 13486, "valid.txt": 1489, "test.txt": 3727},
}


@pytest.fixture
def task(real):
    def make(name):
        found = tasks.load(name)(source="local", data_dir=real)
        if not (real / name).is_dir():
            pytest.skip(f"no original files of {name} in {real}")
        found.setup()
        return found

    return make


@pytest.mark.parametrize("name", ROWS)
def test_the_description_has_the_row_counts_of_the_readme(task, name):
    lines = describe(task(name)).splitlines()
    for path, rows in ROWS[name].items():
        assert any(line.split("  (")[0].split(maxsplit=1) == [f"{rows:,}", path] for line in lines), path


@pytest.mark.parametrize("name", ROWS)
def test_no_text_or_document_is_in_two_splits(task, name):
    found = task(name)
    units = [{e.group or e.uid for e in examples} for examples in found.examples.values()]
    assert not units[0] & units[1]
    assert not units[0] & units[2]
    assert not units[1] & units[2]
    assert len(found.examples["dev"]) == pytest.approx(min(1000, len(found.examples["train"]) / 9), rel=0.05)


def test_amazon_has_no_files_and_says_so(real):
    with pytest.raises(ValueError, match="amazon: no records in"):
        tasks.load("amazon")(source="local", data_dir=real).prepare_data()


def test_label_counts_are_those_of_the_readme(task):
    test = {name: task(name).report["labels"]["test"] for name in ("ocnli", "bq", "chnsent")}
    assert test["ocnli"] == {"蕴含": 947, "中立": 1103, "矛盾": 900}
    assert test["bq"] == {"不符": 5000, "一致": 5000}
    assert sum(test["chnsent"].values()) == 1178 - 1  # distinct texts, one of them with both labels


def test_tnews_words_are_the_names_in_the_files(task):
    names = {"故事": 41, "股票": 6, "教育": 141, "电竞": 116, "国际": 190}
    found = task("tnews")
    rows = [example.answers[0] for example in found.read("test")]
    assert {name: rows.count(name) for name in names} == names


def test_ocnli_drops_what_has_no_label(task):
    dropped = task("ocnli").report["dropped"]
    assert (dropped["train"]["no agreed label"], dropped["test"]["no agreed label"]) == (15, 50)


def test_chnsent_does_not_train_on_its_test(task):
    # 330 distinct test texts are in train; one of them has both labels and is dropped before
    assert task("chnsent").report["dropped"]["train"]["also in test"] == pytest.approx(330, abs=2)


def test_cmrc_answers_without_a_place_are_kept_as_references(task):
    dropped = task("cmrc2018").report["dropped"]
    assert dropped["test"] == {"references not in the text (kept for scoring)": 193}
    assert dropped["dev"] == {"empty question": 2}


def test_both_cmrc_formats_give_the_same_examples(task):
    found = task("cmrc2018")
    squad, original = (file for file in found.files if file.part == "test")
    assert list(found.origin.rows(squad))[0] == list(found.origin.rows(original))[0]
    texts = [[clean(row) for row in found.origin.rows(file)] for file in (squad, original)]
    assert texts[0] == texts[1]


def clean(row):
    return row["context"].strip(), row["question"].strip(), row["answers"]["text"]


def test_c3_accepts_both_letters_where_the_right_option_is_given_twice(task):
    found = task("c3")
    examples = [e for examples in found.examples.values() for e in examples]
    assert sum(len(e.answers) == 2 for e in examples) == 2


def test_finre_keeps_mirrored_pairs_together_and_knows_all_labels(task, real):
    found = task("finre")
    listed = [line.split()[0] for line in (real / "finre" / "relation2id.txt").read_text().splitlines()]
    assert list(found.words) == listed
    listed = [line.split()[0] for line in (real / "sanwen" / "relation2id.txt").read_text().splitlines()]
    assert list(task("sanwen").words) == listed


def test_cote_mfw_is_cut_from_its_only_file(task):
    report = task("cote_mfw").report
    assert report["splits"]["test"] == pytest.approx(0.2 * 17681, rel=0.01)
    assert report["from"]["train"] == "test.txt"


def test_texts_that_mafengwo_and_baidu_share_are_found(task):
    assert len(leaks(task("cote_mfw").examples["train"], task("cote_bd").examples["test"])) == 5
