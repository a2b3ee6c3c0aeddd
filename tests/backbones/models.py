"""Networks with random weights, for tests of what is done with a network."""

from __future__ import annotations

import torch

from signstreams.backbones.archs import resolve
from signstreams.backbones.vit import VisionTransformer


def make_model(name: str, image_px: int, **changes: float) -> VisionTransformer:
    """A network of this architecture whose every part shows in its output."""
    model = VisionTransformer(resolve(name, image_px=image_px, **changes))  # type: ignore[arg-type]
    model.init_weights(torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith("gamma"):
                parameter.fill_(0.7)  # at DINOv2's 1e-5 every block would be next to nothing
    return model.eval()
