"""The shape of the code base: layers without cycles, light config, no Snakemake in the library, lists kept in step."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

# Each may import itself and what stands in its own set; the picture is in docs/architecture.md.
BASE = {"array_types", "config", "errors", "files", "ids", "language", "pages", "prefetch", "processes", "progress"}
BASE |= {"streams", "__init__"}
MAY_IMPORT = {
    **dict.fromkeys(BASE, BASE),
    "cli": BASE,
    "formats": BASE,
    "corpus": BASE | {"formats"},
    "demo": BASE | {"formats", "corpus"},
    "publish": BASE | {"formats", "engine", "integrate"},
    "tracker": BASE | {"formats"},
    "extract": BASE | {"formats", "corpus", "tracker"},
    "contract": BASE | {"formats", "corpus", "extract", "integrate"},
    "engine": BASE | {"formats"},
    "backbones": BASE | {"formats", "engine"},
    "pretrain": BASE | {"formats", "corpus", "engine", "backbones"},
    "integrate": BASE | {"formats", "corpus", "engine", "backbones"},
    "judge": BASE | {"formats", "corpus", "engine", "backbones", "pretrain", "integrate"},
    "segment": BASE | {"formats", "corpus", "engine", "backbones", "integrate"},
    "sequence": BASE | {"formats", "corpus", "engine", "backbones", "integrate"},
    "translate": BASE | {"formats", "corpus", "extract", "engine", "integrate", "segment"},
}
MAY_IMPORT["workflow"] = set(MAY_IMPORT) - {"cli", "publish", "translate", "judge"}
MAY_IMPORT["importers"] = BASE | {"formats", "corpus", "extract", "integrate", "workflow"}
MAY_IMPORT["commands"] = set(MAY_IMPORT)
MAY_IMPORT["api"] = set(MAY_IMPORT) - {"cli", "commands"}  # nothing of ours imports it
MAY_IMPORT["__main__"] = {"commands"}
HEAVY = {"torch", "torchvision", "timm", "transformers", "tokenizers", "sacrebleu", "safetensors", "mediapipe", "cv2"}
HEAVY |= {"av", "numpy", "pandas", "matplotlib", "yaml", "snakemake", "tensorboard", "wandb", "jinja2"}


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


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def settings_modules(project: Path) -> list[str]:
    return [name for name in modules(project) if name.endswith(".settings")]


def test_settings_of_all_stages_and_the_command_line_load_nothing_heavy(project: Path) -> None:
    names = [name for name in modules(project) if name.startswith("signstreams.config")] + settings_modules(project)
    assert len(settings_modules(project)) >= 8
    code = (
        "import importlib, sys\n"
        f"for name in {['signstreams.cli', 'signstreams.commands', *names]!r}:\n"
        "    importlib.import_module(name)\n"
        f"    if loaded := {HEAVY!r} & set(sys.modules): print(name, loaded); break\n"
    )
    assert run_python(code) == ""


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
    run_python(code)


def test_a_kind_of_setting_has_one_name_and_one_meaning(project: Path) -> None:
    known = modules(project)
    trees = {name: ast.parse(known[name].read_text(encoding="utf-8")) for name in settings_modules(project)}
    section = ast.parse(known["signstreams.config.section"].read_text(encoding="utf-8"))
    kinds = {
        ast.unparse(n.targets[0]): ast.unparse(n.value)
        for n in section.body
        if isinstance(n, ast.Assign) and ast.unparse(n.value).startswith("Annotated[")
    }
    assert {"Prob", "Ratio", "Share", "Count"} <= set(kinds)
    for name, tree in trees.items():
        spelled_out = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Subscript)}
        assert not spelled_out & set(kinds.values()), f"{name}: use the kind of config/section.py"
        assigned = {ast.unparse(target) for n in tree.body if isinstance(n, ast.Assign) for target in n.targets}
        assert not assigned & set(kinds), f"{name}: a kind of config/section.py is named alike"


def test_help_of_every_script_answers_without_heavy_imports(project: Path) -> None:
    scripts = sorted(map(str, (project / "scripts").glob("*.py")))
    code = (
        "import contextlib, io, runpy, sys\n"
        f"for script in {scripts!r}:\n"
        "    sys.argv = [script, '--help']\n"
        "    with contextlib.redirect_stdout(io.StringIO()) as text:\n"
        "        try: runpy.run_path(script, run_name='__main__')\n"
        "        except SystemExit as left: code = left.code\n"
        f"    loaded = {HEAVY!r} & set(sys.modules)\n"
        "    if code or not text.getvalue().strip() or loaded: print(script, code, loaded); break\n"
    )
    assert len(scripts) > 15
    assert run_python(code) == ""


def test_no_module_is_longer_than_700_lines(project: Path) -> None:
    files = [*(project / "src").rglob("*.py"), *(project / "scripts").glob("*.py")]
    long = {path.name: lines for path in files if (lines := path.read_text(encoding="utf-8").count("\n")) > 700}
    assert not long, "a file is one idea; divide it where two can be told apart"


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
