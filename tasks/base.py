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

from tasks.core import splits
from tasks.core.encoding import collate, encode_cached, get_pad_token_id
from tasks.core.sources import (
    File,
    GitHub,
    Hub,
    HubSource,
    LocalSource,
    TaskFolderSource,
    open_record_source,
    uses_task_folder,
)
from tasks.core.splits import make_no_examples_error
from tasks.core.types import Batch, EncodedExample, Example, UsageError

__all__ = ["Batch", "EncodedExample", "Example", "Task", "UsageError"]

# Invisible characters in the published files (README of the data: U+0008, U+200B, U+200E, U+FEFF). Dropped from text
# and answer alike, so an answer stays a substring of its text. U+200D stays: it joins emoji.
INVISIBLE_CHARACTERS = dict.fromkeys(map(ord, "\b\u200b\u200e\ufeff"))
POOL_CACHE: dict[
    tuple, tuple[dict[str, list[Example]], dict]
] = {}  # a grid builds one task for many cells: read it once
MAX_CACHED_POOLS = 32


def clean_text(text: str) -> str:
    return text.translate(INVISIBLE_CHARACTERS).strip()


class ShuffleSampler(Sampler):
    """Indices in an order that is a function of (task, seed, epoch); Lightning sets the epoch."""

    def __init__(self, num_examples: int, random_stream: str) -> None:
        self.num_examples, self.random_stream, self.epoch = num_examples, random_stream, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        indices = list(range(self.num_examples))
        Random(f"{self.random_stream}:{self.epoch}").shuffle(indices)
        return iter(indices)

    def __len__(self) -> int:
        return self.num_examples


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
        data_source: str = "sample",
        data_dir: str | Path | None = None,
        shots: int | None = None,
        max_train_examples: int | None = None,
        seed: int = 0,
        order_seed: int | None = None,
        batch_size: int = 8,
        max_length: int = 512,
        max_per_split: dict[str, int] | None = None,
        template: str | None = None,
        words: dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        if shots is not None and shots < 1:
            raise UsageError(f"{self.name}: shots is {shots}; give 1 or more, or leave it out for all examples")
        if max_train_examples is not None and max_train_examples < 1:
            raise UsageError(
                f"{self.name}: most is {max_train_examples}; give 1 or more, or leave it out for all examples"
            )
        if unknown := set(max_per_split or {}) - {"train", "dev", "test"}:
            raise UsageError(f"{self.name}: limit names {sorted(unknown)}; the splits are train, dev, test")
        self.tokenizer, self.data_source, self.data_dir = tokenizer, data_source, data_dir
        self.shots, self.max_train_examples, self.seed, self.order_seed = (
            shots,
            max_train_examples,
            seed,
            seed if order_seed is None else order_seed,
        )
        self.batch_size, self.max_length, self.max_per_split = batch_size, max_length, dict(max_per_split or {})
        self.template, self.words = template or self.template, dict(words or self.words)
        self.examples: dict[str, list[Example]] = {}
        self.report: dict = {"rows": {}, "dropped": {}}
        self.record_location = self.name  # file and line of the record that is read

    # what a task writes, and what helps it

    def read_examples(self, raw_part: str) -> Iterator[Example]:
        """The examples of a raw part ("train", "dev" or "test"), one for each usable record."""
        raise UsageError(f"{type(self).__name__} has no read(split); a task must say how a record becomes an Example")

    def merge_duplicates(self, duplicates: list[Example]) -> Example | None:
        """One example out of several with the same text: None (drop them) where their answers differ."""
        return duplicates[0] if len({frozenset(example.answers) for example in duplicates}) == 1 else None

    def read_records(self, raw_part: str) -> Iterator[dict]:
        """The raw records of a part, counted."""
        found = self.record_source.find_parts()
        if raw_part not in found:
            raise UsageError(
                f"{self.name}: no {raw_part} records in {self.record_source.title}; there are: {', '.join(found)}"
            )
        self.report["rows"][raw_part] = 0
        self.report["dropped"][raw_part] = Counter()
        for row in self.record_source.iter_records(found[raw_part]):
            self.report["rows"][raw_part] += 1
            self.record_location = getattr(
                row, "location", f"{self.name}, {raw_part} record {self.report['rows'][raw_part]}"
            )
            yield row

    def count_dropped(self, raw_part: str, reason: str, count: int = 1) -> None:
        if count:
            self.report["dropped"][raw_part][reason] += count

    def get_label_word(self, label: object) -> str:
        """The label word of a raw label: by its name, never by its position."""
        raw = f"{label:g}" if isinstance(label, float) else str(label)  # C-MTEB keeps 0 and 1 as floats
        raw = self.aliases.get(raw, raw)
        if raw not in self.words:
            raise UsageError(f"{self.record_location}: label {raw!r} is unknown; there are: {', '.join(self.words)}")
        return self.words[raw]

    def make_example(
        self,
        values: Sequence[str],
        answers: Sequence[str],
        choices: Iterable[str] = (),
        *,
        truncatable_index: int = 0,
        identity_values: Sequence[str] | None = None,
        group_text: str = "",
    ) -> Example:
        """Fill the template. `values[field]` may be cut when too long; `key` (default: values) is the identity."""
        validate_example_texts(self, values, answers)
        values, answers = (
            [clean_text(value) for value in values],
            tuple(dict.fromkeys(clean_text(text) for text in answers)),
        )
        fixed = self.template.split("{}")
        start = sum(map(len, fixed[: truncatable_index + 1])) + sum(map(len, values[:truncatable_index]))
        prompt = fixed[0] + "".join(value + text for value, text in zip(values, fixed[1:], strict=True))
        content = "\x1f".join(values if identity_values is None else map(clean_text, identity_values))
        uid = f"{self.name}:{sha1(content.encode()).hexdigest()[:12]}"
        place = (start, start + len(values[truncatable_index]))
        group_text = sha1(clean_text(group_text).encode()).hexdigest()[:12] if group_text else ""
        return Example(uid, self.name, prompt, answers, tuple(choices), place, group_text, len(fixed[0]))

    # splits

    @cached_property
    def record_source(self) -> LocalSource | HubSource:
        """Where the records come from."""
        return open_task_source(self)

    def prepare_data(self) -> None:
        """Fail before a model is loaded: the files are there, or fetched."""
        for file in self.record_source.find_parts().values():
            if self.data_source == "hub":
                next(self.record_source.iter_records(file), None)

    def setup(self, stage: str | None = None) -> None:
        """Read, split and draw, the first time it is called."""
        if self.examples:
            return
        pool, report = self.load_pool()
        self.report = report | {"short": {}, "cut": {}, "offered": {}}
        for name, examples in pool.items():
            chosen = examples
            if self.shots is not None and name != "test":
                chosen = splits.sample_shots(examples, self.shots, self.seed, self.get_stratum)
                self.report["short"][name] = self.count_short_labels(chosen)
            if name in self.max_per_split:
                chosen = splits.sort_by_hash_rank(chosen, "limit")[: self.max_per_split[name]]
            self.report["offered"][name] = len(chosen)
            if self.max_train_examples is not None and name != "test":
                chosen = splits.sort_by_hash_rank(chosen, f"most:{self.seed}")[
                    : self.max_train_examples
                ]  # 16 are among the 50 of one seed
            self.examples[name] = chosen
        if empty := [name for name in ("train", "test") if not self.examples[name]]:
            raise make_no_examples_error(self, empty[0])
        self.report["splits"] = {name: len(examples) for name, examples in self.examples.items()}
        self.report["labels"] = {name: self.count_labels(examples) for name, examples in self.examples.items()}

    def load_pool(self) -> tuple[dict[str, list[Example]], dict]:
        """All of train, dev and test, before shots and limits, and the report about them."""
        key = (type(self), self.template, *self.words.items(), *self.record_source.get_content_key())
        if key not in POOL_CACHE:
            if len(POOL_CACHE) >= MAX_CACHED_POOLS:
                POOL_CACHE.clear()
            POOL_CACHE[key] = self.build_pool(), self.report
        examples, report = POOL_CACHE[key]
        return examples, deepcopy(report)

    def build_pool(self) -> dict[str, list[Example]]:
        parts = self.record_source.find_parts()
        train, test = splits.choose_train_and_test(parts)
        read = {}
        for part in {train: None, test: None}:  # a dict, because the two may be one
            read[part], removed = splits.deduplicate(self.read_examples(part), self.merge_duplicates)
            self.report["dropped"][part].update(removed)
        origin = {"test": parts[test].title, "train": parts[train].title}
        if train == test:
            pool, held = splits.split_off(
                read[test], splits.TEST_FRACTION, splits.MAX_TEST_EXAMPLES, "test", self.get_stratum
            )
            origin["test"] += f" ({splits.TEST_FRACTION:.0%} of it by content hash, at most {splits.MAX_TEST_EXAMPLES})"
        else:
            pool, held = splits.remove_overlap(read[train], read[test]), read[test]
            self.count_dropped(train, "also in test", len(read[train]) - len(pool))
        pool, dev = splits.split_off(pool, splits.DEV_FRACTION, splits.MAX_DEV_EXAMPLES, "dev", self.get_stratum)
        origin["dev"] = f"{splits.DEV_FRACTION:.0%} of train by content hash, at most {splits.MAX_DEV_EXAMPLES}"
        self.report |= {"source": self.record_source.title, "from": origin}
        damaged = sum("\ufffd" in example.prompt for example in (*pool, *dev, *held))
        self.report["damaged"] = damaged  # texts with U+FFFD: broken where they were published; kept
        return {"train": pool, "dev": dev, "test": held}

    def get_stratum(self, example: Example) -> str:
        """The label to balance by; one for all where labels are not fixed."""
        return example.answers[0] if self.words else ""

    def count_short_labels(self, examples: Sequence[Example]) -> dict[str, int]:
        """Labels with fewer examples than asked for, and how many they have."""
        found = Counter(map(self.get_stratum, examples))
        return {word: found[word] for word in self.words.values() or [""] if found[word] < (self.shots or 0)}

    def count_labels(self, examples: Iterable[Example]) -> dict[str, int]:
        counts = Counter(example.answers[0] for example in examples if example.choices)
        return {word: counts[word] for word in (self.words.values() or sorted(counts))}

    def hash_split(self, split: str) -> str:
        """sha256 of a split's text and answers: equal exactly where methods see the same data."""
        return sha256(repr([(e.uid, e.prompt, e.answers) for e in self.examples[split]]).encode()).hexdigest()

    # tokens and batches

    def encode_split(self, split: str) -> list[EncodedExample]:
        """A split as token ids. Only training may look at an answer to decide what to cut."""
        if self.tokenizer is None:
            raise UsageError(f"{self.name}: no tokenizer; give one as the first argument of {type(self).__name__}")
        self.setup()
        items = encode_cached(self, self.examples[split], is_training=split == "train")
        self.report["cut"][split] = sum(item.num_cut_tokens > 0 for item in items)
        return items

    def make_shuffle_sampler(self) -> ShuffleSampler:
        return ShuffleSampler(len(self.examples["train"]), f"order:{self.name}:{self.order_seed}")

    def iter_train_batches(self, epoch: int) -> Iterator[list[EncodedExample]]:
        """The training batches of one epoch, as lists of items."""
        items, shuffle = self.encode_split("train"), self.make_shuffle_sampler()
        shuffle.set_epoch(epoch)
        for indices in BatchSampler(shuffle, self.batch_size, drop_last=False):
            yield [items[index] for index in indices]

    def make_dataloader(self, split: str, **options: Any) -> DataLoader:
        return DataLoader(
            self.encode_split(split),
            collate_fn=partial(collate_single_task, pad_id=get_pad_token_id(self.tokenizer)),
            **options,
        )

    def train_dataloader(self) -> DataLoader:
        self.setup()
        return self.make_dataloader(
            "train", batch_sampler=BatchSampler(self.make_shuffle_sampler(), self.batch_size, drop_last=False)
        )

    def val_dataloader(self) -> DataLoader:
        return self.make_dataloader("dev", batch_size=self.batch_size)

    def test_dataloader(self) -> DataLoader:
        return self.make_dataloader("test", batch_size=self.batch_size)

    def predict_dataloader(self) -> DataLoader:
        return self.test_dataloader()

    # scores

    def score_predictions(self, predictions: dict[str, str], split: str = "test") -> dict[str, float]:
        """Metrics in 0..1 of {uid: predicted text}; needs a prediction for every example of the split."""
        from tasks.core.metrics import compute_metrics  # torchmetrics takes seconds to import

        self.setup()
        missing = [example.uid for example in self.examples[split] if example.uid not in predictions]
        if missing:
            raise UsageError(f"{self.name}: {len(missing)} of {split} have no prediction, such as {missing[0]}")
        rows = [(predictions[example.uid], example) for example in self.examples[split]]
        return compute_metrics(rows, self.metrics, self.words)


