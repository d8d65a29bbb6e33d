"""Task: a data set as a LightningDataModule, from raw records to batches of token ids."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from functools import cached_property, partial
from hashlib import sha1, sha256
from pathlib import Path
from random import Random
from typing import Any

from lightning import LightningDataModule
from torch.utils.data import BatchSampler, DataLoader, Sampler

from tasks import split as splits
from tasks.encode import cached_encodings, collate, pad_token
from tasks.example import Batch, Encoded, Example, UsageError
from tasks.faults import check_example, no_examples
from tasks.own import open_task
from tasks.source import File, GitHub, Hub, Local, Parquet

__all__ = ["Batch", "Encoded", "Example", "Task", "UsageError"]

# Invisible characters in the published files (README of the data: U+0008, U+200B, U+200E, U+FEFF). Dropped from text
# and answer alike, so an answer stays a substring of its text. U+200D stays: it joins emoji.
INVISIBLE = dict.fromkeys(map(ord, "\b\u200b\u200e\ufeff"))
POOLS: dict[tuple, tuple[dict[str, list[Example]], dict]] = {}  # a grid builds one task for many cells: read it once
POOLS_MOST = 32


def clean(text: str) -> str:
    return text.translate(INVISIBLE).strip()


class Shuffle(Sampler):
    """Indices in an order that is a function of (task, seed, epoch); Lightning sets the epoch."""

    def __init__(self, size: int, stream: str) -> None:
        self.size, self.stream, self.epoch = size, stream, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        indices = list(range(self.size))
        Random(f"{self.stream}:{self.epoch}").shuffle(indices)
        return iter(indices)

    def __len__(self) -> int:
        return self.size


class Task(LightningDataModule):
    """One data set. A task needs name, template, where its records are, and `read`; everything else follows.

    shots: None for all training examples, else examples per label (choice) or in total (free text, own options).
    most: of training examples in total, whatever their labels; dev then has at most as many.
    seed draws both, order (default: seed) the order of training; limit caps splits, as {"test": 200}.
    """

    name: str
    role: str = "target"  # never seen in source training; "source": may be learned from first
    family: str = "own"
    form: str = "choice"  # or "span": free text, decoded
    template: str  # constant text first, then a {} for each value, the cue last
    words: dict[str, str] = {}  # raw label -> label word, in the order shown
    aliases: dict[str, str] = {}  # other spellings of a raw label -> the one in `words`
    files: tuple[File, ...] = ()
    home: Path | None = None  # of a task of one's own: the folder its files are in, whatever `source` says
    hub: Hub | GitHub | None = None
    metric: str = "accuracy"  # the primary one
    metrics: tuple[str, ...] = ("accuracy", "macro_f1")
    licence: str = "not stated"
    answer_tokens: int = 32  # of a span: answers are decoded up to here, and longer ones trained on up to here

    def __init__(
        self,
        tokenizer: Any = None,  # of transformers, and a fast one: windows need its offsets
        *,
        source: str = "sample",
        data_dir: str | Path | None = None,
        shots: int | None = None,
        most: int | None = None,
        seed: int = 0,
        order: int | None = None,
        batch_size: int = 8,
        max_length: int = 512,
        limit: dict[str, int] | None = None,
        template: str | None = None,
        words: dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        if shots is not None and shots < 1:
            raise UsageError(f"{self.name}: shots is {shots}; give 1 or more, or leave it out for all examples")
        if most is not None and most < 1:
            raise UsageError(f"{self.name}: most is {most}; give 1 or more, or leave it out for all examples")
        if unknown := set(limit or {}) - {"train", "dev", "test"}:
            raise UsageError(f"{self.name}: limit names {sorted(unknown)}; the splits are train, dev, test")
        self.tokenizer, self.source, self.data_dir = tokenizer, source, data_dir
        self.shots, self.most, self.seed, self.order = shots, most, seed, seed if order is None else order
        self.batch_size, self.max_length, self.limit = batch_size, max_length, dict(limit or {})
        self.template, self.words = template or self.template, dict(words or self.words)
        self.examples: dict[str, list[Example]] = {}
        self.report: dict = {"rows": {}, "dropped": {}}
        self.at = self.name  # file and line of the record that is read

    # what a task writes, and what helps it

    def read(self, split: str) -> Iterator[Example]:
        """The examples of a raw part ("train", "dev" or "test"), one for each usable record."""
        raise UsageError(f"{type(self).__name__} has no read(split); a task must say how a record becomes an Example")

    def merge(self, same: list[Example]) -> Example | None:
        """One example out of several with the same text: None (drop them) where their answers differ."""
        return same[0] if len({frozenset(example.answers) for example in same}) == 1 else None

    def records(self, part: str) -> Iterator[dict]:
        """The raw records of a part, counted."""
        found = self.origin.parts()
        if part not in found:
            raise UsageError(f"{self.name}: no {part} records in {self.origin.title}; there are: {', '.join(found)}")
        self.report["rows"][part] = 0
        self.report["dropped"][part] = Counter()
        for row in self.origin.rows(found[part]):
            self.report["rows"][part] += 1
            self.at = getattr(row, "where", f"{self.name}, {part} record {self.report['rows'][part]}")
            yield row

    def drop(self, part: str, reason: str, count: int = 1) -> None:
        if count:
            self.report["dropped"][part][reason] += count

    def word(self, label: object) -> str:
        """The label word of a raw label: by its name, never by its position."""
        raw = f"{label:g}" if isinstance(label, float) else str(label)  # C-MTEB keeps 0 and 1 as floats
        raw = self.aliases.get(raw, raw)
        if raw not in self.words:
            raise UsageError(f"{self.at}: label {raw!r} is unknown; there are: {', '.join(self.words)}")
        return self.words[raw]

    def example(
        self,
        values: Sequence[str],
        answers: Sequence[str],
        choices: Iterable[str] = (),
        *,
        field: int = 0,
        key: Sequence[str] | None = None,
        group: str = "",
    ) -> Example:
        """Fill the template. `values[field]` may be cut when too long; `key` (default: values) is the identity."""
        check_example(self, values, answers)
        values, answers = [clean(value) for value in values], tuple(dict.fromkeys(clean(text) for text in answers))
        fixed = self.template.split("{}")
        start = sum(map(len, fixed[: field + 1])) + sum(map(len, values[:field]))
        prompt = fixed[0] + "".join(value + text for value, text in zip(values, fixed[1:], strict=True))
        content = "\x1f".join(values if key is None else map(clean, key))
        uid = f"{self.name}:{sha1(content.encode()).hexdigest()[:12]}"
        place = (start, start + len(values[field]))
        group = sha1(clean(group).encode()).hexdigest()[:12] if group else ""
        return Example(uid, self.name, prompt, answers, tuple(choices), place, group, len(fixed[0]))

    # splits

    @cached_property
    def origin(self) -> Local | Parquet:
        """Where the records come from."""
        return open_task(self)

    def prepare_data(self) -> None:
        """Fail before a model is loaded: the files are there, or fetched."""
        for file in self.origin.parts().values():
            if self.source == "hub":
                next(self.origin.rows(file), None)

    def setup(self, stage: str | None = None) -> None:
        """Read, split and draw, the first time it is called."""
        if self.examples:
            return
        pool, report = self.pool()
        self.report = report | {"short": {}, "cut": {}, "offered": {}}
        for name, examples in pool.items():
            chosen = examples
            if self.shots is not None and name != "test":
                chosen = splits.draw(examples, self.shots, self.seed, self.stratum)
                self.report["short"][name] = self.short(chosen)
            if name in self.limit:
                chosen = splits.ordered(chosen, "limit")[: self.limit[name]]
            self.report["offered"][name] = len(chosen)
            if self.most is not None and name != "test":
                chosen = splits.ordered(chosen, f"most:{self.seed}")[: self.most]  # 16 are among the 50 of one seed
            self.examples[name] = chosen
        if empty := [name for name in ("train", "test") if not self.examples[name]]:
            raise no_examples(self, empty[0])
        self.report["splits"] = {name: len(examples) for name, examples in self.examples.items()}
        self.report["labels"] = {name: self.label_counts(examples) for name, examples in self.examples.items()}

    def pool(self) -> tuple[dict[str, list[Example]], dict]:
        """All of train, dev and test, before shots and limits, and the report about them."""
        key = (type(self), self.template, *self.words.items(), *self.origin.stamp())
        if key not in POOLS:
            if len(POOLS) >= POOLS_MOST:
                POOLS.clear()
            POOLS[key] = self.build(), self.report
        examples, report = POOLS[key]
        return examples, deepcopy(report)

    def build(self) -> dict[str, list[Example]]:
        parts = self.origin.parts()
        train, test = splits.roles(parts)
        read = {}
        for part in {train: None, test: None}:  # a dict, because the two may be one
            read[part], removed = splits.deduplicate(self.read(part), self.merge)
            self.report["dropped"][part].update(removed)
        origin = {"test": parts[test].title, "train": parts[train].title}
        if train == test:
            pool, held = splits.cut(read[test], splits.TEST_SHARE, splits.TEST_MOST, "test", self.stratum)
            origin["test"] += f" ({splits.TEST_SHARE:.0%} of it by content hash, at most {splits.TEST_MOST})"
        else:
            pool, held = splits.without(read[train], read[test]), read[test]
            self.drop(train, "also in test", len(read[train]) - len(pool))
        pool, dev = splits.cut(pool, splits.DEV_SHARE, splits.DEV_MOST, "dev", self.stratum)
        origin["dev"] = f"{splits.DEV_SHARE:.0%} of train by content hash, at most {splits.DEV_MOST}"
        self.report |= {"source": self.origin.title, "from": origin}
        damaged = sum("\ufffd" in example.prompt for example in (*pool, *dev, *held))
        self.report["damaged"] = damaged  # texts with U+FFFD: broken where they were published; kept
        return {"train": pool, "dev": dev, "test": held}

    def stratum(self, example: Example) -> str:
        """The label to balance by; one for all where labels are not fixed."""
        return example.answers[0] if self.words else ""

    def short(self, chosen: Sequence[Example]) -> dict[str, int]:
        """Labels with fewer examples than asked for, and how many they have."""
        found = Counter(map(self.stratum, chosen))
        return {word: found[word] for word in self.words.values() or [""] if found[word] < (self.shots or 0)}

    def label_counts(self, examples: Iterable[Example]) -> dict[str, int]:
        counts = Counter(example.answers[0] for example in examples if example.choices)
        return {word: counts[word] for word in (self.words.values() or sorted(counts))}

    def digest(self, split: str) -> str:
        """sha256 of a split's text and answers: equal exactly where methods see the same data."""
        return sha256(repr([(e.uid, e.prompt, e.answers) for e in self.examples[split]]).encode()).hexdigest()

    # tokens and batches

    def encoded(self, split: str) -> list[Encoded]:
        """A split as token ids. Only training may look at an answer to decide what to cut."""
        if self.tokenizer is None:
            raise UsageError(f"{self.name}: no tokenizer; give one as the first argument of {type(self).__name__}")
        self.setup()
        items = cached_encodings(self, self.examples[split], training=split == "train")
        self.report["cut"][split] = sum(item.cut > 0 for item in items)
        return items

    def shuffle(self) -> Shuffle:
        return Shuffle(len(self.examples["train"]), f"order:{self.name}:{self.order}")

    def batches(self, epoch: int) -> Iterator[list[Encoded]]:
        """The training batches of one epoch, as lists of items."""
        items, shuffle = self.encoded("train"), self.shuffle()
        shuffle.set_epoch(epoch)
        for indices in BatchSampler(shuffle, self.batch_size, drop_last=False):
            yield [items[index] for index in indices]

    def loader(self, split: str, **options: Any) -> DataLoader:
        return DataLoader(self.encoded(split), collate_fn=partial(alone, pad=pad_token(self.tokenizer)), **options)

    def train_dataloader(self) -> DataLoader:
        self.setup()
        return self.loader("train", batch_sampler=BatchSampler(self.shuffle(), self.batch_size, drop_last=False))

    def val_dataloader(self) -> DataLoader:
        return self.loader("dev", batch_size=self.batch_size)

    def test_dataloader(self) -> DataLoader:
        return self.loader("test", batch_size=self.batch_size)

    def predict_dataloader(self) -> DataLoader:
        return self.test_dataloader()

    # scores

    def score(self, predictions: dict[str, str], split: str = "test") -> dict[str, float]:
        """Metrics in 0..1 of {uid: predicted text}; needs a prediction for every example of the split."""
        from tasks.metrics import score  # torchmetrics takes seconds to import

        self.setup()
        missing = [example.uid for example in self.examples[split] if example.uid not in predictions]
        if missing:
            raise UsageError(f"{self.name}: {len(missing)} of {split} have no prediction, such as {missing[0]}")
        rows = [(predictions[example.uid], example) for example in self.examples[split]]
        return score(rows, self.metrics, self.words)


def alone(items: list[Encoded], pad: int) -> Batch:
    """A batch of one task: all rows are slot 0."""
    return collate(items, [0] * len(items), pad)
