"""How a budget is spread over the layers: the allocations of `prune_to`.

Importing this package imports and registers every file in it: a new allocation is one new file.
"""

import importlib
import pkgutil

from .base import ALLOCATIONS, Allocation, Step, Work, register_allocation, unregister_allocation

__all__ = ["ALLOCATIONS", "Allocation", "Step", "Work", "register_allocation", "unregister_allocation"]

for _file in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_file.name}")
