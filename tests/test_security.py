"""No secret leaves the environment, nothing that is read can run code, and no text reaches a shell."""

import ast
from pathlib import Path

import pytest

from benchmark.cli.main import main
from benchmark.system.redaction import describe_failure, redact_private_text
from methods.core.backbone_files import DOWNLOAD_PATTERNS

ROOT = Path(__file__).parents[1]
SOURCES = [path for layer in ("tasks", "methods", "benchmark") for path in sorted((ROOT / layer).rglob("*.py"))]
KEY = "hf_plantedPLANTEDplanted0123456789"
NAMES = ("HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "MY_PASSWORD")
# what turns data into code, or hands text to a shell
FORBIDDEN = {
    "pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "eval", "exec", "compile", "os.system",
    "os.popen", "torch.load", "torch.save", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "numpy.load", "np.load",
    "subprocess.getoutput", "subprocess.getstatusoutput",
}  # fmt: skip
LEAK = """
import os
from methods.lora import LoRA

class Leaks(LoRA):
    name = "leaks"
    def training_step(self, batch, batch_idx):
        raise RuntimeError(f"401 for https://x:{os.environ['HF_TOKEN']}@huggingface.co")
"""


@pytest.mark.parametrize("name", NAMES)
def test_a_secret_of_the_environment_is_never_part_of_a_message(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(name, KEY)
    assert redact_private_text(f"401 with {KEY}!") == f"401 with <{name}>!"
    assert KEY not in str(describe_failure(RuntimeError(KEY)))


def test_what_is_no_secret_is_left_in_place(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setenv("MONKEY", "readable words")
    assert redact_private_text("readable words") == "readable words"


def test_a_planted_key_is_in_no_result_and_no_output(model_folders, tmp_path, monkeypatch, capfd):
    (tmp_path / "leak.py").write_text(LEAK)
    monkeypatch.syspath_prepend(tmp_path)
    for name in NAMES:
        monkeypatch.setenv(name, KEY)
    results = tmp_path / "results"
    words = ["--profile", "smoke", "--backbone", str(model_folders["qwen3"]), "--tasks", "chnsent", "--workers", "1",
             "--results", str(results), "--methods", "zero_shot,leak:Leaks"]  # fmt: skip
    assert main(["run", *words]) == 1
    assert main(["show", "leak:Leaks/chnsent/4/0", *words]) == 0
    out = capfd.readouterr()
    assert "<HF_TOKEN>" in out.out
    assert KEY not in out.out + out.err
    files = [path for path in results.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


def test_an_error_of_the_command_line_shows_no_key(monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", KEY)
    assert main(["plan", "--profile", KEY]) == 2
    assert "no profile '<HF_TOKEN>'" in capsys.readouterr().err


def named(node: ast.AST) -> str:
    """The dotted name of an expression, where it is one."""
    if isinstance(node, ast.Attribute):
        return f"{named(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def offences(tree: ast.Module) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            found += [module for module in modules if module.partition(".")[0] in FORBIDDEN]
        if not isinstance(node, ast.Call):
            continue
        name, options = named(node.func), {word.arg: word.value for word in node.keywords}
        if name in FORBIDDEN:
            found.append(name)
        for option, right in (("shell", False), ("trust_remote_code", False), ("allow_pickle", False)):
            if option in options and getattr(options[option], "value", None) is not right:
                found.append(f"{name}({option}=...)")
        if name == "yaml.load" and "SafeLoader" not in named(options.get("Loader")) + ast.unparse(tree):
            found.append("yaml.load without SafeLoader")
        if name.startswith("subprocess.") and node.args and isinstance(node.args[0], ast.JoinedStr | ast.Constant):
            found.append(f"{name} of a text")
        if (
            name.endswith("from_pretrained")
            and not name.startswith("Peft")
            and getattr(options.get("trust_remote_code"), "value", None) is not False
        ):
            found.append(f"{name} without trust_remote_code=False")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_can_run_what_it_reads(path: Path):
    assert offences(ast.parse(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "code",
    ["import pickle", "from pickle import load", "torch.load(x)", "subprocess.run(x, shell=True)", "eval(x)", "yaml.load(x)",
     "subprocess.run(f'ls {x}')", "A.from_pretrained(x)", "A.from_pretrained(x, trust_remote_code=True)",
     "np.load(x, allow_pickle=True)", "os.system(x)"],
)  # fmt: skip
def test_the_scan_sees_what_it_should(code: str):
    assert offences(ast.parse(code))


def test_only_data_is_fetched_from_the_hub():
    assert not [
        pattern for pattern in DOWNLOAD_PATTERNS if pattern.endswith((".py", ".bin", ".pt", ".pkl", ".ckpt", "*"))
    ]


def test_a_backbone_with_code_of_its_own_runs_none(model_folders, tmp_path):
    import json
    import shutil

    from methods.core.backbone import Backbone

    folder = tmp_path / "model"
    shutil.copytree(model_folders["qwen3"], folder)
    mark = tmp_path / "ran"
    (folder / "modeling_x.py").write_text(f"open({str(mark)!r}, 'w')\n")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {
        name: f"modeling_x.{name}" for name in ("AutoConfig", "AutoModelForCausalLM", "AutoTokenizer")
    }
    (folder / "config.json").write_text(json.dumps(config))
    Backbone.load(str(folder))
    assert not mark.exists()
