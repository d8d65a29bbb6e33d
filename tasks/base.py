"""Task: base class of all data sets; a LightningDataModule from raw records to batches of token ids."""

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
from tasks.core.encoding import EncodingSpec, collate, encode_cached, get_pad_token_id
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

# Invisible characters in the published files (U+0008, U+200B, U+200E, U+FEFF). They are removed from texts and from
# answers, so that an answer stays a substring of its text. U+200D is kept, because it joins emoji.
INVISIBLE_CHARACTERS = dict.fromkeys(map(ord, "\b\u200b\u200e\ufeff"))
# A grid builds the same task for many cells; its files are read once per process.
POOL_CACHE: dict[tuple, tuple[dict[str, list[Example]], dict]] = {}
MAX_CACHED_POOLS = 32


def clean_text(text: str) -> str:
    """Remove invisible characters, and white space at both ends."""
    return text.translate(INVISIBLE_CHARACTERS).strip()


class ShuffleSampler(Sampler):
    """Indices in a pseudo-random order that depends only on the stream and the epoch; Lightning sets the epoch."""

    def __init__(self, num_examples: int, random_stream: str) -> None:
        self.num_examples = num_examples
        self.random_stream = random_stream
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Select the order of this epoch, counted from 0."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        indices = list(range(self.num_examples))
        Random(f"{self.random_stream}:{self.epoch}").shuffle(indices)
        return iter(indices)

    def __len__(self) -> int:
        return self.num_examples


