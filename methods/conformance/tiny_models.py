"""Tiny random models of every architecture, saved to disk for checks and tests."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config
from transformers.utils.logging import disable_progress_bar

CONFIG_CLASSES = {"qwen2": Qwen2Config, "qwen3": Qwen3Config, "llama": LlamaConfig}
MODEL_DIMENSIONS = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
    "attention_dropout": 0.0,
    "initializer_range": 0.2,  # large enough that logits differ by more than rounding
}


def save_byte_tokenizer(folder: Path) -> int:
    """Save a tokenizer with one token per byte and return the size of its vocabulary."""
    words = ["<unk>", "<eos>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<eos>", "unk_token": "<unk>"}')
    return len(words)


def save_random_model(folder: Path, model_type: str) -> Path:
    """Save a random model and its tokenizer in `save_pretrained` format."""
    folder.mkdir(parents=True, exist_ok=True)
    disable_progress_bar()
    size = save_byte_tokenizer(folder)
    config = CONFIG_CLASSES[model_type](
        vocab_size=size, eos_token_id=1, pad_token_id=None, bos_token_id=None, **MODEL_DIMENSIONS
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):  # zero biases would hide a bias that is not applied
            torch.nn.init.normal_(parameter, std=config.initializer_range)
    model.save_pretrained(folder)
    return folder
