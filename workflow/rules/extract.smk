"""Video -> crops of face and hands, keypoints, pose, tracks, metadata, record of their check: one job a video."""

ARTIFACTS = {
    **{stream: CORPUS.crops(stream, "{video}") for stream in STREAMS},
    "pose": CORPUS.pose("{video}"),
    "keypoints": CORPUS.keypoints("{video}"),
    "tracks": CORPUS.tracks("{video}"),
    "metadata": CORPUS.metadata("{video}"),
    "check": CORPUS.check("{video}"),
}


rule extract:
    """Everything that is taken from one video. A video that cannot be read is quarantined: see its metadata."""
    input:
        video=lambda wildcards: VIDEOS[wildcards.video],
        config=CONFIG.extract.config or [],
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
    shell:
        '"$PYTHON" "$SCRIPTS"/extract_rois_v2.py {params.config} --videos {input.video:q} --root {params.root:q}'
        " --force --max-failed-fraction 1 {params.settings} > {log:q} 2>&1"


rule extract_all:
    """Every video of the corpus."""
    input:
        [of_all_videos(pattern) for pattern in ARTIFACTS.values()],
