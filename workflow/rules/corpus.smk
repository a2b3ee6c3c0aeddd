"""The footage and its texts. Out: videos (demo corpus only), meta.csv, gloss.csv, index/{train,val,test}.csv."""

if IS_DEMO:

    rule demo_annotations:
        """Texts, glosses and splits of the demo corpus."""
        output:
            meta=CORPUS.meta,
            gloss=CORPUS.gloss,
            index=[CORPUS.index(split) for split in SPLITS],
        log:
            LOGS / "demo/annotations.log",
        benchmark:
            LOGS / "demo/annotations.benchmark.tsv"
        conda:
            ENVIRONMENT
        params:
            root=CORPUS.root,
            size=CONFIG.corpus.demo_size,
            seed=CONFIG.corpus.demo_seed,
        shell:
            '"$PYTHON" "$SCRIPTS"/render_demo_corpus.py --root {params.root:q} --size {params.size} --seed {params.seed}'
            " --annotations-only > {log:q} 2>&1"

    rule demo_video:
        """One video of the demo corpus, with its ground truth."""
        output:
            video=CORPUS.videos / "{video}.mp4",
            ground_truth=CORPUS.ground_truth("{video}"),
        log:
            LOGS / "demo/{video}.log",
        benchmark:
            LOGS / "demo/{video}.benchmark.tsv"
        conda:
            ENVIRONMENT
        params:
            root=CORPUS.root,
            size=CONFIG.corpus.demo_size,
            seed=CONFIG.corpus.demo_seed,
        shell:
            '"$PYTHON" "$SCRIPTS"/render_demo_corpus.py --root {params.root:q} --size {params.size} --seed {params.seed}'
            " --video {wildcards.video:q} > {log:q} 2>&1"


ABSENT = CONFIG.corpus.allow_absent_videos

# Splits that the user wrote are input and stay as they are; ours carry split.json beside them.
HAS_META = IS_DEMO or CORPUS.meta.exists()
OWN_INDEX = CORPUS.index("train").exists() and not (CORPUS.root / "index" / "split.json").exists()

if HAS_META and not IS_DEMO and not OWN_INDEX:

    rule split_corpus:
        """Seeded split that keeps signers and videos apart, where index/*.csv are absent."""
        input:
            meta=CORPUS.meta,
            videos=[source.path for source in VIDEOS.values()],
        output:
            index=[CORPUS.index(split) for split in SPLITS],
            record=CORPUS.root / "index" / "split.json",
        log:
            LOGS / "split_corpus.log",
        benchmark:
            LOGS / "split_corpus.benchmark.tsv"
        conda:
            ENVIRONMENT
        params:
            root=CORPUS.root,
            videos_dir=CONFIG.corpus.videos,
            seed=CONFIG.corpus.split_seed,
            val_fraction=CONFIG.corpus.val_fraction,
            test_fraction=CONFIG.corpus.test_fraction,
        shell:
            '"$PYTHON" "$SCRIPTS"/split_corpus.py --root {params.root:q} --videos-dir {params.videos_dir:q}'
            " --seed {params.seed} --val-fraction {params.val_fraction} --test-fraction {params.test_fraction}"
            + (" --allow-absent-videos" if ABSENT else "")
            + " > {log:q} 2>&1"


ANNOTATIONS = [CORPUS.meta, *(CORPUS.index(split) for split in SPLITS)] if HAS_META else []
if IS_DEMO or CORPUS.gloss.exists():
    ANNOTATIONS.append(CORPUS.gloss)
