"""Stage 1: from videos to crops, keypoints, pose and tracks. Nothing here imports torch.

Reading order: `batch` (many videos), `pipeline` (one video), then `video`, `detectors`, `frame_boxes`, `box_tracks`,
`crops`, `results`.
"""
