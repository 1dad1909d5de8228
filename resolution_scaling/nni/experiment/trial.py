"""What NNI runs for every trial: take the parameters, call a function with them, report one final metric.

    python -m resolution_scaling.nni.experiment.trial --run package.module:function --module-class package.module:Class
        [--options JSON]

`TrialCall` writes this command. The function is called as ``function(Class, parameters, **options)`` and returns a
number, or a dict of metrics with a finite number under ``"default"``.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import numbers
import os
import sys
import traceback
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

PENALTY = -1e9
"""What a failed trial reports, when larger is better. Tuners learn to avoid a finite number. With infinity TPE was seen
to choose the same point again and again."""

LONGEST_ERROR = 2000
"""The number of characters of an error message that are reported; the trial's log has all of it."""


def load_object(path: str) -> Any:
    """The object at ``package.module:name``.

    Raises:
        ValueError: the path is not of this form.
        ImportError: there is no such module, or no such name in it.
    """
    module_name, separator, name = path.partition(":")
    if not separator or not module_name or not name:
        raise ValueError(f"{path!r} does not name an object; expected package.module:name")
    found: Any = importlib.import_module(module_name)
    for part in name.split("."):
        if not hasattr(found, part):
            raise ImportError(f"module {module_name} has no {name}: define it at the module's top level")
        found = getattr(found, part)
    return found


def dump_options(options: Mapping[str, Any]) -> str:
    """Options as percent-encoded JSON, which shells leave as it is: NNI's training services quote differently.

    Raises:
        TypeError: JSON cannot hold an option.
    """
    try:
        text = json.dumps(dict(options), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"options are {options!r}; expected numbers, strings, lists and dicts, as JSON has them: {error}"
        ) from None
    return urllib.parse.quote(text, safe="")


def load_options(text: str) -> dict[str, Any]:
    """Options from JSON, plain or as `dump_options` writes it.

    Raises:
        ValueError: the text is not a JSON object.
    """
    options = json.loads(text if text.lstrip().startswith("{") else urllib.parse.unquote(text))
    if not isinstance(options, dict):
        raise ValueError(f"--options is {text}; expected a JSON object")
    return options


def final_metrics(result: Any) -> dict[str, Any]:
    """The result of a trial's function as metrics that NNI can store.

    Args:
        result: a number, or a dict with a number under ``"default"``. Scalar tensors and NumPy numbers are numbers too.

    Raises:
        TypeError: it is something else.
        ArithmeticError: the number is NaN or infinite.
    """
    metrics = dict(result) if isinstance(result, Mapping) else {"default": result}
    if "default" not in metrics:
        raise TypeError(f"a trial gave {_shortened(result)} without 'default', the number that the tuner uses")
    default = _plain(metrics["default"])
    if isinstance(default, bool) or not isinstance(default, (int, float)):
        given = metrics["default"]
        raise TypeError(f"a trial gave {_shortened(given)} ({type(given).__name__}); expected a finite number")
    if not math.isfinite(default):
        raise ArithmeticError(f"a trial gave {default}; expected a finite number")
    return {str(name): _storable(_plain(value)) for name, value in metrics.items()} | {"default": float(default)}


def metric_of_trial(
    run: str, module_class: str, parameters: Mapping[str, Any], options: Mapping[str, Any], penalty: float = PENALTY
) -> tuple[dict[str, Any], bool]:
    """Call the function of a trial, and make a metric of its result or of its exception.

    Args:
        run: the function, as ``package.module:function``.
        module_class: the class that it works on, as ``package.module:Class``.
        parameters: the trial's parameters, as the tuner chose them.
        options: further arguments of the function.
        penalty: the value to report for a trial that fails.

    Returns:
        The metric to report, with the parameters as JSON text under ``"parameters"``; and whether the trial succeeded.
        If it failed, the metric has the ``penalty``, and the exception under ``"error"``.
    """
    record = {"parameters": json.dumps(parameters, default=str)}
    try:
        metrics = final_metrics(load_object(run)(load_object(module_class), parameters, **options))
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        message = f"{type(error).__name__}: {error}"
        return {"default": penalty, "error": message[:LONGEST_ERROR], **record}, False
    return {**metrics, **record}, True


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m resolution_scaling.nni.experiment.trial", description=__doc__.split("\n")[0]
    )
    parser.add_argument(
        "--run", required=True, metavar="MODULE:FUNCTION", help="called as f(Class, parameters, **options)"
    )
    parser.add_argument(
        "--module-class", required=True, metavar="MODULE:CLASS", help="the class that the function works on"
    )
    parser.add_argument(
        "--options", default="{}", metavar="JSON", help="further arguments, plain or percent-encoded JSON"
    )
    parser.add_argument("--penalty", type=float, default=PENALTY, help="value of a failed trial (default: %(default)s)")
    parser.add_argument("--failed-status", type=int, default=1, help="exit status of a failed trial")
    parser.add_argument(
        "--check", action="store_true", help="only import the function and the class, outside of an experiment"
    )
    given = parser.parse_args(arguments)
    if given.check:
        load_object(given.run), load_object(given.module_class)
        return 0
    # On NNI 3.0 the parameters of a trial that dies before it took them are given to the next trial: take them before
    # the user's code can fail.
    import nni

    parameters = nni.get_next_parameter()
    options = load_options(given.options)
    metric, succeeded = metric_of_trial(given.run, given.module_class, parameters, options, given.penalty)
    nni.report_final_result(metric)
    return 0 if succeeded else given.failed_status


def _plain(value: Any) -> Any:
    """A scalar tensor or NumPy number as a Python number."""
    if isinstance(value, (bool, int, float, str)) or value is None:
        return value
    if isinstance(value, numbers.Real):
        return float(value)
    if callable(getattr(value, "item", None)) and getattr(value, "ndim", None) == 0:
        return value.item()
    return value


def _storable(value: Any) -> Any:
    """A value that NNI's manager can read as JSON; text for any other, such as NaN."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return str(value)
    return value


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


if __name__ == "__main__":
    sys.path.insert(0, os.getcwd())  # the trial code directory, also where Python was told to leave it out
    sys.exit(main())