class Task(LightningDataModule):
    """One data set. A subclass defines `name`, `template`, its files or hub data set, and `read_examples`.

    shots: training (and dev) examples per label; in total where the labels are not fixed. None: all examples.
    max_train_examples: maximum number of training examples, whatever their labels; also the maximum for dev.
    seed: samples the shots and `max_train_examples`. order_seed (default: seed): order of the training examples.
    max_length: maximum number of tokens of prompt and answer. max_per_split: such as {"test": 200}.
    data_source: "sample" (generated data), "local" (files in `data_dir`) or "hub".
    """

    name: str
    role: str = "target"  # "source": used in source training; "target": never used there
    family: str = "own"
    form: str = "choice"  # or "span": the answer is free text, generated token by token
    template: str  # constant instruction, then one {} per value, then the cue that the answer follows
    words: dict[str, str] = {}  # raw label -> label word, in the order of the choices
    aliases: dict[str, str] = {}  # alternative spelling of a raw label -> its spelling in `words`
    files: tuple[File, ...] = ()
    home: Path | None = None  # folder of the files of a custom task; it takes precedence over `data_source`
    hub: Hub | GitHub | None = None
    metric: str = "accuracy"  # the primary metric
    metrics: tuple[str, ...] = ("accuracy", "macro_f1")
    licence: str = "not stated"
    answer_tokens: int = 32  # span: maximum number of generated tokens; longer training answers are truncated to it

    def __init__(
        self,
        tokenizer: Any = None,  # a fast tokenizer of transformers, because windows need character offsets
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
                f"{self.name}: max_train_examples is {max_train_examples}; "
                "give 1 or more, or leave it out for all examples"
            )
        if unknown := set(max_per_split or {}) - {"train", "dev", "test"}:
            raise UsageError(
                f"{self.name}: max_per_split has unknown splits {sorted(unknown)}; there are: train, dev, test"
            )
        self.tokenizer = tokenizer
        self.data_source = data_source
        self.data_dir = data_dir
        self.shots = shots
        self.max_train_examples = max_train_examples
        self.seed = seed
        self.order_seed = seed if order_seed is None else order_seed
        self.batch_size = batch_size
        self.max_length = max_length
        self.max_per_split = dict(max_per_split or {})
        self.template = template or self.template
        self.words = dict(words or self.words)
        self.examples: dict[str, list[Example]] = {}
        self.report: dict = {"rows": {}, "dropped": {}}
        self.record_location = self.name  # file and line of the current record, for messages

    # Methods that a subclass implements, and helpers for them

    def read_examples(self, raw_part: str) -> Iterator[Example]:
        """Yield an example per usable record of a raw part ("train", "dev" or "test"); a subclass implements it."""
        raise UsageError(f"{type(self).__name__} does not implement read_examples(raw_part), which yields its examples")

    def merge_duplicates(self, duplicates: list[Example]) -> Example | None:
        """Merge examples that have the same text; None drops all of them, because their answers differ."""
        return duplicates[0] if len({frozenset(example.answers) for example in duplicates}) == 1 else None

    def read_records(self, raw_part: str) -> Iterator[dict]:
        """Yield the raw records of a part; count them in `report` and track their location."""
        parts = self.record_source.find_parts()
        if raw_part not in parts:
            raise UsageError(
                f"{self.name}: no {raw_part} records in {self.record_source.title}; there are: {', '.join(parts)}"
            )
        self.report["rows"][raw_part] = 0
        self.report["dropped"][raw_part] = Counter()
        for row in self.record_source.iter_records(parts[raw_part]):
            self.report["rows"][raw_part] += 1
            self.record_location = getattr(
                row, "location", f"{self.name}, {raw_part} record {self.report['rows'][raw_part]}"
            )
            yield row

    def count_dropped(self, raw_part: str, reason: str, count: int = 1) -> None:
        """Count records of a part that are left out, by reason."""
        if count:
            self.report["dropped"][raw_part][reason] += count

    def get_label_word(self, label: object) -> str:
        """Return the label word of a raw label, looked up by name. Raises UsageError for an unknown label."""
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
        """Make an example by filling the template with `values`.

        values[truncatable_index] is truncated where the prompt is too long. Examples with the same `identity_values`
        (default: values) are duplicates. Examples with the same `group_text` stay in one split.
        """
        validate_example_texts(self, values, answers)
        values = [clean_text(value) for value in values]
        answers = tuple(dict.fromkeys(clean_text(text) for text in answers))
        texts = self.template.split("{}")  # before, between and after the values
        start = sum(map(len, texts[: truncatable_index + 1])) + sum(map(len, values[:truncatable_index]))
        prompt = texts[0] + "".join(value + text for value, text in zip(values, texts[1:], strict=True))
        content = "\x1f".join(values if identity_values is None else map(clean_text, identity_values))
        uid = f"{self.name}:{sha1(content.encode()).hexdigest()[:12]}"
        span = (start, start + len(values[truncatable_index]))
        group_id = sha1(clean_text(group_text).encode()).hexdigest()[:12] if group_text else ""
        return Example(uid, self.name, prompt, answers, tuple(choices), span, group_id, len(texts[0]))

    # Splits

    @cached_property
    def record_source(self) -> LocalSource | HubSource:
        """Source of the raw records, opened on first use."""
        return open_task_source(self)

    def prepare_data(self) -> None:
        """Check that the files exist, and download those of a hub, before a model is loaded."""
        for file in self.record_source.find_parts().values():
            if self.data_source == "hub":
                next(self.record_source.iter_records(file), None)

    def setup(self, stage: str | None = None) -> None:
        """Read the records, split them and sample the shots; later calls do nothing."""
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
                # The sets of one seed are nested: its 16 examples are among its 50.
                chosen = splits.sort_by_hash_rank(chosen, f"most:{self.seed}")[: self.max_train_examples]
            self.examples[name] = chosen
        if empty := [name for name in ("train", "test") if not self.examples[name]]:
            raise make_no_examples_error(self.name, empty[0], self.report, self.record_source.title)
        self.report["splits"] = {name: len(examples) for name, examples in self.examples.items()}
        self.report["labels"] = {name: self.count_labels(examples) for name, examples in self.examples.items()}

    def load_pool(self) -> tuple[dict[str, list[Example]], dict]:
        """Return all examples of train, dev and test, before shots and limits, and a report on them; cached."""
        key = (type(self), self.template, *self.words.items(), *self.record_source.get_content_key())
        if key not in POOL_CACHE:
            if len(POOL_CACHE) >= MAX_CACHED_POOLS:
                POOL_CACHE.clear()
            POOL_CACHE[key] = self.build_pool(), self.report
        examples, report = POOL_CACHE[key]
        return examples, deepcopy(report)

    def build_pool(self) -> dict[str, list[Example]]:
        """Read train and test, remove duplicates and overlap, and split off dev (and test where it is missing)."""
        parts = self.record_source.find_parts()
        train, test = splits.choose_train_and_test(parts)
        examples_by_part = {}
        for part in dict.fromkeys((train, test)):  # one part where train and test are the same
            examples_by_part[part], removed = splits.deduplicate(self.read_examples(part), self.merge_duplicates)
            self.report["dropped"][part].update(removed)
        origin = {"test": parts[test].title, "train": parts[train].title}
        if train == test:
            train_examples, test_examples = splits.split_off(
                examples_by_part[test], splits.TEST_FRACTION, splits.MAX_TEST_EXAMPLES, "test", self.get_stratum
            )
            origin["test"] += f" ({splits.TEST_FRACTION:.0%} of it by content hash, at most {splits.MAX_TEST_EXAMPLES})"
        else:
            test_examples = examples_by_part[test]
            train_examples = splits.remove_overlap(examples_by_part[train], test_examples)
            self.count_dropped(train, "also in test", len(examples_by_part[train]) - len(train_examples))
        train_examples, dev_examples = splits.split_off(
            train_examples, splits.DEV_FRACTION, splits.MAX_DEV_EXAMPLES, "dev", self.get_stratum
        )
        origin["dev"] = f"{splits.DEV_FRACTION:.0%} of train by content hash, at most {splits.MAX_DEV_EXAMPLES}"
        self.report |= {"source": self.record_source.title, "from": origin}
        # Texts with U+FFFD (replacement character) are damaged in the published files; they are kept.
        self.report["damaged"] = sum(
            "\ufffd" in example.prompt for example in (*train_examples, *dev_examples, *test_examples)
        )
        return {"train": train_examples, "dev": dev_examples, "test": test_examples}

    def get_stratum(self, example: Example) -> str:
        """Return the label word by which splits are stratified; "" for all examples where the labels are not fixed."""
        return example.answers[0] if self.words else ""

    def count_short_labels(self, examples: Sequence[Example]) -> dict[str, int]:
        """Return label word -> number of examples, for labels that have fewer than `shots`."""
        counts = Counter(map(self.get_stratum, examples))
        return {word: counts[word] for word in self.words.values() or [""] if counts[word] < (self.shots or 0)}

    def count_labels(self, examples: Iterable[Example]) -> dict[str, int]:
        """Return label word -> number of examples."""
        counts = Counter(example.answers[0] for example in examples if example.choices)
        return {word: counts[word] for word in (self.words.values() or sorted(counts))}

    def hash_split(self, split: str) -> str:
        """Return the sha256 of a split's ids, prompts and answers; it is equal if and only if the data is the same."""
        return sha256(repr([(e.uid, e.prompt, e.answers) for e in self.examples[split]]).encode()).hexdigest()

    # Tokens and batches

    @property
    def encoding_spec(self) -> EncodingSpec:
        """What the encoder needs to know of the task."""
        return EncodingSpec(self.name, self.tokenizer, self.max_length, self.answer_tokens, self.form)

    def encode_split(self, split: str) -> list[EncodedExample]:
        """Return a split as token ids. Truncation uses the answer in the training split only."""
        if self.tokenizer is None:
            raise UsageError(f"{self.name}: no tokenizer; give one as the first argument of {type(self).__name__}")
        self.setup()
        encoded = encode_cached(self.encoding_spec, self.examples[split], is_training=split == "train")
        self.report["cut"][split] = sum(item.num_cut_tokens > 0 for item in encoded)
        return encoded

    def make_shuffle_sampler(self) -> ShuffleSampler:
        """Return the sampler of the training order, a function of the task and `order_seed`."""
        return ShuffleSampler(len(self.examples["train"]), f"order:{self.name}:{self.order_seed}")

    def iter_train_batches(self, epoch: int) -> Iterator[list[EncodedExample]]:
        """Yield the training batches of one epoch as lists of encoded examples."""
        encoded = self.encode_split("train")
        sampler = self.make_shuffle_sampler()
        sampler.set_epoch(epoch)
        for indices in BatchSampler(sampler, self.batch_size, drop_last=False):
            yield [encoded[index] for index in indices]

    def make_dataloader(self, split: str, **options: Any) -> DataLoader:
        """Return a loader of a split; `options` are those of DataLoader."""
        return DataLoader(
            self.encode_split(split),
            collate_fn=partial(collate_single_task, pad_id=get_pad_token_id(self.tokenizer)),
            **options,
        )

    def train_dataloader(self) -> DataLoader:
        """Return shuffled batches of the training split."""
        self.setup()
        return self.make_dataloader(
            "train", batch_sampler=BatchSampler(self.make_shuffle_sampler(), self.batch_size, drop_last=False)
        )

    def val_dataloader(self) -> DataLoader:
        """Return batches of the dev split."""
        return self.make_dataloader("dev", batch_size=self.batch_size)

    def test_dataloader(self) -> DataLoader:
        """Return batches of the test split."""
        return self.make_dataloader("test", batch_size=self.batch_size)

    def predict_dataloader(self) -> DataLoader:
        """Return batches of the test split."""
        return self.test_dataloader()

    # Scores

    def score_predictions(self, predictions: dict[str, str], split: str = "test") -> dict[str, float]:
        """Return metric name -> score in 0..1 for predictions, which map uid -> predicted text.

        Raises UsageError if an example of the split has no prediction.
        """
        from tasks.core.metrics import compute_metrics  # torchmetrics takes seconds to import

        self.setup()
        missing = [example.uid for example in self.examples[split] if example.uid not in predictions]
        if missing:
            raise UsageError(f"{self.name}: {len(missing)} of {split} have no prediction, such as {missing[0]}")
        rows = [(predictions[example.uid], example) for example in self.examples[split]]
        return compute_metrics(rows, self.metrics, self.words)


