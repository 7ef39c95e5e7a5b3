"""Services of docker-compose.yml without Docker: a kernel namespace each for mounts and processes, one for the network.

What a container gives, a service has here: its user, no capabilities, a root that cannot be written, its own
/tmp, its volumes at their paths, the other services by their names, and processes that end with its first one.
What images hold is stood in for by this machine: Python's environment and the checkout at the image's paths,
Debian's Postgres with the steps of its image's entry point. Needs root; nothing outside the given folder changes.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.compose_file import ROOT, build_context, image_environment, seconds

# Who owns the folders that new volumes cover, by image; others have no such folder.
OWNERS = {"vidloop": 10001, "postgres": 999}
USERS = "root:x:0:0::/root:/bin/sh\npostgres:x:999:999::/var/lib/postgresql:/bin/sh\nvidloop:x:10001:10001::/tmp:/bin/sh\n"
_PATH = "/usr/local/bin:/usr/bin:/bin"
_LOOPBACK_UP = (
    "import fcntl, socket, struct\n"
    "with socket.socket() as one: fcntl.ioctl(one, 0x8914, struct.pack('16sh', b'lo', 1))  # SIOCSIFFLAGS, IFF_UP\n"
)
# What the official image does before it starts the command on an empty volume.
_POSTGRES = """
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  printf %s "$POSTGRES_PASSWORD" > /tmp/password
  initdb --pgdata="$PGDATA" --username="$POSTGRES_USER" --pwfile=/tmp/password $POSTGRES_INITDB_ARGS
  rm /tmp/password
  echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
  echo "listen_addresses = '*'" >> "$PGDATA/postgresql.conf"
  pg_ctl --pgdata="$PGDATA" --wait --options="-c listen_addresses=''" start
  psql --username="$POSTGRES_USER" --dbname=postgres --command="CREATE DATABASE $POSTGRES_DB"
  pg_ctl --pgdata="$PGDATA" --wait --mode=fast stop
fi
exec "$@"
"""


def why_not() -> str | None:
    """Why no services can be started on this machine; None if they can."""
    if os.getuid() != 0:
        return "only root may make the namespaces"
    if subprocess.run(
        ["unshare", "--net", "--mount", "--pid", "--fork", "true"], capture_output=True
    ).returncode:
        return "the kernel, or what this machine runs in, refuses new namespaces"
    if postgres_binaries() is None:
        return "no Postgres is installed (apt-get install postgresql)"
    return None


def postgres_binaries() -> Path | None:
    """Folder with initdb and postgres: Debian's newest."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda one: float(one.parts[-3]))
    return found[-1].parent if found else None


