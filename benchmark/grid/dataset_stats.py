"""What a task's records hold, counted once and remembered; a record that cannot be read is said with its place."""

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

NUM_LENGTH_SAMPLES = 500  # records that tell how long a task's texts are


@cache
def measure_prompt_lengths(task_name: str, data_source: str, data_dir: str | None) -> list[float]:
    """Characters of a task's prompts: of all its mean, and past what is fixed that of the longest in eight (a batch).

    Over the first of its training records.
    """

    def ask() -> list[float]:
        found = tasks.load_task(task_name)(data_source=data_source, data_dir=data_dir)
        parts = found.record_source.find_parts()
        part, _ = choose_train_and_test(parts)
        with convert_record_errors(found):
            sizes = [
                (len(example.prompt), example.prefix_length)
                for example in islice(found.read_examples(part), NUM_LENGTH_SAMPLES)
            ]
        if not sizes:
            raise UsageError(f"{task_name}/{parts[part].title}: no records in it")
        rest = [size - prefix for size, prefix in sizes]
        return [fmean(size for size, _ in sizes), fmean(max(rest[i : i + 8]) for i in range(0, len(rest), 8))]

    return load_or_compute(
        ["lengths", task_name, get_task_spec(task_name).code_hash, hash_records(task_name, data_source, data_dir)], ask
    )


@cache
def count_labels(task_name: str, data_source: str, data_dir: str | None) -> dict[str, int]:
    """Label word -> training examples ("" where labels are not fixed). Reads every record, and says which is bad."""

    def ask() -> dict[str, int]:
        found = tasks.load_task(task_name)(data_source=data_source, data_dir=data_dir)
        with convert_record_errors(found):
            examples = found.build_pool()
        parts = found.record_source.find_parts()
        for part in choose_train_and_test(parts):
            if not found.report["rows"][part]:
                raise UsageError(f"{task_name}/{parts[part].title}: no records in it")
        for split in ("train", "test"):
            if not examples[split]:
                raise make_no_examples_error(found, split)
        return dict(Counter(map(found.get_stratum, examples["train"])))

    if data_source == "hub":
        tasks.load_task(task_name)(
            data_source=data_source
        ).prepare_data()  # the copy here may be gone since they were counted
    return load_or_compute(
        ["labels", task_name, get_task_spec(task_name).code_hash, hash_records(task_name, data_source, data_dir)], ask
    )


@contextmanager
def convert_record_errors(task: "Task") -> Iterator[None]:
    """Values that are no text, or nested otherwise, as what they are: a record that is not one of this task."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise UsageError(
            f"{task.record_location}: not a record of {task.name} ({type(error).__name__}: {error})"
        ) from error
