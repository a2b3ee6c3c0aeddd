"""Kinds of NumPy arrays, for annotations. Docstrings beside them give shapes, units and exact widths."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]
Flags = NDArray[np.bool_]
Pixels = NDArray[np.integer[Any] | np.floating[Any]]
"""An image: uint8 unless said otherwise. OpenCV declares no more of what it returns."""
Array = NDArray[Any]  # of any kind, or of a kind that a file decides
