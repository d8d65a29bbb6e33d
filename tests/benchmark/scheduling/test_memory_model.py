"""What a cell needs of a device's memory: the formula against what autograd really keeps, and what the plan says."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmark import grid, memory, packs, planning
from benchmark.memory import QWEN, Shape
from benchmark.price import FIXED, Prices
from benchmark.profile import Profile, Weights
from benchmark.skeleton import Skeleton, counted
from benchmark.store import Store
from tests.gpu_acceptance import model_shapes as shapes
from tests.gpu_acceptance.workload import Size, plans, ready

SMALL = Shape(64, 3, 4, 2, 160, 2070)
LARGE = Weights(name="Qwen/Qwen2.5-7B", dtype="bfloat16", device="cpu")


def test_shapes_have_the_published_numbers_of_parameters():
    for name, wanted in (("0.5B", 494_032_768), ("1.5B", 1_543_714_304), ("7B", 7_615_616_512)):
        assert QWEN[name].parameters == pytest.approx(wanted, rel=1e-3)
    model = Skeleton(SMALL, "meta").model
    biases = sum(p.numel() for name, p in model.named_parameters() if name.endswith("bias"))
    assert SMALL.parameters == sum(p.numel() for p in model.parameters()) - biases


def test_numbers_that_learn_are_those_of_the_closed_forms():
    d, h, k, layers = 3584, 3584, 512, 28
    lora = counted("lora", {"rank": 8, "sites": "q k v o"}, QWEN["7B"])
    assert lora["stages"] == {"target": (0, layers * 8 * (4 * d + 2 * h + 2 * k))}
    prefix = counted("prefix", {"length": 20}, QWEN["7B"])
    assert (prefix["stages"], prefix["virtual"]) == ({"target": (0, 2 * 20 * layers * k)}, 20)
    shared = counted("shared_lora", {}, SMALL)
    assert shared["stages"]["source"] == (shared["stages"]["target"][1], 0)
    assert counted("mpt", {"length": 5, "rank": 1}, SMALL)["stages"] == {"source": (320, 69), "target": (0, 389)}
    full = counted("full", {}, SMALL)
    assert full["weights"] == full["stages"]["target"][1] > SMALL.parameters
    assert counted("peft", {}, SMALL)["copies"]


@pytest.mark.parametrize("name", ["lora", "prompt", "adapter", "bitfit", "ta_lora", "full"])
def test_what_a_pass_keeps_is_about_what_the_formula_says(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(shapes.SHAPES, "small", SMALL)
    backbone = shapes.made("small", torch.device("cpu"))
    with ready(name, backbone, 1) as method:
        [given] = plans(method, Size(8, 96), 1)
        own = {p.untyped_storage().data_ptr() for p in [*backbone.model.parameters(), *method.parameters()]}
        found: dict[int, int] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                found[storage.data_ptr()] = storage.nbytes()
            kept.append(tensor)  # so that no other tensor takes its place
            return tensor

        kept: list[torch.Tensor] = []
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            method.losses(given).sum()
        tokens = given.input_ids.numel() + method.virtual * len(given.slots)
        tokens += 0 if given.lead is None else given.lead.numel()
        answers = len(given.at) * SMALL.vocab_size * 12
        wanted = memory.kept(SMALL, tokens, 2, name == "full") + answers
    assert 0.6 * wanted < sum(found.values()) < 1.15 * wanted


def large(found: Profile, *methods: str) -> Profile:
    return replace(found, backbone=LARGE, methods=methods, max_length=512, shots=(4,), seeds=(0,))


def test_on_seven_billion_all_but_full_fit_eighty_gigabytes(small: Profile, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory.hardware, "gpus", tuple)
    found = large(small, "full", "lora", "prompt", "zero_shot")
    needs = {cell.cell.method: memory.of(found, cell) for cell in grid.plan(found)}
    assert needs["full"].total > memory.GPU
    assert all(need.total < memory.GPU for name, need in needs.items() if name != "full")
    assert needs["zero_shot"].total == needs["lora"].weights == pytest.approx(15.23e9, rel=1e-3)
    assert needs["lora"].parts == 1
    assert "no room" in memory.spoken(needs["full"])


def test_a_pack_that_has_no_room_goes_in_parts(small: Profile, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory.hardware, "gpus", tuple)
    found = large(small, "lora")
    one = memory.of(found, grid.plan(found)[0])
    many = memory.of(found, grid.plan(found)[0], 16)
    assert many.learned == 16 * one.learned
    assert many.parts > 1
    assert many.total <= memory.GPU
    monkeypatch.setattr(memory.hardware, "gpus", lambda: (10**6,))
    assert memory.of(found, grid.plan(found)[0], 16).parts == 1


@pytest.mark.parametrize("method", ["lora", "full"])
def test_devices_that_share_a_cell_share_its_rows_and_under_fsdp_the_backbone(method: str, small, monkeypatch):
    monkeypatch.setattr(memory.hardware, "gpus", tuple)
    found = large(small, method)
    [planned] = [cell for cell in grid.plan(found) if cell.cell.task == "chnsent"]
    alone = memory.of(found, planned)
    ddp, fsdp = (memory.of(replace(found, devices=4, strategy=name), planned) for name in ("ddp", "fsdp"))
    assert planned.parts["budget"]["batch_size"] == 4
    assert ddp.kept == fsdp.kept == pytest.approx(alone.kept * alone.parts / 4)
    assert ddp.weights == alone.weights
    assert alone.learned < ddp.learned <= 1.2 * alone.learned
    assert alone.weights / 4 < fsdp.weights < alone.weights / 2
    assert fsdp.learned == ddp.learned if method == "lora" else fsdp.learned < alone.learned / 3
    monkeypatch.setattr(memory.hardware, "gpus", lambda: (1000,))
    assert memory.of(replace(found, devices=2, strategy="ddp"), planned).parts == 1


def test_a_part_of_the_backbone_is_what_fsdp_leaves_on_a_device():
    tied, apart = SMALL, SMALL._replace(tie_word_embeddings=False)
    assert tied.share(1) == tied.parameters
    assert tied.share(2) == (tied.parameters + tied.table) / 2
    assert (tied.gathered, apart.gathered) == (tied.linears / 3, apart.table)


def test_seconds_of_a_cell_on_several_devices_are_not_those_of_one(small: Profile, fake):
    [planned, *_] = [cell for cell in grid.plan(small) if cell.cell.method == "lora"]
    fake(small, planned, 0.5)
    results, two = Store(small.folder).results(), replace(small, devices=2, strategy="ddp")
    assert Prices(small, results).seconds(planned) == (2.0, True)
    assert Prices(two, results).seconds(planned) == (Prices(two, ()).rough(planned), False)
    assert FIXED < Prices(two, ()).rough(planned) < Prices(small, ()).rough(planned)


def test_the_plan_has_a_column_of_it_where_the_backbone_is_large(small: Profile, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory.hardware, "gpus", tuple)
    found = large(small, "full", "lora")
    cells = grid.plan(found)
    due = packs.packs(found, cells, {cell.identity: 1.0 for cell in cells}, device="cuda", workers=1)
    needs = planning.memory_of(found, due)
    assert set(needs) == {"full", "lora"}
    assert "GB" in needs["lora"]
    assert planning.memory_of(small, packs.packs(small, grid.plan(small)[:1], {c.identity: 1.0 for c in grid.plan(small)},
                                                 device="cpu", workers=1)) == {}  # fmt: skip


def test_a_folder_says_its_own_shape_and_an_unknown_name_none(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps(SMALL._asdict() | {"head_dim": 32, "rms_norm_eps": 1e-6}))
    assert memory.shape_of(str(tmp_path)).attention == 4 * 32
    assert memory.shape_of("Qwen/Qwen2.5-7B-Instruct") == QWEN["7B"]
    assert memory.shape_of("someone/something") is None
