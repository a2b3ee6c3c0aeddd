"""Typed configuration, one module per stage. Imports neither torch nor MediaPipe: ``--help`` and typos are quick."""
