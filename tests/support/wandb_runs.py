"""In place of W&B's run: what it is given is kept, nothing is sent."""

from pathlib import Path

KEY = "0123456789planted0123456789planted012345"


class Caught:
    """In place of W&B's run: keeps what it is given and leaves the folder that a run leaves."""

    sent: list["Caught"]

    def __init__(self, folder: Path, mode: str, **options: object) -> None:
        self.options, self.logged, self.summary, self.entity, self.ended = (
            options | {"mode": mode},
            [],
            {},
            "someone",
            0,
        )
        kind = "run" if mode == "online" else "offline-run"
        (folder / "wandb" / f"{kind}-20260101_000000-{options['id']}").mkdir(parents=True, exist_ok=True)
        self.sent.append(self)

    def log(self, values: dict, **step: int) -> None:
        self.logged.append((step.get("step"), values))

    def finish(self) -> None:
        self.ended += 1
