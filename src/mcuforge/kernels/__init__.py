"""The fast kernels, one folder a feature of cores. Importing this package declares them all."""

from mcuforge.tir.registry import import_all

import_all(__name__, __path__)
