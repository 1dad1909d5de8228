"""The example configurations, and trials over SSH where a server can be started on this machine."""

import getpass
import importlib
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("nni")

from nni.experiment import ExperimentConfig, RemoteMachineConfig

from resolution_scaling.nni.autocompress import AutoCompressionExperiment, AutoCompressionSearchSpaceGenerator
from resolution_scaling.nni.experiment import manager
from resolution_scaling.nni.experiment.trial_experiment import TrialExperiment
from tests.ports import free_port

from ..example_module import Module
from .example_trials import Example
from .test_trial_experiment import ROOT, RUN, space

RUN_AUTOCOMPRESS = "resolution_scaling.nni.autocompress.trial:compress_and_evaluate"
EXAMPLES = ROOT / "examples"


def search_space():
    generator = AutoCompressionSearchSpaceGenerator()
    generator.add_config("resolution", [], size={"_type": "choice", "_value": [8, 12]})
    return generator.dumps()


@pytest.mark.parametrize("name", ["nni_remote.yml", "nni_kubernetes.yml"])
def test_examples_are_configurations_that_nni_takes(name, tmp_path):
    config = ExperimentConfig.load(EXAMPLES / name)
    config.trial_code_directory = ROOT
    config.search_space = search_space()
    key = tmp_path / "key"
    key.touch()
    for machine in getattr(config.training_service, "machine_list", []):
        machine.ssh_key_file = key
    experiment = AutoCompressionExperiment(Module, config, output=tmp_path / "search")
    experiment._prepare(experiment._call)
    made = experiment.config.json()
    python = "/opt/search/bin/python3" if "remote" in name else "python3"
    trial = f"{python} -m resolution_scaling.nni.experiment.trial --run {RUN_AUTOCOMPRESS}"
    assert made["trialCommand"].startswith(
        f"{trial} --module-class tests.resolution_scaling.nni.example_module:Module "
    )
    assert made["trainingService"].get("master", {}).get("command", made["trialCommand"]) == made["trialCommand"]
    assert made["trialConcurrency"] > 1


def test_a_command_around_the_trial_is_kept(tmp_path):
    config = ExperimentConfig("local")
    config.trial_code_directory = ROOT
    config.trial_command = "export HOLIDAY=1 && {trial}"
    experiment = TrialExperiment(RUN, Example, space("good"), output=tmp_path / "search", config=config)
    experiment._prepare(experiment._call)
    assert experiment.config.trial_command.startswith(
        f"export HOLIDAY=1 && {sys.executable} -m resolution_scaling.nni."
    )


@pytest.fixture
def ssh_server(tmp_path):
    """OpenSSH's server for this user on a free port of this machine; gives the port and the key to log in."""
    programs = [shutil.which(name, path="/usr/sbin:/usr/local/sbin:/usr/bin:/bin") for name in ("sshd", "ssh-keygen")]
    if None in programs:
        pytest.skip("no SSH server here: install openssh-server")
    sshd, keygen = programs
    for name in ("host", "user"):
        subprocess.run(
            [keygen, "-q", "-t", "rsa", "-b", "2048", "-m", "PEM", "-N", "", "-f", tmp_path / name], check=True
        )
    (tmp_path / "authorized").write_text((tmp_path / "user.pub").read_text())
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    settings = {
        "ListenAddress": "127.0.0.1",
        "Port": port,
        "HostKey": tmp_path / "host",
        "AuthorizedKeysFile": tmp_path / "authorized",
        "PidFile": tmp_path / "pid",
        "StrictModes": "no",
        "UsePAM": "no",
        "PermitRootLogin": "yes",
        "PubkeyAcceptedAlgorithms": "+ssh-rsa",
        "HostKeyAlgorithms": "+ssh-rsa",
        "Subsystem": "sftp internal-sftp",
    }
    (tmp_path / "config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    Path("/run/sshd").mkdir(parents=True, exist_ok=True)
    server = subprocess.Popen([sshd, "-D", "-e", "-f", tmp_path / "config"], stderr=subprocess.DEVNULL)
    for _ in range(50):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    yield port, tmp_path / "user"
    server.terminate()
    server.wait()


@pytest.mark.slow
def test_trials_on_another_machine_over_ssh(tmp_path, ssh_server, monkeypatch):
    """This machine is the other one too, reached over SSH; NNI copies the code of the trials there."""
    code = tmp_path / "code"
    code.mkdir()
    shutil.copy(Path(__file__).with_name("example_trials.py"), code / "remote_trials.py")
    monkeypatch.syspath_prepend(code)
    server_port, key = ssh_server
    config = ExperimentConfig("remote")
    config.nni_manager_ip = "127.0.0.1"
    config.trial_code_directory = code
    machine = RemoteMachineConfig(host="127.0.0.1", port=server_port, user=getpass.getuser(), ssh_key_file=key)
    machine.python_path = str(Path(sys.executable).parent)
    config.training_service.machine_list = [machine]
    experiment = TrialExperiment(
        "remote_trials:measure",
        importlib.import_module("remote_trials").Example,
        space("good", x=(1, 2)),
        tuner="GridSearch",
        output=tmp_path / "search",
        config=config,
    )
    results = experiment.run_all(free_port())
    assert sorted(result.score for result in results) == [11, 12]
    assert manager.processes_of(experiment.id) == []
