"""Recipes that are killed, stopped, or cannot write, as processes of their own."""

import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

RECIPES = {"hologram_pruning": (), "criterion_study": (), "resnet_resolution": (), "vit_resolution": ("--seeds", "1")}
MEASURED = ["seconds"]


def start(recipe, output, **environment):
    command = [sys.executable, "-m", "tests.recipes.tiny_run", recipe, "--output", str(output), *RECIPES[recipe]]
    # a parent in the background has its children ignore Ctrl-C
    return subprocess.Popen(
        command,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def ended(process):
    _, errors = process.communicate(timeout=300)
    return process.returncode, errors


def rows(output):
    """Of all the tables of results that there are."""
    files = sorted(output.glob("**/results.csv"))
    return sum(len(file.read_text().splitlines()) - 1 for file in files)


def results(output):
    return pd.read_csv(output / "results.csv", float_precision="round_trip").drop(columns=MEASURED)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Results of a recipe that runs through, made once."""
    found = {}

    def run(recipe):
        if recipe not in found:
            output = tmp_path_factory.mktemp(recipe)
            code, errors = ended(start(recipe, output))
            assert code == 0, errors
            found[recipe] = results(output)
        return found[recipe]

    return run


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_killed_again_and_again_it_ends_the_same(recipe, tmp_path, undisturbed):
    for target in (0, 1, 2):  # at the first files, and in the middle of what comes behind each row
        process = start(recipe, tmp_path)
        while process.poll() is None and (rows(tmp_path) < target or not any(tmp_path.rglob("settings.json"))):
            time.sleep(0.02)
        time.sleep(0.3)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    code, errors = ended(start(recipe, tmp_path))
    assert code == 0, errors
    pd.testing.assert_frame_equal(results(tmp_path), undisturbed(recipe))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_without_room_it_says_so_and_goes_on_later(recipe, tmp_path, undisturbed):
    code, errors = ended(start(recipe, tmp_path, FILE_LIMIT="6000"))
    assert code == 1
    assert f"error: --output: cannot write to {tmp_path}" in errors
    assert "Make room there" in errors.splitlines()[-1]
    assert "Traceback" not in errors
    code, errors = ended(start(recipe, tmp_path))
    assert code == 0, errors
    pd.testing.assert_frame_equal(results(tmp_path), undisturbed(recipe))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_ctrl_c_says_how_to_go_on(recipe, tmp_path):
    process = start(recipe, tmp_path)
    while process.poll() is None and not any(tmp_path.rglob("settings.json")):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    code, errors = ended(process)
    assert code == 1
    assert errors.splitlines()[-1] == f"stopped; the same command goes on from {tmp_path}"


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
