"""A task alone: with a plain Trainer, in a fixed order, idempotent, with errors of one line."""

import lightning
import pytest
import torch

import tasks
from tasks.base import Batch, Example, Task, UsageError
from tasks.core.sources import File


class Recorder(lightning.LightningModule):
    """Learns one number and remembers which examples it saw."""

    def __init__(self):
        super().__init__()
        self.weight, self.seen = torch.nn.Parameter(torch.zeros(())), []

    def training_step(self, batch, index):
        assert isinstance(batch, Batch)
        self.seen.append([example.uid for example in batch.examples])
        return (self.weight - batch.labels.clamp(min=0).float().mean()) ** 2

    def predict_step(self, batch, index):
        return batch.examples

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def trainer(folder, **options):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return lightning.Trainer(accelerator="cpu", default_root_dir=folder, enable_model_summary=False, **quiet, **options)


@pytest.mark.filterwarnings("ignore")
def test_a_plain_trainer_trains_in_the_order_of_seed_and_epoch(tokenizer, tmp_path):
    task, module = tasks.load_task("ocnli")(tokenizer, shots=4, batch_size=5), Recorder()
    trainer(tmp_path, max_epochs=2).fit(module, datamodule=task)
    want = [[item.example.uid for item in batch] for epoch in (0, 1) for batch in task.iter_train_batches(epoch)]
    assert module.seen == want
    assert module.seen[:3] != module.seen[3:]
    assert [len(batch) for batch in module.seen] == [5, 5, 2] * 2


@pytest.mark.filterwarnings("ignore")
def test_a_plain_trainer_predicts_the_test_set(tokenizer, tmp_path):
    task = tasks.load_task("cote_bd")(tokenizer, max_per_split={"test": 20})
    found = trainer(tmp_path).predict(Recorder(), datamodule=task)
    assert [example for batch in found for example in batch] == task.examples["test"]


def test_order_and_split_have_seeds_of_their_own(tokenizer):
    a, b, c = (tasks.load_task("bq")(tokenizer, shots=8, seed=s, order_seed=o) for s, o in ((0, 0), (0, 1), (1, 0)))
    orders = [[i.example.uid for batch in task.iter_train_batches(0) for i in batch] for task in (a, b, c)]
    assert orders[0] != orders[1]
    assert set(orders[0]) == set(orders[1]) != set(orders[2])


def test_setting_up_twice_changes_nothing(tokenizer):
    task = tasks.load_task("tnews")(tokenizer, shots=4)
    task.prepare_data()
    task.setup("fit")
    before = dict(task.examples), {**task.report}
    task.setup("predict")
    assert (task.examples, task.report) == before


def test_the_same_split_is_encoded_once(tokenizer):
    a, b = tasks.load_task("lcqmc")(tokenizer, shots=4), tasks.load_task("lcqmc")(tokenizer, shots=16)
    assert all(x is y for x, y in zip(a.encode_split("test"), b.encode_split("test"), strict=True))


def test_a_file_that_changes_is_read_again(local, pair_lines):
    files = {"train.txt": pair_lines(30), "dev.txt": pair_lines(5, 100)}
    first = local("afqmc", files)
    first.setup()
    second = local("afqmc", files | {"train.txt": pair_lines(50)})
    second.setup()
    assert len(second.examples["train"]) == len(first.examples["train"]) + 18


def test_scores_need_a_prediction_for_every_example():
    task = tasks.load_task("bq")()
    task.setup()
    with pytest.raises(UsageError, match="bq: 239 of test have no prediction"):
        task.score_predictions({task.examples["test"][0].uid: "一致"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shots": 0}, "shots is 0"),
        ({"data_source": "disk"}, "unknown data_source 'disk'; there are: hub, local, sample"),
        ({"data_source": "local"}, "source=local needs data_dir"),
        ({"data_source": "local", "data_dir": "/no/such/folder"}, "/no/such/folder is not a folder"),
        ({"template": "一个{}"}, "the template has 1 placeholders"),
        ({"words": {"0": "否"}}, "label '1' is unknown; there are: 0"),
    ],
)
def test_bad_input_is_one_line_that_names_the_task(options, message):
    with pytest.raises(UsageError, match=message) as caught:
        tasks.load_task("bq")(**options).setup()
    assert str(caught.value).startswith("bq")
    assert "\n" not in str(caught.value)


def test_without_files_it_says_what_it_looked_for(tmp_path):
    with pytest.raises(UsageError, match=r"drcd: no records in .*drcd; looked for DRCD_training.json, DRCD_dev.json"):
        tasks.load_task("drcd")(data_source="local", data_dir=tmp_path).prepare_data()


def test_tokens_need_a_tokenizer():
    with pytest.raises(UsageError, match="bq: no tokenizer"):
        tasks.load_task("bq")().encode_split("test")


def rhymes(text, where):
    yield from ({"a": line, "y": str(len(line) % 2)} for line in text.split())


class Rhyme(Task):
    """A user's own task: a template, words, files, and how a record becomes an example."""

    name, role, family, template, words = (
        "rhyme",
        "target",
        "own",
        "押韵吗，选是、否。\n{}\n答：",
        {"0": "否", "1": "是"},
    )
    files = (File("train", ("all.txt",), rhymes),)
    hub = None

    def read_examples(self, split):
        for row in self.read_records(split):
            yield self.make_example([row["a"]], [self.get_label_word(row["y"])], self.words.values())


def test_a_task_of_ones_own_needs_read_and_nothing_else(tmp_path, tokenizer):
    (tmp_path / "rhyme").mkdir()
    (tmp_path / "rhyme" / "all.txt").write_text(" ".join("x" * i for i in range(1, 60)))
    task = Rhyme(tokenizer, data_source="local", data_dir=tmp_path, shots=2)
    batch = next(iter(task.train_dataloader()))
    assert len(batch.examples) == 4
    assert isinstance(batch.examples[0], Example)
