"""Video -> crops of face and hands, keypoints, pose, tracks, metadata, record of their check.

One job per video; or, with `extract.videos_per_job`, one per batch of videos, whose manifest is then what Snakemake tracks.
A batch that was stopped resumes where it stopped.
"""

ARTIFACTS = {
    **{stream: CORPUS.crops(stream, "{video}") for stream in STREAMS},
    "pose": CORPUS.pose("{video}"),
    "keypoints": CORPUS.keypoints("{video}"),
    "tracks": CORPUS.tracks("{video}"),
    "metadata": CORPUS.metadata("{video}"),
    "preview": CORPUS.preview("{video}"),
    "check": CORPUS.check("{video}"),
}
EXTRACT_WORDS = dict(
    root=CORPUS.root,
    config=(f"--config {shlex.quote(str(CONFIG.extract.config))}" if CONFIG.extract.config else ""),
    settings=lambda wildcards: setting_words(CONFIG.extract.set),  # a function: braces in a text are no wildcards
)

if BATCHES is None:

    rule extract:
        """All artifacts of one video. A video that cannot be read is quarantined: see its metadata."""
        input:
            video=lambda wildcards: video_input(wildcards.video),
            config=CONFIG.extract.config or [],
            points=lambda wildcards: PLAN.points(wildcards.video),
            meta=ancient(CORPUS.meta) if EXTRACT.spans_only else [],
        output:
            **ARTIFACTS,
        log:
            LOGS / "extract/{video}.log",
        benchmark:
            LOGS / "extract/{video}.benchmark.tsv"
        conda:
            ENVIRONMENT
        threads: CONFIG.extract.threads
        resources:
            mem_mb=CONFIG.extract.mem_mb,
        params:
            **EXTRACT_WORDS,
            frames=lambda wildcards: PLAN.frames_stamp(wildcards.video),
            annotations=lambda wildcards: PLAN.annotation_settings(wildcards.video),
        shell:
            '"$PYTHON" "$SCRIPTS"/extract_rois_v2.py {params.config} --videos {input.video:q} --root {params.root:q}'
            " --force --max-failed-fraction 1 {params.settings} > {log:q} 2>&1"

else:

    rule extract:
        """A batch of videos; artifacts that are still current are left as they are."""
        input:
            videos=lambda wildcards: [video_input(video) for video in BATCHES[wildcards.batch]],
            config=CONFIG.extract.config or [],
            points=lambda wildcards: [path for video in BATCHES[wildcards.batch] if (path := PLAN.points(video))],
            meta=ancient(CORPUS.meta) if EXTRACT.spans_only else [],
        output:
            CORPUS.batch("{batch}"),
        log:
            LOGS / "extract/{batch}.log",
        benchmark:
            LOGS / "extract/{batch}.benchmark.tsv"
        conda:
            ENVIRONMENT
        threads: CONFIG.extract.threads
        resources:
            mem_mb=CONFIG.extract.mem_mb,
        params:
            **EXTRACT_WORDS,
            folder=CONFIG.corpus.videos or CORPUS.videos,
            ids=lambda wildcards: CORPUS.batch_ids(wildcards.batch),
            frames=lambda wildcards: "".join(PLAN.frames_stamp(video) for video in BATCHES[wildcards.batch]),
            annotations=lambda wildcards: "".join(PLAN.annotation_settings(video) for video in BATCHES[wildcards.batch]),
        shell:
            '"$PYTHON" "$SCRIPTS"/extract_rois_v2.py {params.config} --videos {params.folder:q} --root {params.root:q}'
            " --only {params.ids:q} --manifest {output:q} --jobs {threads} --max-failed-fraction 1 {params.settings}"
            " > {log:q} 2>&1"


rule extract_all:
    """Every video of the corpus."""
    input:
        all_artifacts,
