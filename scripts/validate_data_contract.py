"""Check a corpus against the data contract: report, page and manifest; exit code 2 on an error."""

from __future__ import annotations

import sys

from signstreams.cli import parse
from signstreams.contract.settings import ContractConfig
from signstreams.errors import USER_ERROR_EXIT_CODE, exit_on_user_error


def main() -> None:
    config = parse(ContractConfig)
    with exit_on_user_error():
        from signstreams.contract.validate import print_outcome, validate, write_validation
        from signstreams.formats.layout import CorpusLayout

        validation = validate(config)
        layout = CorpusLayout(config.root)
        copies = write_validation(layout, validation)
    print_outcome(validation, layout, copies)
    if validation.has_errors:
        sys.exit(USER_ERROR_EXIT_CODE)


if __name__ == "__main__":
    main()
