"""Translation, multistream v9: backbone features, pose and MSKA keypoints, fused over time into a text decoder."""
