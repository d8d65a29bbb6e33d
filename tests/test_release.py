"""What is installed from a wheel: every file that the suite reads, a command that works from any folder, nothing else."""

import os
import subprocess
import sys
import tomllib
from email import message_from_bytes
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from shutil import copytree, ignore_patterns
from zipfile import ZipFile

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PACKAGES = ("tasks", "methods", "benchmark")


def setuptools() -> int:
    try:
        return int(version("setuptools").partition(".")[0])
    except PackageNotFoundError:
        return 0


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this tree, built by the backend itself: no network, and no file of ours is touched."""
    if setuptools() < 77:
        pytest.skip("a wheel is built with setuptools 77 or newer, which is not installed here")
    tree = tmp_path_factory.mktemp("tree")
    for name in PACKAGES:
        copytree(ROOT / name, tree / name, ignore=ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (tree / name).write_bytes((ROOT / name).read_bytes())
    code = "from setuptools.build_meta import build_wheel; print(build_wheel('.'))"
    said = subprocess.run([sys.executable, "-c", code], cwd=tree, capture_output=True, text=True, check=True)
    return tree / said.stdout.splitlines()[-1]


def test_a_wheel_holds_every_file_of_the_packages_and_no_other(wheel: Path):
    wanted = {
        path.relative_to(ROOT).as_posix()
        for name in PACKAGES
        for path in (ROOT / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    found = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert found == wanted
    assert {f"{name}/py.typed" for name in PACKAGES} | {"methods/tiny/model.safetensors"} <= found


def test_a_wheel_says_its_licence_and_brings_its_text(wheel: Path):
    with ZipFile(wheel) as file:
        names = {name.partition(".dist-info/")[2]: name for name in file.namelist()}
        about = message_from_bytes(file.read(names["METADATA"]))
        text = file.read(names["licenses/LICENSE"])
        assert b"adapterbench = benchmark.cli.main:main" in file.read(names["entry_points.txt"])
    assert about["License-Expression"] == "Apache-2.0"
    assert text == (ROOT / "LICENSE").read_bytes()


def test_the_installed_command_works_from_any_folder_and_finds_what_is_ones_own_there(wheel: Path, tmp_path: Path):
    site, here = tmp_path / "site", tmp_path / "elsewhere"
    ZipFile(wheel).extractall(site)
    here.mkdir()
    (here / "mine.py").write_text("class Mine(:\n")  # that it is found shows before anything heavy is imported
    (here / "tasks.py").write_text("raise ImportError('a file here hides a package')\n")
    command = tmp_path / "adapterbench"  # as pip writes it: its own folder is on the path, not the one it is called in
    command.write_text("import sys\nfrom benchmark.cli.main import main\nsys.exit(main())\n")
    files = contents(site)

    def call(*words: str) -> subprocess.CompletedProcess:
        environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"}
        line = [sys.executable, str(command), *words]
        return subprocess.run(line, cwd=here, env=environment, capture_output=True, text=True, check=False)

    said = call("plan", "--profile", "dmeo")
    assert (said.returncode, "did you mean 'demo'" in said.stderr) == (2, True), said.stderr
    said = call("plan", "--profile", "smoke", "--methods", "mine:Mine", "--tasks", "chnsent")
    assert (said.returncode, "mine.py: invalid syntax" in said.stderr) == (2, True), said.stderr
    assert contents(site) == files
    assert sorted(contents(here)) == ["mine.py", "tasks.py"]


def test_the_version_and_the_licence_are_the_same_wherever_they_stand():
    about = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (cited["version"], cited["license"]) == (about["version"], about["license"])
    assert f"\n## {about['version']} " in (ROOT / "CHANGELOG.md").read_text()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
