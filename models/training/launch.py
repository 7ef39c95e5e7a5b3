"""Starting the processes of a group on this machine, and ending all of them when one fails.

Plain child processes of this one, with the environment that torchrun would give them: no agent, no port. They
meet at a file and talk over the loopback interface (and, between GPUs, over what NCCL finds).
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

from data import processes as child_processes
from data.errors import StageFailed
from data.resources import python_path
from models.training.distributed import RENDEZVOUS

_POLL_SECONDS: Final = 0.2
_GRACE_SECONDS: Final = 10.0
_TAIL: Final = 4000


def launch_processes(
    command: Sequence[str],
    processes: int,
    folder: Path,
    while_running: Callable[[], None] | None = None,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Run `python <command>` once a rank and wait for all.

    Args:
        command: arguments after the interpreter, for example ("-m", "a.module", "/a/folder").
        folder: an empty one for the meeting point and each process's output (`rank-0.log`, ...).
        while_running: called a few times a second.
        variables: more of the processes' environment, before what this program's own has.

    Raises:
        StageFailed: a process failed; the others were ended, and the end of its output is in the message.
    """
    meeting = folder / "rendezvous"
    meeting.unlink(missing_ok=True)
    children: list[subprocess.Popen[bytes]] = []
    logs = [folder / f"rank-{rank}.log" for rank in range(processes)]
    try:
        for rank, log in enumerate(logs):
            environment = {
                # In a process of its own: a value given by hand wins.
                "NCCL_NVLS_ENABLE": "0",
                "GLOO_SOCKET_IFNAME": "lo",
                "NCCL_SOCKET_IFNAME": "lo",
                "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // processes)),
                **os.environ,
                **variables,
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(processes),
                "PYTHONPATH": python_path(),
                RENDEZVOUS: str(meeting),
            }
            with log.open("wb") as output:
                children.append(
                    subprocess.Popen(
                        [sys.executable, *command],
                        env=environment,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        stdin=subprocess.PIPE,  # ends with this process, see `on_parent_exit`
                    )
                )
        # Every one is asked, each time: `any` over the polls would stop at the first that still runs.
        while None in (codes := [child.poll() for child in children]):
            if any(codes):
                break
            if while_running is not None:
                while_running()
            time.sleep(_POLL_SECONDS)
        failed = [rank for rank, child in enumerate(children) if child.returncode]
        if failed:
            rank = failed[0]
            raise StageFailed(
                "finetune",
                f"training process {rank} ended with exit code {children[rank].returncode}; the others were "
                f"ended. The end of its log:\n{child_processes.tail(logs[rank], _TAIL)}",
            )
        if while_running is not None:
            while_running()
    finally:
        child_processes.end(lambda: [child.pid for child in children if child.poll() is None], _GRACE_SECONDS)
