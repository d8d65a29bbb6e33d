"""The original files, where they are there: the rows, labels and traps that their README counts."""

import re
from collections import Counter
from dataclasses import replace

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import tasks
from tasks.core.encoding import encode_examples
from tasks.core.formats import parse_label_names
from tasks.core.splits import find_leaks
from tasks.validation.describe import describe_task

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
# What is not used, and why: (reason, rows or references). The README counts exact repetitions; a loader also sees those
# that differ at the edges, in an invisible character, or in the order of a pair. Beside a number: where it comes from.
REMOVED = {
    "afqmc": {"train": {"duplicate": 2}},  # pairs in swapped order
    "thucnews": {
        "train": {"duplicate": 60, "conflicting label": 4, "also in test": 33},  # 62 titles again, 2 with two labels
        "test": {"duplicate": 10, "conflicting label": 2},  # 11 titles again, 1 with two labels
    },
    "bq": {},
    "cmnli": {"test": {"duplicate": 3, "conflicting label": 6}},  # 6 pairs again, 3 with two labels
    "cmrc2018": {"dev": {"empty question": 2}, "test": {"references not in the text (kept for scoring)": 193}},
    "sanwen": {
        "train": {"duplicate": 79, "merged": 56, "also in test": 59},  # rows of the 37 texts that are in test too
        "test": {"duplicate": 1, "merged": 14},
    },
    "cote_mfw": {"test": {"duplicate": 54, "conflicting label": 2}},  # 46 exact ones
    "chnsent": {
        "train": {
            "duplicate": 1318,
            "conflicting label": 57,
            "also in test": 329,
        },  # 1,351 again, 24 texts with two labels
        "test": {"duplicate": 21, "conflicting label": 2},  # 1,178 distinct
    },
    "tnews": {
        "train": {
            "duplicate": 210,
            "conflicting label": 74,
            "also in test": 64,
        },  # 248 titles again, 36 with two labels
        "test": {"duplicate": 11, "conflicting label": 4},
    },
    "ocnli": {"train": {"no agreed label": 15}, "test": {"no agreed label": 50}},
    "lcqmc": {
        "dev": {"duplicate": 2, "also in test": 7}
    },  # 2 in swapped order; 1 also in test, 6 more in swapped order
    "drcd": {},
    "c3": {},
    "cote_bd": {"train": {"duplicate": 1, "also in test": 2}},
    "finre": {
        "train": {"merged": 1188, "duplicate": 4, "also in test": 10},  # 2,338 rows of 1,150 pairs; 5 texts and mirrors
        "test": {"merged": 366, "duplicate": 2},
    },
}
LONG = {  # texts above so many characters, of so many records of a part
    "chnsent": ("train", 510, 117),
    "cmrc2018": ("test", 450, 1657),
    "drcd": ("dev", 450, 1630),
}


@pytest.fixture
def task(real):
    def make(name):
        found = tasks.load_task(name)(data_source="local", data_dir=real)
        if not (real / name).is_dir():
            pytest.skip(f"no original files of {name} in {real}")
        found.setup()
        return found

    return make


@pytest.mark.parametrize("name", ROWS)
def test_the_description_has_the_row_counts_of_the_readme(task, name):
    lines = describe_task(task(name)).splitlines()
    for path, rows in ROWS[name].items():
        assert any(line.split("  (")[0].split(maxsplit=1) == [f"{rows:,}", path] for line in lines), path


@pytest.mark.parametrize("name", REMOVED)
def test_what_is_left_out_is_what_the_readme_counts(task, name):
    dropped = task(name).report["dropped"]
    assert {part: dict(found) for part, found in dropped.items() if found} == REMOVED[name]


def counted(real) -> dict[str, dict[str, int]]:
    """Path -> label -> rows, from the tables of the README."""
    lines = [line.split(" | ") for line in (real / "README.md").read_text(encoding="utf-8").splitlines()]
    rows = [(line[0].strip("| `"), line[3]) for line in lines if line[0].startswith("| `") and len(line) > 3]
    listed = {path: re.findall(r"(\S+) (\d+)(?:, |$)", text) for path, text in rows if re.match(r"\S+ \d+, ", text)}
    return {path: {label: int(number) for label, number in pairs} for path, pairs in listed.items()}


