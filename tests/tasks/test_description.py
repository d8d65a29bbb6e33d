import tasks
from tasks.validation.describe import describe_task


def test_a_description_says_what_the_loader_did(local, pair_lines, tokenizer):
    files = {
        "train.txt": pair_lines(50) + "甲\t乙\t0\n甲\t乙\t1\n",
        "dev.txt": pair_lines(9, 60),
        "test.txt": "甲\t乙\n",
    }
    task = local("afqmc", files, tokenizer=tokenizer, max_length=108)
    text = describe_task(task)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "52 train.txt" in lines
    assert "1 test.txt (not used: unlabelled)" in lines
    assert "45 train, from train.txt" in lines
    assert "5 dev, from 10% of train by content hash, at most 1000" in lines
    assert "2 conflicting label, in the train records" in lines
    assert "licence academic research only (CSTS repository)" in lines
    assert any(line.endswith("6 无关 (0)") for line in lines), "tokens of the label word"
    assert "truncated to the limit: train 100.0%, dev 100.0%, test 100.0%" in lines
    whole = max(len(tokenizer(e.prompt + e.answers[0])["input_ids"]) + 1 for e in all_examples(task))
    assert any(line.endswith(f"longest {whole}") for line in lines), "before cutting"
    assert text.count("\n意思：[") == 3


def all_examples(task):
    return [example for examples in task.examples.values() for example in examples]


def test_a_missing_file_and_too_few_shots_are_named(local, pair_lines):
    text = describe_task(local("lcqmc", {"dev.txt": pair_lines(30), "test.txt": pair_lines(9, 60)}, shots=20))
    assert "missing  train.txt" in text
    assert "fewer than 20 of 不同" in text
    assert "length in characters" in text


def test_answers_that_no_window_holds_are_counted(local, tokenizer):
    rows = [f'{{"s": "{"很远" * 40}第{i}站", "ot": "第{i}站"}}\n' for i in range(10, 45)]
    files = {"train.txt": "".join(rows[:30]), "test.txt": "".join(rows[30:])}
    for most, said in ((200, True), (512, False)):
        text = describe_task(local("cote_bd", files, tokenizer=tokenizer, max_length=most))
        assert ("\nanswers lost by truncation: dev 3, test 5\n" in text) == said


def test_every_sample_is_described():
    for name in tasks.TASK_NAMES:
        assert describe_task(tasks.load_task(name)(shots=4)).startswith(f"{name}: ")
