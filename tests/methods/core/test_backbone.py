from copy import deepcopy
from pathlib import Path

import pytest
import tokenizers
import torch
from torch import nn
from torch.testing import assert_close

from methods.conformance.tiny_models import CONFIG_CLASSES, save_random_model
from methods.core import backbone_files
from methods.core.backbone import Backbone
from methods.core.backbone_files import compute_fingerprint, find_or_download_backbone
from tasks.core.types import UsageError


@pytest.mark.parametrize("architecture", CONFIG_CLASSES)
def test_ids_are_those_of_the_tokenizer_file(architecture: str, model_folders: dict[str, Path]):
    """Under a qwen2 config the library's own loader would lay Qwen2's splitting over this tokenizer, silently."""
    folder = model_folders[architecture]
    plain = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer = Backbone.load(str(folder)).tokenizer
    for text in ("判断两个句子的意思，从不同、相同中选一个。\n", "2026年11月 12345 abc DEF", "！？…—「」\t  x"):
        assert tokenizer(text)["input_ids"] == plain.encode(text).ids
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_a_tokenizer_without_padding_pads_with_the_end_token(qwen3: Backbone):
    assert qwen3.tokenizer.pad_token_id == qwen3.tokenizer.eos_token_id == 1


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/folder", "nowhere", "no/such/place/x", "~/nowhere", "C:\\x"])
def test_a_missing_folder_is_said_at_once(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(backbone_files, "snapshot_download", lambda *_, **__: pytest.fail("touched the network"))
    with pytest.raises(UsageError, match="no such folder"):
        find_or_download_backbone(name)


def test_a_folder_that_stands_there_makes_a_path_of_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(UsageError, match="no such folder"):
        find_or_download_backbone("runs/final")


def test_a_hub_id_that_is_not_cached_fails_at_once_offline():
    with pytest.raises(UsageError, match="HF_HUB_OFFLINE"):
        find_or_download_backbone("nobody/nothing")


def test_what_a_folder_lacks_is_named(tmp_path: Path):
    with pytest.raises(UsageError, match=r"no config\.json"):
        find_or_download_backbone(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_text("pickled")
    with pytest.raises(UsageError, match=r"no \*\.safetensors"):
        find_or_download_backbone(str(tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float8"}, "no dtype"),
        ({"device": "abacus"}, "no device"),
        ({"attention": "psychic"}, "no attention"),
    ],
)
def test_a_wrong_option_is_one_line(options: dict, message: str, model_folders: dict[str, Path]):
    with pytest.raises(UsageError, match=message) as caught:
        Backbone.load(str(model_folders["llama"]), **options)
    assert "\n" not in str(caught.value)


def test_an_unknown_architecture_is_named(tmp_path: Path):
    save_random_model(tmp_path, "llama")
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"model_type": "llama"', '"model_type": "gpt2"'))
    with pytest.raises(UsageError, match=r"gpt2.*qwen2, qwen3, llama"):
        Backbone.load(str(tmp_path))


def test_the_fingerprint_follows_the_weights_and_not_the_place(tmp_path: Path):
    first, second = save_random_model(tmp_path / "a", "qwen3"), save_random_model(tmp_path / "b", "qwen3")
    assert compute_fingerprint(first) == compute_fingerprint(second)
    weights = second / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert compute_fingerprint(first) != compute_fingerprint(second)


def test_an_unknown_site_lists_those_there_are(qwen3: Backbone):
    with pytest.raises(UsageError, match="no site 'qq'; there are: q k v o gate up down"):
        qwen3.attach("q qq", lambda linear: linear)


def test_a_site_is_the_linear_its_path_says(backbone: Backbone):
    for key, linear in backbone.get_linears("q k v o gate up down").items():
        assert backbone.model.get_submodule(backbone.get_module_path(key)) is linear


def test_sigma_is_the_spread_of_the_embedding(qwen3: Backbone):
    assert qwen3.embedding_std == pytest.approx(qwen3.model.get_input_embeddings().weight.std().item())


def test_a_term_of_zeros_changes_no_bit_and_another_arrives_before_o(backbone: Backbone):
    ids = torch.arange(5, 25)[None]
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "position_ids": torch.arange(20)[None]}
    with torch.no_grad():
        plain = backbone.compute_hidden_states(**given)
        backbone.add_attention_term(lambda attention, q: torch.zeros_like(q.transpose(1, 2)))
        assert torch.equal(backbone.compute_hidden_states(**given), plain)
        backbone.add_attention_term(lambda attention, q: q.transpose(1, 2))  # [b, s, H, d_h]
        assert not torch.allclose(backbone.compute_hidden_states(**given), plain, atol=1e-3)
        backbone.detach()
        assert torch.equal(backbone.compute_hidden_states(**given), plain)


def test_places_asked_for_have_the_states_of_a_whole_pass_and_the_last_mlp_sees_no_other(backbone: Backbone):
    ids, places = torch.arange(5, 45).view(2, 20), torch.tensor([[19, 3], [7, 7]])
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "position_ids": torch.arange(20).expand(2, -1)}
    copied, passed = deepcopy(backbone), []
    for layer in copied.model.model.layers:
        layer.mlp.register_forward_pre_hook(lambda _mlp, inputs: passed.append(inputs[0].shape[1]))
    with torch.no_grad():
        whole, found = (
            backbone.compute_hidden_states(**given),
            copied.compute_hidden_states(**given, query_positions=places),
        )
    assert_close(found, whole[torch.arange(2)[:, None], places], rtol=1e-5, atol=1e-6)
    assert passed == [20] * (len(passed) - 1) + [2]


def test_bf16_weights_take_fp32_adapters(model_folders: dict[str, Path]):
    from methods.core.stages import TARGET_STAGE
    from methods.lora import LoRA

    for dtype in ("bfloat16", "mixed"):
        backbone = Backbone.load(str(model_folders["qwen3"]), dtype=dtype)
        method = LoRA(backbone)
        method.begin_stage(TARGET_STAGE, [0])
        ids = torch.arange(5, 25)[None]
        logits = backbone.compute_logits(method.compute_hidden_states(ids, torch.ones_like(ids), (0,))[0])
        logits.sum().backward()
        assert logits.dtype == torch.float32
        assert all(p.dtype == p.grad.dtype == torch.float32 for p in method.parameters() if p.grad is not None)


def test_eager_and_sdpa_see_the_same_rows_of_a_drawn_mask(model_folders: dict[str, Path]):
    ids = torch.arange(5, 15)[None]
    sees = torch.ones(1, 10, 10, dtype=torch.bool).tril()
    sees[0, 7:, 4:7] = False
    found = []
    for attention in ("sdpa", "eager"):
        backbone = Backbone.load(str(model_folders["llama"]), attention=attention)
        with torch.no_grad():
            found.append(
                backbone.compute_hidden_states(input_ids=ids, attention_mask=sees, position_ids=torch.arange(10)[None])
            )
    assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)


def test_what_the_backbone_learned_is_taken_back(qwen3: Backbone):
    before = {name: p.detach().clone() for name, p in qwen3.model.named_parameters()}
    learning = qwen3.unfreeze(lambda name: name.endswith("norm.weight"))
    assert learning
    assert all(name.endswith("norm.weight") for name in learning)
    for parameter in learning.values():
        nn.init.normal_(parameter)
    qwen3.detach()
    assert all(torch.equal(before[name], p) and not p.requires_grad for name, p in qwen3.model.named_parameters())
