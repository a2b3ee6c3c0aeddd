"""signstreams: video -> crops and keypoints -> checked corpus -> self-supervised backbones -> translation model."""

from snakemake.utils import min_version

min_version("9.10")


configfile: "config/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/corpus.smk"
include: "workflow/rules/extract.smk"
include: "workflow/rules/contract.smk"
include: "workflow/rules/pretrain.smk"
include: "workflow/rules/embed.smk"
include: "workflow/rules/integrate.smk"


localrules:
    all,
    extract_all,
    pretrain_all,
    train_all,


rule all:
    """Everything: checked corpus, backbones, their k-NN where the truth is known, and the translation model."""
    default_target: True
    input:
        rules.contract.output,
        rules.pretrain_all.input,
        rules.train_all.input if HAS_TEXTS else [],
        KNN_REPORTS,
