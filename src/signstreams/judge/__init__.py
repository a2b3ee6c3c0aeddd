"""Backbones judged on labelled images and clips, beside simple baselines."""
