"""Few-shot cells of the embedded records three ways: the peer, the suite cell by cell, the suite packed."""

from dataclasses import dataclass
from statistics import fmean
from typing import Any

import methods
import tasks
from benchmark.config.budget import Budget
from benchmark.evaluation.evaluate import predict_test
from benchmark.training.stage import train_stage
from methods.base import TARGET_STAGE
from methods.core.backbone import Backbone
from tasks.base import Task
from tasks.core.batching import MultiTaskDataModule
from tests.gpu_acceptance import naive
from tests.gpu_acceptance.device import Device

METHOD = "lora"


@dataclass(frozen=True)
class Course:
    """Which cells, and how much each of them does."""

    tasks: tuple[str, ...] = ("chnsent", "ocnli", "tnews", "cote_bd")
    seeds: int = 4
    shots: int = 16
    steps: int = 40
    rows: int = 8
    test: int = 200
    length: int = 512

    @property
    def budget(self) -> Budget:
        """No dev scores: the peer would pay a forward per label for each."""
        return Budget(self.rows, 1, self.steps, self.steps, evaluations=0, patience=0)


def cells(backbone: Backbone, course: Course) -> list[Task]:
    """Task by task and seed by seed, read and tokenised: neither side is charged for that."""
    found = []
    for seed in range(course.seeds):
        for name in course.tasks:
            task = tasks.load_task(name)(
                backbone.tokenizer, data_source="sample", shots=course.shots, seed=seed, order_seed=seed,
                batch_size=course.rows, max_length=course.length, max_per_split={"test": course.test},
            )  # fmt: skip
            task.setup()
            for split in ("train", "test"):
                task.encode_split(split)
            found.append(task)
    return found


def run(device: Device, backbone: Backbone, course: Course) -> dict[str, Any]:
    """Seconds of a cell each way. The peer and the solo suite do one seed, the pack all of them."""
    every = cells(backbone, course)
    first = every[: len(course.tasks)]
    suite(device, backbone, first[:1], course)  # what is slow the first time
    found: dict[str, Any] = {"course": vars(course) | {"method": METHOD}, "cells": len(every)}
    found["packed"] = suite(device, backbone, every, course)
    found["solo"] = mean([suite(device, backbone, [task], course) for task in first])
    naive.cell(device, backbone, first[0], 2, course.rows)
    found["naive"] = mean([naive.cell(device, backbone, task, course.steps, course.rows) for task in first])
    for way in ("packed", "solo", "naive"):
        own = found[way]
        own["cell"] = own["train"] + own["test"]
        own["cells_per_hour"] = 3600 / own["cell"]
        own["times"] = found["naive"]["train"] + found["naive"]["test"]
        own["times"] /= own["cell"]
    return found


def suite(device: Device, backbone: Backbone, of: list[Task], course: Course) -> dict[str, float]:
    """Seconds of a cell, of those that train and are scored together."""
    device.tidy()
    start = device.clock()
    method = methods.load_method(METHOD)(backbone)
    train_stage(method, MultiTaskDataModule(of), TARGET_STAGE, course.budget, seeds=range(len(of)))
    middle = device.clock()
    predict_test(method, of, "sum")
    end = device.clock()
    method.close()
    return {"train": (middle - start) / len(of), "test": (end - middle) / len(of)}


def mean(of: list[dict[str, float]]) -> dict[str, float]:
    return {key: fmean(one[key] for one in of) for key in of[0]}
