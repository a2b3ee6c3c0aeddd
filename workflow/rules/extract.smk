"""Video -> crops of face and hands, keypoints, pose, tracks, metadata, record of their check: one job a video."""

ARTIFACTS = {
    **{stream: CORPUS.crops(stream, "{video}") for stream in STREAMS},
    "pose": CORPUS.pose("{video}"),
    "keypoints": CORPUS.keypoints("{video}"),
    "tracks": CORPUS.tracks("{video}"),
    "metadata": CORPUS.metadata("{video}"),
    "preview": CORPUS.preview("{video}"),
    "check": CORPUS.check("{video}"),
}


rule extract:
    """Everything that is taken from one video. A video that cannot be read is quarantined: see its metadata."""
    input:
        video=video_input,
        config=CONFIG.extract.config or [],
        points=points_of,
        meta=ancient(CORPUS.meta) if EXTRACT.spans_only else [],
    output:
        **ARTIFACTS,
    log:
        "logs/extract/{video}.log",
    benchmark:
        "logs/extract/{video}.benchmark.tsv"
    conda:
        ENVIRONMENT
    threads: CONFIG.extract.threads
    resources:
        mem_mb=CONFIG.extract.mem_mb,
    params:
        root=CORPUS.root,
        config=(f"--config {shlex.quote(str(CONFIG.extract.config))}" if CONFIG.extract.config else ""),
        settings=setting_words(CONFIG.extract.set),
        frames=source_of_folder,
        annotations=heeded,
    shell:
        '"$PYTHON" "$SCRIPTS"/extract_rois_v2.py {params.config} --videos {input.video:q} --root {params.root:q}'
        " --force --max-failed-fraction 1 {params.settings} > {log:q} 2>&1"


rule extract_all:
    """Every video of the corpus."""
    input:
        all_artifacts,
