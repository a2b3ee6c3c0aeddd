"""Write workflow/schemas/*.json, for editors that complete and check config files, from the typed config classes.

Run it after a change of a config class; `--check` only says whether the files are in step, as the test does.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "workflow" / "schemas"
CLASSES = {
    "config": "signstreams.config.workflow:WorkflowConfig",
    "extract": "signstreams.config.extract:ExtractConfig",
    "contract": "signstreams.config.contract:ContractConfig",
    "pretrain": "signstreams.config.pretrain:PretrainConfig",
    "integrate": "signstreams.config.integrate:IntegrateConfig",
}


def schema(name: str) -> str:
    """Text of one schema file as it should be."""
    module, _, model = CLASSES[name].partition(":")
    content = getattr(importlib.import_module(module), model).model_json_schema()
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write the files, or with ``--check`` leave with code 2 when one is stale."""
    if sys.argv[1:] not in ([], ["--check"]):
        print(__doc__.strip())
        sys.exit(0 if sys.argv[1] in ("-h", "--help") else 2)
    stale = []
    for name in CLASSES:
        path = FOLDER / f"{name}.schema.json"
        if sys.argv[1:] == ["--check"]:
            stale += [path] if not path.exists() or path.read_text() != schema(name) else []
        else:
            path.write_text(schema(name))
    for path in stale:
        print(f"error: {path} is not in step with its config class; run scripts/export_schemas.py", file=sys.stderr)
    sys.exit(2 if stale else 0)


if __name__ == "__main__":
    main()
