"""Write docs/configuration.md, the reference of all settings, from the typed config classes.

Run it after a change of a config class; `--check` only says whether the page is in step, as the test does.
"""

from signstreams.generated import configuration, write_or_check

if __name__ == "__main__":
    write_or_check(configuration, source="the config classes", script=__file__, doc=__doc__)
