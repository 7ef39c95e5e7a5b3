"""What a recipe may name of the operator's: variables whose content is sent, options of the run's own server.

A recipe may be a stranger's. Which of the environment's variables it may send away, and what may be run or
opened to others on the operator's machine, is for the operator to say, in that environment.
"""

from __future__ import annotations

import os
import re
import shlex
from typing import Final
from urllib.parse import urlsplit

from data.errors import ConfigError

# Environment variable: the address of a running server for every run that names none.
URL_VARIABLE: Final = "VIDLOOP_JUDGE_URL"
KEY_VARIABLE: Final = "VIDLOOP_JUDGE_KEY"
# Environment variable: the variables that recipes may send as a key, and where to: NAME or NAME@HOST, ....
KEYS_VARIABLE: Final = "VIDLOOP_KEY_VARIABLES"
# Environment variable: options of vLLM, beside those below, that recipes may give a server of the run.
OPTIONS_VARIABLE: Final = "VIDLOOP_SERVER_OPTIONS"
# They decide how much memory and time the server takes, and what it makes of frames; none names a file, a
# module or an address, or lets anybody else in.
OPTIONS: Final = frozenset({
    "--block-size", "--cpu-offload-gb", "--disable-log-stats", "--dtype", "--enable-chunked-prefill",
    "--enable-prefix-caching", "--enforce-eager", "--gpu-memory-utilization", "--kv-cache-dtype",
    "--kv-cache-memory-bytes", "--limit-mm-per-prompt", "--max-model-len", "--max-num-batched-tokens",
    "--max-num-seqs", "--media-io-kwargs", "--mm-encoder-tp-mode", "--mm-processor-cache-gb",
    "--mm-processor-kwargs", "--num-gpu-blocks-override", "--pipeline-parallel-size", "--quantization",
    "--seed", "--swap-space", "--tensor-parallel-size",
})  # fmt: skip


def check_key_variable(name: str, url: str) -> None:
    """Check that a recipe may send the content of variable `name` to the server at `url`.

    What `KEYS_VARIABLE` says of a name holds for it. Of others VIDLOOP_JUDGE_KEY may go where
    VIDLOOP_JUDGE_URL says, and anywhere if that is not set; VIDLOOP_JUDGE_KEY_... anywhere.

    Raises:
        ConfigError: it may not; the message says how the operator may allow it.
    """
    said = [entry.partition("@") for entry in re.split(r"[,\s]+", os.environ.get(KEYS_VARIABLE, "")) if entry]
    hosts = [host.lower() for known, _, host in said if known == name]
    place = urlsplit(url)
    host, port = place.hostname or "", place.port
    if hosts:
        if not {"", host, f"{host}:{port}"}.isdisjoint(hosts):
            return
        why = f"{KEYS_VARIABLE} binds it to {', '.join(hosts)}"
    elif name == KEY_VARIABLE:
        bound = os.environ.get(URL_VARIABLE)
        if not bound or urlsplit(bound).netloc.lower() == place.netloc.lower() or not os.environ.get(name):
            return
        why = f"it is the key of the server that {URL_VARIABLE} names"
    elif name.startswith(f"{KEY_VARIABLE}_"):
        return
    else:
        why = f"recipes may name {KEY_VARIABLE} and variables that begin {KEY_VARIABLE}_"
    raise ConfigError(
        f"judge.api_key_env: {name} may not be sent to {host}: {why}. If you trust recipe and host with it, "
        f"export {KEYS_VARIABLE}={name}@{host}, or keep that server's key in a variable {KEY_VARIABLE}_..."
    )


def server_options(server_args: str) -> list[str]:
    """The words of `judge.server_args`.

    Raises:
        ConfigError: they are no words of a shell, or give the server an option that recipes may not give.
    """
    try:
        words = shlex.split(server_args)
    except ValueError as error:
        raise ConfigError(f"judge.server_args: {error}") from None
    allowed = OPTIONS | {_option(word) for word in re.split(r"[,\s]+", os.environ.get(OPTIONS_VARIABLE, ""))}
    for word in words:
        if word.startswith("-") and not _is_number(word) and _option(word) not in allowed:
            name = word.partition("=")[0]
            raise ConfigError(
                f"judge.server_args: a recipe may not give the server {name}: it may load code, open a file "
                f"or let others in. If you know what it does, export {OPTIONS_VARIABLE}={name}"
            )
    return words


def _option(word: str) -> str:
    """An option's name: `--no-x`, `--x=1` and `--a_b` are those of --x and --a-b; shortened ones are not."""
    name = word.partition("=")[0].replace("_", "-")
    return f"--{name.removeprefix('--no-')}" if name.startswith("--no-") else name


def _is_number(word: str) -> bool:
    return re.fullmatch(r"-\.?\d[\d.e+-]*", word) is not None
