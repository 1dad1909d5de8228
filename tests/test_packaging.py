"""The wheel and the source distribution: what is in them, and that they hold what README and the classifiers say."""

import email
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("torchprune_spatial", "resolution_scaling")
README = (ROOT / "README.md").read_text(encoding="utf-8")
TESTED = (ROOT / "docs" / "tested_versions.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The names of the files in ``(wheel, source distribution)``, the wheel's metadata, and the wheel."""
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,), (source,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as file:
        in_wheel = set(file.namelist())
        (name,) = (name for name in in_wheel if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(file.read(name))
    with tarfile.open(source) as file:
        in_source = {name.partition("/")[2] for name in file.getnames()}
    return in_wheel, in_source, metadata, wheel


def files(*folders: str) -> set[str]:
    """Of the checkout, what is no cache."""
    found = (path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file())
    names = {path.relative_to(ROOT).as_posix() for path in found}
    return {name for name in names if "__pycache__" not in name and "/." not in name}


def test_the_wheel_holds_the_packages_and_nothing_else(built):
    in_wheel = built[0]
    code = {name for name in in_wheel if ".dist-info/" not in name}
    assert code == files(*PACKAGES)
    assert {f"{package}/py.typed" for package in PACKAGES} <= code
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in in_wheel)


def test_the_source_distribution_holds_what_is_needed_to_work_on_it(built):
    in_source = built[1]
    tops = {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "Makefile", "pyproject.toml"}
    needed = tops | files(*PACKAGES, "tests", "recipes", "benchmarks", "docs")
    assert needed <= in_source
    assert "recipes/datasets/data/NOTICE.md" in in_source


def test_neither_holds_results_or_caches(built):
    for names in built[:2]:
        parts = {part for name in names for part in name.split("/")}
        assert not parts & {"results", "site", "dist", ".git", "__pycache__", ".hypothesis", ".pytest_cache"}
        assert not {part for part in parts if part.startswith((".venv", ".mypy", ".ruff")) or part.endswith(".pyc")}


def test_extras_are_those_that_the_readme_names(built):
    named = set(re.search(r"^Extras: (.*?)\n\n", README, re.M | re.S)[1].split("`")[1::2])
    assert named == set(built[2].get_all("Provides-Extra"))


def test_the_packages_need_what_they_import_when_they_are_imported(built):
    needed = {re.split(r"[^\w.-]", line)[0] for line in built[2].get_all("Requires-Dist") if "extra ==" not in line}
    assert needed == {"scipy", "tabulate", "torch", "torch-pruning", "tqdm"}


def test_versions_that_are_claimed_were_tried(built):
    metadata = built[2]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in TESTED.splitlines() if line[:3] == "| 3"]
    pythons = {row[0].rsplit(".", 1)[0] for row in rows}
    claimed = {
        line.rpartition(" ")[2] for line in metadata.get_all("Classifier") if re.search(r":: Python :: 3\.\d+$", line)
    }
    assert claimed == pythons
    assert metadata["Requires-Python"] == f">={min(claimed, key=lambda version: int(version.split('.')[1]))}"
    oldest = min(tuple(map(int, row[1].split("+")[0].split(".")[:2])) for row in rows)
    assert f"torch>={oldest[0]}.{oldest[1]}" in metadata.get_all("Requires-Dist")


def test_snippets_of_the_readme_run_from_the_wheel(built, tmp_path):
    """In an environment of its own, with what others bring from this one; `make package` has them installed anew."""
    venv.create(tmp_path)
    (site,) = tmp_path.glob("lib/python*/site-packages")
    with zipfile.ZipFile(built[3]) as file:
        file.extractall(site)
    (site / "others.pth").write_text(sysconfig.get_path("purelib"))  # whose own .pth, of the checkout, is not read
    command = [tmp_path / "bin" / "python", "-I", ROOT / "tests" / "wheel_snippets.py", ROOT / "README.md"]
    assert "snippets ran" in subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path).stdout


def test_the_workflow_runs_what_ci_runs():
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    targets = set(re.search(r"target: \[(.*?)\]", workflow)[1].split(", "))
    ran = set(re.findall(r"^make (\S+)", (ROOT / ".ci" / "run").read_text(), re.M))
    assert ran <= targets <= ran | {"docs", "package"}


def test_types_are_promised_where_they_are(built):
    assert "Typing :: Typed" in built[2].get_all("Classifier")
