"""Everything that extraction wrote -> report and manifest. An error in the data ends the workflow here, before a GPU."""


rule contract:
    """Check every file against the data contract (docs/data_contract.md)."""
    input:
        # the record that each job wrote of its files stands for them: a tenth of the DAG at 10,000 videos
        checks=lambda wildcards: PLAN.of_all_videos(ARTIFACTS["check"]),
        videos=lambda wildcards: [source.path for source in VIDEOS.values()],
        annotations=ANNOTATIONS,
    output:
        report=CORPUS.report,
        page=report(
            CORPUS.report_page,
            caption="../report/contract.rst",
            category="Corpus",
            labels={"page": "data contract"},
        ),
        manifest=CORPUS.manifest,
    log:
        LOGS / "contract.log",
    benchmark:
        LOGS / "contract.benchmark.tsv"
    conda:
        ENVIRONMENT
    threads: CONFIG.contract.threads
    resources:
        mem_mb=CONFIG.contract.mem_mb,
    params:
        root=CORPUS.root,
        videos_dir=CONFIG.corpus.videos or CORPUS.videos,
        settings=lambda wildcards: setting_words(
            CONFIG.contract.set | ({"allow_absent_videos": True} if ABSENT else {})
        ),
    shell:
        '"$PYTHON" "$SCRIPTS"/validate_data_contract.py --root {params.root:q} --videos-dir {params.videos_dir:q} --jobs {threads}'
        " {params.settings} > {log:q} 2>&1"
