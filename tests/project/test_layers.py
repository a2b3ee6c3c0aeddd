"""The shape of the code base: layers without cycles, light config, no Snakemake in the library, lists kept in step."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

# Each may import itself and what stands in its own set; the picture is in docs/architecture.md.
BASE = {"array_types", "config", "errors", "files", "ids", "pages", "prefetch", "processes", "progress", "spread"}
BASE |= {"streams", "__init__"}
MAY_IMPORT = {
    **dict.fromkeys(BASE, BASE),
    "cli": BASE,
    "formats": BASE,
    "corpus": BASE | {"formats"},
    "demo": BASE | {"formats", "corpus"},
    "publish": BASE | {"formats", "engine"},
    "extract": BASE | {"formats", "corpus"},
    "contract": BASE | {"formats", "corpus", "extract"},
    "engine": BASE | {"formats"},
    "backbones": BASE | {"formats", "engine"},
    "pretrain": BASE | {"formats", "corpus", "engine", "backbones"},
    "integrate": BASE | {"formats", "corpus", "engine", "backbones"},
    "translate": BASE | {"formats", "extract", "engine", "integrate"},
}
MAY_IMPORT |= {"commands": set(MAY_IMPORT), "workflow": set(MAY_IMPORT)}
MAY_IMPORT |= {"__main__": {"commands"}, "generated": BASE | {"commands", "workflow"}}


def modules(project: Path) -> dict[str, Path]:
    """Dotted name to file of every module of the package."""
    source = project / "src"
    found = {}
    for path in sorted((source / "signstreams").rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, *, at_load: bool = False) -> set[str]:
    """Modules that a file imports, with `from a import b` as both ``a`` and ``a.b``; ``at_load``: outside functions."""
    names = set()
    stack: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        in_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        type_checking = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if not (at_load and (in_function or type_checking)):
            stack += ast.iter_child_nodes(node)
    return names


def test_no_file_of_the_library_imports_snakemake(project: Path) -> None:
    for name, path in modules(project).items():
        assert not any(target.split(".")[0] == "snakemake" for target in imports(path)), name


def test_each_layer_imports_only_the_layers_below(project: Path) -> None:
    for name, path in modules(project).items():
        if name == "signstreams":
            continue
        layer = name.split(".")[1]
        assert layer in MAY_IMPORT, f"{name}: name its layer in this test and in docs/architecture.md"
        targets = {t.split(".")[1] for t in imports(path) if t.startswith("signstreams.")}
        allowed = MAY_IMPORT[layer] | {layer}
        assert targets <= allowed, f"{name} imports {sorted(targets - allowed)}"


def test_there_is_no_import_cycle(project: Path) -> None:
    known = modules(project)
    graph = {name: {t for t in imports(path, at_load=True) if t in known and t != name} for name, path in known.items()}
    for name in graph:  # a package's own __init__ is loaded before its modules, which is no cycle by itself
        graph[name] = {t for t in graph[name] if not name.startswith(f"{t}.")}
    done: set[str] = set()

    def visit(name: str, trail: list[str]) -> None:
        assert name not in trail, "import cycle: " + " -> ".join([*trail[trail.index(name) :], name])
        if name not in done:
            for target in sorted(graph[name]):
                visit(target, [*trail, name])
            done.add(name)

    for name in graph:
        visit(name, [])


def test_config_and_command_line_load_neither_torch_nor_detectors(project: Path) -> None:
    code = (
        "import importlib, pkgutil, sys, signstreams.cli, signstreams.config\n"
        "for module in pkgutil.iter_modules(signstreams.config.__path__):\n"
        "    importlib.import_module(f'signstreams.config.{module.name}')\n"
        "heavy = ('torch', 'mediapipe', 'cv2', 'av', 'transformers', 'snakemake')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("absent", "needing"),
    [(("mediapipe",), ()), (("mediapipe", "av"), ("signstreams.extract", "signstreams.demo", "signstreams.translate"))],
)
def test_the_library_imports_where_the_extras_are_absent(
    absent: tuple[str, ...], needing: tuple[str, ...], project: Path
) -> None:
    names = [name for name in modules(project) if not (needing and name.startswith(needing))]
    code = (
        "import importlib, sys\n"
        f"sys.modules.update(dict.fromkeys({absent!r}))\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_kind_of_setting_has_one_name_and_one_meaning(project: Path) -> None:
    folder = project / "src" / "signstreams" / "config"
    trees = {path.name: ast.parse(path.read_text(encoding="utf-8")) for path in folder.glob("*.py")}
    kinds = {
        ast.unparse(n.targets[0]): ast.unparse(n.value) for n in trees.pop("kinds.py").body if isinstance(n, ast.Assign)
    }
    assert {"Prob", "Ratio", "Share", "Count"} <= set(kinds)
    for name, tree in trees.items():
        spelled_out = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Subscript)}
        assert not spelled_out & set(kinds.values()), f"{name}: use the kind of config/kinds.py"
        assigned = {ast.unparse(target) for n in tree.body if isinstance(n, ast.Assign) for target in n.targets}
        assert not assigned & set(kinds), f"{name}: a kind of config/kinds.py is named alike"


def scripts() -> list[str]:
    return sorted(path.name for path in (Path(__file__).parents[2] / "scripts").glob("*.py"))


@pytest.mark.parametrize("script", scripts())
def test_help_answers_without_heavy_imports(script: str, project: Path) -> None:
    command = [sys.executable, "-X", "importtime", str(project / "scripts" / script), "--help"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip()
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    heavy = {"torch", "torchvision", "timm", "transformers", "tokenizers", "sacrebleu", "safetensors", "mediapipe"}
    heavy |= {"cv2", "av", "numpy", "pandas", "matplotlib", "yaml", "snakemake", "tensorboard", "wandb"}
    assert not loaded & heavy, script


@pytest.mark.parametrize("script", ["export_configuration.py", "export_environment.py", "export_schemas.py"])
def test_generated_files_are_in_step(script: str, project: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(project / "scripts" / script), "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_no_module_is_longer_than_400_lines(project: Path) -> None:
    files = [*(project / "src").rglob("*.py"), *(project / "scripts").glob("*.py")]
    long = {path.name: lines for path in files if (lines := path.read_text(encoding="utf-8").count("\n")) > 400}
    assert not long


def test_the_library_loads_no_pickle(project: Path) -> None:
    for name, path in modules(project).items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            call, keywords = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
            place = f"{name}:{node.lineno}"
            assert call not in ("pickle.load", "pickle.loads", "yaml.load", "eval", "exec"), place
            if call == "torch.load":
                assert keywords.get("weights_only") == "True", place
            if call in ("np.load", "numpy.load"):
                assert keywords.get("allow_pickle", "False") == "False", place
