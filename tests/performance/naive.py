"""The naive peer: one process for one cell, with `transformers.Trainer` and `peft`, as a competent user writes it.

    python tests/performance/naive.py CELL.json RESULT.json

It knows nothing of the suite. A cell is prompts and answers as plain text, a backbone's folder and the same steps, batch
size, rates and rank. Training pads to the longest of a batch; choices are scored by one forward for each label, spans
are generated. Evaluation batches go by length, which is one line and a fifth of the time on long texts.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from peft import LoraConfig, PrefixTuningConfig, PromptTuningConfig, PromptTuningInit, TaskType, get_peft_model
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    DataCollatorForSeq2Seq,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
ROWS = 32  # of an evaluation batch: 8, 32 and 128 were tried on a CPU, 128 is slower
Row = dict[str, Any]  # prompt, answers, choices: text; after `tokenised` also their ids


def main(cell: dict[str, Any]) -> dict[str, Any]:
    """Train and test one cell. -> predictions, seconds by phase, share of padding, highest memory."""
    marks, names = [perf_counter()], ("load", "tokenise", "train", "test")
    set_seed(cell["seed"])
    model, tokenizer = load(cell)
    marks.append(perf_counter())
    train, test = (tokenised(tokenizer, cell[split], cell["max_length"]) for split in ("train", "test"))
    marks.append(perf_counter())
    collator = Padding(tokenizer, padding="longest")
    trained(model, train, collator, cell)
    marks.append(perf_counter())
    found, scores = predicted(model, tokenizer, test, cell["max_new_tokens"])
    marks.append(perf_counter())
    return {
        "seconds": {name: b - a for name, a, b in zip(names, marks[:-1], marks[1:], strict=True)},
        "predictions": found,
        "scores": scores,
        "padded_share": 1 - collator.real / collator.padded,
        "peak_bytes": peak(),
    }


def load(cell: dict[str, Any]) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    """The backbone with its adapter, and the tokenizer as its file has it (AutoTokenizer would put Qwen's own on top)."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(cell["backbone"], padding_side="right")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(cell["backbone"], dtype=torch.float32)
    kind, task = cell["method"], TaskType.CAUSAL_LM
    if kind == "lora":
        config = LoraConfig(r=cell["rank"], lora_alpha=cell["alpha"], target_modules=list(ATTENTION), task_type=task)
    elif kind == "prompt":
        start = PromptTuningInit.RANDOM
        config = PromptTuningConfig(num_virtual_tokens=cell["length"], prompt_tuning_init=start, task_type=task)
    elif kind == "prefix":
        width = {"prefix_projection": True, "encoder_hidden_size": cell["mlp"]} if cell["mlp"] else {}
        config = PrefixTuningConfig(num_virtual_tokens=cell["length"], task_type=task, **width)
    else:
        return model, tokenizer  # full: all weights learn
    model = get_peft_model(model, config)
    if kind == "prompt":  # from the first prompt's own tokens; peft's text start would ask AutoTokenizer
        ids = tokenizer(cell["train"][0]["prompt"], add_special_tokens=False)["input_ids"] * cell["length"]
        start = model.get_input_embeddings()(torch.tensor(ids[: cell["length"]]))
        model.prompt_encoder.default.embedding.weight.data.copy_(start)
    return model, tokenizer


def tokenised(tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row], max_length: int) -> list[Row]:
    """Ids of prompt, answer and choices. A prompt that is too long loses its beginning."""

    def ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    found = []
    for row in rows:
        answer, choices = [*ids(row["answers"][0]), tokenizer.eos_token_id], [ids(choice) for choice in row["choices"]]
        room = max(map(len, [answer, *choices]))
        found.append(row | {"ids": ids(row["prompt"])[room - max_length :], "answer": answer, "labels": choices})
    return found


