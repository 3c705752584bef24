"""Types of the fixtures in ``compiler/conftest.py``."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

Find = Callable[[str], Path]
Compile = Callable[[str, str, int], Path]
Expect = Callable[[str], tuple[np.ndarray, np.ndarray]]
