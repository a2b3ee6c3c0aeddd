"""Write workflow/schemas/*.json, for editors that complete and check config files, from the typed config classes.

Run it after a change of a config class; `--check` only says whether the files are in step, as the test does.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

from signstreams.generated import write_or_check

FOLDER = Path(__file__).parents[1] / "workflow" / "schemas"
CLASSES = {
    "config": "signstreams.workflow.settings:WorkflowConfig",
    "extract": "signstreams.extract.settings:ExtractConfig",
    "contract": "signstreams.contract.settings:ContractConfig",
    "pretrain": "signstreams.pretrain.settings:PretrainConfig",
    "integrate": "signstreams.integrate.settings:IntegrateConfig",
}


def schema(name: str) -> str:
    """Text of one schema file as it should be."""
    module, _, model = CLASSES[name].partition(":")
    content = getattr(importlib.import_module(module), model).model_json_schema()
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write the files, or with ``--check`` leave with code 2 when one is stale."""
    texts = {FOLDER / f"{name}.schema.json": schema(name) for name in CLASSES}
    write_or_check(texts, sys.argv[1:], source="its config class", script="export_schemas.py", doc=__doc__ or "")


if __name__ == "__main__":
    main()
