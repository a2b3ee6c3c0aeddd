"""Multistream v9: backbone features, pose and the MSKA keypoint branch, fused over time into a text decoder."""
