"""Losses: honest CTC lengths, distillation without padding, translation without padding."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from signstreams.integrate.batches import collate
from signstreams.integrate.losses import (
    ALIGNMENT,
    CTC,
    DISTILLATION,
    RESTORATION,
    TRANSLATION,
    LossTerm,
    compute_losses,
    ctc_loss,
    ctc_steps_needed,
    ctc_usable,
    distillation_loss,
    divisors,
    joint_counts,
    loss_weights,
    total_loss,
    translation_loss,
)
from signstreams.integrate.settings import IntegrateConfig

from .models import model_of, sample

Build = Callable[..., IntegrateConfig]


def slow_ctc(logits: torch.Tensor, labels: list[int]) -> float:
    """Minus log of the sum over every path that collapses to ``labels``."""
    probs = logits.softmax(-1)
    total = 0.0
    for path in itertools.product(range(logits.shape[1]), repeat=len(logits)):
        merged = [label for label, _ in itertools.groupby(path) if label != 0]
        if merged == labels:
            total += math.prod(probs[step, label].item() for step, label in enumerate(path))
    return -math.log(total)


@pytest.mark.parametrize(("labels", "steps"), [([], 0), ([3], 1), ([1, 2], 2), ([1, 1], 3), ([2, 2, 2, 1], 6)])
def test_ctc_needs_a_step_a_label_and_one_between_equal_ones(labels: list[int], steps: int) -> None:
    assert ctc_steps_needed(labels) == steps


def test_clips_that_are_too_short_are_counted_and_left_out() -> None:
    glosses = [[1, 2], [1, 1], None, [1, 2, 3]]
    assert ctc_usable(glosses, [2, 2, 9, 3]) == ([0, 3], 1)


def test_ctc_is_the_sum_over_all_paths_whatever_the_padding() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 3)
    total = ctc_loss(logits, [4, 5], [[1, 2], [1, 1]], [0, 1]).item()
    expected = slow_ctc(logits[0, :4], [1, 2]) + slow_ctc(logits[1], [1, 1])
    assert total == pytest.approx(expected, rel=1e-4)
    padded = F.pad(logits, (0, 0, 0, 3), value=50.0)
    assert ctc_loss(padded, [4, 5], [[1, 2], [1, 1]], [0, 1]).item() == pytest.approx(total)


def test_ctc_is_of_the_usable_clips_alone() -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 4, 3)
    total = ctc_loss(logits, [4, 1, 3], [[1], [1, 2], [2, 1]], [0, 2]).item()
    assert total == pytest.approx(slow_ctc(logits[0], [1]) + slow_ctc(logits[2, :3], [2, 1]), rel=1e-4)


def test_ctc_of_no_usable_clip_is_zero_and_still_has_a_gradient() -> None:
    logits = torch.randn(1, 1, 3, requires_grad=True)
    total = ctc_loss(logits, [1], [[1, 2]], [])
    total.backward()
    assert total.item() == 0 and not logits.grad.any()
    assert total_loss({"ctc": LossTerm(total, 0)}, {"ctc": 1.0}, {"ctc": 0}).item() == 0


def test_distillation_is_the_divergence_from_the_mean_of_the_heads_without_padding() -> None:
    torch.manual_seed(0)
    logits = {name: torch.randn(2, 3, 4, requires_grad=True) for name in ("left", "fuse")}
    mask = torch.tensor([[True, True, True], [True, False, False]])
    total = distillation_loss(logits, [3, 1])
    expected = 0.0
    for row, step in mask.nonzero().tolist():
        probs = [scores[row, step].softmax(-1) for scores in logits.values()]
        teacher = (probs[0] + probs[1]) / 2
        expected += sum((teacher * (teacher / student).log()).sum().item() for student in probs)
    assert total.item() == pytest.approx(expected, rel=1e-4)
    total.backward()
    for scores in logits.values():
        assert not scores.grad[~mask].any() and scores.grad[mask].any()


def test_distillation_of_equal_heads_is_zero_and_the_teacher_gets_no_gradient() -> None:
    same = torch.randn(1, 3, 4)
    assert distillation_loss({"a": same, "b": same}, [3]).item() == pytest.approx(0, abs=1e-5)
    # with a fixed teacher p, the gradient of KL(p || softmax(z)) is softmax(z) - p
    a, b = torch.randn(1, 1, 4, requires_grad=True), torch.randn(1, 1, 4, requires_grad=True)
    distillation_loss({"a": a, "b": b}, [1]).backward()
    teacher = (a.softmax(-1) + b.softmax(-1)).detach() / 2
    torch.testing.assert_close(a.grad, a.detach().softmax(-1) - teacher)


def test_translation_ignores_padding() -> None:
    torch.manual_seed(0)
    logits, tokens = torch.randn(2, 3, 5), torch.tensor([[3, 4, 1], [2, 1, -100]])
    total = translation_loss(logits, tokens, label_smoothing=0.1)
    expected = 0.0
    for row, place in (tokens != -100).nonzero().tolist():
        log_probs = logits[row, place].log_softmax(-1)
        expected -= 0.9 * log_probs[tokens[row, place]].item() + 0.1 * log_probs.mean().item()
    assert total.item() == pytest.approx(expected, rel=1e-5)


def test_a_loss_is_a_mean_over_its_items_or_over_the_clips_as_it_is_asked_for(tiny_config: Build) -> None:
    batch = collate([sample(9, 0, tokens=3), sample(17, 1, tokens=8), sample(5, 2, tokens=4)])
    counts = joint_counts([batch], torch.device("cpu"))
    plain = divisors(counts, tiny_config())
    assert plain == {TRANSLATION: 15, CTC: 3, DISTILLATION: 3 + 5 + 2, ALIGNMENT: 3, RESTORATION: 15}
    config = tiny_config(optim={"translation_loss": "sentence"}, mska={"distillation": "batch"})
    assert divisors(counts, config) == plain | {TRANSLATION: 3, CTC: 3, DISTILLATION: 3}
    # MSKA's: cross-entropy summed over a sentence, over the clips of the batch
    model = model_of(config)
    losses = compute_losses(model, batch, model.encode(batch), label_smoothing=0.2)
    of_each = []
    for number, (frames, tokens) in enumerate(((9, 3), (17, 8), (5, 4))):
        alone = collate([sample(frames, number, tokens=tokens)])
        logits = model.text_logits(model.encode(alone), alone.tokens)
        of_each.append(F.cross_entropy(logits[0], alone.tokens[0], label_smoothing=0.2, reduction="sum").item())
    weights = {TRANSLATION: 1.0}
    total = total_loss(losses.terms, weights, divisors(counts, config)).item()
    assert total == pytest.approx(sum(of_each) / 3, rel=1e-4)
    per_token = total_loss(losses.terms, weights, plain).item()
    assert total == pytest.approx(per_token * 15 / 3, rel=1e-5)


@pytest.mark.parametrize("kind", ["token", "sentence"])
def test_any_division_of_the_joint_batch_gives_the_same_gradients(tiny_config: Build, kind: str) -> None:
    other = {"sentence": "batch", "token": "step"}[kind]
    config = tiny_config(optim={"translation_loss": kind}, mska={"distillation": other})
    samples = [sample(frames, number, tokens=frames // 2) for number, frames in enumerate((9, 17, 5, 12))]
    weights = loss_weights(config, distils=True)

    def gradients(*parts: list[int]) -> dict[str, torch.Tensor]:
        model = model_of(config)
        batches = [collate([samples[row] for row in part]) for part in parts]
        over = divisors(joint_counts(batches, torch.device("cpu")), config)
        for batch in batches:
            losses = compute_losses(model, batch, model.encode(batch), label_smoothing=0.1)
            total_loss(losses.terms, weights, over).backward()
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    whole, divided = gradients([0, 1, 2, 3]), gradients([1], [3, 0, 2])
    assert whole.keys() == divided.keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(
            divided[name], gradient, atol=1e-4, rtol=1e-3, msg=lambda text, n=name: f"{n}: {text}"
        )
