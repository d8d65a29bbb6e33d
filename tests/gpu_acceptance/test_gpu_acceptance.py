"""`make gpu-check`, small and on the CPU: that it runs, that it sees what is wrong, and that one failure is only one."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from methods import load_method
from methods.core.backbone import Backbone
from methods.core.slot_parameters import SlotParameter
from tasks.core.types import UsageError
from tests.gpu_acceptance import all_methods as every
from tests.gpu_acceptance import check, session
from tests.gpu_acceptance import exactness as exact
from tests.gpu_acceptance import model_shapes as shapes
from tests.gpu_acceptance import utilization as share
from tests.gpu_acceptance.device import Device
from tests.gpu_acceptance.markdown_table import BEGIN, END, NONE, markdown, put
from tests.gpu_acceptance.session import TINY, Session

CPU = Device("cpu")


@pytest.fixture(scope="module")
def tiny() -> Backbone:
    return shapes.made("tiny", torch.device("cpu"))


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Backbone) -> Session:
    monkeypatch.setattr(shapes, "made", lambda *_: tiny)
    return Session("cpu", "tiny", 60, tmp_path)


def test_every_method_learns_on_a_backbone_in_bf16_and_is_itself_in_fp32(tiny: Backbone, method_name: str):
    if not load_method(method_name).uses_gradient_descent:
        pytest.skip("learns nothing by steps")
    said = every.measure(CPU, tiny, method_name, "tiny", TINY.size)
    assert said["wrong"] == []
    assert said["trained"] > 0
    assert ("packed" in said) == load_method(method_name).is_packable


class Counted(Device):
    """Counts for itself: each look finds this much more in memory."""

    def __init__(self, more: int) -> None:
        super().__init__("cpu")
        self.at, self.more = 0, more

    def held(self) -> int:
        self.at += self.more
        return self.at

    def peak(self) -> int:
        return self.at


def test_memory_that_no_method_learned_or_that_stays_behind_is_wrong(tiny: Backbone):
    said = every.measure(Counted(0), tiny, "lora", "tiny", TINY.size)
    assert (said["wrong"], said["left_bytes"]) == ([], 0)
    assert said["solo"]["expected_bytes"] > 0
    wrong = every.measure(Counted(2 * every.SLACK), tiny, "lora", "tiny", TINY.size)["wrong"]
    assert [why.split(",")[0] for why in wrong] == [
        "1 slots hold 32 MiB",
        "2 slots hold 32 MiB",
        "160 MiB stay after it was closed",
    ]


def test_what_is_found_is_written_after_each_check_and_drawn(own: Session, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(every, "names", lambda: ["lora", "ta_lora"])
    found = own.run(["device", "kernels", "race", "methods", "share"])
    assert {name: said["state"] for name, said in found["checks"].items()} == dict.fromkeys(found["checks"], "held")
    assert json.loads((own.folder / "gpu.json").read_text()) == json.loads(json.dumps(found))
    table = (own.folder / "gpu.md").read_text()
    assert "| few-shot cells packed against the naive loop | 7.5x |" in table
    assert "| ta_lora |" in table
    assert "5 of 5 checks held" in table
    assert found["checks"]["race"]["found"]["naive"]["times"] == 1
    assert 0 < found["checks"]["share"]["found"]["training"]["lora"]["share"] < 1


def test_a_check_that_fails_or_comes_too_late_is_recorded_and_the_others_go_on(
    own: Session, monkeypatch: pytest.MonkeyPatch
):
    def breaks(own: Session, found: dict) -> Iterator[str]:
        found["seen"] = 1
        yield ""
        raise RuntimeError("the device fell over")

    def wrong(own: Session, found: dict) -> Iterator[str]:
        yield "lora: off"

    def slow(own: Session, found: dict) -> Iterator[str]:
        found["first"] = 1
        own.budget = 0
        yield ""
        found["second"] = 2

    checks = {"breaks": breaks, "wrong": wrong, "slow": slow, "late": wrong}
    monkeypatch.setattr(session, "CHECKS", checks)
    said = own.run()["checks"]
    assert [said[name]["state"] for name in checks] == ["failed", "failed", "cut short", "left out"]
    assert "the device fell over" in said["breaks"]["reason"]
    assert said["breaks"]["found"] == {"seen": 1}
    assert said["wrong"]["reason"] == "lora: off"
    assert said["slow"]["found"] == {"first": 1}
    assert "budget" in said["late"]["reason"]
    assert "0 of 4 checks held" in (own.folder / "gpu.md").read_text()


def test_distances_are_small_and_a_slot_that_reads_another_is_far(tiny: Backbone, monkeypatch: pytest.MonkeyPatch):
    found = exact.distances("lora", tiny, TINY.size)
    assert found["pack"] < exact.FAR / 2
    assert found["padding"] < exact.FAR / 2
    assert found["cache"] < exact.FAR / 2

    def first(bank: SlotParameter) -> torch.Tensor:  # every row the set of the first slot present
        return bank.tensors[bank.slot_context.present_slots[0] if len(bank.tensors) > 1 else 0]

    monkeypatch.setattr(SlotParameter, "forward", first)
    assert exact.distances("lora", tiny, TINY.size)["pack"] > 2 * exact.FAR


def test_operations_are_those_of_the_linears_and_of_attention():
    shape = shapes.SHAPES["7B"]
    linears = shape.num_parameters - 2 * 152064 * 3584 - 57 * 3584
    assert share.forwards(shape, 10, 0) == 20 * (linears - 3 * 3584 * 18944)  # without the last layer's MLP
    assert share.forwards(shape, 1, 100) - share.forwards(shape, 1, 0) == 28 * 4 * 3584 * 100


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_in_one_line(capsys: pytest.CaptureFixture, tmp_path: Path):
    assert check.main(["--out", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert len(said.err.splitlines()) == 1
    assert "no CUDA device" in said.err
    assert not list(tmp_path.iterdir())


def test_the_table_goes_between_its_markers_and_without_a_run_nothing_is_claimed(tmp_path: Path):
    page = tmp_path / "performance.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    put(markdown({}), page)
    text = page.read_text()
    assert text.startswith(f"before\n{BEGIN}\n")
    assert text.endswith(f"\n{END}\nafter\n")
    assert "old" not in text
    assert text.count(NONE) == 8
    page.write_text("no markers")
    with pytest.raises(UsageError, match=BEGIN):
        put("", page)
