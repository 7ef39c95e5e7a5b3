"""Object storage, asked through obstore: one door for all requests, with patience and errors in words.

    s3://bucket/prefix      Amazon S3 and what speaks its language
    gs://bucket/prefix      Google Cloud Storage       (by the same code; not tried against the service)
    az://container/prefix   Azure Blob Storage         (by the same code; not tried against the service)

Where it is and who asks is the environment's to say: AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, or the role of the machine; GOOGLE_* and AZURE_* likewise. Plain
http is spoken where AWS_ALLOW_HTTP says so. Nothing of an answer but its status and its code is repeated:
bodies and headers may hold what is secret.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

from data.errors import StoreError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

Answer = TypeVar("Answer")

SCHEMES: Final = ("s3", "gs", "az")
PATIENCE_VARIABLE: Final = "VIDLOOP_STORE_SECONDS"
_PATIENCE_S: Final = 120.0
_REQUEST_S: Final = 30.0
_CONNECT_S: Final = 5.0
_PAUSE_S: Final = 0.5
_URL: Final = re.compile(
    r"(s3|gs|az)://([a-z0-9][a-z0-9._-]{1,62})((?:/[A-Za-z0-9][A-Za-z0-9._+:-]{0,199})*)/?"
)
_ENDPOINTS: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_STATUS: Final = re.compile(r"status code: (\d{3})")
_CODE: Final = re.compile(r"<Code>(\w{1,64})</Code>")
# Answers of which the same request may get another a moment later.
_BUSY: Final = {"429", "500", "502", "503", "504", "408"}
_CREDENTIALS: Final = {
    "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken",
    "AuthorizationHeaderMalformed",
}  # fmt: skip

# The process whose threads serve every client.
_first_user: int | None = None


class Lost(Exception):
    """Another was quicker: what was to be created is there, or what was to be replaced was changed."""


def is_url(name: str) -> bool:
    """Whether a store's name is that of object storage."""
    return name.split("://")[0] in SCHEMES and "://" in name


