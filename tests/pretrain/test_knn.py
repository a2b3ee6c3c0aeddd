"""The weighted vote of k-NN."""

from __future__ import annotations

import math

import torch

from signstreams.pretrain.knn import cosines, vote


def test_neighbours_vote_with_the_exponential_of_their_cosine() -> None:
    angles = torch.tensor([0.0, 0.3, 0.32, 2.0])
    bank = torch.stack((angles.cos(), angles.sin()), dim=1) * 5
    labels = torch.tensor([0, 1, 1, 2])
    similarity = cosines(torch.tensor([[2.0, 0.0]]), bank)
    near, far = math.exp(1 / 0.07), math.exp(math.cos(0.3) / 0.07) + math.exp(math.cos(0.32) / 0.07)
    assert vote(similarity, labels, k=3, temperature=0.07).tolist() == [0 if near > far else 1]
    assert vote(similarity, labels, k=1, temperature=0.07).tolist() == [0]
    assert vote(similarity, labels, k=100, temperature=100.0).tolist() == [1]  # heads count, not distance
