"""Self-supervised pretraining of one stream's backbone: crops in, ``backbone.pt`` out."""
