"""Deterministic generators of synthetic data: they write the records of each task in its original raw format.

The files have the names, separators, quoting and line ends of the original distribution, so that generated data and
real data use the same loading code. Records are invented; no sentence is taken from a data set.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from random import Random

from tasks.synthetic import (
    multilingual,
    nli,
    opinion_target,
    paraphrase,
    reading_comprehension,
    relation,
    sentiment,
    topic,
)
from tasks.synthetic.lexicon import BOTH_WAYS, LITERARY, ONE_WAY, TRADITIONAL

VERSION = "1"  # part of the random seeds
SIZES = {"train": 1200, "test": 240}  # minimum number of records; a tenth of train becomes dev


def hash_generators() -> str:
    """Return a hash of the generators' source files, which is the version of cached generated data."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]


def draw(task: str, split: str, labels: list, make: Callable, key: Callable = lambda row: row, per: int = 1) -> list:
    """Make shuffled records of a split with balanced labels, without duplicates within and between splits.

    The records depend only on the names of task and split. `per` is the number of records that one call of `make`
    produces (two questions on one passage, a row and its mirrored row).
    """
    rng = Random(f"{VERSION}/{task}")
    seen = set()
    rows: dict[str, list] = {}
    for part, size in SIZES.items():
        rows[part] = []
        for label in labels * -(-size // (per * len(labels))):
            row = make(rng, label)
            while key(row) in seen:
                row = make(rng, label)
            seen.add(key(row))
            rows[part].append(row)
        rng.shuffle(rows[part])
    return rows[split]


def lines(rows: list, end: str = "\n") -> str:
    """Join rows, each with a line end."""
    return "".join(row + end for row in rows)


def json_lines(rows: list[dict]) -> str:
    """Format records as one JSON object per line."""
    return lines([json.dumps(row, ensure_ascii=False) for row in rows])


def amazon(split: str) -> str:
    """Make JSON lines of rated reviews."""
    rows = draw(
        "amazon", split, [*range(5)], lambda r, y: (sentiment.write_rated_review(r, y, sentiment.AMAZON_GOODS), y)
    )
    return json_lines([{"text": text, "label": label} for text, label in rows])


def chnsent(split: str) -> str:
    """Make tab-separated reviews with a header."""
    rows = draw("chnsent", split, [0, 1], lambda r, y: f"{y}\t{sentiment.polar(r, y, sentiment.STAY)}")
    return "label\ttext_a\n" + lines(rows)


def thucnews(split: str) -> str:
    """Make tab-separated titles, or the label names (split "class")."""
    names = topic.THUCNEWS
    if split == "class":
        return "\n".join(names)
    rows = draw("thucnews", split, [*enumerate(names.values())], lambda r, y: (titled(r, names, y[1]), y[0]))
    return lines([f"{title}\t{label}" for title, label in rows])


def tnews(split: str) -> str:
    """Make JSON lines of titles, or the label names (split "labels")."""
    names = topic.TNEWS
    if split == "labels":
        return json.dumps({str(code): name for code, name in names.items()}, ensure_ascii=False)
    rows = draw("tnews", split, [*names.items()], lambda r, y: (titled(r, names, y[1]), *y))
    return json_lines(
        [{"label": str(code), "label_des": name, "sentence": title, "keywords": ""} for title, code, name in rows]
    )


def titled(rng: Random, names: dict, name: str) -> str:
    """Make a title on the topic `name` with a distractor from the other topics of the task."""
    return topic.make_title(rng, name, topic.other_topics(names, name))


def questions(task: str, split: str) -> list[tuple[str, str, int]]:
    """Make (question, question, label) rows of a paraphrase task."""
    return draw(task, split, [0, 1], lambda r, y: (*paraphrase.make_pair(r, y, *paraphrase.DOMAINS[task]), y))


def tabbed_questions(task: str, split: str) -> str:
    """Make tab-separated question pairs."""
    return lines([f"{first}\t{second}\t{label}" for first, second, label in questions(task, split)])


def bq(split: str) -> str:
    """Make comma-separated question pairs with byte order mark and header."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerows([("sentence1", "sentence2", "label"), *questions("bq", split)])
    return "\ufeff" + file.getvalue()


def pairs(task: str, split: str) -> list[tuple[str, str, str]]:
    """Make (premise, hypothesis, label) rows of a Chinese inference task."""
    return draw(task, split, ["entailment", "neutral", "contradiction"], lambda r, y: (*nli.make_pair(r, y), y))


def cmnli(split: str) -> str:
    """Make tab-separated inference pairs."""
    return lines(["\t".join(row) for row in pairs("cmnli", split)])


def ocnli(split: str) -> str:
    """Make JSON lines of inference pairs."""
    rows = pairs("ocnli", split)
    return json_lines(
        [{"sentence1": a, "sentence2": b, "label": label, "id": place} for place, (a, b, label) in enumerate(rows)]
    )


def xnli(code: str, split: str) -> str:
    """Make JSON lines of inference pairs in the language `code`."""
    names = ("entailment", "neutral", "contradiction")
    rows = draw(f"xnli_{code}", split, [*range(3)], lambda r, y: (*multilingual.make_nli_pair(r, names[y], code), y))
    return json_lines([{"premise": a, "hypothesis": b, "label": label} for a, b, label in rows])


def paws(code: str, split: str) -> str:
    """Make JSON lines of paraphrase pairs in the language `code`."""
    rows = draw(f"paws_{code}", split, [0, 1], lambda r, y: (*multilingual.make_paraphrase_pair(r, y, code), y))
    return json_lines(
        [{"id": n, "sentence1": a, "sentence2": b, "label": label} for n, (a, b, label) in enumerate(rows, 1)]
    )


def sanwen(split: str) -> str:
    """Make tab-separated literary relations, or the label ids (split "relation2id")."""
    names = ["unknown", *LITERARY]
    if split == "relation2id":
        return lines([f"{name}\t{place}" for place, name in enumerate(names)], "\r\n")
    rows = draw("sanwen", split, names, lambda r, y: (relation.make_literary_sentence(r, y), y))
    return lines([f"{head}\t{tail}\t{name}\t{text}" for (head, tail, text), name in rows], "\r\n")


def finre(split: str) -> str:
    """Make financial relations with their mirrored rows, or the label ids (split "relation2id").

    One-way labels are drawn twice as often, because half of their rows have the mirrored label.
    """
    if split == "relation2id":
        names = ["unknown", *ONE_WAY, *BOTH_WAYS, *(f"被{name}" for name in ONE_WAY)]
        return "\r\n".join(f"{name} {place}" for place, name in enumerate(names))
    labels = [*ONE_WAY, *ONE_WAY, *BOTH_WAYS, "unknown"]
    rows = draw("finre", split, labels, relation.financial, key=lambda row: row[0][3], per=2)
    return lines(["\t".join(row) + "\n" for mirrored in rows for row in mirrored])


def cote(task: str, split: str) -> str:
    """Make JSON lines of texts with opinion targets."""
    rows = draw(task, split, [0], lambda r, _: opinion_target.make_opinion(r, *opinion_target.DOMAINS[task]))
    return json_lines([{"s": text, "ot": target} for text, target in rows])


def document(rng: Random, split: str, number: int, per: int) -> dict:
    """Make a paragraph with `per` questions in the SQuAD format."""
    sentences, asked = reading_comprehension.make_passage(rng)
    context = "".join(sentences)
    uid = f"{split}-{number}"
    picked = rng.sample([(q, a) for q, a, _ in asked], per)
    answers = [{"text": answer, "answer_start": context.index(answer)} for _, answer in picked]
    qas = [{"id": f"{uid}-{n}", "question": q, "answers": [answers[n]]} for n, (q, _) in enumerate(picked)]
    return {"id": uid, "context": context, "qas": qas}


def squad(task: str, split: str) -> str:
    """Make a SQuAD file with two questions per document."""
    make = lambda rng, per: document(rng, split, rng.randrange(10**9), per)  # noqa: E731 - argument of `draw`
    documents = draw(task, split, [2], make, key=lambda row: row["context"], per=2)
    data = [{"id": d["id"], "title": d["id"], "paragraphs": [d]} for d in documents]
    return json.dumps({"version": "v1.0", "data": data}, ensure_ascii=False)


def drcd(split: str) -> str:
    """Make a SQuAD file in Traditional characters, converted one to one, so that offsets stay correct."""
    return squad("drcd", split).translate(TRADITIONAL)


def multiple_choice(rng: Random, dialogue: bool) -> tuple[tuple[str, ...], list[dict]]:
    """Make a document with two questions of three or four options (two to four if not a dialogue)."""
    sentences, asked = reading_comprehension.make_passage(rng)
    turns = [f"{'男女'[place % 2]}：{text}" for place, text in enumerate(sentences)]
    items = []
    for question, answer, values in rng.sample(asked, 2):
        options = reading_comprehension.choices(
            rng, answer, values, reading_comprehension.pool(answer), rng.choice((3, 4) if dialogue else (2, 3, 4))
        )
        items.append({"question": question, "choice": options, "answer": answer})
    return (tuple(turns) if dialogue else ("".join(sentences),)), items


def c3(kind: str, split: str) -> str:
    """Make a C3 file of dialogues (kind "d") or mixed texts (kind "m")."""
    make = lambda rng, _: multiple_choice(rng, kind == "d")  # noqa: E731 - argument of `draw`
    documents = draw(f"c3-{kind}", split, [0], make, key=lambda row: row[0], per=4)  # two questions, two genres
    rows = [[list(text), items, f"{kind}-{place}"] for place, (text, items) in enumerate(documents)]
    return json.dumps(rows, ensure_ascii=False, indent=1).replace("\n", "\r\n")


def files(task: str) -> Iterator[tuple[str, str]]:
    """Yield (name, text) of every file of a task. Raises KeyError if the task has no generator."""
    match task:
        case "amazon" | "tnews" | "ocnli":
            ending, second = ("jsonl", "test") if task == "amazon" else ("json", "dev")
            make = {"amazon": amazon, "tnews": tnews, "ocnli": ocnli}[task]
            yield from ((f"train.{ending}", make("train")), (f"{second}.{ending}", make("test")))
            if task == "tnews":
                yield "labels.json", tnews("labels")
        case "chnsent":
            yield from ((f"{split}.tsv", chnsent(split)) for split in SIZES)
        case "thucnews":
            yield from ((f"{name}.txt", thucnews(name)) for name in ("class", *SIZES))
        case "bq":
            yield from ((f"{split}.csv", bq(split)) for split in SIZES)
        case "afqmc" | "lcqmc":
            second = "dev" if task == "afqmc" else "test"
            yield from (
                ("train.txt", tabbed_questions(task, "train")),
                (f"{second}.txt", tabbed_questions(task, "test")),
            )
        case "cmnli":
            yield from (("train.txt", cmnli("train")), ("dev.txt", cmnli("test")))
        case "sanwen" | "finre":
            make = sanwen if task == "sanwen" else finre
            yield from ((f"{name}.txt", make(name)) for name in ("relation2id", *SIZES))
        case "cote_mfw" | "cote_bd":
            yield from ((f"{split}.txt", cote(task, split)) for split in SIZES)
        case "cmrc2018":
            for split, name in zip(SIZES, ("train", "dev"), strict=True):
                yield f"squad-style-data/cmrc2018_{name}.json", squad(task, split)
        case "drcd":
            yield from (
                (f"DRCD_{name}.json", drcd(split)) for split, name in zip(SIZES, ("training", "test"), strict=True)
            )
        case "c3":
            yield from ((f"c3-{kind}-{split}.json", c3(kind, split)) for kind in "md" for split in SIZES)
        case _ if task.startswith(("xnli_", "paws_")):
            family, _, code = task.partition("_")
            make = {"xnli": xnli, "paws": paws}[family]
            yield from ((f"{split}.jsonl", make(code, split)) for split in SIZES)
        case _:
            raise KeyError(f"no sample generator for task {task!r}")


def write_task_files(task: str, folder: Path) -> None:
    """Write the files of a task into folder/task."""
    for name, text in files(task):
        path = folder / task / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="")
