"""If these fail, machines that are reached by SSH or SLURM alone make no load."""

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from helpers.project import ROOT
from helpers.waiting import await_true
from infscale.errors import DeploymentError, MissingError
from infscale.load import schedule
from infscale.load.cluster.connect import connected
from infscale.load.cluster.run import run
from infscale.load.cluster.spec import parse
from infscale.load.null_server import null_server

pytestmark = pytest.mark.server

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
KEYGEN = shutil.which("ssh-keygen")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture
def loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An SSH server of ours on the loopback; yields the name by which ``~/.ssh/config`` knows it."""
    if SSHD is None or KEYGEN is None:
        pytest.skip("needs sshd and ssh-keygen: apt-get install openssh-server")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd's own folder, which its service would make
    port, ssh = free_port(), tmp_path / ".ssh"
    ssh.mkdir(0o700)
    for name in ("host", "own"):
        subprocess.run([KEYGEN, "-q", "-t", "ed25519", "-N", "", "-f", ssh / name], check=True)
    shutil.copy(ssh / "own.pub", ssh / "authorized_keys")
    (ssh / "authorized_keys").chmod(0o600)
    (ssh / "known").write_text(f"[127.0.0.1]:{port} {(ssh / 'host.pub').read_text()}")
    (ssh / "config").write_text(
        f"Host loop\n  HostName 127.0.0.1\n  Port {port}\n  User {getpass.getuser()}\n  IdentityFile {ssh}/own\n"
        f"  UserKnownHostsFile {ssh}/known\n"
    )
    settings = (
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {ssh}/host\nAuthorizedKeysFile {ssh}/authorized_keys\n"
        f"PidFile {tmp_path}/pid\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\n"
        f"SetEnv PYTHONPATH={ROOT / 'lib'}\n"
    )
    (tmp_path / "sshd_config").write_text(settings)
    log = (tmp_path / "sshd.log").open("wb")
    server = subprocess.Popen([SSHD, "-D", "-e", "-f", tmp_path / "sshd_config"], stdout=log, stderr=log)
    monkeypatch.setenv("HOME", str(tmp_path))

    def answers() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    await_true(answers, alive=lambda: server.poll() is None)
    try:
        yield "loop"
    finally:
        server.terminate()
        server.wait()
        log.close()


def check_that_workers_load_and_end(text: str) -> None:
    with null_server() as server, connected(parse(text, 2)) as cluster:
        pids = cluster.pids_here()
        parts = schedule.shards(200, 1.0, np.random.SeedSequence(3), cluster.shards)
        choices = [np.zeros(len(part), np.int32) for part in parts]
        rows = run(cluster, f"http://{server.rest}/", [b"a"], parts, choices, timeout_s=5.0).samples
    assert len(pids) == 2
    assert set(rows["shard"]) == {0, 1}
    assert (rows["status"] == "ok").all()
    await_true(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def test_workers_are_started_by_ssh_and_ended(loop: str) -> None:
    check_that_workers_load_and_end(f"ssh:{loop}?python={sys.executable}")


PATHS = f"{os.environ.get('PATH', '')}:/usr/sbin"
SLURM = {name: shutil.which(name, path=PATHS) for name in ("munged", "slurmctld", "slurmd", "sbatch", "sinfo")}
MUNGE_FILES = ("socket", "key-file", "pid-file", "log-file", "seed-file")
CONF = """\
ClusterName=loop
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={control}
SlurmdPort={node}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MailProg=/bin/true
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=4096 State=UNKNOWN
PartitionName=batch Nodes=ALL Default=YES
"""


@pytest.fixture
def partition(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A SLURM of ours on the loopback, one node; yields its partition."""
    missing = [name for name, place in SLURM.items() if place is None]
    if missing:
        pytest.skip(f"needs SLURM ({', '.join(missing)}): apt-get install slurm-wlm")
    folder = tmp_path_factory.mktemp("slurm")
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    (folder / "state").mkdir()
    (folder / "spool").mkdir()
    host = socket.gethostname().partition(".")[0]
    settings = CONF.format(
        host=host, folder=folder, user=getpass.getuser(), control=free_port(), node=free_port(), cpus=os.cpu_count()
    )
    (folder / "slurm.conf").write_text(settings)
    monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    monkeypatch.chdir(folder)  # a job's output goes where it is submitted
    munge = [f"--{option}={folder}/munge.{option.partition('-')[0]}" for option in MUNGE_FILES]
    daemons = [
        [SLURM["munged"], "--foreground", "--force", "--num-threads=2", *munge],
        [SLURM["slurmctld"], "-D"],
        [SLURM["slurmd"], "-D", "-N", host],
    ]
    with contextlib.ExitStack() as stack:
        for daemon in daemons:
            log = stack.enter_context((folder / "out").open("ab"))
            running = subprocess.Popen([str(part) for part in daemon], stdout=log, stderr=log)
            stack.callback(running.wait)
            stack.callback(running.terminate)
            if daemon[0] == SLURM["munged"]:
                await_true((folder / "munge.socket").exists)
        nodes = [str(SLURM["sinfo"]), "-h", "-o", "%T"]
        await_true(lambda: "idle" in subprocess.run(nodes, capture_output=True, text=True).stdout)
        yield "batch"


def test_workers_are_jobs_of_slurm(partition: str) -> None:
    check_that_workers_load_and_end(f"slurm:{partition}")


def test_a_machine_without_slurm_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infscale.load.cluster.scheduler.find_program", lambda name: None)
    with pytest.raises(MissingError, match="needs SLURM's program sbatch"):
        connected(parse("slurm:batch")).__enter__()


def test_a_machine_that_ssh_does_not_reach_is_named(loop: str) -> None:
    with pytest.raises(DeploymentError, match=r"ssh:unknown\.invalid did not start: "):
        connected(parse("ssh:unknown.invalid")).__enter__()
