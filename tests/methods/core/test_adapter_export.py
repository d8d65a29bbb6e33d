"""An adapter written to a folder and read again is the same method."""

import json

import pytest
import torch

from methods import load_adapter, load_method
from methods.core.export import save_adapter
from methods.core.instantiate import instantiate_method
from methods.lora import LoRA
from methods.prompt import Prompt
from tasks.core.types import UsageError
from tests.support.single import ids_of


def logits(method, slot: int = 0) -> torch.Tensor:
    ids = ids_of(2, 9)
    with torch.no_grad():
        return method.backbone.compute_logits(
            method.compute_hidden_states(ids, torch.ones_like(ids), (slot,) * len(ids))
        )


def test_every_method_comes_back_from_its_folder(method_name, qwen3, tmp_path):
    method = instantiate_method(load_method(method_name), qwen3)
    slot = method.num_slots - 1
    if not method.trained_state_dict():
        with pytest.raises(UsageError, match="learns nothing"):
            save_adapter(method, tmp_path / "out", slot)
        return
    want, alone = logits(method, slot), method.slot_state_dict(slot)
    alone = {name: tensor.clone() for name, tensor in alone.items()}
    given = method.peft_format(slot) is not None
    names = save_adapter(method, tmp_path / "out", slot, "Cell: mine")
    assert ("adapter_config.json" in names) == given
    method.close()
    found = load_adapter(tmp_path / "out", qwen3)
    assert type(found) is type(method)
    assert found.config == method.config
    assert torch.equal(logits(found), want)
    assert all(torch.equal(found.slot_state_dict()[name], tensor) for name, tensor in alone.items())
    assert "Cell: mine" in (tmp_path / "out" / "README.md").read_text()


def test_all_slots_of_a_stage_on_the_sources_are_kept(qwen3, tmp_path):
    method = instantiate_method(LoRA, qwen3)
    want = [logits(method, slot) for slot in range(3)]
    assert "adapter_config.json" not in save_adapter(method, tmp_path, None)
    method.close()
    found = load_adapter(tmp_path, qwen3)
    assert all(torch.equal(logits(found, slot), want[slot]) for slot in range(3))


def test_options_come_back(qwen3, tmp_path):
    method = instantiate_method(LoRA, qwen3, config=LoRA.parse_config({"rank": 2, "rslora": True, "sites": "down q"}))
    save_adapter(method, tmp_path)
    assert load_adapter(tmp_path, qwen3).config == method.config


def test_another_backbone_is_refused(loaded, tmp_path):
    save_adapter(instantiate_method(Prompt, loaded["qwen2"]), tmp_path)
    with pytest.raises(UsageError, match="other weights"):
        load_adapter(tmp_path, loaded["llama"])


def test_a_folder_of_other_things_is_left_alone(qwen3, tmp_path):
    (tmp_path / "mine.txt").write_text("")
    with pytest.raises(UsageError, match="holds other files"):
        save_adapter(instantiate_method(Prompt, qwen3), tmp_path)
    with pytest.raises(UsageError, match="no adapter in"):
        load_adapter(tmp_path, qwen3)


def test_an_export_takes_the_place_of_an_earlier_one(qwen3, tmp_path):
    save_adapter(instantiate_method(LoRA, qwen3), tmp_path)
    save_adapter(instantiate_method(load_method("bitfit"), qwen3), tmp_path)
    assert not (tmp_path / "adapter_config.json").exists()
    assert json.loads((tmp_path / "method.json").read_text())["method"] == "bitfit"


def test_no_file_says_where_the_backbone_lies(qwen3, tmp_path):
    save_adapter(instantiate_method(LoRA, qwen3), tmp_path)
    assert not [path for path in tmp_path.iterdir() if qwen3.name.encode() in path.read_bytes()]