class Bucket:
    """The objects below one URL.

    Attributes:
        url: without a slash at the end.
        name: of the bucket.
        endpoint: of the service; "" for the provider's own.
    """

    def __init__(self, url: str) -> None:
        """Raises StoreError: it is no URL of a store; it names no server."""
        found = _URL.fullmatch(url)
        if found is None:
            hint = ": credentials belong into the environment" if "@" in url else ""
            raise StoreError(
                "the store's URL is none that vidloop knows"
                + hint
                + ": it must be s3://BUCKET/PREFIX (or gs://, "
                "az://), of plain names"
            )
        self.scheme, self.name, self.prefix = found[1], found[2], found[3].strip("/")
        self.url = f"{self.scheme}://{self.name}" + (f"/{self.prefix}" if self.prefix else "")
        self.endpoint = next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), "")
        self._patience = _seconds()
        self._opened: ObjectStore | None = None

    @property
    def objects(self) -> ObjectStore:
        """The client. Raises StoreError: this process was forked from one that had a client."""
        global _first_user
        _first_user = _first_user or os.getpid()
        if _first_user != os.getpid():  # the library's threads did not come along: it would wait for ever
            raise StoreError(
                f"{self.url}: this process was forked from one that has used object storage: start it anew "
                "(multiprocessing's spawn), or fork before the store is opened"
            )
        if self._opened is None:
            self._opened = self.ask("open", self._open)
        return self._opened

    def options(self) -> dict[str, Any]:
        """What every client of the bucket is made with."""
        return {
            "client_options": {
                "allow_http": os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true", "yes"),
                "timeout": timedelta(seconds=min(_REQUEST_S, self._patience / 4)),
                "connect_timeout": timedelta(seconds=min(_CONNECT_S, self._patience / 4)),
            },
            "retry_config": {"max_retries": 2, "retry_timeout": timedelta(seconds=self._patience / 4)},
        }

    def _open(self) -> ObjectStore:
        from obstore.store import from_url

        return from_url(self.url, **self.options())

    def ask(self, what: str, call: Callable[[], Answer]) -> Answer:
        """What a request answers, asked again for a while where it fails in passing.

        Args:
            what: names the place in messages: a path of the store, or a verb.
            call: the request; it may be sent again.

        Raises:
            FileNotFoundError: there is no such object.
            Lost: a condition of the request was not met.
            StoreError: the service refuses, or cannot be reached in time.
        """
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        deadline, pause = time.monotonic() + self._patience, _PAUSE_S
        while True:
            try:
                return call()
            except (AlreadyExistsError, PreconditionError) as error:
                raise Lost(what) from error
            except StoreError:  # of ours, and in words
                raise
            except Exception as error:  # obstore has its own classes, and takes Python's for some
                text = str(error)
                status, code = _first(_STATUS, text), _first(_CODE, text)
                if status == "404" and code != "NoSuchBucket" and "list request" not in text:
                    raise FileNotFoundError(2, "there is no such object", f"{self.url}/{what}") from None
                if not _passes(status, text) or time.monotonic() + pause > deadline:
                    raise StoreError(self._in_words(what, status, code, text)) from None
            time.sleep(pause)
            pause = min(2 * pause, 8.0)

    def _in_words(self, what: str, status: str, code: str, text: str) -> str:
        """What went wrong, where, and what to do; nothing of the answer but status and code."""
        at = f" at {_without_secrets(self.endpoint)}" if self.endpoint else ""
        where, said = f"{self.url}/{what}", " ".join(one for one in (status, code) if one)
        if code == "NoSuchBucket" or (status == "404" and "list request" in text):
            return (
                f"{self.url}: there is no bucket {self.name!r}{at}: make it, or give another one with --store"
            )
        if code == "RequestTimeTooSkewed":
            return f"{where}: the service finds this machine's clock wrong ({said}): set it (NTP)"
        if status == "401" or code in _CREDENTIALS:
            return f"{where}: the credentials are not accepted ({said}): see AWS_ACCESS_KEY_ID and its kin"
        if status == "403":
            return (
                f"{where}: access is refused ({said}): these credentials must be valid, and allowed to list "
                "the bucket, and to get, put and delete objects below the prefix"
            )
        if "builder error" in text or "BadScheme" in text:
            return f"{where}: plain http{at} is spoken where AWS_ALLOW_HTTP=true says so, else name https"
        if "credentials" in text.lower() or "169.254." in text:
            return (
                f"{where}: there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run "
                "where the machine has a role"
            )
        if status in ("429", "503"):
            return f"{where}: the service is overloaded{at} ({said}), {self._patience:g} s long: run again"
        if status.startswith("5"):
            return f"{where}: the service fails{at} ({said}) for {self._patience:g} s: run again later"
        if status:
            return f"{where}: the service refuses the request{at} ({said}); it may not be one for stores"
        return (
            f"{where}: the service{at} cannot be reached, or does not answer, {self._patience:g} s long: is "
            f"the address right, the network there? {PATIENCE_VARIABLE} gives it longer"
        )


def _passes(status: str, text: str) -> bool:
    """Whether the same request may fare better a moment later."""
    if status:
        return status in _BUSY
    return not any(said in text for said in ("builder error", "BadScheme", "redentials", "169.254."))


def _first(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found[1] if found else ""


def _without_secrets(endpoint: str) -> str:
    """An address without a user and password."""
    return re.sub(r"//[^/@]*@", "//", endpoint)


def _seconds() -> float:
    said = os.environ.get(PATIENCE_VARIABLE, "")
    try:
        found = float(said) if said else _PATIENCE_S
    except ValueError:
        found = 0.0
    if not 1 <= found <= 86_400:
        raise StoreError(f"{PATIENCE_VARIABLE}={said}: it must be seconds, 1 to 86400")
    return found
