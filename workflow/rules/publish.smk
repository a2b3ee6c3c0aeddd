"""What people read and take away: the overview page, the workflow report, the release bundle."""

import json

SETTINGS_JSON = json.dumps(CONFIG.shown(), ensure_ascii=False)


rule overview:
    """The whole run on one page: figures, curves, translations, runtimes, versions, settings."""
    input:
        final_targets,
        curves=[RUNS.pretraining_file(stream, "curves") for stream in CONFIG.streams],
    output:
        report(
            RUNS.overview,
            caption="../report/overview.rst",
            category="Overview",
            labels={"page": "the whole run"},
        ),
    log:
        LOGS / "overview.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        root=CORPUS.root,
        work_dir=WORK_DIR,
        logs=LOGS,
        settings=lambda wildcards: SETTINGS_JSON,
    shell:
        '"$PYTHON" "$SCRIPTS"/write_overview.py --root {params.root:q} --work-dir {params.work_dir:q} --output {output:q}'
        " --logs {params.logs:q} --settings {params.settings:q} > {log:q} 2>&1"


rule pretraining_page:
    """The corpus and the backbones on one page."""
    input:
        manifest=CORPUS.manifest,
        curves=[RUNS.pretraining_file(stream, "curves") for stream in CONFIG.streams],
        judged=[RUNS.judge_file(stream, name) for stream in JUDGED for name in JUDGE_FILES],
    output:
        RUNS.pretraining_page,
    log:
        LOGS / "pretraining_page.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        root=CORPUS.root,
        work_dir=WORK_DIR,
        logs=LOGS,
        settings=lambda wildcards: SETTINGS_JSON,
    shell:
        '"$PYTHON" "$SCRIPTS"/write_overview.py --root {params.root:q} --work-dir {params.work_dir:q} --output {output:q} --pretraining-only'
        " --logs {params.logs:q} --settings {params.settings:q} > {log:q} 2>&1"


rule release:
    """Backbones, translation model, cards, configs, figures, versions, checksums: one folder to publish."""
    input:
        final_targets,
        metrics=[RUNS.pretraining_file(stream, "history") for stream in CONFIG.streams],
    output:
        RUNS.release / "SHA256SUMS",
    log:
        LOGS / "release.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        root=CORPUS.root,
        work_dir=WORK_DIR,
        folder=RUNS.release,
        settings=lambda wildcards: SETTINGS_JSON,
        card=lambda wildcards: setting_words(CONFIG.card_settings()),
    shell:
        '"$PYTHON" "$SCRIPTS"/release.py --root {params.root:q} --work-dir {params.work_dir:q} --output {params.folder:q}'
        " --settings {params.settings:q} {params.card} > {log:q} 2>&1"


rule report:
    """`snakemake --report` of all that was made, as a target."""
    input:
        final_targets,
        rules.overview.output,
    output:
        RUNS.report,
    log:
        LOGS / "report.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        settings=lambda wildcards: SETTINGS_JSON,
    shell:
        "exec 1> {log:q} 2>&1; settings=$(mktemp); trap 'rm -f \"$settings\"' EXIT;"
        ' printf %s {params.settings:q} > "$settings";'
        ' "$PYTHON" -m snakemake all --snakefile "$SCRIPTS"/../Snakefile --workflow-profile none --nolock --quiet all'
        ' --configfile "$settings" --report {output:q} --report-stylesheet "$SCRIPTS"/../workflow/report/style.css'
