"""Features + points + texts -> work_dirs/multistream_v9: the translation model, multistream v9, and its scores."""

INTEGRATE_GPUS = wanted_gpus(CONFIG.integrate.gpus, most=1)
FROZEN = [stream for stream in CONFIG.streams if INTEGRATE.model.is_frozen(stream)]
STAGES = CONFIG.integrate.stages


rule train_stage:
    """A stage that the translation model starts from: s2g and vlp learn from video, text and g2t from texts alone."""
    input:
        manifest=lambda wildcards: CORPUS.manifest if sees_video(wildcards.stage) else [],
        annotations=ANNOTATIONS or CORPUS.meta,
        features=lambda wildcards: [
            RUNS.features / f"{source}.json"
            for source in [*(FROZEN if sees_crops(wildcards.stage) else []), "points"]
            if sees_video(wildcards.stage)
        ],
        backbones=lambda wildcards: [RUNS.backbone(name) for name in CONFIG.streams if sees_crops(wildcards.stage)],
        crops=lambda wildcards: crops_of_trained() if sees_crops(wildcards.stage) else [],
        texts=lambda wildcards: PLAN.text_files(wildcards.stage),
        starts=lambda wildcards: stage_starts(CONFIG, wildcards.stage),
    output:
        **{name: stage_output(name, RUNS.stage_file("{stage}", name)) for name in TRAINING_FILES},
    log:
        LOGS / "stages/{stage}.log",
    benchmark:
        LOGS / "stages/{stage}.benchmark.tsv"
    conda:
        ENVIRONMENT
    threads: CONFIG.integrate.threads
    resources:
        **({"gpu": INTEGRATE_GPUS} if INTEGRATE_GPUS else {}),
        mem_mb=CONFIG.integrate.mem_mb,
    params:
        root=CORPUS.root,
        output_dir=lambda wildcards: RUNS.stage(wildcards.stage),
        features=RUNS.features,
        gpus=granted_gpus,
        nodes=lambda wildcards, resources: resources.get("nodes", 1),
        cpus=granted_cores,
        backbones=lambda wildcards: BACKBONES if sees_crops(wildcards.stage) else "",
        settings=lambda wildcards: setting_words(
            stage_settings(CONFIG, wildcards.stage)
            | ({"data.allow_absent_videos": True} if ABSENT and sees_video(wildcards.stage) else {})
        ),
    shell:
        "export OMP_NUM_THREADS={threads} OMP_WAIT_POLICY=PASSIVE;"
        ' exec "$PYTHON" "$SCRIPTS"/launch.py --gpus {params.gpus} --nodes {params.nodes} --cpus {params.cpus}'
        ' --requeue -- "$SCRIPTS"/train_slt_multistream_v9.py --stage {wildcards.stage} --root {params.root:q}'
        " --output-dir {params.output_dir:q} --features {params.features:q} {params.backbones} --distributed"
        " --on-conflict archive {params.settings} > {log:q} 2>&1"


rule train:
    """Train; the best epoch is chosen on val."""
    input:
        **{stream: RUNS.backbone(stream) for stream in CONFIG.streams},
        **({"sequence": RUNS.sequence_file("best")} if CONFIG.sequence else {}),
        stages=[RUNS.stage_file(stage, name) for stage in STAGES for name in ("best", "tokenizer")],
        manifest=CORPUS.manifest,
        annotations=ANNOTATIONS or CORPUS.meta,  # without texts: Snakemake names the missing file
        features=[RUNS.features / f"{source}.json" for source in [*FROZEN, "points"]],
        crops=crops_of_trained,
        config=CONFIG.integrate.config,
    output:
        **{name: train_output(name, RUNS.training_file(name)) for name in TRAINING_FILES},
    log:
        LOGS / "train.log",
    benchmark:
        LOGS / "train.benchmark.tsv"
    conda:
        ENVIRONMENT
    threads: CONFIG.integrate.threads
    resources:
        **({"gpu": INTEGRATE_GPUS} if INTEGRATE_GPUS else {}),
        mem_mb=CONFIG.integrate.mem_mb,
    params:
        root=CORPUS.root,
        output_dir=RUNS.training,
        features=RUNS.features,
        gpus=granted_gpus,
        nodes=lambda wildcards, resources: resources.get("nodes", 1),
        cpus=granted_cores,
        backbones=BACKBONES,
        settings=lambda wildcards: setting_words(
            CONFIG.integrate.set | ({"data.allow_absent_videos": True} if ABSENT else {}) | first_weights(CONFIG)
        ),
    shell:
        "export OMP_NUM_THREADS={threads} OMP_WAIT_POLICY=PASSIVE;"
        ' exec "$PYTHON" "$SCRIPTS"/launch.py --gpus {params.gpus} --nodes {params.nodes} --cpus {params.cpus}'
        ' --requeue -- "$SCRIPTS"/train_slt_multistream_v9.py --config {input.config:q} --root {params.root:q}'
        " --output-dir {params.output_dir:q} --features {params.features:q} {params.backbones} --distributed"
        " --on-conflict archive {params.settings} > {log:q} 2>&1"


