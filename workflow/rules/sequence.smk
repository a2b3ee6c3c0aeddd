"""Features + points, without texts -> work_dirs/sequence: the encoder that the training starts from, if `sequence` is on."""

SEQUENCE_CONFIG = CONFIG.sequence if isinstance(CONFIG.sequence, Path) else None
SEQUENCE_GPUS = min(1, wanted_gpus(CONFIG.integrate.gpus, most=1))


rule sequence:
    """Predict what is hidden of each stream over time; best by its loss on val. A target of its own where it is off."""
    input:
        **{stream: RUNS.backbone(stream) for stream in CONFIG.streams},
        manifest=CORPUS.manifest,
        splits=[CORPUS.meta, *(CORPUS.index(split) for split in SPLITS)] if HAS_META else [],
        features=[RUNS.features / f"{source}.json" for source in [*CONFIG.streams, "points"]],
        config=SEQUENCE_CONFIG or [],
    output:
        **{name: RUNS.sequence_file(name) for name in SEQUENCE_FILES},
    log:
        LOGS / "sequence.log",
    benchmark:
        LOGS / "sequence.benchmark.tsv"
    conda:
        ENVIRONMENT
    threads: CONFIG.integrate.threads
    resources:
        **({"gpu": SEQUENCE_GPUS} if SEQUENCE_GPUS else {}),
        mem_mb=CONFIG.integrate.mem_mb,
    params:
        root=CORPUS.root,
        output_dir=RUNS.sequence,
        features=RUNS.features,
        gpus=granted_gpus,
        backbones=BACKBONES,
        config=f"--config {shlex.quote(str(SEQUENCE_CONFIG))}" if SEQUENCE_CONFIG else "",
        settings=setting_words(settings_of_training(INTEGRATE)),
    shell:
        "export OMP_NUM_THREADS={threads} OMP_WAIT_POLICY=PASSIVE;"
        ' exec "$PYTHON" "$SCRIPTS"/launch.py --gpus {params.gpus} --requeue --'
        ' "$SCRIPTS"/pretrain_sequence.py {params.config} --root {params.root:q} --output-dir {params.output_dir:q}'
        " --features {params.features:q} {params.backbones} --on-conflict archive {params.settings} > {log:q} 2>&1"
