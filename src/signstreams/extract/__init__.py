"""Stage 1: from videos to crops, keypoints, pose and tracks. Nothing here imports torch.

Order of reading: `pipeline` (one video), then what it calls: `video`, `detectors`, `hands`, `boxes`, `tracks`, `crops`,
`signing_space`. `batch` runs many videos.
"""
