"""Tasks or cells side by side in one stream of training batches; the rows of `members[i]` carry slot i."""

from collections.abc import Iterator, Sequence
from itertools import count, cycle, islice
from random import Random

from lightning import LightningDataModule
from torch.utils.data import DataLoader, IterableDataset

from tasks.base import Task
from tasks.encode import collate, pad_token
from tasks.example import Batch, Encoded, Episode, UsageError

BATCHES = ("packed", "mixed", "episodes")
WINDOW = 8  # batches of a mixture that are drawn at once, so that rows alike in length can go together


class Steps(IterableDataset):
    """The batches of a group, from the first step, each time it is walked through."""

    def __init__(self, group: "Group") -> None:
        self.group = group

    def __iter__(self) -> Iterator[Batch | Episode]:
        match self.group.batches:
            case "packed":
                return self.group.packed()
            case "mixed":
                return self.group.mixed()
            case _:
                return self.group.episodes()

    def __len__(self) -> int:
        return max(self.group.steps)


class Group(LightningDataModule):
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
        members: Sequence[Task],
        batches: str = "packed",
        *,
        steps: int | Sequence[int] | None = None,
        batch_size: int | None = None,
        sampling: str = "capped",
        cap: int = 10_000,  # without it CMNLI alone would be two thirds of the eight sources
        tasks: int = 4,
        support: int = 3,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not members:
            raise UsageError("a group needs at least one member")
        if batches not in BATCHES:
            raise UsageError(f"no batches {batches!r}; there are: {', '.join(BATCHES)}")
        if sampling not in ("capped", "uniform"):
            raise UsageError(f"no sampling {sampling!r}; there are: capped, uniform")
        if tasks < 1 or support < 0:
            raise UsageError(f"an episode has 1 task or more and 0 support batches or more, found {tasks}, {support}")
        if batches != "packed" and steps is not None and not isinstance(steps, int):
            raise UsageError(f"{batches}: steps is one number for all members, found {steps}")
        if batches == "packed" and steps is not None and not isinstance(steps, int) and len(steps) != len(members):
            raise UsageError(f"packed: {len(steps)} numbers of steps for {len(members)} members; give one for each")
        self.members, self.batches, self.asked = list(members), batches, steps
        self.batch_size = batch_size or members[0].batch_size
        self.sampling, self.cap, self.seed = sampling, cap, seed
        self.tasks, self.support = min(tasks, len(self.members)), support
        self.ended: set[int] = set()  # packed members that stopped before their last step

    def prepare_data(self) -> None:
        for member in self.members:
            member.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        for member in self.members:
            member.setup(stage)

    @property
    def steps(self) -> list[int]:
        """How many steps each member takes part in; mixed and episodes: the one number, for each."""
        sizes = [len(member.examples["train"]) for member in self.members]
        if self.batches != "packed":
            epoch = -(-sum(sizes) // (self.batch_size * self.gradients))
            return [self.asked if isinstance(self.asked, int) else epoch] * len(sizes)
        if self.asked is None:
            return [-(-size // member.batch_size) for size, member in zip(sizes, self.members, strict=True)]
        return [self.asked] * len(sizes) if isinstance(self.asked, int) else list(self.asked)

    @property
    def gradients(self) -> int:
        """Batches of which a step takes a gradient: in an episode those of support and query, of every task."""
        return self.tasks * (self.support + 1) if self.batches == "episodes" else 1

    def packed(self) -> Iterator[Batch]:
        streams, steps = [endless(member) for member in self.members], self.steps
        for step in range(max(steps)):
            rows = [
                (slot, item)
                for slot, stream in enumerate(streams)
                if step < steps[slot] and slot not in self.ended
                for item in next(stream)  # a member that has ended is not asked again: its stream costs nothing
            ]
            if not rows:
                return
            yield self.batch(rows)

    def mixed(self) -> Iterator[Batch]:
        streams = [(item for batch in endless(member) for item in batch) for member in self.members]
        sizes = [len(member.examples["train"]) for member in self.members]
        weights = [min(size, self.cap) if self.sampling == "capped" else 1 for size in sizes]
        rng, steps = Random(f"mixed:{self.seed}"), max(self.steps)
        for first in range(0, steps, WINDOW):
            count = min(WINDOW, steps - first)
            slots = rng.choices(range(len(streams)), weights, k=count * self.batch_size)
            rows = sorted(((slot, next(streams[slot])) for slot in slots), key=length)
            batches = [rows[place : place + self.batch_size] for place in range(0, len(rows), self.batch_size)]
            for rows in rng.sample(batches, count):  # no step knows from its place how long its rows are
                yield self.batch(sorted(rows, key=lambda row: row[0]))

    def episodes(self) -> Iterator[Episode]:
        streams = [halves(member, self.batch_size, self.support) for member in self.members]
        rng = Random(f"episodes:{self.seed}")
        for _ in range(max(self.steps)):
            support, query = [], []
            for slot in sorted(rng.sample(range(len(streams)), self.tasks)):
                parts, asked = next(streams[slot])
                support.append(tuple(self.batch([(slot, item) for item in part]) for part in parts))
                query.append(self.batch([(slot, item) for item in asked]))
            yield Episode(tuple(support), tuple(query))

    def batch(self, rows: list[tuple[int, Encoded]]) -> Batch:
        slots, items = zip(*rows, strict=True)
        return collate(items, slots, pad_token(self.members[0].tokenizer))

    def train_dataloader(self) -> DataLoader:
        self.setup()
        return DataLoader(Steps(self), batch_size=None, collate_fn=ready)


def length(row: tuple[int, Encoded]) -> int:
    return len(row[1].prompt) + len(row[1].answer)


def ready(batch: Batch) -> Batch:
    """As it is: the loader's own conversion walks through every text of every step."""
    return batch


def endless(member: Task) -> Iterator[list[Encoded]]:
    """A member's training batches, epoch after epoch, each in its own order."""
    for epoch in count():
        yield from member.batches(epoch)


def halves(member: Task, batch_size: int, support: int) -> Iterator[tuple[list[list[Encoded]], list[Encoded]]]:
    """A member's part of one episode after the other: support batches and a query batch that share no example.

    The examples are split in halves anew each time, so that of N = 16 as of thousands both have their share. Support
    batches walk through their half, and again where it is used up. A function of the member and its order alone.
    """
    items = member.encoded("train")
    if len(items) < 2:
        raise UsageError(f"{member.name}: an episode needs support and query, so 2 examples or more; there is 1")
    rng = Random(f"episodes:{member.name}:{member.order}")
    query, given = min(batch_size, len(items) // 2), min(batch_size * support, len(items) - len(items) // 2)
    while True:
        drawn = rng.sample(items, query + given)
        walk = cycle(drawn[query:])
        yield [list(islice(walk, min(batch_size, given))) for _ in range(support)], drawn[:query]
