"""Integer operators: their Relax form, how they are recognised, and their scalar kernels.

Importing this package registers every operator; a new one is a new file here.
"""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
