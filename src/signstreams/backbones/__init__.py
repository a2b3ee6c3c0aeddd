"""Vision backbones: the transformer itself, how one is named by users, and how weights are read and written."""