rule evaluate:
    """Score the best model on the test split, with beam search; write each translation beside its reference."""
    input:
        best=RUNS.training_file("best"),
        tokenizer=RUNS.training_file("tokenizer"),
        features=rules.train.input.features,
        annotations=rules.train.input.annotations,
        manifest=CORPUS.manifest,  # stands for the crops that the page shows
    output:
        scores=RUNS.evaluation_file("scores"),
        predictions=RUNS.evaluation_file("predictions"),
        page=report(
            RUNS.evaluation_file("page"),
            caption="../report/translations.rst",
            category="Translation",
            labels={"picture": "translations"},
        ),
    log:
        LOGS / "evaluate.log",
    benchmark:
        LOGS / "evaluate.benchmark.tsv"
    conda:
        ENVIRONMENT
    threads: CONFIG.integrate.threads
    resources:
        **({"gpu": 1} if INTEGRATE_GPUS else {}),
        mem_mb=CONFIG.integrate.mem_mb,
    params:
        root=CORPUS.root,
        videos_dir=CONFIG.corpus.videos or CORPUS.videos,
        output_dir=RUNS.training,
        features=RUNS.features,
        gpus=granted_gpus,
        settings=lambda wildcards: setting_words(CONFIG.evaluate.set),
    shell:
        "export OMP_NUM_THREADS={threads} OMP_WAIT_POLICY=PASSIVE;"
        ' exec "$PYTHON" "$SCRIPTS"/launch.py --gpus {params.gpus} --'
        ' "$SCRIPTS"/evaluate_slt.py'
        " --checkpoint {input.best:q} --root {params.root:q} --features {params.features:q}"
        " --videos-dir {params.videos_dir:q} --output-dir {params.output_dir:q} {params.settings} > {log:q} 2>&1"


rule boundaries:
    """Train the model that finds sentences in continuous signing, for `signstreams translate`; no part of `all`."""
    input:
        best=RUNS.training_file("best"),
        tokenizer=RUNS.training_file("tokenizer"),
        features=rules.train.input.features,
        annotations=rules.train.input.annotations,
        manifest=CORPUS.manifest,
    output:
        **{name: RUNS.boundary_file(name) for name in BOUNDARY_FILES},
    log:
        LOGS / "boundaries.log",
    benchmark:
        LOGS / "boundaries.benchmark.tsv"
    conda:
        ENVIRONMENT
    threads: CONFIG.integrate.threads
    resources:
        **({"gpu": 1} if INTEGRATE_GPUS else {}),
        mem_mb=CONFIG.integrate.mem_mb,
    params:
        root=CORPUS.root,
        output_dir=RUNS.boundaries,
        features=RUNS.features,
        gpus=granted_gpus,
    shell:
        "export OMP_NUM_THREADS={threads} OMP_WAIT_POLICY=PASSIVE;"
        ' exec "$PYTHON" "$SCRIPTS"/launch.py --gpus {params.gpus} --'
        ' "$SCRIPTS"/train_boundaries.py'
        " --checkpoint {input.best:q} --root {params.root:q} --features {params.features:q}"
        " --output-dir {params.output_dir:q} > {log:q} 2>&1"


rule train_all:
    """The translation model and its scores."""
    input:
        rules.train.output,
        rules.evaluate.output,
