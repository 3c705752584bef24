"""The fast kernels, one folder a feature of cores. Importing this package declares them all."""

import importlib
import pkgutil

for _module in pkgutil.walk_packages(__path__, f"{__name__}."):
    importlib.import_module(_module.name)
