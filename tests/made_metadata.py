"""Metadata of an extracted video that no extraction made."""

from __future__ import annotations

from signstreams.formats.video_metadata import DetectorInfo, SignerInfo, VideoMetadata

FPS = 25


def made_metadata(video_id: str, num_frames: int, *, size_px: tuple[int, int], crop_px: int) -> VideoMetadata:
    """Of a video of one signer at 25 Hz; ``size_px`` are its width and height."""
    return VideoMetadata(
        video_id=video_id,
        status="ok",
        source_name=f"{video_id}.mp4",
        source_bytes=1,
        source_sha256="0" * 64,
        width_px=size_px[0],
        height_px=size_px[1],
        source_fps=FPS,
        fps=FPS,
        num_frames=num_frames,
        duration_s=num_frames / FPS,
        crop_px=crop_px,
        detector=DetectorInfo(name="tracker", version="1"),
        signer=SignerInfo(chosen_by="alone"),
        face_privacy="none",
        spans_s=None,
        settings={},
        settings_digest="0",
        states={},
        num_pose_frames=0,
        num_face_frames=0,
        timings_s={},
        checksums={},
        signstreams_version="0",
    )