def collate_single_task(items: list[EncodedExample], pad_id: int) -> Batch:
    """A batch of one task: all rows are slot 0."""
    return collate(items, [0] * len(items), pad_id)


def validate_example_texts(task: "Task", values: Sequence[str], answers: Sequence[str]) -> None:
    """Refuse what cannot fill the template, and what would be taken apart letter by letter."""
    if isinstance(values, str) or isinstance(answers, str) or not answers:
        said = f"values {values!r:.60}, answers {answers!r:.60}"
        raise UsageError(
            f"{task.record_location}: values and answers of an example are lists of texts, one or more; found {said}"
        )
    places = task.template.count("{}")
    if places != len(values):
        raise UsageError(f"{task.name}: the template has {places} places {{}}, not {len(values)}")


def open_task_source(task: "Task") -> LocalSource | HubSource:
    """The records of a task, from its own folder or from where the profile says."""
    hub: Hub | GitHub | None = task.hub
    if task.home and uses_task_folder(task.home, hub, task.data_source):
        return TaskFolderSource(task.name, task.files, task.home)
    if task.data_source == "hub" and hub is None:
        raise UsageError(f"{task.name}: it names no hub data set; use --source local, or give it a `home` of its own")
    try:
        return open_record_source(task.name, task.files, hub, task.data_source, task.data_dir)
    except KeyError as error:  # only the tasks of the suite have generators
        advice = (
            "--source hub" if hub else "--source local with --data-dir, or give it a `home`, the folder of its files"
        )
        raise UsageError(f"{task.name}: no sample records are generated for it; use {advice}") from error
