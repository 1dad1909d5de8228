"""What NNI runs for every trial: take the parameters, call a function with them, report one final metric.

    python -m resolution_scaling.nni.experiment.trial --run package.module:function --subject package.module:Class
        [--options JSON]

`resolution_scaling.nni.experiment.trial_experiment` writes this command. The function is called as
``function(Class, parameters, **options)`` and gives a number, or a dict of metrics with a finite number under
``"default"``.
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
"""Reported for a trial that failed, when larger is better. Tuners learn to stay away from a finite number, not from
infinity, of which TPE was seen to choose the same point again and again."""

LONGEST_ERROR = 2000
"""Characters of an error message that are reported; the whole of it stands in the trial's log."""


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
    """Options as JSON in which no character means anything to a shell: NNI's training services quote differently.

    Raises:
        TypeError: an option is not made of numbers, strings, lists and dicts.
    """
    try:
        text = json.dumps(dict(options), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise TypeError(f"options are {options!r}; expected what JSON can hold: {error}") from None
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
    """What a trial's function returned, as metrics that NNI can store.

    Args:
        result: a number, or a dict with a number under ``"default"``; scalar tensors and NumPy numbers count as
            numbers.

    Raises:
        TypeError: it is something else.
        ArithmeticError: the number is NaN or infinite.
    """
    metrics = dict(result) if isinstance(result, Mapping) else {"default": result}
    if "default" not in metrics:
        raise TypeError(f"a trial gave {_shortened(result)} without 'default', the value that the tuner looks at")
    default = _plain(metrics["default"])
    if isinstance(default, bool) or not isinstance(default, (int, float)):
        given = metrics["default"]
        raise TypeError(f"a trial gave {_shortened(given)} ({type(given).__name__}); expected a finite number")
    if not math.isfinite(default):
        raise ArithmeticError(f"a trial gave {default}; expected a finite number")
    return {str(name): _storable(_plain(value)) for name, value in metrics.items()} | {"default": float(default)}


def run_trial(
    run: str, subject: str, parameters: Mapping[str, Any], options: Mapping[str, Any], penalty: float = PENALTY
) -> tuple[dict[str, Any], bool]:
    """Call the function of a trial, whatever may happen in it.

    Args:
        run: the function, as ``package.module:function``.
        subject: the class that it works on, as ``package.module:Class``.
        parameters: the trial's, as the tuner gave them.
        options: further arguments of the function.
        penalty: the value of a trial that fails.

    Returns:
        The metric to report, the parameters in it as JSON text under ``"parameters"``; and whether all went well. If it
        did not, the metric has the ``penalty``, and the exception under ``"error"``.
    """
    record = {"parameters": json.dumps(parameters, default=str)}
    try:
        metrics = final_metrics(load_object(run)(load_object(subject), parameters, **options))
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
    parser.add_argument("--subject", required=True, metavar="MODULE:CLASS", help="what the function works on")
    parser.add_argument(
        "--options", default="{}", metavar="JSON", help="further arguments, plain or percent-encoded JSON"
    )
    parser.add_argument("--penalty", type=float, default=PENALTY, help="value of a failed trial (default: %(default)s)")
    parser.add_argument("--failed-status", type=int, default=1, help="exit status of a failed trial")
    parser.add_argument("--check", action="store_true", help="only import what is named, outside of an experiment")
    given = parser.parse_args(arguments)
    if given.check:
        load_object(given.run), load_object(given.subject)
        return 0
    # A trial that dies before it took its parameters leaves them to the next trial on NNI 3.0: take them before the
    # user's code has a chance to fail.
    import nni

    parameters = nni.get_next_parameter()
    metric, succeeded = run_trial(given.run, given.subject, parameters, load_options(given.options), given.penalty)
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
    """What JSON can hold as NNI's manager reads it: no NaN, nothing that only Python knows."""
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
