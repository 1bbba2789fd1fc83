"""The house: imports point one way, files stay short, names say something, and the map is true."""

import ast
import importlib.metadata
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "videodit"
MODULES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in MODULES}
# From the ground up; a room uses those below it. Rooms of one storey may use each other, except the four of the first.
STOREYS = [
    {"shapes", "config"},
    {"data", "autoencoder", "backbone", "diffusion"},
    {"folders", "models", "parallel", "given", "kernels"},
    {"convert", "adapters", "generate", "edit", "extend", "upscale", "request", "fitting", "record"},
    {"evaluate"},
    {"train"},
    {"serve"},
    {"cli", "__main__"},
]
STOREY = {room: number for number, rooms in enumerate(STOREYS) for room in rooms}
STRANGERS = STOREYS[1]
LIBRARIES_OF_TRAINING = {"torch", "diffusers", "tokenizers", "safetensors"}


def name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    """The rooms that a module imports, anywhere in it; `__init__` is the package itself."""
    found = set()
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)}:{node.lineno} imports relatively: name the room"
            whole = node.module == "videodit"
            modules = [f"videodit.{alias.name}" for alias in node.names] if whole else [node.module or ""]
        else:
            continue
        found |= {f"{module}.__init__".split(".")[1] for module in modules if module.split(".")[0] == "videodit"}
    return {part if part in STOREY else "__init__" for part in found}


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_imports_point_one_way(path):
    here = room(path)
    if here == "__init__":  # the front door shows what is inside
        return
    assert here in STOREY, f"{name(path)} is in no room of the design: mend the tree"
    for there in imported_rooms(path) - {here}:
        if there == "__init__":
            assert here == "cli", f"{name(path)} imports the whole package: name the room"
            continue
        assert STOREY[there] <= STOREY[here], f"{name(path)} looks up to {there}"
        assert not {here, there} <= STRANGERS, f"{name(path)} imports {there}, and those two never import each other"


def test_no_two_rooms_import_each_other():
    edges = {(room(path), there) for path in MODULES for there in imported_rooms(path)}
    assert not [pair for pair in edges if pair[0] < pair[1] and pair[::-1] in edges]


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_files_and_functions_stay_short(path):
    assert path.read_text(encoding="utf-8").count("\n") <= 400
    for node in ast.walk(TREES[path]):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= 60, f"{name(path)}:{node.lineno} {node.name} has {length} lines"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_names_say_something(path):
    assert not {"utils", "util", "common", "helpers", "helper", "misc"} & {part.removesuffix(".py") for part in path.parts}
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.ClassDef):
            assert not {"Base", "Manager", "Factory", "Wrapper"} & set(re.findall(r"[A-Z][a-z]+", node.name)), node.name
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert not node.name.lstrip("_").startswith("get_"), node.name


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_nothing_runs_what_it_reads(path):
    """No eval, no exec, no pickle, and no torch.load that would take one."""
    for node in ast.walk(TREES[path]):
        where = f"{name(path)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            assert not {"pickle", "dill", "joblib", "torchvision"} & {module.split(".")[0] for module in modules}, where
        if isinstance(node, ast.Call):
            call, given = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
            assert call not in ("eval", "exec"), where
            assert call != "torch.load" or given.get("weights_only") == "True", where
            assert given.get("allow_pickle", "False") == "False", where


LIGHT = ("", ".cli.main", ".config", ".folders", ".data.toybox", ".data.video", ".data.sources", ".evaluate.compare")


@pytest.mark.parametrize("module", [f"videodit{name}" for name in LIGHT])
def test_torch_comes_only_when_it_is_needed(module):
    code = f"import sys, {module}; print(*({LIBRARIES_OF_TRAINING} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def project_texts() -> list[Path]:
    folders = ("src", "tests", "docs", "runs", "benchmarks", ".ci")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*")] + list(ROOT.iterdir())
    endings = {".py", ".md", ".toml", ".txt", ".html", ".css", ".js", ".json", ".svg", ""}
    return [path for path in files if path.is_file() and path.suffix in endings and path.name not in ("LICENSE", ".git")]


def test_the_project_names_no_place_of_one_machine():
    """Paths of a machine, hosts of registries: what is true only where it was written."""
    places = [
        "/" + "work/",
        "/" + "tmp/",
        "/" + "root/",
        "/" + "opt/",
        "pypi" + ".org",
        "python" + "hosted",
        "npmjs" + ".",
        "deb." + "debian",
    ]
    texts = project_texts()
    assert len(texts) > len(MODULES)
    for path in texts:
        text = path.read_text(encoding="utf-8")
        assert not [place for place in places if place in text], path


def test_the_map_is_true():
    """docs/map.md names every module, and nothing that is not there."""
    drawn = re.findall(r"^ *([\w/]+\.py)\b", (ROOT / "docs" / "map.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(drawn) == sorted(name(path) for path in MODULES if path.name != "__init__.py")


def test_every_dependency_has_its_reason():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    reasons = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    for line in asked:
        dependency = re.split(r"[\[<>=!~; ]", line)[0]
        assert f"| {dependency} |" in reasons, f"docs/dependencies.md gives no reason for {dependency}"


def test_torchvision_is_nowhere():
    """Its wheel is a CUDA build: beside the CPU torch its mere presence breaks what we depend on."""
    assert importlib.util.find_spec("torchvision") is None
    for distribution in importlib.metadata.distributions():
        for line in distribution.requires or []:
            if re.match(r"torchvision\b", line):
                assert "extra ==" in line, f"{distribution.metadata['Name']} requires torchvision"
