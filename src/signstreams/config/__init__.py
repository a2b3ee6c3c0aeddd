"""Typed configuration, one module a stage. Imports neither torch nor MediaPipe: ``--help`` and typos answer at once."""
