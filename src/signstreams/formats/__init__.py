"""Files that the stages hand to each other: crop archives, keypoint, pose and track arrays, metadata, folder layout.

The stage that writes and the stages that read share these modules, so a format is described once.
"""
