"""What both sides are given: a backbone's folder, records as plain text, and the same numbers."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import methods
import tasks
from benchmark.config import loading
from benchmark.config.budget import Budget
from benchmark.config.profile import FULL, Profile

TINY = "tiny"
# Shapes of random backbones under the embedded tokenizer; 4.7M is the one of the targets and first measures.
SHAPES = {
    "random-4.7M": {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4, "vocab_size": 5995},
    "random-20M": {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 6, "vocab_size": 5995},
}
DEMO = loading.read_profile_fields("demo")
RATES = DEMO["config"]  # the suite's own, tuned for the embedded backbone
RANK, ALPHA, LENGTH, WARMUP = 8, 16, 20, 0.06  # of the methods' defaults
STEPS, BATCH = 36, 8  # of a few-shot cell, whatever the demo takes: figures of different days stay comparable
LONGEST = Profile.max_length  # tokens


@dataclass(frozen=True)
class Work:
    """A grid for both sides. No scores on dev: the peer would pay a forward per label for each of them."""

    backbone: str
    methods: tuple[str, ...] = ("lora", "prompt")
    tasks: tuple[str, ...] = ("chnsent", "ocnli", "tnews", "cote_bd")
    shots: int | str = 16
    seeds: tuple[int, ...] = (0,)
    steps: int = STEPS
    epochs: int = 1  # of full data, where they decide
    limit: dict[str, int] | None = None
    data_dir: str | None = None  # original files; without it the embedded records

    @property
    def source(self) -> str:
        return "local" if self.data_dir else "sample"

    @property
    def budget(self) -> Budget:
        """The few-shot one always takes `steps`, the full-data one `epochs`."""
        steps = (0, 10**6) if self.shots == FULL else (self.steps, self.steps)
        return Budget(BATCH, self.epochs, *steps, evaluations=0, patience=0)

    def profile(self, scratch: Path, **more: Any) -> Profile:
        """The grid as the suite runs it: the demo's options, and what is asked here."""
        values = {"methods": self.methods, "tasks": self.tasks, "shots": [self.shots], "seeds": self.seeds}
        values |= {"source": self.source, "data_dir": self.data_dir, "limit": self.limit or {}, "name": "bench"}
        values |= {"backbone": {"name": place(self.backbone, scratch)}, "budget": asdict(self.budget)}
        return loading.load_profile(
            "demo", {key: list(v) if isinstance(v, tuple) else v for key, v in (values | more).items()}
        )

    def cell(self, method: str, task: str, seed: int, scratch: Path) -> dict[str, Any]:
        """One cell as the peer reads it."""
        data = self.task(task, seed)
        folder = place(self.backbone, scratch)
        width = sigma(folder) if method == "prompt" else 1.0  # the suite's rate counts in these
        return {
            "backbone": str(Path(methods.__file__).parent / "tiny") if folder == TINY else folder,
            "method": method,
            "seed": seed,
            "steps": self.budget.compute_num_steps(len(data.examples["train"])),
            "batch_size": BATCH,
            "lr": RATES[method]["lr"] * width,
            "warmup": WARMUP,
            "rank": RANK,
            "alpha": ALPHA,
            "length": LENGTH,
            "mlp": RATES[method].get("mlp", 0),
            "max_length": LONGEST,
            "max_new_tokens": data.answer_tokens,
            "scratch": str(scratch / "trainer"),
            **{split: rows(data.examples[split]) for split in ("train", "test")},
        }

    def task(self, name: str, seed: int) -> "tasks.Task":
        """The task with its splits drawn, without a tokenizer."""
        shots = None if self.shots == FULL else self.shots
        data = tasks.load_task(name)(
            data_source=self.source,
            data_dir=self.data_dir,
            shots=shots,
            seed=seed,
            max_per_split=self.limit,
            batch_size=BATCH,
        )
        data.setup()
        return data


def rows(examples: Sequence["tasks.Example"]) -> list[dict[str, Any]]:
    return [{"uid": e.uid, "prompt": e.prompt, "answers": e.answers, "choices": e.choices} for e in examples]


def place(backbone: str, scratch: Path) -> str:
    """What the suite calls it: `tiny`, or the folder of a random one, built on first use."""
    if backbone not in SHAPES:
        return backbone
    folder = scratch / backbone
    if not (folder / "config.json").is_file():
        build(folder, SHAPES[backbone])
    return str(folder)


def build(folder: Path, shape: dict[str, int]) -> None:
    """Random weights in a Qwen2's shape, always the same, with the embedded tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, Qwen2Config

    tiny = Path(methods.__file__).parent / "tiny"
    ends = json.loads((tiny / "config.json").read_text())
    heads = {"num_attention_heads": shape["hidden_size"] // 64, "num_key_value_heads": shape["hidden_size"] // 128}
    config = Qwen2Config(
        **shape, **heads, tie_word_embeddings=True, max_position_embeddings=1024, bos_token_id=None,
        eos_token_id=ends["eos_token_id"], pad_token_id=ends["pad_token_id"],
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny / name, folder / name)


@cache
def sigma(backbone: str) -> float:
    """Standard deviation of the embedding's entries, in which the suite counts a prompt's rate."""
    from methods.core.backbone import Backbone

    return Backbone.load(backbone).embedding_std
