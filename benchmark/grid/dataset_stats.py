"""Dataset statistics (prompt lengths, label counts), computed once and cached.

Invalid examples raise `UsageError` with file and line.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import islice
from statistics import fmean
from typing import TYPE_CHECKING

import tasks
from benchmark.grid.data_hash import hash_records
from benchmark.grid.specs import get_task_spec
from benchmark.system.disk_cache import load_or_compute
from tasks.core.splits import choose_train_and_test, make_no_examples_error
from tasks.core.types import UsageError

if TYPE_CHECKING:
    from tasks.base import Task

NUM_LENGTH_SAMPLES = 500  # training examples from which prompt lengths are estimated


@cache
def measure_prompt_lengths(task_name: str, data_source: str, data_dir: str | None) -> list[float]:
    """Return two lengths of a task's prompts in characters, over its first `NUM_LENGTH_SAMPLES` training examples.

    The first is the mean length; the second is the mean, over batches of eight, of the longest part after the prefix
    that all prompts share. Raises `UsageError` if there are no examples or one is invalid.
    """

    def measure() -> list[float]:
        task = tasks.load_task(task_name)(data_source=data_source, data_dir=data_dir)
        parts = task.record_source.find_parts()
        part, _ = choose_train_and_test(parts)
        with convert_record_errors(task):
            lengths = [
                (len(example.prompt), example.prefix_length)
                for example in islice(task.read_examples(part), NUM_LENGTH_SAMPLES)
            ]
        if not lengths:
            raise UsageError(f"{task_name}/{parts[part].title}: no records in it")
        suffix_lengths = [length - prefix_length for length, prefix_length in lengths]
        longest_per_batch = [max(suffix_lengths[start : start + 8]) for start in range(0, len(suffix_lengths), 8)]
        return [fmean(length for length, _ in lengths), fmean(longest_per_batch)]

    return load_or_compute(["lengths", *_get_cache_key(task_name, data_source, data_dir)], measure)


@cache
def count_labels(task_name: str, data_source: str, data_dir: str | None) -> dict[str, int]:
    """Return label word -> number of training examples; the only key is "" if the task has no fixed labels.

    Reads all examples. Raises `UsageError` if train or test has none, or one is invalid.
    """

    def count() -> dict[str, int]:
        task = tasks.load_task(task_name)(data_source=data_source, data_dir=data_dir)
        with convert_record_errors(task):
            examples = task.build_pool()
        parts = task.record_source.find_parts()
        for part in choose_train_and_test(parts):
            if not task.report["rows"][part]:
                raise UsageError(f"{task_name}/{parts[part].title}: no records in it")
        for split in ("train", "test"):
            if not examples[split]:
                raise make_no_examples_error(task.name, split, task.report, task.record_source.title)
        return dict(Counter(map(task.get_stratum, examples["train"])))

    if data_source == "hub":  # counts may be cached although the local copy of the data has been removed
        tasks.load_task(task_name)(data_source=data_source).prepare_data()
    return load_or_compute(["labels", *_get_cache_key(task_name, data_source, data_dir)], count)


def _get_cache_key(task_name: str, data_source: str, data_dir: str | None) -> list[str]:
    return [task_name, get_task_spec(task_name).code_hash, hash_records(task_name, data_source, data_dir)]


@contextmanager
def convert_record_errors(task: "Task") -> Iterator[None]:
    """Convert errors of reading an example (wrong types, missing fields) into a `UsageError` with file and line."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise UsageError(
            f"{task.record_location}: not a record of {task.name} ({type(error).__name__}: {error})"
        ) from error
