"""Typed configuration of all stages: how it is read, and the base class of its sections.

Imports neither torch nor MediaPipe: ``--help`` and typos are quick.
"""
