"""Runs Slurm on this one machine, from Debian's packages slurm-wlm and munge, with a configuration for the tests."""

from __future__ import annotations

import os
import secrets
import shlex
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
MessageTimeout=100
TCPTimeout=60
BatchStartTimeout=300
SlurmdTimeout=0
KillWait=5
SchedulerParameters=sched_interval=2,batch_sched_delay=1
NodeName={host} NodeAddr=127.0.0.1 CPUs=4
PartitionName=main Nodes={host} Default=YES
"""
"""Slurm's time-outs (seconds) are long, so that Slurm does not give anything up for lost on a busy machine."""

CONTAINED = ["setpriv", "--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
"""The beginning of a command whose processes (daemons, and the jobs that they start) all end with this process."""


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Yield the folder of a running Slurm with one node of four CPUs. SLURM_CONF names its configuration."""
    if missing := [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if not shutil.which(name)]:
        pytest.skip(f"{', '.join(missing)} are not installed: apt-get install slurm-wlm munge")
    if os.getuid() != 0:
        pytest.skip("Slurm's daemons are started as root")
    if subprocess.run([*CONTAINED, "true"], capture_output=True, check=False).returncode:
        pytest.skip("Slurm's daemons are started in a process namespace, which this machine does not allow")
    folder, host = tmp_path_factory.mktemp("slurm"), socket.gethostname().split(".")[0]
    (folder / "key").write_bytes(secrets.token_bytes(64))
    (folder / "key").chmod(0o600)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "slurm.conf").write_text(CONFIGURATION.format(host=host, folder=folder, ports=_free_ports(2)))
    files = {"key-file": "key", "socket": "munge", "pid-file": "munged.pid", "log-file": "log", "seed-file": "seed"}
    munge = ["munged", "--foreground", "--force", *(f"--{name}={folder / file}" for name, file in files.items())]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        daemons = f"{shlex.join(munge)} & slurmctld -D & slurmd -N {host} -D & wait"
        with subprocess.Popen([*CONTAINED, "sh", "-c", daemons], stderr=subprocess.DEVNULL) as started:
            try:
                _until_idle(folder)
                yield folder
            finally:
                started.kill()


def _until_idle(folder: Path) -> None:
    end = time.monotonic() + 300
    while "idle" not in subprocess.run(["sinfo", "-h", "-o", "%t"], capture_output=True, text=True, check=False).stdout:
        if time.monotonic() > end:
            pytest.fail("\n".join(path.read_text() for path in folder.glob("*.log")))
        time.sleep(0.3)


def _free_ports(count: int) -> list[int]:
    """Return free ports below those that the system gives to connections.

    So they stay free until the daemons listen.
    """
    sockets = list[socket.socket]()
    while len(sockets) < count:
        try:
            sockets.append(socket.create_server(("127.0.0.1", 10_000 + secrets.randbelow(20_000))))
        except OSError:
            continue
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