def collate_single_task(items: list[EncodedExample], pad_id: int) -> Batch:
    """Collate a batch of one task; all rows have slot 0."""
    return collate(items, [0] * len(items), pad_id)


def validate_example_texts(task: "Task", values: Sequence[str], answers: Sequence[str]) -> None:
    """Raise UsageError if `values` do not fit the template, or if a text stands where a list of texts is needed."""
    if isinstance(values, str) or isinstance(answers, str) or not answers:
        raise UsageError(
            f"{task.record_location}: values and answers of an example are lists of texts, one or more; "
            f"found values {values!r:.60}, answers {answers!r:.60}"
        )
    num_placeholders = task.template.count("{}")
    if num_placeholders != len(values):
        raise UsageError(
            f"{task.name}: the template has {num_placeholders} placeholders {{}}, but there are {len(values)} values"
        )


def open_task_source(task: "Task") -> LocalSource | HubSource:
    """Open the source of a task's records: its own folder, or the one that `data_source` names."""
    hub: Hub | GitHub | None = task.hub
    if task.home and uses_task_folder(task.home, hub, task.data_source):
        return TaskFolderSource(task.name, task.files, task.home)
    if task.data_source == "hub" and hub is None:
        raise UsageError(
            f"{task.name}: it names no hub data set; use --source local, or set its `home`, the folder of its files"
        )
    try:
        return open_record_source(task.name, task.files, hub, task.data_source, task.data_dir)
    except KeyError as error:  # only the tasks of the suites have generators
        advice = "--source hub" if hub else "--source local with --data-dir, or set its `home`, the folder of its files"
        raise UsageError(f"{task.name}: no sample records are generated for it; use {advice}") from error
