"""signstreams: from raw sign-language video to a translation model with self-supervised backbones."""

__version__ = "0.1.0"
