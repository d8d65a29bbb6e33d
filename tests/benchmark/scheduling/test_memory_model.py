"""What a cell needs of a device's memory: the formula against what autograd really keeps, and what the plan says."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmark.cli import plan
from benchmark.config.profile import BackboneConfig, Profile
from benchmark.grid import planner
from benchmark.results.store import ResultStore
from benchmark.scheduling import memory_model, packing
from benchmark.scheduling.cost_model import FIXED_SECONDS_PER_CELL, CostModel
from methods.core import architecture
from methods.core.architecture import QWEN2_5_SHAPES, ModelShape
from methods.core.meta_backbone import MetaBackbone, count_parameters_by_stage
from tests.gpu_acceptance import model_shapes as shapes
from tests.gpu_acceptance.workload import Size, plans, ready

SMALL = ModelShape(64, 3, 4, 2, 160, 2070)
LARGE = BackboneConfig(name="Qwen/Qwen2.5-7B", dtype="bfloat16", device="cpu")


def test_shapes_have_the_published_numbers_of_parameters():
    for name, wanted in (("0.5B", 494_032_768), ("1.5B", 1_543_714_304), ("7B", 7_615_616_512)):
        assert QWEN2_5_SHAPES[name].num_parameters == pytest.approx(wanted, rel=1e-3)
    model = MetaBackbone(SMALL, "meta").model
    biases = sum(p.numel() for name, p in model.named_parameters() if name.endswith("bias"))
    assert SMALL.num_parameters == sum(p.numel() for p in model.parameters()) - biases


def test_numbers_that_learn_are_those_of_the_closed_forms():
    d, h, k, layers = 3584, 3584, 512, 28
    lora = count_parameters_by_stage("lora", {"rank": 8, "sites": "q k v o"}, QWEN2_5_SHAPES["7B"])
    assert lora["stages"] == {"target": (0, layers * 8 * (4 * d + 2 * h + 2 * k))}
    prefix = count_parameters_by_stage("prefix", {"length": 20}, QWEN2_5_SHAPES["7B"])
    assert (prefix["stages"], prefix["virtual"]) == ({"target": (0, 2 * 20 * layers * k)}, 20)
    shared = count_parameters_by_stage("shared_lora", {}, SMALL)
    assert shared["stages"]["source"] == (shared["stages"]["target"][1], 0)
    assert count_parameters_by_stage("mpt", {"length": 5, "rank": 1}, SMALL)["stages"] == {
        "source": (320, 69),
        "target": (0, 389),
    }
    full = count_parameters_by_stage("full", {}, SMALL)
    assert full["weights"] == full["stages"]["target"][1] > SMALL.num_parameters
    assert count_parameters_by_stage("peft", {}, SMALL)["copies"]


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
            method.compute_slot_losses(given).sum()
        tokens = given.input_ids.numel() + method.num_virtual_tokens * len(given.slots)
        tokens += 0 if given.shared_prefix is None else given.shared_prefix.numel()
        answers = len(given.label_positions) * SMALL.vocab_size * 12
        wanted = memory_model.estimate_activation_bytes(SMALL, tokens, 2, name == "full") + answers
    assert 0.6 * wanted < sum(found.values()) < 1.15 * wanted


def large(found: Profile, *methods: str) -> Profile:
    return replace(found, backbone=LARGE, methods=methods, max_length=512, shots=(4,), seeds=(0,))


def test_on_seven_billion_all_but_full_fit_eighty_gigabytes(small: Profile, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory_model.hardware, "get_gpu_memory_mib", tuple)
    found = large(small, "full", "lora", "prompt", "zero_shot")
    needs = {cell.cell.method: memory_model.estimate_memory(found, cell) for cell in planner.plan_grid(found)}
    assert needs["full"].total_bytes > memory_model.DEFAULT_GPU_BYTES
    assert all(need.total_bytes < memory_model.DEFAULT_GPU_BYTES for name, need in needs.items() if name != "full")
    assert needs["zero_shot"].total_bytes == needs["lora"].weight_bytes == pytest.approx(15.23e9, rel=1e-3)
    assert needs["lora"].num_micro_batches == 1
    assert "does not fit" in memory_model.format_memory_estimate(needs["full"])


def test_a_pack_that_has_no_room_goes_in_parts(small: Profile, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory_model.hardware, "get_gpu_memory_mib", tuple)
    found = large(small, "lora")
    one = memory_model.estimate_memory(found, planner.plan_grid(found)[0])
    many = memory_model.estimate_memory(found, planner.plan_grid(found)[0], 16)
    assert many.trainable_bytes == 16 * one.trainable_bytes
    assert many.num_micro_batches > 1
    assert many.total_bytes <= memory_model.DEFAULT_GPU_BYTES
    monkeypatch.setattr(memory_model.hardware, "get_gpu_memory_mib", lambda: (10**6,))
    assert memory_model.estimate_memory(found, planner.plan_grid(found)[0], 16).num_micro_batches == 1


@pytest.mark.parametrize("method", ["lora", "full"])
def test_devices_that_share_a_cell_share_its_rows_and_under_fsdp_the_backbone(method: str, small, monkeypatch):
    monkeypatch.setattr(memory_model.hardware, "get_gpu_memory_mib", tuple)
    found = large(small, method)
    [planned] = [cell for cell in planner.plan_grid(found) if cell.cell.task == "chnsent"]
    alone = memory_model.estimate_memory(found, planned)
    ddp, fsdp = (
        memory_model.estimate_memory(replace(found, devices=4, strategy=name), planned) for name in ("ddp", "fsdp")
    )
    assert planned.budget.batch_size == 4
    assert (
        ddp.activation_bytes
        == fsdp.activation_bytes
        == pytest.approx(alone.activation_bytes * alone.num_micro_batches / 4)
    )
    assert ddp.weight_bytes == alone.weight_bytes
    assert alone.trainable_bytes < ddp.trainable_bytes <= 1.2 * alone.trainable_bytes
    assert alone.weight_bytes / 4 < fsdp.weight_bytes < alone.weight_bytes / 2
    assert (
        fsdp.trainable_bytes == ddp.trainable_bytes
        if method == "lora"
        else fsdp.trainable_bytes < alone.trainable_bytes / 3
    )
    monkeypatch.setattr(memory_model.hardware, "get_gpu_memory_mib", lambda: (1000,))
    assert memory_model.estimate_memory(replace(found, devices=2, strategy="ddp"), planned).num_micro_batches == 1


def test_a_part_of_the_backbone_is_what_fsdp_leaves_on_a_device():
    tied, apart = SMALL, SMALL._replace(tie_word_embeddings=False)
    assert tied.parameters_per_device(1) == tied.num_parameters
    assert tied.parameters_per_device(2) == (tied.num_parameters + tied.num_embedding_parameters) / 2
    assert (tied.max_gathered_parameters, apart.max_gathered_parameters) == (
        tied.num_linear_parameters / 3,
        apart.num_embedding_parameters,
    )


def test_seconds_of_a_cell_on_several_devices_are_not_those_of_one(small: Profile, fake):
    [planned, *_] = [cell for cell in planner.plan_grid(small) if cell.cell.method == "lora"]
    fake(small, planned, 0.5)
    results, two = ResultStore(small.results_folder).load_results(), replace(small, devices=2, strategy="ddp")
    assert CostModel(small, results).estimate_seconds(planned) == (2.0, True)
    assert CostModel(two, results).estimate_seconds(planned) == (
        CostModel(two, ()).estimate_seconds_from_flops(planned),
        False,
    )
    assert (
        FIXED_SECONDS_PER_CELL
        < CostModel(two, ()).estimate_seconds_from_flops(planned)
        < CostModel(small, ()).estimate_seconds_from_flops(planned)
    )


def test_the_plan_has_a_column_of_it_where_the_backbone_is_large(small: Profile, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory_model.hardware, "get_gpu_memory_mib", tuple)
    found = large(small, "full", "lora")
    cells = planner.plan_grid(found)
    due = packing.build_packs(found, cells, {cell.identity: 1.0 for cell in cells}, device="cuda", num_workers=1)
    needs = plan.estimate_memory_by_row(found, due)
    assert set(needs) == {"full", "lora"}
    assert "GB" in needs["lora"]
    assert plan.estimate_memory_by_row(small, packing.build_packs(small, planner.plan_grid(small)[:1], {c.identity: 1.0 for c in planner.plan_grid(small)},
                                                 device="cpu", num_workers=1)) == {}  # fmt: skip


def test_a_folder_says_its_own_shape_and_an_unknown_name_none(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps(SMALL._asdict() | {"head_dim": 32, "rms_norm_eps": 1e-6}))
    assert architecture.find_model_shape(str(tmp_path)).attention_width == 4 * 32
    assert architecture.find_model_shape("Qwen/Qwen2.5-7B-Instruct") == QWEN2_5_SHAPES["7B"]
    assert architecture.find_model_shape("someone/something") is None
