"""Backbones from the hub: no code, no pickles, one line where they cannot be had."""

import pytest

from benchmark.cli.main import main
from methods.core.backbone import Backbone
from methods.core.backbone_files import find_or_download_backbone
from tasks.core import download
from tasks.core.types import UsageError
from tests.end_to_end.network.conftest import gone, ill, model
from tests.support.hub_server import Hub


def test_a_backbone_comes_from_the_hub_without_code_and_pickles(hub):
    hub.put("model", "someorg/tiny", model() | {"pytorch_model.bin": b"pickle", "modeling_x.py": b"code"})
    found = Backbone.load("someorg/tiny")
    assert found.fingerprint == Backbone.load("tiny").fingerprint
    assert not [line for line in hub.asked if ".bin" in line or ".py" in line]
    asked = len(hub.asked)
    find_or_download_backbone("someorg/tiny")
    assert len(hub.asked) == asked


def pickled(hub: Hub) -> None:
    gone(hub)
    files = {path: data for path, data in model().items() if "safetensors" not in path}
    hub.put("model", "someorg/tiny", files | {"pytorch_model.bin": b"pickle"})


BACKBONES = [
    (pickled, "no *.safetensors in the hub's repository, its weights are pickles (pytorch_model.bin)"),
    (gone, "has no such repository, or it is private"),
    (ill("large", cut=1000), "broke off; run it again"),
    (ill(".", status=500), "answers 500; run it again"),
    (ill(".", wait=1), "does not answer in time; run it again"),
]


@pytest.mark.parametrize(("spoil", "said"), BACKBONES, ids=[said for _, said in BACKBONES])
def test_a_backbone_that_cannot_be_had_is_said_in_one_line(spoil, said, hub, tmp_path, monkeypatch, capfd):
    hub.put("model", "someorg/tiny", model())
    spoil(hub)
    if any(trouble.wait for trouble in hub.troubles):
        monkeypatch.setattr(download, "READ_TIMEOUT_SECONDS", 0.2)
    words = ["--profile", "smoke", "--methods", "lora", "--tasks", "chnsent", "--workers", "1", "--results",
             str(tmp_path / "results"), "--backbone", "someorg/tiny"]  # fmt: skip
    assert main(["run", *words]) == 2
    error = capfd.readouterr().err.splitlines()[-1]
    assert error.startswith("error: backbone 'someorg/tiny'")
    assert said in error
    assert not (tmp_path / "results").exists()
    if hub.troubles:
        hub.heal()
        assert find_or_download_backbone("someorg/tiny").is_dir()


def test_a_backbones_revision_must_be_there(hub):
    hub.put("model", "someorg/tiny", model())
    with pytest.raises(UsageError, match="has no such revision; give --backbone tiny"):
        find_or_download_backbone("someorg/tiny", "e" * 40)
