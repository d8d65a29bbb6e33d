"""The peer: LoRA as users of transformers and peft write it. One cell after another, one forward per label.

The model stays loaded between cells, which flatters it: people mostly start a process for each. It reads the same
examples, takes the same number of steps and is asked the same test rows; batches are padded to their longest row.
"""

from collections.abc import Sequence

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from methods.core.backbone import Backbone
from tasks.base import Task
from tasks.core.types import EncodedExample
from tests.gpu_acceptance.device import Device

RANK, ALPHA, RATE, CLIP = 8, 16, 2e-4, 1.0  # of the suite's lora
SITES = ["q_proj", "k_proj", "v_proj", "o_proj"]
ROWS = 32  # of a scoring batch


def cell(device: Device, backbone: Backbone, task: Task, steps: int, rows: int) -> dict[str, float]:
    """Seconds of training and of scoring."""
    start = device.clock()
    settings = LoraConfig(task_type="CAUSAL_LM", r=RANK, lora_alpha=ALPHA, target_modules=SITES)
    model = get_peft_model(backbone.model, settings)
    pad = backbone.tokenizer.pad_token_id
    train(model, task, steps, rows, pad)
    middle = device.clock()
    model.eval()
    with torch.no_grad():
        if task.form == "choice":
            choose(model, task.encode_split("test"), pad)
        else:
            generate(model, task, pad)
    found = {"train": middle - start, "test": device.clock() - middle}
    model.unload()
    backbone.model.requires_grad_(False)
    return found


def train(model: nn.Module, task: Task, steps: int, rows: int, pad: int) -> None:
    of, place = task.encode_split("train"), next(model.parameters()).device
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    model.train()
    for step in range(steps):
        batch = [of[(step * rows + i) % len(of)] for i in range(rows)]
        ids, mask, labels = padded([(item.prompt_ids, item.answer_ids) for item in batch], pad, place)
        with torch.autocast(place.type, torch.bfloat16):
            loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        nn.utils.clip_grad_norm_(learning, CLIP)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        loss.item()  # a progress bar shows it


def choose(model: nn.Module, of: Sequence[EncodedExample], pad: int) -> list[int]:
    """For each choice a forward pass over prompt and choice, logits at every position."""
    place, found = next(model.parameters()).device, []
    for first in range(0, len(of), ROWS):
        batch, scores = of[first : first + ROWS], []
        for choice in range(max(len(item.choice_ids) for item in batch)):
            pairs = [(item.prompt_ids, item.choice_ids[min(choice, len(item.choice_ids) - 1)]) for item in batch]
            ids, mask, labels = padded(pairs, pad, place)
            with torch.autocast(place.type, torch.bfloat16):
                logits = model(input_ids=ids, attention_mask=mask).logits
            logs = logits[:, :-1].float().log_softmax(-1)
            wanted = labels[:, 1:]
            own = logs.gather(-1, wanted.clamp(min=0)[..., None])[..., 0]
            scores.append((own * (wanted != -100)).sum(-1))
        found += torch.stack(scores).argmax(0).tolist()
    return found


def generate(model: nn.Module, task: Task, pad: int) -> list[str]:
    place, of, found = next(model.parameters()).device, task.encode_split("test"), []
    for first in range(0, len(of), ROWS):
        batch = of[first : first + ROWS]
        longest = max(len(item.prompt_ids) for item in batch)
        ids = torch.tensor(
            [[pad] * (longest - len(item.prompt_ids)) + list(item.prompt_ids) for item in batch], device=place
        )
        mask = torch.tensor(
            [[0] * (longest - len(item.prompt_ids)) + [1] * len(item.prompt_ids) for item in batch], device=place
        )
        with torch.autocast(place.type, torch.bfloat16):
            said = model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=task.answer_tokens, do_sample=False,
                pad_token_id=pad, eos_token_id=task.tokenizer.eos_token_id,
            )  # fmt: skip
        found += task.tokenizer.batch_decode(said[:, longest:], skip_special_tokens=True)
    return found


def padded(pairs: Sequence[tuple], pad: int, place: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """ids, mask and labels of prompts with answers, as long as the longest of them."""
    ids = [torch.tensor([*prompt, *answer]) for prompt, answer in pairs]
    labels = [torch.tensor([-100] * len(prompt) + list(answer)) for prompt, answer in pairs]
    mask = [torch.ones_like(row) for row in ids]
    values = ((ids, pad), (mask, 0), (labels, -100))
    return tuple(pad_sequence(rows, batch_first=True, padding_value=value).to(place) for rows, value in values)
