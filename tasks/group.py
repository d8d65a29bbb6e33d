"""Tasks or cells side by side in one stream of training batches; the rows of `members[i]` carry slot i."""

from collections.abc import Iterator, Sequence
from itertools import count
from random import Random

from lightning import LightningDataModule
from torch.utils.data import DataLoader, IterableDataset

from tasks.base import Task
from tasks.encode import collate, pad_token
from tasks.example import Batch, Encoded, UsageError


class Steps(IterableDataset):
    """The batches of a group, from the first step, each time it is walked through."""

    def __init__(self, group: "Group") -> None:
        self.group = group

    def __iter__(self) -> Iterator[Batch]:
        return self.group.packed() if self.group.batches == "packed" else self.group.mixed()

    def __len__(self) -> int:
        return max(self.group.steps)


class Group(LightningDataModule):
    """Members trained together. A lone cell is a group of one.

    "packed": every step takes the next batch of each member that still has steps left, so a member sees exactly what
    it would see alone. "mixed": every step is one batch drawn over the members, in proportion to their sizes up to
    `cap` (`sampling="capped"`) or alike (`"uniform"`).
    steps: per member if packed (default: one epoch of each), one number if mixed (default: one epoch of all).
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
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not members:
            raise UsageError("a group needs at least one member")
        if batches not in ("packed", "mixed"):
            raise UsageError(f"no batches {batches!r}; there are: packed, mixed")
        if sampling not in ("capped", "uniform"):
            raise UsageError(f"no sampling {sampling!r}; there are: capped, uniform")
        if batches == "packed" and steps is not None and not isinstance(steps, int) and len(steps) != len(members):
            raise UsageError(f"packed: {len(steps)} numbers of steps for {len(members)} members; give one for each")
        self.members, self.batches, self.asked = list(members), batches, steps
        self.batch_size = batch_size or members[0].batch_size
        self.sampling, self.cap, self.seed = sampling, cap, seed
        self.ended: set[int] = set()  # packed members that stopped before their last step

    def prepare_data(self) -> None:
        for member in self.members:
            member.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        for member in self.members:
            member.setup(stage)

    @property
    def steps(self) -> list[int]:
        """How many steps each member takes part in; mixed: the one number, for each."""
        sizes = [len(member.examples["train"]) for member in self.members]
        if self.batches == "mixed":
            total = -(-sum(sizes) // self.batch_size) if self.asked is None else int(self.asked)
            return [total] * len(sizes)
        if self.asked is None:
            return [-(-size // member.batch_size) for size, member in zip(sizes, self.members, strict=True)]
        return [self.asked] * len(sizes) if isinstance(self.asked, int) else list(self.asked)

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
        rng = Random(f"mixed:{self.seed}")
        for _ in range(max(self.steps)):
            slots = sorted(rng.choices(range(len(streams)), weights, k=self.batch_size))
            yield self.batch([(slot, next(streams[slot])) for slot in slots])

    def batch(self, rows: list[tuple[int, Encoded]]) -> Batch:
        slots, items = zip(*rows, strict=True)
        return collate(items, slots, pad_token(self.members[0].tokenizer))

    def train_dataloader(self) -> DataLoader:
        self.setup()
        return DataLoader(Steps(self), batch_size=None, collate_fn=ready)


def ready(batch: Batch) -> Batch:
    """As it is: the loader's own conversion walks through every text of every step."""
    return batch


def endless(member: Task) -> Iterator[list[Encoded]]:
    """A member's training batches, epoch after epoch, each in its own order."""
    for epoch in count():
        yield from member.batches(epoch)
