"""Which way imports run: README's *Layout* is the order, and nothing heavy comes with the packages."""

import ast
import fnmatch
import json
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("torchprune_spatial", "resolution_scaling")
FLOORS = ("torchprune_spatial", "resolution_scaling", "resolution_scaling.nni", "recipes")
"""Packages whose rooms have an order of their own in README's *Layout*."""

HEAVY = ("nni", "timm", "torchvision", "matplotlib", "pandas", "scipy", "onnx", "triton")
ROOMS_OF_LIBRARIES = {
    "nni": ("resolution_scaling.nni.*", "torchprune_spatial.nni.step"),
    "torchvision": ("resolution_scaling.adapting.transforms",),
}
"""The modules that are of no use without a library; they may import it at the top of the file."""


def rooms(floor: str) -> dict[str, Path]:
    """The files of a package by the name of their module, its ``__init__`` left out; folders count as one room."""
    folder = ROOT / floor.replace(".", "/")
    return {
        f"{floor}.{path.stem}": path
        for path in sorted(folder.iterdir())
        if path.stem not in ("__init__", "__main__") and (path.suffix == ".py" or (path / "__init__.py").exists())
    }


def files_of(path: Path) -> list[Path]:
    return [path] if path.suffix == ".py" else sorted(path.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layout() -> dict[str, list[list[str]]]:
    """README's *Layout*: for each package its rooms, in order; ``name*`` stands for several, in no order."""
    block = re.search(r"^## Layout\n+```\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    floors: dict[str, list[list[str]]] = {}
    for line in block[1].splitlines():
        if not line.startswith(" "):
            floor = line.split("/  ")[0].rstrip("/").replace("/", ".")
            floors[floor] = []
        else:
            names = re.split(r"\s{2,}", line.strip())[0].split(", ")
            for name in names:
                known = [room for room in rooms(floor) if fnmatch.fnmatch(room, f"{floor}.{name}")]
                assert known, f"README's Layout names {floor}.{name}, which is not there"
                listed = {room for step in floors[floor] for room in step}
                floors[floor].append([room for room in known if room not in listed] if "*" in name else known)
    return {floor: floors[floor] for floor in FLOORS}


def is_for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def statements(tree: ast.AST, everywhere: bool) -> list[ast.AST]:
    """All nodes that run when a file is imported, or (``everywhere``) all that it has, for type checkers too."""
    found, pending = [], [tree]
    while pending:
        node = pending.pop()
        found.append(node)
        if is_for_types_only(node) and not everywhere:
            pending += node.orelse
        elif everywhere or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            pending += ast.iter_child_nodes(node)
    return found


def imports(path: Path, everywhere: bool = True) -> set[str]:
    """Full names of the modules, or names in modules, that a file imports."""
    package = module_name(path) if path.stem == "__init__" else module_name(path).rpartition(".")[0]
    found = set()
    for node in statements(ast.parse(path.read_text(encoding="utf-8")), everywhere):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            home = ".".join([*above, *([node.module] if node.module else [])])
            found |= {f"{home}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "importlib.import_module":
            name = node.args[0]
            if isinstance(name, ast.Constant):
                found.add(name.value)
            elif isinstance(name, ast.JoinedStr) and ast.unparse(name).startswith("f'{__package__}."):
                found.add(package + ast.unparse(name)[len("f'{__package__}") : -1])
    return found


def room_of(name: str, floor: str) -> str | None:
    """The room on a floor in which a module, or a name in a module, is."""
    return next((room for room in rooms(floor) if f"{name}.".startswith(f"{room}.")), None)


def dependencies(floor: str) -> dict[str, set[str]]:
    found = {}
    for room, path in rooms(floor).items():
        names = set().union(*(imports(file) for file in files_of(path)))
        found[room] = {room_of(name, floor) for name in names} - {None, room}
    return found


ALL_FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


@pytest.mark.parametrize("floor", FLOORS)
def test_the_layout_names_every_room_once(floor):
    named = [room for step in layout()[floor] for room in step]
    inner = {other for other in FLOORS if other.startswith(f"{floor}.")}
    assert sorted(named) == sorted(set(rooms(floor)) - inner)


@pytest.mark.parametrize("floor", FLOORS)
def test_rooms_import_rooms_above_them_only(floor):
    height = {room: i for i, step in enumerate(layout()[floor]) for room in step}
    wrong = [
        f"{room} imports {other}, which stands below it"
        for room, others in dependencies(floor).items()
        for other in others
        if room in height and other in height and height[other] > height[room]
    ]
    assert not wrong


@pytest.mark.parametrize("floor", FLOORS)
def test_no_room_imports_itself_through_others(floor):
    list(TopologicalSorter(dependencies(floor)).static_order())  # raises CycleError


def test_no_file_imports_itself_through_others():
    """Without exemption: late imports and those for type checkers count too."""
    files = {module_name(path): path for path in ALL_FILES}
    found = {}
    for name, path in files.items():
        imported = imports(path)
        found[name] = {n if n in files else n.rpartition(".")[0] for n in imported} & set(files)
    list(TopologicalSorter(found).static_order())  # raises CycleError


def test_the_nni_floor_stands_on_the_rest_of_resolution_scaling():
    for room, others in dependencies("resolution_scaling").items():
        if room != "resolution_scaling.nni":
            assert "resolution_scaling.nni" not in others, room


def test_resolution_scaling_does_not_know_torchprune_spatial():
    for path in ALL_FILES:
        if path.is_relative_to(ROOT / "resolution_scaling"):
            assert not {name for name in imports(path) if name.split(".")[0] == "torchprune_spatial"}, path


def test_packages_do_not_know_what_is_built_on_them():
    for path in ALL_FILES:
        tops = {name.split(".")[0] for name in imports(path)}
        assert not tops & {"recipes", "benchmarks", "tests", "examples"}, path


def test_nothing_depends_on_assertions():
    """``python -O`` leaves them out: `prune_to` once stepped its pruner inside one."""
    for path in ALL_FILES:
        assert not any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(path.read_text("utf-8")))), path


@pytest.mark.parametrize("library", HEAVY)
def test_heavy_libraries_are_imported_where_they_are_used(library):
    allowed = ROOMS_OF_LIBRARIES.get(library, ())
    for path in ALL_FILES:
        if any(name.split(".")[0] == library for name in imports(path, everywhere=False)):
            assert any(fnmatch.fnmatch(module_name(path), room) for room in allowed), path


def test_what_a_file_imports_is_read_from_every_form(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    path = tmp_path / "house" / "floor" / "room.py"
    path.parent.mkdir(parents=True)
    path.write_text(
        "import a.b, c as d\nfrom . import e\nfrom .f import g\nfrom ..h import i\nfrom ... import far\n"
        "import importlib\nimportlib.import_module(f'{__package__}.j')\nimportlib.import_module('k.l')\n"
        "if TYPE_CHECKING:\n    import m\nelse:\n    import n\ndef late():\n    import o\n"
    )
    first = {"a.b", "c", "house.floor.e", "house.floor.f.g", "house.h.i", "importlib", "house.floor.j", "k.l", "n"}
    assert {name.strip(".") for name in imports(path, everywhere=False)} == first | {"far"}
    assert {name.strip(".") for name in imports(path)} == first | {"far", "m", "o"}


SCRIPT = """
import json, sys
import torch
known, found = set(sys.modules), {}
for library, package in (("torch", "resolution_scaling"), ("torch_pruning", "torchprune_spatial")):
    __import__(library)  # with what it brings itself: Torch-Pruning imports timm where that is installed
    known |= set(sys.modules)
    __import__(package)
    found[package] = sorted({name.split(".")[0] for name in set(sys.modules) - known})
    known |= set(sys.modules)
print(json.dumps(found))
"""


def test_importing_the_packages_imports_nothing_heavy_beside_torch_and_torch_pruning():
    out = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    for package, loaded in json.loads(out.splitlines()[-1]).items():
        assert package in loaded
        assert not set(loaded) & set(HEAVY)
