"""The network of sequence pretraining: the encoder of multistream v9, and a head per stream that names its cluster.

Letters: B windows, S steps, C clusters of a stream.
"""

from __future__ import annotations

from torch import Tensor, nn

from signstreams.integrate.batches import Batch
from signstreams.integrate.model import FusionEncoder, mska_dims, named_steps
from signstreams.integrate.mska import Mska
from signstreams.integrate.settings import IntegrateConfig


class SequenceModel(nn.Module):
    """Projections, fusion encoder and MSKA's encoders under the names that they have in `MultistreamModel`.

    What is hidden is missing, and so becomes the embedding of missing frames, or zero nodes: the encoder needs no
    parameters that a translation model lacks. ``config`` is that of a training without glosses.
    """

    def __init__(
        self,
        config: IntegrateConfig,
        *,
        feature_dims: dict[str, int],
        num_layers: dict[str, int] | None = None,
        num_clusters: dict[str, int],
    ) -> None:
        super().__init__()
        self.mska = Mska(config.mska, None) if config.model.use_mska else None
        self.fusion = FusionEncoder(feature_dims, mska_dims(self.mska), num_layers or {}, config.model)
        self.predict = nn.ModuleDict(
            {stream: nn.Linear(config.model.d_model, count) for stream, count in num_clusters.items()}
        )

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Stream to the logits (B, S, C) of its clusters."""
        visual = {stream: (batch.features[stream].float(), batch.present[stream]) for stream in self.fusion.projectors}
        steps = {} if self.mska is None else named_steps(self.mska(batch.nodes, batch.lengths)[0])
        memory, _ = self.fusion(visual, steps, batch.lengths)  # (B, S, M)
        return {stream: head(memory) for stream, head in self.predict.items()}
