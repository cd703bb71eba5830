"""Slurm on this one machine, from Debian's packages slurm-wlm and munge, with a configuration of the tests' own."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthInfo=socket={folder}/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
KillWait=20
NodeName={host} NodeAddr=127.0.0.1 CPUs=4
PartitionName=main Nodes={host} Default=YES
"""


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a running Slurm with one node of four CPUs, which SLURM_CONF names."""
    if missing := [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if not shutil.which(name)]:
        pytest.skip(f"{', '.join(missing)} are not installed: apt-get install slurm-wlm munge")
    if os.getuid() != 0:
        pytest.skip("Slurm's daemons are started as root")
    folder, before = tmp_path_factory.mktemp("slurm"), os.environ.get("SLURM_CONF")
    (folder / "key").write_bytes(secrets.token_bytes(64))
    (folder / "key").chmod(0o600)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    text = CONFIGURATION.format(host=socket.gethostname().split(".")[0], folder=folder, ports=_free_ports(2))
    (folder / "slurm.conf").write_text(text)
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    files = {"key-file": "key", "socket": "munge", "pid-file": "munged.pid", "log-file": "log", "seed-file": "seed"}
    munge = ["munged", "--force", *(f"--{name}={folder / file}" for name, file in files.items())]
    daemons = [
        subprocess.Popen(
            [*command, "--foreground"] if command is munge else [*command, "-D"], stderr=subprocess.DEVNULL
        )
        for command in (munge, ["slurmctld"], ["slurmd", "-N", socket.gethostname().split(".")[0]])
    ]
    try:
        _until(lambda: "idle" in said("sinfo", "--noheader", "--format=%t"), 60, "the node is not idle")
        yield folder
    finally:
        said("scancel", "--me", "--signal=KILL", "--full")
        said("scancel", "--me")
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(30)
        del os.environ["SLURM_CONF"]
        os.environ |= {"SLURM_CONF": before} if before else {}


def said(*command: str) -> str:
    """What a command prints, or nothing where it fails."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def _until(done: object, seconds: float, problem: str) -> None:
    end = time.monotonic() + seconds
    while not done():  # type: ignore[operator]
        assert time.monotonic() < end, problem
        time.sleep(0.3)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
