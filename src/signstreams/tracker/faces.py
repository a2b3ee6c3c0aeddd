"""Faces: those of all people in a picture, also small ones, and the mesh of the tracked person's face."""

from __future__ import annotations

import numpy as np

from signstreams.array_types import Flags, Floats, Ints, Pixels
from signstreams.tracker.detections import Detections, detect, suppress
from signstreams.tracker.engine import Engine
from signstreams.tracker.regions import agree, cut, half_turn, project, turned, whole_frame

# -- The mesh of one face

NUM_POINTS = 468
MIN_PRESENCE = 0.5
_NOSE, _EYES, _EARS, _MOUTH = 0, (2, 5), (7, 8), (9, 10)  # rows of the body's points; left before right
_EYE_CORNERS = (33, 263)  # rows of the mesh: outer corners, the person's right before left
_MARGIN = 1.5  # of the region over the mesh, as MediaPipe has it
_EYES_TO_SIDE, _MOUTH_TO_SIDE = 3.75, 4.0
"""Side of the region over the distance of the eyes, and over that from eyes to mouth, which a turned head keeps."""
_BELOW_EYES = 0.5  # middle of the mesh, on the way from the eyes to the mouth
_KEY_EVERY = 8  # frames that tell how meshes are off the body's points
_MAX_LOOKS = 2
# How far the region that a mesh asks for may be from the one in which it was seen: see `agree`.
_MAX_SHIFT, _MAX_SCALE, _MAX_TURN = 0.05, 1.15, 0.17


