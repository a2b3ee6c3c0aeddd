"""Crops of one stream -> work_dirs/dino_<stream>/backbone.pt, self-supervised: one job per stream, under torchrun.

scripts/launch.py leases the GPUs and starts torchrun. With `pretrain.hands: shared` one job trains dino_hands, and
the files of dino_hand_l and dino_hand_r are copies of what it made.

The state to resume from is beside the outputs in state/, undeclared, since Snakemake deletes declared outputs before
a job starts and when it fails.
"""

PRETRAIN_GPUS = wanted_gpus(CONFIG.pretrain.gpus)


rule pretrain:
    """Train the backbone of one stream, or of both hands."""
    input:
        manifest=CORPUS.manifest,
        crops=lambda wildcards: PLAN.pretraining_crops(wildcards.stream, ARTIFACTS),
        config=CONFIG.pretrain.config,
    output:
        **{name: pretrain_output(name, RUNS.pretraining_file("{stream}", name)) for name in PRETRAINING_FILES},
    log:
        LOGS / "pretrain/{stream}.log",
    benchmark:
        LOGS / "pretrain/{stream}.benchmark.tsv"
    wildcard_constraints:
        stream="|".join(PLAN.pretrained),
    conda:
        ENVIRONMENT
    threads: CONFIG.pretrain.threads
    resources:
        **({"gpu": PRETRAIN_GPUS} if PRETRAIN_GPUS else {}),
        mem_mb=CONFIG.pretrain.mem_mb,
    params:
        script=lambda wildcards: pretrain_script(wildcards.stream),
        train_dir=lambda wildcards: PLAN.pretraining_folders(wildcards.stream),
        output_dir=lambda wildcards: RUNS.pretraining(wildcards.stream),
        # what the profile grants: Snakemake does not call a run stale for another number of GPUs or nodes
        gpus=granted_gpus,
        nodes=lambda wildcards, resources: resources.get("nodes", 1),
        cpus=granted_cores,
        # the declared names, whatever the config file calls its checkpoints
        names="--checkpointing-last-name {last} --checkpointing-best-name {best}"
        " --checkpointing-history-file {history} --monitor-pictures true".format(**PRETRAINING_FILES),
        settings=lambda wildcards: PLAN.pretraining_settings(wildcards.stream),
    shell:
        "export OMP_NUM_THREADS={threads} OMP_WAIT_POLICY=PASSIVE;"
        ' exec "$PYTHON" "$SCRIPTS"/launch.py --gpus {params.gpus} --nodes {params.nodes} --cpus {params.cpus}'
        ' --requeue -- "$SCRIPTS"/{params.script} --config {input.config:q} --train-dir {params.train_dir:q}'
        " --output-dir {params.output_dir:q} --export-backbone {output.backbone:q}"
        " {params.names} --distributed --on-conflict archive {params.settings} > {log:q} 2>&1"


if HANDS in PLAN.pretrained:

    rule share_hands:
        """The files of both hands under the name of one; card and metadata say what the backbone is."""
        input:
            [RUNS.pretraining_file(HANDS, name) for name in PRETRAINING_FILES],
        output:
            **{name: RUNS.pretraining_file("{stream}", name) for name in PRETRAINING_FILES},
        log:
            LOGS / "share_hands/{stream}.log",
        wildcard_constraints:
            stream="|".join(HAND_STREAMS),
        localrule: True
        conda:
            ENVIRONMENT
        params:
            folder=lambda wildcards: RUNS.pretraining(wildcards.stream),
        shell:
            # copies: Snakemake touches each output once made and wants it no older than any input,
            # which a hard link, being its own input, meets only by luck
            "cp {input:q} {params.folder:q} > {log:q} 2>&1"


# Only the demo corpus knows which handshape or mouth a crop shows.
JUDGED = [stream for stream in CONFIG.streams if IS_DEMO and BY_NAME[stream].true_labels]


rule pretrain_all:
    """The backbones of all streams, judged where labels are known, and a page of them."""
    input:
        [RUNS.backbone(stream) for stream in CONFIG.streams],
        [RUNS.judge_file(stream, name) for stream in JUDGED for name in JUDGE_FILES],
        RUNS.pretraining_page,


if IS_DEMO:

    rule judge:
        """A backbone on true handshapes or mouths, beside its first weights, pixels, HOG and hand points: a table and a picture."""
        input:
            backbone=RUNS.backbone("{stream}"),
            params=RUNS.pretraining_file("{stream}", "params"),
            crops=lambda wildcards: PLAN.of_all_videos(ARTIFACTS[wildcards.stream]),
            points=lambda wildcards: PLAN.of_all_videos(ARTIFACTS["keypoints"]),
            ground_truth=[CORPUS.ground_truth(video_id) for video_id in VIDEOS],
            index=[CORPUS.index(split) for split in SPLITS],
        output:
            **{name: pretrain_output(name, RUNS.judge_file("{stream}", name)) for name in JUDGE_FILES},
        log:
            LOGS / "judge/{stream}.log",
        benchmark:
            LOGS / "judge/{stream}.benchmark.tsv"
        conda:
            ENVIRONMENT
        threads: 1 # many small fits: a second thread gains nothing
        params:
            root=CORPUS.root,
            folder=lambda wildcards: RUNS.pretraining(wildcards.stream),
            labels=lambda wildcards: BY_NAME[wildcards.stream].true_labels,
        shell:
            "export OMP_NUM_THREADS={threads};"
            ' "$PYTHON" "$SCRIPTS"/evaluate_backbone.py --data {params.root:q} --labels {params.labels}'
            " --streams {wildcards.stream} --backbone file::{input.backbone:q} --output {params.folder:q}"
            " > {log:q} 2>&1"
