"""Build the bundled tiny model: a tokenizer from the synthetic vocabulary and a small pretrained Qwen3 model.

    python -m methods.tiny.build --threads 2 --out methods/tiny

`make backbone` runs this. Seed and steps fix data, order and initialisation. The results are in training.json
and in the model card.
"""

import argparse
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from methods.tiny import corpus
from tasks.synthetic import lexicon

MODEL_CONFIG = {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
         "intermediate_size": 384}  # fmt: skip
EOS_TOKEN = "<|end|>"
PAD_TOKEN = "<|pad|>"
UNK_TOKEN = "<|unknown|>"
SEED = 20250500
NUM_STEPS = 6800
TOKENS_PER_BATCH = 1600  # tokens in a step
DOCUMENTS_PER_POOL = 800  # documents drawn and sorted by length at a time


def collect_vocabulary() -> list[str]:
    """Every word of the lexicons and of the label vocabularies, and every character of ten thousand documents."""
    found: dict[str, None] = {}

    def walk(value: object) -> None:
        if isinstance(value, str):
            if 1 < len(value) <= 4 and "{" not in value:
                found[value] = found[value.translate(lexicon.TRADITIONAL)] = None
        elif isinstance(value, dict):
            walk([*value.keys(), *value.values()])
        elif isinstance(value, (list, tuple)):
            for part in value:
                walk(part)

    skip = {"PEOPLE", "COMPANIES", "TRADITIONAL"}  # names are put together from parts
    walk([value for name, value in vars(lexicon).items() if name.isupper() and name not in skip])
    walk(
        [
            corpus.PARAPHRASE_LABELS,
            corpus.NLI_LABELS,
            corpus.RATING_LABELS,
            corpus.RELATION_LABELS,
            ["股份", "集团", "华安", "中科", "东方", "海通", "新城"],
        ]
    )
    rng = Random(SEED)
    for _ in range(10_000):
        found |= dict.fromkeys("".join(text for text, _ in corpus.draw_document(rng)))
    return list(found)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Longest words first, single characters where no word fits, UTF-8 bytes for what the world does not know."""
    special = [PAD_TOKEN, EOS_TOKEN, UNK_TOKEN]
    byte = [f"<0x{value:02X}>" for value in range(256)]
    # one price per token, so the fewest tokens win; bytes only as a last resort
    vocabulary = [(token, 0.0) for token in special] + [(token, -99.0) for token in byte]
    vocabulary += [(word, -10.0 - 0.01 / len(word)) for word in collect_vocabulary()]
    inner = Tokenizer(models.Unigram(vocabulary, unk_id=2, byte_fallback=True))
    inner.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        eos_token=EOS_TOKEN,
        pad_token=PAD_TOKEN,
        unk_token=UNK_TOKEN,
        padding_side="left",
        model_max_length=1024,
    )


def generate_batches(tokenizer: PreTrainedTokenizerFast, seed: int) -> Iterator[Any]:
    """Endless (ids, weights) [b, s] of about TOKENS tokens: a document a row, rows of like length, right padded.

    A document starts at the first position and sees no other, as a prompt does later.
    """
    rng = Random(seed)
    encode = tokenizer.backend_tokenizer.encode
    while True:
        pool = []
        for _ in range(DOCUMENTS_PER_POOL):
            document = corpus.draw_document(rng)
            parts = [(encode(text, add_special_tokens=False).ids, weight) for text, weight in document]
            ids = [token for tokens, _ in parts for token in tokens] + [tokenizer.eos_token_id]
            weights = [weight for tokens, weight in parts for _ in tokens] + [document[-1][1] / 3]
            pool.append((ids, weights))
        pool.sort(key=lambda row: len(row[0]))
        cuts = []
        start = 0
        for place, (ids, _) in enumerate(pool):
            if (place - start) * len(ids) > TOKENS_PER_BATCH:
                cuts.append(pool[start:place])
                start = place
        rng.shuffle(cuts)  # what is left of the pool, its longest documents, is a batch like the others
        for rows in [*cuts, pool[start:]]:
            width = max(len(ids) for ids, _ in rows)
            yield (
                torch.tensor([ids + [tokenizer.pad_token_id] * (width - len(ids)) for ids, _ in rows]),
                torch.tensor([weights + [0.0] * (width - len(weights)) for _, weights in rows]),
            )


def compute_loss(model: Qwen3ForCausalLM, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted mean cross-entropy, in nats a token. ids, weights [b, s]"""
    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=ids.is_cuda):  # most CPUs emulate bfloat16, slowly
        logits = model(input_ids=ids[:, :-1]).logits
    each = cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    weights = weights[:, 1:].flatten()
    return (each * weights).sum() / weights.sum()


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised by five Newton-Schulz steps (Jordan et al. 2024), in float32.

    `torch.optim.Muon` works in bfloat16, which most CPUs emulate: it took twice the time of the step itself.
    """

    def __init__(self, parameters: list[torch.nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            shapes: dict[tuple, list[torch.nn.Parameter]] = {}
            for parameter in group["params"]:
                shapes.setdefault(tuple(sorted(parameter.shape)), []).append(parameter)
            for shape, members in shapes.items():
                for parameter in members:
                    state = self.state[parameter]
                    state.setdefault("mean", torch.zeros_like(parameter)).lerp_(parameter.grad, 1 - group["momentum"])
                moved = [p.grad.lerp(self.state[p]["mean"], group["momentum"]) for p in members]
                flat = torch.stack([m if m.shape == shape else m.T for m in moved])
                for parameter, turned in zip(members, orthogonalize(flat), strict=True):
                    turned = turned if parameter.shape == shape else turned.T
                    scale = max(1.0, parameter.shape[0] / parameter.shape[1]) ** 0.5
                    parameter.sub_(turned, alpha=group["lr"] * scale)


def orthogonalize(x: torch.Tensor) -> torch.Tensor:
    """The nearest matrices with singular values about 1. x [n, rows <= columns, columns]"""
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x


def build_optimizers(model: Qwen3ForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the matrices between embedding and head, AdamW for the rest."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    return [Muon(matrices, lr=0.02), torch.optim.AdamW(rest, lr=1.5e-2, betas=(0.9, 0.95), weight_decay=0.0)]


def compute_lr_multiplier(progress: float) -> float:
    """The learning rate's share at this part of the run: a short rise, a plateau, a fall over the last half."""
    return min(1.0, progress / 0.02 + 0.01) * min(1.0, 0.02 + 2 * (1 - progress))