class FaceMesh:
    """468 points of the face whose eyes and mouth the body has."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def find(self, frames: list[Pixels], body: Floats) -> Floats:
        """(N, 468, 2) px in N frames with (N, 33, 4) body points; NaN without a face.

        The region comes from the body's points, which are rough. How the mesh is off it, some of the frames tell; those
        that are still off are seen again in the region that their own mesh asks for. No frame waits for another one.
        """
        points = np.full((len(frames), NUM_POINTS, 2), np.nan)
        rows = np.flatnonzero(~np.isnan(body[:, 0, 0]))
        heads = _around_head(body[rows])
        regions = heads
        found, is_face = self.see(frames, rows[::_KEY_EVERY], heads[::_KEY_EVERY])
        if is_face.any():
            regions = _shifted(heads, heads[::_KEY_EVERY][is_face], around_mesh(found[is_face]))
        for _ in range(_MAX_LOOKS):
            found, is_face = self.see(frames, rows, regions)
            points[rows[is_face]] = found[is_face]
            wanted = np.where(is_face[:, None], around_mesh(found), heads)
            is_off = ~is_face | ~agree(wanted, regions, _MAX_SHIFT, _MAX_SCALE, _MAX_TURN)
            rows, regions, heads = rows[is_off], wanted[is_off], heads[is_off]
        self._beside(frames, _around_head(body), points)
        return points

    def _beside(self, frames: list[Pixels], heads: Floats, points: Floats) -> None:
        """Faces that are still missing, blurred or covered: where the mesh is in the nearest frame that has one,
        moved as the head has.
        """
        has_face = ~np.isnan(points[:, 0, 0])
        rows = np.flatnonzero(~has_face & ~np.isnan(heads[:, 0]))
        if not len(rows) or not has_face.any():
            return
        known = np.flatnonzero(has_face)
        near = known[np.abs(rows[:, None] - known).argmin(1)]
        regions = around_mesh(points[near])
        regions[:, :2] += heads[rows, :2] - heads[near, :2]
        found, is_face = self.see(frames, rows, regions)
        points[rows[is_face]] = found[is_face]

    def see(self, frames: list[Pixels], rows: Ints, regions: Floats) -> tuple[Floats, Flags]:
        """(M, 468, 2) mesh in (M, 4) regions of the frames ``rows``, px, and (M,) whether it is one."""
        model = self._engine.model("face_landmarks")
        values, presence = model.run(cut(frames, rows, regions, model.side_px))
        places = values.reshape(-1, NUM_POINTS, 3)[..., :2] / model.side_px  # (M, 468, 2)
        return project(places, regions), presence.reshape(-1) > np.log(MIN_PRESENCE / (1 - MIN_PRESENCE))


def _shifted(regions: Floats, heads: Floats, meshes: Floats) -> Floats:
    """(N, 4) regions moved, scaled and turned as the (K, 4) ``meshes`` are against the ``heads``, in the middle."""
    apart = turned((meshes[:, None, :2] - heads[:, None, :2]), -heads[:, 3])[:, 0] / heads[:, 2:3]  # (K, 2)
    across, down = np.median(apart, axis=0)
    scale, turn = np.median(meshes[:, 2] / heads[:, 2]), np.median(half_turn(meshes[:, 3] - heads[:, 3]))
    shift = turned(np.tile([across, down], (len(regions), 1, 1)), regions[:, 3])[:, 0] * regions[:, 2:3]  # (N, 2)
    return np.column_stack([regions[:, :2] + shift, regions[:, 2] * scale, regions[:, 3] + turn])


def _around_head(body: Floats) -> Floats:
    """(N, 4) region of the face, from (N, 33, 4) body points."""
    eyes, mouth = body[:, _EYES, :2], body[:, _MOUTH, :2].mean(1)
    middle = eyes.mean(1)
    across = eyes[:, 0] - eyes[:, 1]  # from the person's right eye to the left one
    apart, down = np.linalg.norm(across, axis=-1), np.linalg.norm(mouth - middle, axis=-1)
    side = np.maximum(_EYES_TO_SIDE * apart, _MOUTH_TO_SIDE * down)
    return np.column_stack([middle + _BELOW_EYES * (mouth - middle), side, np.arctan2(across[:, 1], across[:, 0])])


def around_mesh(points: Floats) -> Floats:
    """(N, 4) region of (N, 468, 2) meshes: eyes level, one and a half times the extent
    (google-ai-edge/mediapipe: face_landmark_landmarks_to_roi).
    """
    across = points[:, _EYE_CORNERS[1]] - points[:, _EYE_CORNERS[0]]
    low, high = points.min(1), points.max(1)
    side = _MARGIN * (high - low).max(-1)
    return np.column_stack([(low + high) / 2, side, np.arctan2(across[:, 1], across[:, 0])])


# -- All faces in a picture

SURE = 0.8
"""A face with a lower score has to be one to the model of the mesh as well: half of what the detector takes for small
faces at scores of .5 to .75 are hands, sleeves or letters, and nearly all of these go."""
_TILE_SHARE, _MIN_TILE_PX, _TILE_OVERLAP = 0.6, 320, 0.25
"""Side of a tile over the shorter side of the frame, at least so many px; tiles overlap by a quarter of their side."""


def find_faces(engine: Engine, image: Pixels, near: Floats | None = None) -> Detections:
    """Faces in an (H, W, 3) image, the surest first: in all of it and in tiles.

    The detector shrinks what it sees to 192 px, so that somebody inset into a large picture is only found in a tile.
    ``near``, (R, 4) regions, replaces the tiles where one knows where faces are.
    """
    height_px, width_px = image.shape[:2]
    whole = whole_frame(width_px, height_px)
    regions = np.concatenate([whole[None], tiles(width_px, height_px) if near is None else near])
    found = detect(engine, "face_detection", [image] * len(regions), regions)
    kept = [
        found[0],
        *(_clear_of_the_edge(*pair, (width_px, height_px)) for pair in zip(found[1:], regions[1:], strict=True)),
    ]
    joined = Detections(*(np.concatenate(parts) for parts in zip(*kept, strict=True)))
    order = np.argsort(-joined.score, kind="stable")
    faces = suppress(Detections(*(part[order] for part in joined)))
    return _confirmed(engine, image, faces)


def _confirmed(engine: Engine, image: Pixels, faces: Detections) -> Detections:
    """Without unsure ones that are no faces to the model of the mesh."""
    unsure = np.flatnonzero(faces.score < SURE)
    across = faces.points[unsure, 1] - faces.points[unsure, 0]  # from the person's right eye to the left one
    side = _MARGIN * faces.box[unsure, 2:].max(-1)
    regions = np.column_stack([faces.box[unsure, :2], side, np.arctan2(across[:, 1], across[:, 0])])
    mesh, is_face = FaceMesh(engine), np.ones(len(unsure), bool)
    for _ in range(_MAX_LOOKS):  # in the region that a false mesh asks for, it is gone
        left = np.flatnonzero(is_face)
        found, is_face[left] = mesh.see([image] * len(left), np.arange(len(left)), regions[left])
        regions[left] = around_mesh(found)
    return Detections(*(np.delete(part, unsure[~is_face], axis=0) for part in faces))


def tiles(width_px: int, height_px: int) -> Floats:
    """(R, 4) overlapping upright squares that cover a frame; none where the whole frame is hardly larger than one."""
    side = max(_MIN_TILE_PX, _TILE_SHARE * min(width_px, height_px))
    if max(width_px, height_px) <= 1.25 * side:
        return np.empty((0, 4))
    x, y = (_spread(size_px, side) for size_px in (width_px, height_px))
    grid = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
    return np.column_stack([grid, np.full(len(grid), side), np.zeros(len(grid))])


def _spread(size_px: int, side: float) -> Floats:
    """Centres of the tiles along one side of the frame."""
    if size_px <= side:
        return np.array([size_px / 2])
    number = 1 + int(np.ceil((size_px - side) / (side * (1 - _TILE_OVERLAP))))
    return np.linspace(side / 2, size_px - side / 2, number)


def _clear_of_the_edge(found: Detections, region: Floats, size_px: tuple[int, int]) -> Detections:
    """Without those that the region's edge cuts: another tile has them whole."""
    low = np.maximum(region[:2] - region[2] / 2, 0)
    high = np.minimum(region[:2] + region[2] / 2, size_px)
    ends = found.box[:, :2] - found.box[:, 2:] / 2, found.box[:, :2] + found.box[:, 2:] / 2
    is_whole = (((ends[0] > low) | (low <= 0)) & ((ends[1] < high) | (high >= size_px))).all(-1)
    return Detections(*(part[is_whole] for part in found))
