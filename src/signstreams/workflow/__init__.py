"""The Snakemake workflow as plain objects: its config, the batches of videos, and checks of the whole configuration."""
