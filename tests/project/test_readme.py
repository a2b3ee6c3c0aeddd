"""What README and docs tell people to type is accepted, and what they point at is there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]


def commands() -> list[tuple[str, str]]:
    """Page and command of every call of one of our scripts, continued lines joined."""
    found = []
    for page in PAGES:
        text = re.sub(r"\\\n\s*", " ", page.read_text(encoding="utf-8"))
        for line in text.splitlines():
            match = re.match(r"\s*(?:[$>] )?(?:python|torchrun\s+.*?)\s(scripts/\w+\.py.*)", line)
            if match and not re.search(r"…|\.\.\.|\[-", line):  # a synopsis is no command
                found.append((page.name, re.sub(r"\s+#.*", "", match[1])))
    return found


@pytest.mark.parametrize(("page", "command"), commands())
def test_a_documented_command_is_understood(page: str, command: str) -> None:
    words = [word.replace("FILE|FOLDER", "x") for word in shlex.split(command)]
    done = subprocess.run(
        [sys.executable, *words, "--print-config"], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{page}: {done.stderr}"


def test_the_requirements_commands_are_among_them() -> None:
    text = " ".join(command for _, command in commands())
    for script in ("extract_rois_v2", "pretrain_dino_face", "pretrain_dino_hands", "train_slt_multistream_v9"):
        assert f"scripts/{script}.py" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_own_videos_config_in_the_readme_is_the_file_that_is_shipped() -> None:
    block = re.search(r"```yaml\n(.*?)```", (PROJECT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    assert block[1] == (PROJECT / "config" / "own_videos.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("target", ["demo", "test", "lint"])
def test_make_knows_its_targets(target: str) -> None:
    done = subprocess.run(["make", "--dry-run", target], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
