"""Recipes that are killed, stopped, or cannot write, as processes of their own."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import psutil
import pytest

from recipes.autocompress_search.task import TASK_VARIABLE

from .autocompress_search.test_autocompress_search import free_port

CPU = ("--device", "cpu")
SEARCH = "autocompress_search"
RECIPES = {
    "hologram_pruning": CPU,
    "criterion_study": CPU,
    "resnet_resolution": CPU,
    "vit_resolution": (*CPU, "--seeds", "1"),
    SEARCH: ("--tuner", "Random", "--concurrency", "1"),
}
MEASURED = ["seconds"]


def start(recipe, output, **environment):
    command = [sys.executable, "-m", "tests.recipes.tiny_run", recipe, "--output", str(output), *RECIPES[recipe]]
    if recipe == SEARCH:
        pytest.importorskip("nni")
        command += ["--port", str(free_port())]
    # a parent in the background has its children ignore Ctrl-C
    return subprocess.Popen(
        command,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def ended(process):
    _, errors = process.communicate(timeout=600)
    return process.returncode, errors


def rows(output):
    """The number of rows in all tables of results and records of searches."""
    tables, records = sorted(output.glob("**/results.csv")), sorted(output.glob("**/trials.jsonl"))
    return sum(len(file.read_text().splitlines()) for file in tables + records) - len(tables)


def results(output):
    return pd.read_csv(output / "results.csv", float_precision="round_trip").drop(columns=MEASURED)


def left_running(output):
    """The processes of NNI, each of which inherits the folder in its environment."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            found += [process] * (process.environ().get(TASK_VARIABLE) == str(output))
    return found


def assert_it_ends_the_same(recipe, output, undisturbed):
    code, errors = ended(start(recipe, output))
    assert code == 0, errors
    if recipe != SEARCH:
        pd.testing.assert_frame_equal(results(output), undisturbed(recipe))
        return
    assert list(results(output)["status"]) == ["succeeded"] * 8  # a tuner that was stopped may go on to other points
    points = [json.loads(line)[0] for line in (output / "points.jsonl").read_text().splitlines() if line]
    assert len(set(points)) == len(points)  # none was trained again
    assert not left_running(output)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The results of a recipe that runs through without a stop, made once."""
    found = {}

    def run(recipe):
        if recipe not in found:
            output = tmp_path_factory.mktemp(recipe)
            code, errors = ended(start(recipe, output))
            assert code == 0, errors
            found[recipe] = results(output)
        return found[recipe]

    return run


def kill(process):
    process.kill()
    process.wait()  # its pipes stay open as long as NNI's manager, which outlives it


def wait_for(process, output, count):
    """Wait until there are ``count`` rows of results, or the process has ended well."""
    while process.poll() is None and not (any(output.rglob("settings.json")) and rows(output) >= count):
        time.sleep(0.02)
    assert not process.poll(), process.communicate()[1]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_killed_again_and_again_it_ends_the_same(recipe, tmp_path, undisturbed):
    for target in (0, 1, 2):  # at the first files, and in the middle of what comes behind each row
        process = start(recipe, tmp_path)
        wait_for(process, tmp_path, target)
        time.sleep(0.3)
        kill(process)
    assert_it_ends_the_same(recipe, tmp_path, undisturbed)


def assert_it_says_that_there_is_no_room(recipe, output):
    code, errors = ended(start(recipe, output, FILE_LIMIT="6000"))
    assert code == 1
    assert f"error: --output: cannot write to {output}" in errors
    assert "Make room there" in errors.splitlines()[-1]
    assert "Traceback" not in errors


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_without_room_it_says_so_and_goes_on_later(recipe, tmp_path, undisturbed):
    assert_it_says_that_there_is_no_room(recipe, tmp_path)
    assert_it_ends_the_same(recipe, tmp_path, undisturbed)


@pytest.mark.slow
def test_a_search_without_room_for_its_next_trial_goes_on_later(tmp_path, undisturbed):
    process = start(SEARCH, tmp_path)
    wait_for(process, tmp_path, 1)
    kill(process)
    assert left_running(tmp_path)
    assert_it_says_that_there_is_no_room(SEARCH, tmp_path)
    assert not left_running(tmp_path)
    assert_it_ends_the_same(SEARCH, tmp_path, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "count"), [*((recipe, 0) for recipe in RECIPES), (SEARCH, 1)])
def test_ctrl_c_says_how_to_go_on(recipe, count, tmp_path):
    process = start(recipe, tmp_path)
    wait_for(process, tmp_path, count)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    code, errors = ended(process)
    assert code == 1
    assert errors.splitlines()[-1] == f"stopped; the same command continues from {tmp_path}"
    assert not left_running(tmp_path)


@pytest.mark.parametrize("recipe", RECIPES)
def test_an_output_that_cannot_be_written_is_refused(recipe, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    code, errors = ended(start(recipe, tmp_path / "file" / "results"))
    assert code == 1
    assert f"error: --output: cannot write to {tmp_path / 'file' / 'results'}" in errors
    assert "Traceback" not in errors
    assert (tmp_path / "file").read_text() == "not a folder"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_read_only_folder_is_refused(recipe, tmp_path):
    tmp_path.chmod(0o500)
    code, errors = ended(start(recipe, tmp_path / "results"))
    tmp_path.chmod(0o700)
    assert code == 1
    assert "cannot write" in errors
    assert not [*tmp_path.iterdir()]
