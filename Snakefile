"""signstreams: video -> crops and keypoints -> checked corpus -> self-supervised backbones -> translation model."""

from snakemake.utils import min_version

min_version("9.10")


configfile: "config/config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/corpus.smk"
include: "workflow/rules/extract.smk"
include: "workflow/rules/contract.smk"
include: "workflow/rules/pretrain.smk"
include: "workflow/rules/embed.smk"
include: "workflow/rules/sequence.smk"
include: "workflow/rules/integrate.smk"
include: "workflow/rules/publish.smk"


rule all:
    """Everything: checked corpus, backbones, judged where the truth is known, the translation model, an overview."""
    default_target: True
    input:
        final_targets,
        rules.overview.output,
