"""Write workflow/schemas/*.json, for editors that complete and check config files, from the typed config classes.

Run it after a change of a config class; `--check` only says whether the files are in step, as the test does.
"""

from signstreams.generated import schemas, write_or_check

if __name__ == "__main__":
    write_or_check(schemas, source="its config class", script=__file__, doc=__doc__)
