"""A recipe on the sizes of its tests, as a process of its own: ``python -m tests.recipes.tiny_run RECIPE ...``.

With ``FILE_LIMIT=N`` in the environment no file can grow beyond N bytes, which fails as a full disk does.
"""

import importlib
import os
import resource
import sys

if limit := int(os.environ.get("FILE_LIMIT", "0")):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
recipe, *arguments = sys.argv[1:]
presets = importlib.import_module(f"recipes.{recipe}.experiment").PRESETS
presets["smoke"] = importlib.import_module(f"tests.recipes.{recipe}.test_{recipe}").TINY
importlib.import_module(f"recipes.{recipe}.__main__").main(arguments)
