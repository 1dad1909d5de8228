"""The functions of NNI's modules: what patches would change."""

import sys


def functions_of_nni():
    """The ids of all functions and classes of the modules of NNI that are loaded, by their places.

    Those in classes and dicts too, such as NNI's replacements of layers.
    """
    found = {}
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "nni":
            for key, value in list(vars(module).items()):
                members = vars(value) if isinstance(value, type) else value if isinstance(value, dict) else {}
                found |= {(name, key, k): id(v) for k, v in members.items() if callable(v)}
                if callable(value):
                    found[name, key] = id(value)
    return found


def changed_since(before):
    """The places that had another function or class, or none any more."""
    after = functions_of_nni()
    return [place for place, function in before.items() if after.get(place) != function]
