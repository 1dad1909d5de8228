"""A recipe on the sizes of its tests, as a process of its own: ``python -m tests.recipes.tiny_run RECIPE ...``.

With ``FILE_LIMIT`` in the environment no file can grow beyond so many bytes, which fails as a full disk does.
"""

import importlib
import os
import resource
import sys

if limit := int(os.environ.get("FILE_LIMIT", "0")):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
recipe, *arguments = sys.argv[1:]
module = importlib.import_module(f"recipes.{recipe}.__main__")
module.PRESETS["smoke"] = importlib.import_module(f"tests.recipes.{recipe}.test_{recipe}").TINY
module.main(arguments)