class Padding(DataCollatorForSeq2Seq):
    """transformers' own collator, which counts what it pads."""

    real, padded = 0, 0

    def __call__(self, rows: list[dict], return_tensors: str | None = None) -> dict[str, Tensor]:
        batch = super().__call__(rows, return_tensors)
        self.real, self.padded = (
            self.real + int(batch["attention_mask"].sum()),
            self.padded + batch["input_ids"].numel(),
        )
        return batch


def trained(model: nn.Module, train: Sequence[Row], collator: Padding, cell: dict[str, Any]) -> None:
    """The loss is that of the answer alone."""
    items = [
        {"input_ids": row["ids"] + row["answer"], "labels": [-100] * len(row["ids"]) + row["answer"]} for row in train
    ]
    options = TrainingArguments(
        output_dir=cell["scratch"],
        max_steps=cell["steps"],
        per_device_train_batch_size=cell["batch_size"],
        learning_rate=cell["lr"],
        lr_scheduler_type="linear",
        warmup_steps=round(cell["warmup"] * cell["steps"]),
        weight_decay=0.0,
        max_grad_norm=1.0,
        optim="adamw_torch_fused",
        seed=cell["seed"],
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )
    Trainer(model=model, args=options, train_dataset=items, data_collator=collator).train()
    model.eval()


# -------------------------------------------------------------------- test


@torch.inference_mode()
def predicted(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row], most: int
) -> tuple[list[str], list[list[float]]]:
    """An answer for each row, and for choices the log-likelihood of each."""
    found, scores = [""] * len(rows), [[] for _ in rows]
    for places in batches(rows):
        block = [rows[place] for place in places]
        if not block[0]["choices"]:
            for place, text in zip(places, generated(model, tokenizer, block, most), strict=True):
                found[place] = text
            continue
        for label in range(max(len(row["labels"]) for row in block)):
            own = [place for place in places if label < len(rows[place]["labels"])]
            for place, score in zip(own, scored(model, tokenizer, [rows[p] for p in own], label), strict=True):
                scores[place].append(score)
        for place in places:
            found[place] = rows[place]["choices"][scores[place].index(max(scores[place]))]
    return found, scores


def batches(rows: Sequence[Row]) -> Iterator[list[int]]:
    """Places of rows of about one length."""
    order = sorted(range(len(rows)), key=lambda place: len(rows[place]["ids"]))
    for first in range(0, len(order), ROWS):
        yield order[first : first + ROWS]


def scored(model: nn.Module, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row], label: int) -> list[float]:
    """Sum of log p over the tokens of this label, after each row's prompt."""
    whole = [row["ids"] + row["labels"][label] for row in rows]
    batch = tokenizer.pad({"input_ids": whole}, padding_side="right", return_tensors="pt")
    ids, length = batch["input_ids"], batch["input_ids"].shape[1]
    logits = model(input_ids=ids, attention_mask=batch["attention_mask"], use_cache=False).logits[:, -length:]
    picked = logits[:, :-1].float().log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    sums = []
    for row, values in zip(rows, picked, strict=True):
        first = len(row["ids"]) - 1
        sums.append(values[first : first + len(row["labels"][label])].sum().item())
    return sums


def generated(model: nn.Module, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row], most: int) -> list[str]:
    """Greedy continuation of each prompt."""
    batch = tokenizer.pad({"input_ids": [row["ids"] for row in rows]}, padding_side="left", return_tensors="pt")
    out = model.generate(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], max_new_tokens=most, do_sample=False
    )
    new = out[:, -(out.shape[1] - batch["input_ids"].shape[1]) :]
    return [text.strip() for text in tokenizer.batch_decode(new, skip_special_tokens=True)]


def peak() -> int:
    """The highest memory of this process, in bytes (Linux; elsewhere 0)."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


if __name__ == "__main__":
    disable_progress_bar()
    set_verbosity_error()
    torch.set_num_threads(1)
    Path(sys.argv[2]).write_text(json.dumps(main(json.loads(Path(sys.argv[1]).read_text())), ensure_ascii=False))
