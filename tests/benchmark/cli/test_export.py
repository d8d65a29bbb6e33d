"""`benchmark export`: what a cell learned, as others load it."""

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from benchmark.cli.main import main
from methods import load_adapter
from methods.core.backbone import Backbone

CELLS = {"lora": "peft", "prompt": "peft", "bitfit": "ours", "zero_shot": "nothing"}


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory, model_folders) -> list[str]:
    """Where a small grid was run that kept what it learned."""
    found = ["--profile", "smoke", "--methods", ",".join(CELLS), "--tasks", "chnsent", "--workers", "1"]
    found += ["--backbone", str(model_folders["qwen3"]), "--results", str(tmp_path_factory.mktemp("results"))]
    assert main(["run", *found, "--set", "keep_adapters=true"]) == 0
    return found


@pytest.mark.parametrize("method", [name for name, kind in CELLS.items() if kind != "nothing"])
def test_a_cell_comes_back(method: str, words: list[str], tmp_path, model_folders, capsys):
    out = str(tmp_path / "out")
    assert main(["export", f"{method}/chnsent/4/0", out, *words]) == 0
    said, base = capsys.readouterr().out, str(model_folders["qwen3"])
    assert ("peft.PeftModel" in said) == (CELLS[method] == "peft")
    backbone = Backbone.load(base)
    found = load_adapter(out, backbone)
    ids = torch.arange(5, 17)[None]
    with torch.no_grad():
        want = backbone.compute_logits(found.compute_hidden_states(ids, torch.ones_like(ids), (0,)))
        if CELLS[method] == "peft":
            adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), out).eval()
            logits = adapted(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, -ids.shape[1] :]
            torch.testing.assert_close(logits, want, rtol=1e-4, atol=1e-4)
    found.close()
    with torch.no_grad():
        assert not torch.allclose(backbone.model(input_ids=ids).logits, want, atol=1e-5)  # it had learned
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"{method}/chnsent/4/0" in card
    assert base not in card


def test_what_cannot_be_exported_is_one_line(words: list[str], tmp_path, capsys):
    for cell, said in (("zero_shot/chnsent/0/0", "learns nothing"), ("lora/chnsent/4/1", "no cell")):
        if "no cell" in said:
            said = "is unknown"
        assert main(["export", cell, str(tmp_path / "x"), *words]) == 2
        err = capsys.readouterr().err
        assert said in err
        assert len(err.splitlines()) == 1
    assert main(["export", "lora/chnsent/4/0", str(tmp_path / "x"), *words, "--backbone", "tiny"]) == 2
    assert "use --backbone" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_cell_that_was_not_kept_says_what_keeps_it(words: list[str], tmp_path, capsys):
    words = [*words, "--results", str(tmp_path / "other"), "--methods", "lora"]
    assert main(["run", *words]) == 0
    assert main(["export", "lora/chnsent/4/0", str(tmp_path / "x"), *words]) == 2
    said = capsys.readouterr().err
    assert "--methods lora --tasks chnsent --seeds 0 --shots 4" in said
    assert main(["run", *words, "--set", "keep_adapters=true"]) == 0  # done before, but due for what it lacks
    assert main(["export", "lora/chnsent/4/0", str(tmp_path / "x"), *words]) == 0
