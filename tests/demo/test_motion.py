"""Movement is smooth and passes through the planned signs; sides are where an unmirrored camera sees them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from signstreams.demo.figure import FOREARM, LEFT, RIGHT, UPPER_ARM, Camera, limb
from signstreams.demo.language import HANDSHAPES, MOUTHS, SIGNS, Sentence
from signstreams.demo.motion import NO_HANDSHAPE, NO_MOUTH, Motion, minimum_jerk, video_motion
from signstreams.demo.plan import PlannedClip, PlannedSign, PlannedVideo
from signstreams.demo.signers import SIGNERS, Signer, signer_named

GLOSSES = ("YO", "CASA", "COMPRAR", "DÓNDE", "AGUA")


def video_of(glosses: tuple[str, ...]) -> PlannedVideo:
    signs = tuple(PlannedSign(gloss, 10 + 18 * i, 21 + 18 * i) for i, gloss in enumerate(glosses))
    clip = PlannedClip("clip", Sentence(glosses, "¿?"), 3, signs[-1].end + 7, signs)
    return PlannedVideo("video", SIGNERS[0].name, (clip,), clip.end + 3)


@pytest.fixture(scope="module")
def motion() -> Motion:
    return video_motion(video_of(GLOSSES), SIGNERS[0], np.random.default_rng(0))


def test_minimum_jerk_starts_and_ends_at_rest() -> None:
    t = np.linspace(0, 1, 1001)
    way = minimum_jerk(t)
    assert (way[0], way[-1]) == (0, 1)
    speed = np.gradient(way, t)
    assert max(speed[0], speed[-1]) < 1e-4
    assert speed.max() == pytest.approx(1.875, abs=1e-3)  # 15/8, at half the time


def test_hands_move_without_jumps(motion: Motion) -> None:
    for hand in (motion.signing, motion.other):
        steps = np.linalg.norm(np.diff(hand.palm, axis=0), axis=1)
        assert steps.max() < 0.75  # units a frame: a quick sign, no teleport
        np.testing.assert_allclose(
            hand.frame @ hand.frame.transpose(0, 2, 1), np.tile(np.eye(3), (len(steps) + 1, 1, 1)), atol=1e-9
        )


def test_a_sign_shows_its_handshape_from_start_to_end(motion: Motion) -> None:
    for planned in video_of(GLOSSES).clips[0].signs:
        sign, span = SIGNS[planned.gloss], slice(planned.start, planned.end)
        assert set(motion.signing.handshape[span]) == {HANDSHAPES.index(sign.handshape)}
        other = {"one": "rest", "two": sign.handshape, "base": "flat"}[sign.hands]
        assert set(motion.other.handshape[span]) == {HANDSHAPES.index(other)}
    assert NO_HANDSHAPE in motion.signing.handshape[21:28]  # between YO and CASA


def test_a_sign_shows_its_mouth_and_the_frames_that_mix_two_are_of_none(motion: Motion) -> None:
    names = list(MOUTHS)
    for planned in video_of(GLOSSES).clips[0].signs:
        span = slice(planned.start + 2, planned.end - 2)
        mouth = SIGNS[planned.gloss].mouth
        assert set(motion.mouth_shape[span]) == {names.index(mouth)}
        np.testing.assert_allclose(motion.mouth[span], np.tile(MOUTHS[mouth], (span.stop - span.start, 1)))
    assert motion.mouth_shape[0] == names.index("neutral")
    shown = motion.mouth_shape != NO_MOUTH
    np.testing.assert_allclose(motion.mouth[shown], np.array(list(MOUTHS.values()))[motion.mouth_shape[shown]])
    assert 0 < (~shown).sum() < len(shown) / 2


def test_both_hands_mirror_each_other_in_a_two_handed_sign(motion: Motion) -> None:
    span = slice(28, 39)  # CASA
    np.testing.assert_allclose(motion.signing.palm[span], motion.other.palm[span], atol=0.1)


def test_a_question_raises_the_brows_and_an_a_opens_the_mouth(motion: Motion) -> None:
    assert motion.brows[20:80].mean() > 0.6
    assert motion.mouth[33, 0] > 0.8  # CASA
    assert motion.lids.max() == 1.0


@pytest.mark.parametrize("name", ["ana", "carla"])
def test_the_left_hand_is_on_the_right_of_the_picture(name: str) -> None:
    signer = signer_named(name, 0)
    resting = replace(signer, rests_low=False)
    motion = video_motion(video_of(("CASA",)), resting, np.random.default_rng(0))
    camera = Camera.before(resting, np.random.default_rng(0))
    left, right = (limb(motion, 15, side, resting, camera).hand for side in (LEFT, RIGHT))
    assert left[:, 0].mean() > 320 > right[:, 0].mean()
    # CASA shows the palms: the thumbs point at each other.
    assert left[4, 0] < left[20, 0]
    assert right[4, 0] > right[20, 0]


def test_a_left_handed_signer_signs_with_the_left() -> None:
    for signer, raised in ((signer_named("ana", 0), RIGHT), (signer_named("carla", 0), LEFT)):
        assert signer.left_handed == (raised == LEFT)
        motion = video_motion(video_of(("NO",)), signer, np.random.default_rng(0))
        camera = Camera.before(signer, np.random.default_rng(0))
        heights = [limb(motion, 15, side, signer, camera).hand[0, 1] for side in (LEFT, RIGHT)]
        assert heights[raised] < heights[1 - raised] - 50


def test_arms_keep_their_length_even_out_of_reach() -> None:
    signer: Signer = SIGNERS[0]
    motion = video_motion(video_of(("NO",)), signer, np.random.default_rng(0))
    far = replace(motion, signing=replace(motion.signing, palm=motion.signing.palm * 9))
    one = limb(far, 15, RIGHT, signer, Camera(80.0, 320.0, 200.0))
    assert np.isfinite(one.hand).all()
    longest = 1.1 * (UPPER_ARM + FOREARM) * one.size / signer.hand_length  # off the middle, perspective adds to it
    assert np.linalg.norm(one.hand[0] - one.shoulder) < longest


def test_looks_vary_with_the_seed_and_not_otherwise() -> None:
    assert signer_named("ana", 1) == signer_named("ana", 1) != signer_named("ana", 2)
