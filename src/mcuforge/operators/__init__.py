"""Integer operators: their Relax form, how they are recognised, and their scalar kernels.

Importing this package registers every operator; a new one is a new file here.
"""

from mcuforge.tir.registry import import_all

import_all(__name__, __path__)
