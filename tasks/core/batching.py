"""Tasks or cells side by side in one stream of training batches; the rows of `members[i]` carry slot i."""

from collections.abc import Iterator, Sequence
from itertools import count, cycle, islice
from random import Random
from typing import TYPE_CHECKING

from lightning import LightningDataModule
from torch.utils.data import DataLoader, IterableDataset

from tasks.core.encoding import collate, get_pad_token_id
from tasks.core.types import Batch, EncodedExample, Episode, UsageError

if TYPE_CHECKING:
    from tasks.base import Task

BATCH_MODES = ("packed", "mixed", "episodes")
MIXING_WINDOW = 8  # batches of a mixture that are drawn at once, so that rows alike in length can go together


class StepDataset(IterableDataset):
    """The batches of a group, from the first step, each time it is walked through."""

    def __init__(self, group: "MultiTaskDataModule") -> None:
        self.group = group

    def __iter__(self) -> Iterator[Batch | Episode]:
        match self.group.batch_mode:
            case "packed":
                return self.group.iter_packed_batches()
            case "mixed":
                return self.group.iter_mixed_batches()
            case _:
                return self.group.iter_episodes()

    def __len__(self) -> int:
        return max(self.group.num_steps_by_member)


class MultiTaskDataModule(LightningDataModule):
    """Members trained together. A lone cell is a group of one.

    "packed": every step takes the next batch of each member that still has steps left, so a member sees exactly what
    it would see alone. "mixed": every step is one batch drawn over the members, in proportion to their sizes up to
    `cap` (`sampling="capped"`) or alike (`"uniform"`); of each eight batches the rows alike in length go together, for
    half the positions to compute. "episodes": every step is `tasks` members, drawn without
    replacement, each with `support` batches from one half of its examples and a query batch from the other.
    steps: per member if packed (default: one epoch of each), else one number (default: one epoch of all).
    """

    def __init__(
        self,
        member_tasks: "Sequence[Task]",
        batch_mode: str = "packed",
        *,
        requested_steps: int | Sequence[int] | None = None,
        batch_size: int | None = None,
        sampling: str = "capped",
        max_sampling_size: int = 10_000,  # without it CMNLI alone would be two thirds of the eight sources
        tasks_per_episode: int = 4,
        num_support_batches: int = 3,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not member_tasks:
            raise UsageError("a group needs at least one member")
        if batch_mode not in BATCH_MODES:
            raise UsageError(f"no batches {batch_mode!r}; there are: {', '.join(BATCH_MODES)}")
        if sampling not in ("capped", "uniform"):
            raise UsageError(f"no sampling {sampling!r}; there are: capped, uniform")
        if tasks_per_episode < 1 or num_support_batches < 0:
            raise UsageError(
                f"an episode has 1 task or more and 0 support batches or more, found {tasks_per_episode}, {num_support_batches}"
            )
        if batch_mode != "packed" and requested_steps is not None and not isinstance(requested_steps, int):
            raise UsageError(f"{batch_mode}: steps is one number for all members, found {requested_steps}")
        if (
            batch_mode == "packed"
            and requested_steps is not None
            and not isinstance(requested_steps, int)
            and len(requested_steps) != len(member_tasks)
        ):
            raise UsageError(
                f"packed: {len(requested_steps)} numbers of steps for {len(member_tasks)} members; give one for each"
            )
        self.member_tasks, self.batch_mode, self.requested_steps = list(member_tasks), batch_mode, requested_steps
        self.batch_size = batch_size or member_tasks[0].batch_size
        self.sampling, self.max_sampling_size, self.seed = sampling, max_sampling_size, seed
        self.tasks_per_episode, self.num_support_batches = (
            min(tasks_per_episode, len(self.member_tasks)),
            num_support_batches,
        )
        self.ended_slots: set[int] = set()  # packed members that stopped before their last step

    def prepare_data(self) -> None:
        for member in self.member_tasks:
            member.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        for member in self.member_tasks:
            member.setup(stage)

    @property
    def num_steps_by_member(self) -> list[int]:
        """How many steps each member takes part in; mixed and episodes: the one number, for each."""
        sizes = [len(member.examples["train"]) for member in self.member_tasks]
        if self.batch_mode != "packed":
            epoch = -(-sum(sizes) // (self.batch_size * self.gradients_per_step))
            return [self.requested_steps if isinstance(self.requested_steps, int) else epoch] * len(sizes)
        if self.requested_steps is None:
            return [-(-size // member.batch_size) for size, member in zip(sizes, self.member_tasks, strict=True)]
        return (
            [self.requested_steps] * len(sizes) if isinstance(self.requested_steps, int) else list(self.requested_steps)
        )

    @property
    def gradients_per_step(self) -> int:
        """Batches of which a step takes a gradient: in an episode those of support and query, of every task."""
        return self.tasks_per_episode * (self.num_support_batches + 1) if self.batch_mode == "episodes" else 1

    def iter_packed_batches(self) -> Iterator[Batch]:
        streams, steps = [iter_epochs(member) for member in self.member_tasks], self.num_steps_by_member
        for step in range(max(steps)):
            rows = [
                (slot, item)
                for slot, stream in enumerate(streams)
                if step < steps[slot] and slot not in self.ended_slots
                for item in next(stream)  # a member that has ended is not asked again: its stream costs nothing
            ]
            if not rows:
                return
            yield self.collate_rows(rows)

    def iter_mixed_batches(self) -> Iterator[Batch]:
        streams = [(item for batch in iter_epochs(member) for item in batch) for member in self.member_tasks]
        sizes = [len(member.examples["train"]) for member in self.member_tasks]
        weights = [min(size, self.max_sampling_size) if self.sampling == "capped" else 1 for size in sizes]
        rng, steps = Random(f"mixed:{self.seed}"), max(self.num_steps_by_member)
        for first in range(0, steps, MIXING_WINDOW):
            count = min(MIXING_WINDOW, steps - first)
            slots = rng.choices(range(len(streams)), weights, k=count * self.batch_size)
            rows = sorted(((slot, next(streams[slot])) for slot in slots), key=get_row_length)
            batches = [rows[place : place + self.batch_size] for place in range(0, len(rows), self.batch_size)]
            for rows in rng.sample(batches, count):  # no step knows from its place how long its rows are
                yield self.collate_rows(sorted(rows, key=lambda row: row[0]))

    def iter_episodes(self) -> Iterator[Episode]:
        streams = [
            iter_episode_parts(member, self.batch_size, self.num_support_batches) for member in self.member_tasks
        ]
        rng = Random(f"episodes:{self.seed}")
        for _ in range(max(self.num_steps_by_member)):
            support, query = [], []
            for slot in sorted(rng.sample(range(len(streams)), self.tasks_per_episode)):
                parts, asked = next(streams[slot])
                support.append(tuple(self.collate_rows([(slot, item) for item in part]) for part in parts))
                query.append(self.collate_rows([(slot, item) for item in asked]))
            yield Episode(tuple(support), tuple(query))

    def collate_rows(self, rows: list[tuple[int, EncodedExample]]) -> Batch:
        slots, items = zip(*rows, strict=True)
        return collate(items, slots, get_pad_token_id(self.member_tasks[0].tokenizer))

    def train_dataloader(self) -> DataLoader:
        self.setup()
        return DataLoader(StepDataset(self), batch_size=None, collate_fn=return_batch_unchanged)


def get_row_length(row: tuple[int, EncodedExample]) -> int:
    return len(row[1].prompt_ids) + len(row[1].answer_ids)


def return_batch_unchanged(batch: Batch) -> Batch:
    """As it is: the loader's own conversion walks through every text of every step."""
    return batch


def iter_epochs(task: "Task") -> Iterator[list[EncodedExample]]:
    """A member's training batches, epoch after epoch, each in its own order."""
    for epoch in count():
        yield from task.iter_train_batches(epoch)


def iter_episode_parts(
    task: "Task", batch_size: int, num_support_batches: int
) -> Iterator[tuple[list[list[EncodedExample]], list[EncodedExample]]]:
    """A member's part of one episode after the other: support batches and a query batch that share no example.

    The examples are split in halves anew each time, so that of N = 16 as of thousands both have their share. Support
    batches walk through their half, and again where it is used up. A function of the member and its order alone.
    """
    items = task.encode_split("train")
    if len(items) < 2:
        raise UsageError(f"{task.name}: an episode needs support and query, so 2 examples or more; there is 1")
    rng = Random(f"episodes:{task.name}:{task.order_seed}")
    query, given = min(batch_size, len(items) // 2), min(batch_size * num_support_batches, len(items) - len(items) // 2)
    while True:
        drawn = rng.sample(items, query + given)
        walk = cycle(drawn[query:])
        yield [list(islice(walk, min(batch_size, given))) for _ in range(num_support_batches)], drawn[:query]
