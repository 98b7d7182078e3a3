"""A hosted provider that handles what it is sent without care: it repeats it wherever an answer has room for text.

A prompt with `(do NAME)` gets the behaviour of that name. What arrives is kept whole.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Self

import orjson
from aiohttp import web

_ASKED = re.compile(r"\(do ([a-z0-9-]+)\)")


class CarelessProvider:
    """An OpenAI-compatible server on this machine; use `async with`.

    Args:
        words: what it puts where, by behaviour: a text that the test chose.
    """

    def __init__(self, words: Mapping[str, str]) -> None:
        self.received: list[bytes] = []
        self._words = words
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def __aenter__(self) -> Self:
        application = web.Application()
        application.router.add_post("/v1/chat/completions", self._answer)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0]
        self.url = f"http://{host}:{port}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, asked: web.Request) -> web.Response:
        body = await asked.read()
        heads = "\n".join(f"{name}: {value}" for name, value in asked.headers.items())
        self.received.append(heads.encode() + b"\n" + body)
        prompt = str(orjson.loads(body)["messages"][-1]["content"])
        found = _ASKED.search(prompt)
        name = found[1] if found else "answer"
        return _reply(name, self._words.get(name, "Fine."), prompt)


def _reply(name: str, said: str, prompt: str) -> web.Response:
    if name.startswith("error-"):
        detail = {"message": f"cannot take {prompt}: {said}", "type": said, "code": said, "param": prompt}
        return _json(int(name[-3:]), {"error": detail})
    if name in _BODIES:
        status, kind, body = _BODIES[name]
        return web.Response(status=status, text=body.format(said=said, prompt=prompt), content_type=kind)
    if name == "redirect":
        return web.Response(status=307, headers={"location": f"/elsewhere?for={said}", "x-echo": said})
    call = {"id": "call_1", "type": "function", "function": {"name": "mail", "arguments": _arguments(said)}}
    answers = {
        "wrong-shape": {"choices": said, "usage": said},
        "names": {**_completion({"content": "Fine."}), "id": f"chat {said}", "model": said},
        "finish": _completion({"content": "Fine."}, finish=said),
        "refusal": _completion({"content": None, "refusal": f"I cannot speak of {said}"}),
        "tool-call": _completion({"content": None, "tool_calls": [call]}, finish="tool_calls"),
        "tool-text": _completion({"content": f'{{"tool": "mail", "arguments": {_arguments(said)}}}'}),
    }
    return _json(200, answers.get(name) or _completion({"content": said}))


_BODIES = {
    "not-json": (200, "text/html", "<p>{prompt} {said}</p>"),
    "half-json": (200, "application/json", '{{"choices": [{{"message": {{"content": "{said}'),
}
"""What is no answer at all, by behaviour: status, type and text."""


def _arguments(said: str) -> str:
    return orjson.dumps({"to": said}).decode()


def _json(status: int, content: dict[str, Any]) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(content), content_type="application/json")


def _completion(message: dict[str, Any], *, finish: str = "stop") -> dict[str, Any]:
    return {
        "id": "chat-1",
        "object": "chat.completion",
        "model": "careless-1",
        "choices": [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 3},
    }
