"""Write environment.yml for conda users: the requirements of pyproject.toml at the versions of requirements.lock.

Run it (or `make lock`) after a change of either; `--check` only says whether the file is in step, as the test does.
"""

from signstreams.generated import environment, write_or_check

if __name__ == "__main__":
    write_or_check(environment, source="requirements.lock", script=__file__, doc=__doc__)
