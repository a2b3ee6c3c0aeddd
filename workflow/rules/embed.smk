"""Frozen backbones over all crops, once per backbone and video -> work_dirs/features, which a training maps into memory.

The arrays are beside their manifest, undeclared: a job that is run again makes only what is absent or out of date.
"""

EMBED_GPUS = min(1, wanted_gpus(CONFIG.embed.gpus))


rule embed:
    """Features of one stream."""
    input:
        manifest=CORPUS.manifest,
        backbone=RUNS.backbone("{stream}"),
        crops=lambda wildcards: PLAN.of_all_videos(ARTIFACTS[wildcards.stream]),
        tracks=lambda wildcards: PLAN.of_all_videos(ARTIFACTS["tracks"]),
    output:
        RUNS.features / "{stream}.json",
    log:
        LOGS / "embed/{stream}.log",
    benchmark:
        LOGS / "embed/{stream}.benchmark.tsv"
    conda:
        ENVIRONMENT
    threads: CONFIG.embed.threads
    resources:
        **({"gpu": EMBED_GPUS} if EMBED_GPUS else {}),
        mem_mb=CONFIG.embed.mem_mb,
    params:
        root=CORPUS.root,
        features=RUNS.features,
        gpus=granted_gpus,
        layers=INTEGRATE.model.backbone_layers,
        crop_px=f"--crop-px {INTEGRATE.data.crop_px}" if INTEGRATE.data.crop_px else "",
    shell:
        "export OMP_NUM_THREADS={threads} OMP_WAIT_POLICY=PASSIVE;"
        ' exec "$PYTHON" "$SCRIPTS"/launch.py --gpus {params.gpus} --'
        ' "$SCRIPTS"/embed_streams.py'
        " --root {params.root:q} --features {params.features:q} --stream {wildcards.stream}"
        " --backbone file::{input.backbone:q} --backbone-layers {params.layers} {params.crop_px} > {log:q} 2>&1"


rule gather_points:
    """Times, pose and the nodes of MSKA."""
    input:
        manifest=CORPUS.manifest,
        pose=lambda wildcards: PLAN.of_all_videos(ARTIFACTS["pose"]),
        keypoints=lambda wildcards: PLAN.of_all_videos(ARTIFACTS["keypoints"]),
        tracks=lambda wildcards: PLAN.of_all_videos(ARTIFACTS["tracks"]),
    output:
        RUNS.features / "points.json",
    log:
        LOGS / "embed/points.log",
    benchmark:
        LOGS / "embed/points.benchmark.tsv"
    conda:
        ENVIRONMENT
    params:
        root=CORPUS.root,
        features=RUNS.features,
    shell:
        'exec "$PYTHON" "$SCRIPTS"/embed_streams.py --root {params.root:q} --features {params.features:q}'
        " --stream points > {log:q} 2>&1"
