"""Backbones judged on labelled images and clips, beside what costs nothing."""