@dataclass
class Running:
    """A service that was started."""

    name: str
    said: Mapping[str, Any]
    process: subprocess.Popen[bytes]
    environment: dict[str, str]
    log: Path

    @property
    def first(self) -> int:
        """Its first process, as this machine numbers it."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])

    def run(self, command: list[str], timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """A command in the running service, as `docker compose exec` does."""
        inside = f"cd {_folder(self.said)} && exec {shlex.join([*_as_user(self.said), *command])}"
        entered = ["nsenter", f"--target={self.first}", "--mount", "--net", "--pid", "sh", "-c", inside]
        return subprocess.run(entered, env=self.environment, capture_output=True, text=True, timeout=timeout)

    def words(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-3000:]


@dataclass
class Machine:
    """What the services share: a network of their own, and volumes.

    Attributes:
        folder: for volumes and logs; absolute.
        services: those of the compose file, variables put in.
        environments: by image name, the Python environment that stands for it, at /opt/venv.
        beside: by image name, variables that the stand-in needs and the image does not.
    """

    folder: Path
    services: Mapping[str, Any]
    environments: Mapping[str, Path]
    beside: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    running: dict[str, Running] = field(default_factory=dict)

    def __enter__(self) -> Machine:
        self._network = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        for name, content in (
            ("hosts", f"127.0.0.1 localhost {' '.join(self.services)}\n"),
            ("passwd", USERS),
        ):
            (self.folder / name).write_text(content)
            (self.folder / name).chmod(0o644)
        own = os.stat("/proc/self/ns/net").st_ino
        while os.stat(f"/proc/{self._network.pid}/ns/net").st_ino == own:
            time.sleep(0.05)
        subprocess.run([*self._enter(), sys.executable, "-c", _LOOPBACK_UP], check=True)
        return self

    def __exit__(self, *_: object) -> None:
        for one in self.running.values():
            if one.process.poll() is None:
                os.kill(one.first, signal.SIGKILL)
                one.process.wait(30)
        self._network.kill()
        self._network.wait()

    def start(self, name: str) -> Running:
        """Start a service; conditions are the caller's."""
        said = self.services[name]
        image = said["image"].partition(":")[0]
        programs = postgres_binaries() if image == "postgres" else "/opt/venv/bin"
        environment = {"PATH": f"{programs}:{_PATH}", **(image_environment() if image == "vidloop" else {})}
        environment |= self.beside.get(image, {})
        environment |= {key: str(value) for key, value in said.get("environment", {}).items()}
        entry = [*said.get("entrypoint", []), *said["command"]]
        if image == "postgres":
            entry = ["sh", "-euc", _POSTGRES, "entrypoint", *entry]
        script = "\n".join(
            [
                "set -eu",
                *self._mounts(said, image),
                f"cd {_folder(said)}",
                # As `init: true` has it: the first process hands signals on and waits. A shell has its children
                # in the background ignore two signals, which must not be so here.
                f"env --default-signal=INT,QUIT {shlex.join([*_as_user(said), *entry])} & child=$!",
                "trap 'kill -TERM $child' TERM",
                "code=0; wait $child || code=$?",
                "while kill -0 $child 2>/dev/null; do code=0; wait $child || code=$?; done",
                "exit $code",
            ]
        )
        assert said["init"]
        log = self.folder / f"{name}.log"
        with open(log, "ab") as output:
            process = subprocess.Popen(
                [*self._enter(), "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script],
                env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        self.running[name] = Running(name, said, process, environment, log)
        return self.running[name]

    def until_healthy(self, name: str) -> None:
        """Run the service's own check, as often as it says, until it passes."""
        one, check = self.running[name], self.services[name]["healthcheck"]
        assert check["test"][0] == "CMD"
        interval, timeout = seconds(check["interval"]), seconds(check["timeout"])
        deadline = time.monotonic() + seconds(check["start_period"]) + interval * check["retries"]
        last = ""
        while time.monotonic() < deadline:
            assert one.process.poll() is None, f"{name} ended: {one.words()}"
            try:
                done = one.run(check["test"][1:], timeout)
                if done.returncode == 0:
                    return
                last = done.stderr[-300:]
            except (subprocess.TimeoutExpired, IndexError) as error:  # no first process yet
                last = str(error)
            time.sleep(interval)
        raise AssertionError(f"{name} did not become healthy: {last}; it says: {one.words()}")

    def stop(self, name: str) -> float:
        """SIGTERM to the first process; seconds until none of the service's is left."""
        one = self.running[name]
        begun = time.monotonic()
        os.kill(one.first, signal.SIGTERM)
        one.process.wait(seconds(self.services[name]["stop_grace_period"]))
        return time.monotonic() - begun

    def volume(self, name: str) -> Path:
        """Where a named volume lies."""
        return self.folder / "volumes" / name

    def _enter(self) -> list[str]:
        return ["nsenter", f"--net=/proc/{self._network.pid}/ns/net"]

    def _mounts(self, said: Mapping[str, Any], image: str) -> list[str]:
        """Shell lines that give the service its view of the file system."""
        binds = [
            (str(self.folder / "hosts"), "/etc/hosts", True),
            (str(self.folder / "passwd"), "/etc/passwd", True),
        ]
        if image == "vidloop":
            binds += [(str(ROOT / name), f"/opt/vidloop/{name}", True) for name in build_context()]
        for volume in said.get("volumes", []):
            source, target, *mode = volume.split(":")
            if source.startswith(("/", ".")):
                source = str((ROOT / source).resolve())
            else:
                source = str(self._made(source, image))
            binds.append((source, target, mode == ["ro"]))
        hidden = ["/opt", "/srv", "/run", "/var/lib/postgresql"]
        if image in self.environments:
            binds.append((str(self.environments[image]), "/opt/venv", True))
            base = _base(self.environments[image])
            shut = [one for one in base.parents if not one.stat().st_mode & 0o001]
            if shut:  # Python itself lies in a home that other users may not enter
                hidden.append(str(shut[-1]))
                binds.append((str(base), str(base), True))
        lines = ["mount --make-rprivate /", "mount -t tmpfs tmpfs /mnt"]
        for number, (source, _, _) in enumerate(binds):  # first, for what comes next may cover the sources
            make = "mkdir" if Path(source).is_dir() else "touch"
            lines.append(f"{make} /mnt/{number} && mount --bind {shlex.quote(source)} /mnt/{number}")
        lines += [f"mount -t tmpfs -o mode=755 tmpfs {one}" for one in hidden if Path(one).is_dir()]
        for number, (source, target, only_read) in enumerate(binds):
            if Path(source).is_dir():
                lines.append(f"mkdir -p {target}")
            else:
                lines.append(f"mkdir -p {Path(target).parent} && [ -e {target} ] || touch {target}")
            lines.append(f"mount --bind /mnt/{number} {target}")
            if only_read:
                lines.append(f"mount -o remount,bind,ro {target}")
        for one in said.get("tmpfs", []):
            target, _, options = one.partition(":")
            lines.append(f"mkdir -p {target}")
            # Docker's own options for a tmpfs, then those of the file.
            lines.append(f"mount -t tmpfs -o nosuid,nodev,noexec,{options} tmpfs {target}")
        lines.append("umount --lazy /mnt")
        if said["read_only"]:
            lines.append("mount -o remount,bind,ro /")
        return lines

    def _made(self, name: str, image: str) -> Path:
        folder = self.volume(name)
        if not folder.exists():
            folder.mkdir(parents=True)
            os.chown(folder, OWNERS.get(image, 0), OWNERS.get(image, 0))
            folder.chmod(0o750)
        return folder


def _base(environment: Path) -> Path:
    """The installation of Python that an environment was made from."""
    return (environment / "bin" / "python").resolve().parents[1]


def _folder(said: Mapping[str, Any]) -> str:
    own = "/opt/vidloop" if said["image"].startswith("vidloop:") else "/"
    return shlex.quote(said.get("working_dir", own))


def _as_user(said: Mapping[str, Any]) -> list[str]:
    user, group = said["user"].split(":")
    assert said["cap_drop"] == ["ALL"]
    assert said["security_opt"] == ["no-new-privileges:true"]
    return [
        "setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--no-new-privs",
        "--bounding-set=-all", "--inh-caps=-all",
    ]  # fmt: skip
