"""Where a server lives: its folder, its address, its auth string, and the environments of its processes."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

from data.errors import ConfigError
from data.resources import python_path
from data.settings import Settings, Several
from data.store.durable_files import remove, write_durably
from flows.config.load import RECIPES
from flows.reporting.report_link import AUTH_VARIABLE, REPORTS
from flows.rounds.notify import NOTIFY_VARIABLE
from flows.serving import prefect_settings, run_log

DEFAULT_FOLDER: Final = "serve"
DEFAULT_PORT: Final = 4200
LOOPBACK: Final = "127.0.0.1"
POOL: Final = "vidloop"
# Lower numbers first: what a person starts overtakes what the night has queued.
QUEUES: Final[Mapping[str, int]] = {"people": 1, "default": 2, "nightly": 3}
_USER: Final = "vidloop"
_REMEDY: Final = "make the folder writable for this user, or give another one with --folder"


class ServerConfig(Settings):
    """One server's folder and what it was started with; `serve.json` in the folder holds the same.

    Attributes:
        folder: absolute; everything of the server lies in it.
        host: address that the server listens on.
        port: its port, of the UI and the API.
        store: absolute path of the store that the run forms offer.
        devices: one worker each; see `flows.serving.devices`.
        recipes: folders, beside vidloop's own, whose recipes the run forms offer.
        nightly: when a night begins, in cron's five fields; "" leaves the schedule as it is.
        timezone: of `nightly`.
    """

    folder: str
    host: str
    port: int
    store: str
    devices: Several[str]
    recipes: Several[str] = ()
    nightly: str = ""
    timezone: str = "UTC"

    @property
    def ui(self) -> str:
        """What a person opens in a browser."""
        return f"http://{self.host}:{self.port}"

    @property
    def api(self) -> str:
        """What Prefect's clients take as PREFECT_API_URL."""
        return f"{self.ui}/api"

    @property
    def auth_file(self) -> Path:
        """The auth string, for this user's eyes only."""
        return Path(self.folder) / "auth"

    def log(self, name: str) -> Path:
        """Where a process writes what it says."""
        return Path(self.folder) / "logs" / f"{name}.log"

    def worker_log(self, device: str) -> Path:
        """Where the worker of `device` and its runs write."""
        return self.log(f"worker-{device.replace('/', '_')}")

    def save(self) -> None:
        """Write `serve.json`; it holds no secret. Raises StoreError: the folder cannot be written."""
        folder = Path(self.folder)
        for left in folder.glob("*.tmp"):  # by a crash: one `vidloop serve` a folder
            remove(left)
        text = self.model_dump_json(indent=1) + "\n"
        write_durably(folder, folder / "serve.json", text.encode(), replace=True, remedy=_REMEDY)

    @classmethod
    def load(cls, folder: str | Path) -> Self | None:
        """What `save` wrote in `folder`; None where nobody has served yet.

        Raises:
            ConfigError: the file is there and says something else.
        """
        path = Path(folder).expanduser().absolute() / "serve.json"
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{path} cannot be read ({error}): remove it, `vidloop serve` writes it again"
            ) from None

    def auth(self) -> tuple[str, bool]:
        """The auth string, `user:password`, and whether it was made just now.

        Raises:
            ConfigError: as `read_auth`.
            StoreError: it cannot be written.
        """
        if not self.auth_file.exists():
            made = f"{_USER}:{secrets.token_urlsafe(24)}"
            data, folder = f"{made}\n".encode(), Path(self.folder)
            # Made with its mode, so that at no time anybody else can read it.
            if write_durably(folder, self.auth_file, data, replace=False, mode=0o600, remedy=_REMEDY):
                return made, True
        return read_auth(self.auth_file), False

    def client_environment(self, auth: str) -> dict[str, str]:
        """This process's own, and how to reach the server; not the webhook's address, which is a secret."""
        held = {name: value for name, value in os.environ.items() if name != NOTIFY_VARIABLE}
        return {
            **prefect_settings.DEFAULTS,
            "PREFECT_WORKER_QUERY_SECONDS": "5",
            **held,
            **prefect_settings.ALWAYS,
            "PREFECT_HOME": str(Path(self.folder) / "prefect"),
            "PREFECT_API_URL": self.api,
            AUTH_VARIABLE: auth,
            "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "INFO",  # here the console is a log file
            "PYTHONPATH": python_path(),
            "PYTHONSAFEPATH": "1",  # a folder `data` or `models` where somebody serves is not our package
            RECIPES: os.pathsep.join(self.recipes),
        }

    def server_environment(self, auth: str) -> dict[str, str]:
        """Of the server; PREFECT_API_DATABASE_CONNECTION_URL, if set, names another database than SQLite."""
        return {
            "PREFECT_UI_API_URL": self.api,  # else the page asks port 4200, whatever the port is
            # In memory, the default, a restart forgets them, and ends runs of deployments that have a limit.
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
            "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,orphans",  # what deleted runs leave behind
            **self.client_environment(auth),
            "PREFECT_SERVER_API_AUTH_STRING": auth,
            REPORTS: self.store,
        }

    def worker_environment(self, auth: str, device: str) -> dict[str, str]:
        """Of one device's worker, and so of its flow runs: they see this device and no other."""
        return {
            **self.client_environment(auth),
            "CUDA_VISIBLE_DEVICES": "" if device == "cpu" else device,
            "VIDLOOP_DEVICE": device,
            run_log.LOG: str(self.worker_log(device)),
            REPORTS: self.store,
        }


def read_auth(path: Path) -> str:
    """The auth string in `path`.

    Raises:
        ConfigError: others can read the file, or it holds no auth string.
    """
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError(
                f"{path} can be read by others: `chmod 600 {path}`, or remove it to get a new one"
            )
        auth = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        auth = ""
    if ":" not in auth:
        raise ConfigError(f"{path} holds no auth string (user:password): remove it to get a new one")
    return auth
