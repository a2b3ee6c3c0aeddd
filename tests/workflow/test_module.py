"""Another workflow that takes our rules as a module, and the layout that the workflow catalogue asks for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

SNAKEFILE = """\
configfile: "config.yaml"


module signstreams:
    snakefile:
        "{checkout}/Snakefile"
    config:
        config["signstreams"]


use rule * from signstreams as signstreams_*


rule frames:
    input:
        "data/tiny/processed/tracks/demo_000.npz",
    output:
        "frames.txt",
    shell:
        "{python} -c 'import sys, numpy; print(len(numpy.load(sys.argv[1])[\\"times_s\\"]))' {{input:q}} > {{output:q}}"
"""
CONFIG = {"signstreams": {"corpus": {"root": "data/tiny", "demo_size": "tiny"}, "extract": {"set": {"crop_px": 48}}}}


@pytest.fixture
def importer(project: Path, tmp_path: Path) -> Path:
    (tmp_path / "Snakefile").write_text(SNAKEFILE.format(checkout=project, python=sys.executable), encoding="utf-8")
    recipes = {"pretrain": {"config": "small.toml"}, "integrate": {"config": "demo.yml"}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"signstreams": CONFIG["signstreams"] | recipes}))
    (tmp_path / "small.toml").write_bytes((project / "config/pretrain/small.toml").read_bytes())
    (tmp_path / "demo.yml").write_bytes((project / "config/integrate/demo.yml").read_bytes())
    return tmp_path


def snakemake(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--workflow-profile", "none", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


def test_another_workflow_takes_our_rules_and_goes_on_from_their_files(importer: Path) -> None:
    done = snakemake(importer, "frames")
    assert done.returncode == 0, done.stderr
    assert int((importer / "frames.txt").read_text()) > 20
    assert [path.name for path in (importer / "work_dirs").iterdir()] == ["logs"], "only what was asked for is made"


def test_all_of_our_rules_fit_into_another_workflow(importer: Path) -> None:
    planned = snakemake(importer, "signstreams_all", "--dry-run")
    assert planned.returncode == 0, planned.stderr
    said = planned.stdout + planned.stderr
    assert "not present in the Snakefile" not in said  # of local rules, by names that importing changes
    for rule in ("extract", "contract", "pretrain", "embed", "train", "evaluate", "overview"):
        assert f"signstreams_{rule}" in said


def test_batches_which_a_module_cannot_plan_are_refused(importer: Path) -> None:
    config = yaml.safe_load((importer / "config.yaml").read_text(encoding="utf-8"))
    config["signstreams"]["extract"]["videos_per_job"] = 2
    (importer / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    planned = snakemake(importer, "frames", "--dry-run")
    assert planned.returncode == 2
    (line,) = [line for line in planned.stderr.splitlines() if line.startswith("error: ")]
    assert "extract.videos_per_job = 2" in line


def test_rules_of_the_other_workflow_keep_the_strict_mode_of_bash(importer: Path) -> None:
    with (importer / "Snakefile").open("a", encoding="utf-8") as file:
        file.write('\n\nrule broken:\n    output: "broken.txt"\n    shell: "false | cat > {output}; touch {output}"\n')
    assert snakemake(importer, "broken").returncode != 0
    assert not (importer / "broken.txt").exists()


def test_the_layout_is_that_of_the_catalogue(project: Path) -> None:
    catalogue = yaml.safe_load((project / ".snakemake-workflow-catalog.yml").read_text(encoding="utf-8"))
    assert set(catalogue["usage"]) == {"mandatory-flags", "software-stack-deployment", "report"}
    assert (project / "config" / "README.md").is_file() and (project / "config" / "config.yaml").is_file()
    text = (project / "README.md").read_text(encoding="utf-8").lower()
    assert "snakemake" in text and "workflow" in text
    listed = snakemake(project, "--list-rules", "--snakefile", "workflow/Snakefile", "--nolock")
    assert listed.returncode == 0, listed.stderr
    assert {"extract", "train", "all"} <= set(listed.stdout.split())
