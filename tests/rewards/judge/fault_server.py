"""A server that speaks vLLM's part of the OpenAI protocol and can be told to fail. The real one stands in
tests/e2e/test_judge_vllm.py, under the same client; what both must do is in `test_the_fake_answers_as_vllm_does`."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image

from rewards.judge.frames import Segment, Timing
from rewards.judge.processing import Processing, single_tokens

KEY = "a key"
MODEL = "tiny"
TEXT_ALONE = "no media"
# (question, id of the media) -> name of a fault, or None
Faults = Callable[[str, str], str | None]


def _said(value: Any, *more: Any) -> Callable[[dict[str, Any]], None]:
    """Instead of the log-probabilities of yes and no, and of all others the last of them."""
    values = [value, *more]

    def edit(reply: dict[str, Any]) -> None:
        for place, item in enumerate(reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"]):
            item["logprob"] = values[min(place, len(values) - 1)]

    return edit


def _index(value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda reply: reply["choices"][0].update(index=value)


# What no server that understood the question says, whatever its model is.
IMPOSSIBLE: dict[str, Callable[[dict[str, Any]], None]] = {
    "all certain": _said(0.0),
    "both likely": _said(-0.1, -0.1, -9.0),
    "a little too likely": _said(math.log(0.9), math.log(0.102), -99.0),
    "false": _said(False, -0.5),
    "true": _said(-0.5, True),
    "a text": _said("-0.5", -1.0),
    "nothing": _said(None, -1.0),
    "a list": _said([-0.5], -1.0),
    "above 0": _said(0.2, -3.0),
    "far above 0": _said(-3.0, 10**400),
    "far below 0": _said(-3.0, -(10**400)),
    "infinite": _said(-3.0, math.inf),
    "minus infinite": _said(-math.inf, -0.5),
    "nan of no": _said(-0.5, math.nan),
    "two choices": lambda reply: reply["choices"].append(reply["choices"][0] | {"index": 1}),
    "no choice": lambda reply: reply["choices"].clear(),
    "index 7": _index(7),
    "index -1": _index(-1),
    "index false": _index(False),
    "index as text": _index("0"),
    "no index": lambda reply: reply["choices"][0].pop("index"),
}


def nothing(question: str, media: str) -> str | None:
    return None


class FaultServer:
    """Answers with log-probabilities that depend on frames and question alone. Use it as a context.

    together: whether it takes several questions in one request, as newer vLLM does; else 404.
    """

    def __init__(self, processing: Processing, together: bool = False) -> None:
        self.processing = processing
        self.together = together
        self.batches = 0
        self.faults: Faults = nothing
        self.asked: list[
            tuple[str, str]
        ] = []  # (question, media) that were answered or failed, self-test too
        self.with_data = 0
        self.hang_s = 5.0
        self.versions: list[tuple[int, bytes]] = []  # what it answers first when asked for its own
        self.lock = threading.Lock()
        self.seen: dict[str, Segment] = {}
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"

    def __enter__(self) -> FaultServer:
        # It looks this often whether it should end: what each of many tests waits for.
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.http.shutdown()
        self.http.server_close()

    def tokenize(self, text: str) -> list[int]:
        found = single_tokens([text], self.processing.encode)
        return list(found.values()) or [0, 0]

    def answer(self, body: dict[str, Any]) -> tuple[int, bytes]:
        """(status, body) of a chat request, faults included."""
        part, question = body["messages"][1]["content"][0], body["messages"][1]["content"][-1]["text"]
        media = part.get("uuid", TEXT_ALONE)
        with self.lock:
            if media == TEXT_ALONE:
                pass
            elif part["video_url"] is not None:
                self.with_data += 1
                first, *rest = part["video_url"]["url"].removeprefix("data:video/jpeg;base64,").split(",")
                picture = Image.open(io.BytesIO(base64.b64decode(first)))
                blank = np.zeros((1 + len(rest), picture.height, picture.width, 3), np.uint8)
                # A model that is not told when its frames are, is asked without a clock: any one does.
                undated = {"frames_indices": range(len(blank)), "fps": 1.0, "total_num_frames": len(blank)}
                clock = body.get("media_io_kwargs", {"video": undated})["video"]
                indices = tuple(clock["frames_indices"])
                timing = Timing(clock["fps"], indices, clock["total_num_frames"])
                self.seen[media] = Segment(indices, blank, timing)
            elif media not in self.seen:
                return 400, b'{"error": "no such media"}'
            fault = self.faults(question, media)
            self.asked.append((question, media))
        reply = self.reply(body, question, media)
        first = reply["choices"][0]
        match fault:
            case None:
                pass
            case "429" | "500" | "503" | "400":
                return int(fault), json.dumps({"error": f"told to answer {fault}"}).encode()
            case "hang":
                time.sleep(self.hang_s)
            case "cut":
                return 200, json.dumps(reply).encode()[:-40]
            case "nan":
                first["logprobs"]["content"][0]["top_logprobs"][0]["logprob"] = math.nan
            case "model":
                reply["model"] = "another"
            case "no logprobs":
                first["logprobs"] = None
            case "free text":
                first["logprobs"] = None
                first["message"]["content"] = "The video shows a ball."
                reply["usage"]["completion_tokens"] = 7
            case "missing token":
                del first["logprobs"]["content"][0]["top_logprobs"][-1]
            case "lost frames":
                reply["usage"]["prompt_tokens"] -= 4
            case _:
                IMPOSSIBLE[fault](reply)
        return 200, json.dumps(reply).encode()

    def answer_together(self, body: dict[str, Any]) -> tuple[int, bytes]:
        """The same of a request with several conversations: one that fails, fails all."""
        self.batches += 1
        replies = []
        for messages in body["messages"]:
            status, content = self.answer(body | {"messages": messages})
            if status != 200:
                return status, content
            try:
                replies.append(json.loads(content))
            except ValueError:
                return 200, content
        usage = {name: sum(one["usage"][name] for one in replies) for name in replies[0]["usage"]}
        choices = [choice for one in replies for choice in one["choices"]]
        for place, choice in enumerate(choices):
            if type(choice.get("index")) is int:
                choice["index"] += place
        models = {one["model"] for one in replies} - {body["model"]}
        model = models.pop() if models else body["model"]
        return 200, json.dumps({"model": model, "choices": choices, "usage": usage}).encode()

    def reply(self, body: dict[str, Any], question: str, media: str) -> dict[str, Any]:
        lot = hashlib.sha256(f"{question} {media}".encode()).digest()
        # A strong yes or no: probabilities of 0.95 to 0.97 among the two, 0.98 together.
        yes = 0.95 + 0.02 * lot[1] / 255 if lot[0] % 2 else 0.05 - 0.02 * lot[1] / 255
        ids = body["logprob_token_ids"]
        shares = [0.98 * yes, 0.98 * (1 - yes)] + [0.001] * (len(ids) - 2)
        top = [
            {"token": f"token_id:{token}", "logprob": math.log(share)}
            for token, share in zip(self._yes_first(ids), shares, strict=True)
        ]
        tokens = self.processing.tokens(None if media == TEXT_ALONE else self.seen[media], question)
        return {
            "model": body["model"],
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "yes" if yes > 0.5 else "no"},
                    "logprobs": {"content": [{"token": top[0]["token"], "top_logprobs": top}]},
                }
            ],
            "usage": {"prompt_tokens": tokens, "completion_tokens": 1},
        }

    def _yes_first(self, ids: list[int]) -> list[int]:
        known = single_tokens(["yes", "no"], self.processing.encode).values()
        return [*known, *(one for one in ids if one not in known)] if set(known) <= set(ids) else ids

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # headers and content go one by one: 40 ms a request

            def do_GET(self) -> None:
                if self.path == "/v1/models":
                    self.send(200, json.dumps({"data": [{"id": MODEL}]}).encode())
                elif self.path == "/version":
                    self.send(*(server.versions.pop(0) if server.versions else (200, b'{"version": "fake"}')))
                else:
                    self.send(404, b"{}")

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                if self.headers.get("authorization") != f"Bearer {KEY}":
                    self.send(401, b'{"error": "Unauthorized"}')
                elif self.path == "/tokenize":
                    self.send(200, json.dumps({"tokens": server.tokenize(body["prompt"])}).encode())
                elif self.path == "/v1/chat/completions":
                    self.send(*server.answer(body))
                elif self.path == "/v1/chat/completions/batch" and server.together:
                    self.send(*server.answer_together(body))
                else:
                    self.send(404, b'{"detail": "Not Found"}')

            def send(self, status: int, content: bytes) -> None:
                try:
                    self.send_response(status)
                    self.send_header("content-length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
                except OSError:
                    pass  # the client has given up waiting

            def log_message(self, *_: object) -> None:
                pass

        return Handler