def pretrain(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, num_steps: int) -> float:
    """Train for so many steps. -> loss of the last fiftieth"""
    every = build_optimizers(model)
    losses = []
    groups = [group for optimizer in every for group in optimizer.param_groups]
    rates = [group["lr"] for group in groups]
    bar = tqdm(islice(generate_batches(tokenizer, SEED), num_steps), total=num_steps, desc="pretraining", unit="step")
    for step, (ids, weights) in enumerate(bar):
        for rate, group in zip(rates, groups, strict=True):
            group["lr"] = rate * compute_lr_multiplier(step / num_steps)
        loss = compute_loss(model, ids.to(model.device), weights.to(model.device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in every:
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
        bar.set_postfix(loss=f"{sum(losses[-100:]) / len(losses[-100:]):.3f}", refresh=False)
    last = losses[-max(1, num_steps // 50) :]
    return sum(last) / len(last)


@torch.no_grad()
def measure_accuracies(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, num_documents: int = 200
) -> dict[str, float]:
    """Share of answers whose every token is the most likely one, for each instruction, on documents never trained on."""
    encode = tokenizer.backend_tokenizer.encode
    scores = {}
    for make in (kind for kind in corpus.DOCUMENT_WEIGHTS if not kind.__name__.startswith("plain")):
        rng = Random(f"held out {make.__name__}")
        right = 0
        for _ in range(num_documents):
            prompt, answer = (encode(text, add_special_tokens=False).ids for text, _ in make(rng))
            best = model(input_ids=torch.tensor([prompt + answer])).logits[0].argmax(-1).tolist()
            right += all(best[i - 1] == token for i, token in enumerate(answer, len(prompt)))
        scores[make.__name__] = right / num_documents
    return scores


def main() -> None:
    """Train the bundled tiny model and write it with its tokenizer and model card."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=NUM_STEPS, help="more of them on a GPU help everything")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(SEED)
    words = build_tokenizer()
    config = Qwen3Config(
        vocab_size=len(words), tie_word_embeddings=True, max_position_embeddings=1024, rope_theta=10_000.0,
        bos_token_id=None, eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id, **MODEL_CONFIG
    )  # fmt: skip
    model = Qwen3ForCausalLM(config).to("cuda" if torch.cuda.is_available() else "cpu")
    print(
        f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(words):,} tokens in the vocabulary",
        flush=True,
    )
    loss = pretrain(model, words, args.steps)
    model = model.to("cpu", torch.bfloat16).to(torch.float32).eval()  # scored as it is stored
    report = {"steps": args.steps, "loss": round(loss, 4), **measure_accuracies(model, words)}
    print(json.dumps(report, indent=1))
    args.out.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16).save_pretrained(args.out)
    words.save_pretrained(args.out)
    (args.out / "training.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
