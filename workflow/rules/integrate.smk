"""Backbones + pose + keypoints + texts -> work_dirs/multistream_v9/scores.json: the translation model, multistream v9."""

INTEGRATE_GPUS = min(1, wanted_gpus(CONFIG.integrate.gpus))
TRAIN_FILES = {
    "scores": "scores.json",
    "predictions": "predictions.csv",
    "best": "best.pt",
    "last": "last.pt",
    "tokenizer": "tokenizer.json",
    "config": "config.json",
    "history": "metrics.jsonl",
    "artifacts": "artifacts.json",
}
BACKBONE_FLAGS = {
    "face": "--face-backbone",
    "hand_l": "--hand-left-backbone",
    "hand_r": "--hand-right-backbone",
}


rule train:
    """Train, choose by the dev split, score on the test split."""
    input:
        **{stream: WORK_DIR / f"dino_{stream}" / "backbone.pt" for stream in STREAMS},
        manifest=CORPUS.manifest,
        annotations=ANNOTATIONS or CORPUS.meta,  # without texts: Snakemake names the missing file
        crops=lambda wildcards: [path for stream in STREAMS for path in of_all_videos(ARTIFACTS[stream])],
        pose=lambda wildcards: of_all_videos(ARTIFACTS["pose"]),
        keypoints=lambda wildcards: of_all_videos(ARTIFACTS["keypoints"]),
        tracks=lambda wildcards: of_all_videos(ARTIFACTS["tracks"]),
        config=CONFIG.integrate.config,
    output:
        **{name: WORK_DIR / "multistream_v9" / file for name, file in TRAIN_FILES.items()},
    log:
        "logs/train.log",
    benchmark:
        "logs/train.benchmark.tsv"
    conda:
        ENVIRONMENT
    threads: CONFIG.integrate.threads
    resources:
        **({"gpu": INTEGRATE_GPUS} if INTEGRATE_GPUS else {}),
        mem_mb=CONFIG.integrate.mem_mb,
    params:
        root=CORPUS.root,
        output_dir=WORK_DIR / "multistream_v9",
        backbones=" ".join(
            f"{flag} file::{shlex.quote(str(WORK_DIR / f'dino_{stream}' / 'backbone.pt'))}"
            for stream, flag in BACKBONE_FLAGS.items()
        ),
        settings=setting_words(CONFIG.integrate.set | ({"data.allow_absent_videos": True} if ABSENT else {})),
    shell:
        "export OMP_NUM_THREADS={threads} OMP_WAIT_POLICY=PASSIVE;"
        ' exec "$PYTHON" "$SCRIPTS"/train_slt_multistream_v9.py --config {input.config:q} --root {params.root:q}'
        " --output-dir {params.output_dir:q} {params.backbones} --on-conflict archive {params.settings}"
        " > {log:q} 2>&1"


rule train_all:
    """The translation model and its scores."""
    input:
        rules.train.output,
