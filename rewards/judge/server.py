"""A vLLM server of the run's own: on loopback, with a random key, in its own environment, always ended."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from typing import Final, Self

from data import device_lock, processes
from data.errors import ServiceError
from data.resources import INSTALLED
from rewards.judge.permitted import server_options
from rewards.judge.rubric import load_rubric
from rewards.judge.settings import JudgeSettings, model_path, served_name, server_key
from rewards.judge.whole import check_judge

log = logging.getLogger("rewards.judge")

# Longer than the supervisor takes to end the server by force.
_STOP_S: Final = 25.0
# A GPU's memory is shared by what the run holds; on a CPU one GiB of KV cache serves the small and the large.
_CPU_CACHE_GIB: Final = "1"


class ManagedServer:
    """The server process from the outside.

    Attributes:
        url: its address, up to and with /v1.
        key: what it accepts.
        log: file with everything it printed; removed when the server is stopped in good order.
    """

    def __init__(self, settings: JudgeSettings) -> None:
        """Start the server; it answers later.

        Raises:
            ServiceError: there is no environment with vLLM.
            ModelError: as `check_judge`.
        """
        python = environment_python(settings.venv)
        check_judge(settings)
        self._timeout_s = settings.start_timeout_s
        self._folder = Path(tempfile.mkdtemp(prefix="vidloop-judge-"))
        self._port, self.key = _free_port(), secrets.token_urlsafe(32)
        self.url = f"http://127.0.0.1:{self._port}/v1"
        # -P: what lies in the working folder, or beside a script, must not shadow vLLM's own imports; our
        # packages are called data and models.
        supervisor = [sys.executable, "-P", processes.__file__, str(self._folder)]
        process = processes.ServerProcess(
            [*supervisor, str(python), "-P", *command(settings, self._port)],
            self._folder / "server.log",
            _environment(settings, self.key, python),
            cwd=self._folder,
            # Should we be killed, the device is taken until the server's memory is free again.
            pass_fds=device_lock.descriptors(),
        )
        self.log = process.log
        self._process: processes.ServerProcess | None = process

    def wait(self) -> Self:
        """Wait until the server answers, and not at all for one that has ended.

        Raises:
            ServiceError: it ended, or did not answer in time, and is stopped; the message names its log.
        """
        try:
            if self._process is None:
                raise ChildProcessError
            self._process.wait(self._healthy, self._timeout_s)
        except ChildProcessError:
            reason = processes.last_error(self.log)
            self.stop(keep_log=True)
            raise ServiceError(
                f"judge: the server ended before it answered. The end of its log: {reason}. "
                f"Its log: {self.log}. judge.backend: local does without a server"
            ) from None
        except TimeoutError as error:
            self.stop(keep_log=True)
            raise ServiceError(f"judge: {error} (judge.start_timeout_s); its log: {self.log}") from None
        except BaseException:
            self.stop()
            raise
        return self

    @property
    def alive(self) -> bool:
        """Whether the process is still there."""
        return self._process is not None and self._process.alive

    def answers(self) -> bool:
        """Whether it says within a few seconds that it is well."""
        return self.alive and self._healthy()

    def stop(self, keep_log: bool = False) -> None:
        """End the server and everything it started; may be called twice."""
        process, self._process = self._process, None
        if process is None:
            return
        process.stop(_STOP_S, b"keep" if keep_log else b"")
        if not keep_log:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _healthy(self) -> bool:
        from data.http_client import answers

        return answers(self._port, "/health")


def command(
    settings: JudgeSettings, port: int, host: str = "127.0.0.1", cpu: bool | None = None
) -> list[str]:
    """The server's module and arguments, after `python -P`.

    Args:
        settings: model, rubric and limits.
        port: of the server.
        host: the address it listens on.
        cpu: whether it computes on the CPU; None: as this machine does.

    Raises:
        ConfigError: an option that recipes may not give.
    """
    rubric = load_rubric(settings.rubric)
    frames = rubric.frames
    # vLLM takes one video and drops frames after the 32nd of a list unless it is told otherwise.
    media = (
        '{"video": 1, "image": 0}' if frames.media == "video" else f'{{"image": {frames.count}, "video": 0}}'
    )
    arguments = [
        *("-m", "vllm.entrypoints.openai.api_server"),
        *("--model", model_path(settings), "--served-model-name", served_name(settings)),
        *("--host", host, "--port", str(port)),
        *("--dtype", settings.dtype, "--max-model-len", str(settings.max_model_len)),
        # All questions of all clips that are asked about at the same time: one step of the engine for all.
        *("--max-num-seqs", str(max(16, settings.concurrency * len(rubric.questions)))),
        *("--limit-mm-per-prompt", media, "--media-io-kwargs", '{"video": {"num_frames": -1}}'),
        # Each request says when its frames are. Who may ask is who has the key: the run itself.
        "--trust-request-mm-kwargs",
        *("--gpu-memory-utilization", str(settings.gpu_memory_utilization)),
        *("--seed", "0", "--enforce-eager", "--disable-uvicorn-access-log"),
    ]
    if settings.revision:
        arguments += ["--revision", settings.revision]
    if on_cpu() if cpu is None else cpu:
        # In the engine's own process. vLLM's default for CPUs is a worker process beside it, and the two wait
        # for each other in busy loops, which on two cores takes a third of the server's time.
        arguments += ["--distributed-executor-backend", "uni"]
    return arguments + server_options(settings.server_args)


def require_server(settings: JudgeSettings) -> None:
    """Check that the server which these settings ask for can be started, or can be sent its key.

    Raises UserError: there is no environment with vLLM, or the key is none or may not be sent there.
    """
    if settings.managed:
        environment_python(settings.venv)
    else:
        server_key(settings)


def environment_python(environment: str) -> Path:
    """The Python of the environment that has vLLM: from the working folder, from beside vidloop's own files,
    or from beside the environment it runs in.

    Raises:
        ServiceError: it is not there.
    """
    for root in (Path.cwd(), INSTALLED, Path(sys.prefix).parent):
        python = root / Path(environment).expanduser() / "bin" / "python"
        if python.exists():
            # Not resolved: an environment's python is a link, and its place says which environment it is.
            return python.absolute()
    raise ServiceError(
        f"judge: there is no environment with vLLM at {environment}: `make judge` makes one. judge.url names "
        "a server that is running; judge.backend: local (--set judge.backend=local) does without"
    )


def on_cpu() -> bool:
    """Whether the server computes on the CPU; `make judge` chooses the build of vLLM by the same sign."""
    return not Path("/proc/driver/nvidia/version").exists()


def _environment(settings: JudgeSettings, key: str, python: Path) -> dict[str, str]:
    """The run's environment without what would lead Python into the checkout, and what vLLM must know."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    threads = kept.get("OMP_NUM_THREADS", "1")
    for_cpu = {
        # Else vLLM overrules the executor `uni`, for threads bound to cores; ours are not (`nobind`).
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        # vLLM compiles one small function of its sampler with g++ at the first request that wants
        # log-probabilities, which takes longer than all that it ever saves here.
        "TORCH_COMPILE_DISABLE": "1",
    }
    return (
        kept
        | (for_cpu if on_cpu() else {})
        | {
            # In the environment and not on the command line, which every user of the machine may read.
            "VLLM_API_KEY": key,
            # torch.compile and uvicorn look for programs beside their Python.
            "PATH": f"{python.parent}{os.pathsep}{kept.get('PATH', os.defpath)}",
            "HF_HUB_OFFLINE": kept.get("HF_HUB_OFFLINE", "1" if Path(model_path(settings)).is_dir() else "0"),
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
            "VLLM_CPU_KVCACHE_SPACE": kept.get("VLLM_CPU_KVCACHE_SPACE", _CPU_CACHE_GIB),
            "VLLM_CPU_OMP_THREADS_BIND": kept.get("VLLM_CPU_OMP_THREADS_BIND", "nobind"),
            "OMP_NUM_THREADS": threads,
        }
    )


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])
