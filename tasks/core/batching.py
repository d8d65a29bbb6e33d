"""Training batches of several tasks or cells in one stream; the rows of `member_tasks[i]` have slot i."""

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
MIXING_WINDOW = 8  # batches of a mixture that are sampled together, so that rows can be grouped by length


class StepDataset(IterableDataset):
    """The batches of a group; each iteration starts at the first step."""

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
    """Training batches of member tasks that are trained together. A single cell is a group with one member.

    batch_mode:
        "packed": each step takes the next batch of every member that has steps left, so that a member sees the same
        batches as when it is trained alone.
        "mixed": each step is one batch sampled over the members, in proportion to their sizes up to
        `max_sampling_size` (`sampling="capped"`) or uniformly (`"uniform"`). Rows are grouped by length within
        MIXING_WINDOW batches, which halves the number of padded positions.
        "episodes": each step samples `tasks_per_episode` members without replacement, each with
        `num_support_batches` batches from one half of its examples and a query batch from the other half.
    requested_steps: "packed": steps per member (default: one epoch of each); else one number (default: one epoch of
    all members).
    """

    def __init__(
        self,
        member_tasks: "Sequence[Task]",
        batch_mode: str = "packed",
        *,
        requested_steps: int | Sequence[int] | None = None,
        batch_size: int | None = None,
        sampling: str = "capped",
        max_sampling_size: int = 10_000,  # without it, two thirds of the examples of the eight sources would be CMNLI
        tasks_per_episode: int = 4,
        num_support_batches: int = 3,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not member_tasks:
            raise UsageError("a group needs at least one member")
        if batch_mode not in BATCH_MODES:
            raise UsageError(f"unknown batch_mode {batch_mode!r}; there are: {', '.join(BATCH_MODES)}")
        if sampling not in ("capped", "uniform"):
            raise UsageError(f"unknown sampling {sampling!r}; there are: capped, uniform")
        if tasks_per_episode < 1 or num_support_batches < 0:
            raise UsageError(
                "an episode has 1 task or more and 0 support batches or more, "
                f"found {tasks_per_episode}, {num_support_batches}"
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
        self.member_tasks = list(member_tasks)
        self.batch_mode = batch_mode
        self.requested_steps = requested_steps
        self.batch_size = batch_size or member_tasks[0].batch_size
        self.sampling = sampling
        self.max_sampling_size = max_sampling_size
        self.seed = seed
        self.tasks_per_episode = min(tasks_per_episode, len(self.member_tasks))
        self.num_support_batches = num_support_batches
        self.ended_slots: set[int] = set()  # "packed": members that stopped early

    def prepare_data(self) -> None:
        """Check or download the files of all members."""
        for member in self.member_tasks:
            member.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        """Read and split the data of all members."""
        for member in self.member_tasks:
            member.setup(stage)

    @property
    def num_steps_by_member(self) -> list[int]:
        """Number of steps of each member; the same number for all members if "mixed" or "episodes"."""
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
        """Number of batches per step for which gradients are computed; episodes: support and query of all tasks."""
        return self.tasks_per_episode * (self.num_support_batches + 1) if self.batch_mode == "episodes" else 1

    def iter_packed_batches(self) -> Iterator[Batch]:
        """Yield one batch per step with the next batch of each member that has steps left and has not ended."""
        streams = [iter_epochs(member) for member in self.member_tasks]
        steps = self.num_steps_by_member
        for step in range(max(steps)):
            rows = [
                (slot, item)
                for slot, stream in enumerate(streams)
                if step < steps[slot] and slot not in self.ended_slots
                for item in next(stream)
            ]
            if not rows:
                return
            yield self.collate_rows(rows)

    def iter_mixed_batches(self) -> Iterator[Batch]:
        """Yield one batch per step with rows sampled over the members, sorted by slot."""
        streams = [(item for batch in iter_epochs(member) for item in batch) for member in self.member_tasks]
        sizes = [len(member.examples["train"]) for member in self.member_tasks]
        weights = [min(size, self.max_sampling_size) if self.sampling == "capped" else 1 for size in sizes]
        rng = Random(f"mixed:{self.seed}")
        steps = max(self.num_steps_by_member)
        for first_step in range(0, steps, MIXING_WINDOW):
            num_batches = min(MIXING_WINDOW, steps - first_step)
            slots = rng.choices(range(len(streams)), weights, k=num_batches * self.batch_size)
            rows = sorted(((slot, next(streams[slot])) for slot in slots), key=get_row_length)
            batches = [rows[start : start + self.batch_size] for start in range(0, len(rows), self.batch_size)]
            for rows in rng.sample(batches, num_batches):  # shuffled: length must not depend on the step
                yield self.collate_rows(sorted(rows, key=lambda row: row[0]))

    def iter_episodes(self) -> Iterator[Episode]:
        """Yield one episode per step."""
        streams = [
            iter_episode_parts(member, self.batch_size, self.num_support_batches) for member in self.member_tasks
        ]
        rng = Random(f"episodes:{self.seed}")
        for _ in range(max(self.num_steps_by_member)):
            support = []
            query = []
            for slot in sorted(rng.sample(range(len(streams)), self.tasks_per_episode)):
                support_batches, query_batch = next(streams[slot])
                support.append(tuple(self.collate_rows([(slot, item) for item in batch]) for batch in support_batches))
                query.append(self.collate_rows([(slot, item) for item in query_batch]))
            yield Episode(tuple(support), tuple(query))

    def collate_rows(self, rows: list[tuple[int, EncodedExample]]) -> Batch:
        """Collate (slot, encoded example) rows."""
        slots, items = zip(*rows, strict=True)
        return collate(items, slots, get_pad_token_id(self.member_tasks[0].tokenizer))

    def train_dataloader(self) -> DataLoader:
        """Return a loader with one batch or episode per step."""
        self.setup()
        return DataLoader(StepDataset(self), batch_size=None, collate_fn=return_batch_unchanged)


def get_row_length(row: tuple[int, EncodedExample]) -> int:
    """Return the number of tokens of prompt and answer."""
    return len(row[1].prompt_ids) + len(row[1].answer_ids)


def return_batch_unchanged(batch: Batch) -> Batch:
    """Return the batch as it is; the default conversion of DataLoader would traverse all texts of a batch."""
    return batch


def iter_epochs(task: "Task") -> Iterator[list[EncodedExample]]:
    """Yield a member's training batches without end; each epoch has its own order."""
    for epoch in count():
        yield from task.iter_train_batches(epoch)


def iter_episode_parts(
    task: "Task", batch_size: int, num_support_batches: int
) -> Iterator[tuple[list[list[EncodedExample]], list[EncodedExample]]]:
    """Yield a member's part of each episode: support batches and a query batch that share no example.

    The examples are split into two halves for each episode, so that small sets (N = 16) provide both. Support batches
    iterate over their half, repeatedly if it is too small. The samples depend only on the member and its `order_seed`.
    """
    items = task.encode_split("train")
    if len(items) < 2:
        raise UsageError(f"{task.name}: an episode needs 2 examples or more (support and query); there is 1")
    rng = Random(f"episodes:{task.name}:{task.order_seed}")
    num_query = min(batch_size, len(items) // 2)
    num_support = min(batch_size * num_support_batches, len(items) - len(items) // 2)
    while True:
        sample = rng.sample(items, num_query + num_support)
        support = cycle(sample[num_query:])
        support_batches = [list(islice(support, min(batch_size, num_support))) for _ in range(num_support_batches)]
        yield support_batches, sample[:num_query]