@pytest.mark.parametrize(
    "name", ["afqmc", "bq", "chnsent", "cmnli", "finre", "lcqmc", "ocnli", "sanwen", "thucnews", "tnews"]
)
def test_labels_of_every_file_are_those_of_the_readme(task, real, name):
    if not (real / "README.md").is_file():
        pytest.skip(f"no README.md in {real}")
    found, wanted = task(name), {path: n for path, n in counted(real).items() if path.startswith(f"{name}/")}
    assert wanted
    for file in found.files:
        path = f"{name}/{file.paths[0]}"
        if path not in wanted:
            continue
        names = (
            parse_label_names(found.record_source.read_text(file.label_names_file), path)
            if file.label_names_file and name == "tnews"
            else {}
        )
        ids = {label: number for number, label in names.items()}  # the README counts TNews's ids
        labels = Counter(str(row["label"]) for row in found.record_source.iter_records(file))
        assert {ids.get(label, label): n for label, n in labels.items()} == wanted.pop(path), path
    # a dev that nothing reads, because there are train and test
    assert set(wanted) <= {f"{name}/{path}" for file in found.files for path in file.paths}


@pytest.mark.parametrize("name", LONG)
def test_texts_too_long_are_cut_and_counted(task, name):
    part, most, number = LONG[name]
    found = task(name)
    examples = list(found.read_examples(part))
    vocabulary = {
        char: i for i, char in enumerate(sorted(set("".join(e.prompt + "".join(e.answers) for e in examples))))
    }
    built = Tokenizer(models.WordLevel(vocabulary | {"<eos>": len(vocabulary)}, unk_token="<eos>"))
    built.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=built, eos_token="<eos>")
    long = [example for example in examples if example.truncatable_span[1] - example.truncatable_span[0] > most]
    assert len(long) == number
    for example in long[::40]:
        size = example.truncatable_span[1] - example.truncatable_span[0]
        room = max(map(len, example.choices)) + 1 if example.choices else found.answer_tokens
        item = encode_examples(
            replace(found.encoding_spec, tokenizer=tokenizer, max_length=len(example.prompt) - size + most + room),
            [example],
        )[0]
        assert item.num_cut_tokens == size - most


@pytest.mark.parametrize("name", ROWS)
def test_no_text_or_document_is_in_two_splits(task, name):
    found = task(name)
    units = [{e.group_id or e.uid for e in examples} for examples in found.examples.values()]
    assert not units[0] & units[1]
    assert not units[0] & units[2]
    assert not units[1] & units[2]
    assert len(found.examples["dev"]) == pytest.approx(min(1000, len(found.examples["train"]) / 9), rel=0.05)


def test_amazon_has_no_files_and_says_so(real):
    with pytest.raises(ValueError, match="amazon: no records in"):
        tasks.load_task("amazon")(data_source="local", data_dir=real).prepare_data()


def test_label_counts_are_those_of_the_readme(task):
    test = {name: task(name).report["labels"]["test"] for name in ("ocnli", "bq", "chnsent")}
    assert test["ocnli"] == {"蕴含": 947, "中立": 1103, "矛盾": 900}
    assert test["bq"] == {"不符": 5000, "一致": 5000}
    assert sum(test["chnsent"].values()) == 1178 - 1  # distinct texts, one of them with both labels


def test_tnews_words_are_the_names_in_the_files(task):
    names = {"故事": 41, "股票": 6, "教育": 141, "电竞": 116, "国际": 190}
    found = task("tnews")
    rows = [example.answers[0] for example in found.read_examples("test")]
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
    assert list(found.record_source.iter_records(squad))[0] == list(found.record_source.iter_records(original))[0]
    texts = [[clean(row) for row in found.record_source.iter_records(file)] for file in (squad, original)]
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
    assert len(find_leaks(task("cote_mfw").examples["train"], task("cote_bd").examples["test"])) == 5
