"""Integer operators: their Relax form, how they are recognised, and the kernels that compute them.

Importing this package registers every operator; a new one is a new file here.
"""

import importlib
import pkgutil

for _module in sorted(module.name for module in pkgutil.iter_modules(__path__)):
    importlib.import_module(f"{__name__}.{_module}")
