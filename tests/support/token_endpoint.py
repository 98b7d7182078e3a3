"""A token endpoint that follows RFC 8693 to the letter: it checks what is handed in, and signs what it gives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from evidence.errors import RecordError
from policy.identity.jwks import KeySet
from policy.identity.jws import SigningKey, public_set, unchecked
from policy.identity.workload import check_presented

GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT = "urn:ietf:params:oauth:token-type:jwt"
ACCESS = "urn:ietf:params:oauth:token-type:access_token"
ONCE = {"grant_type", "subject_token", "subject_token_type", "requested_token_type", "scope"}


class TokenEndpoint:
    """Exchanges tokens of one deployment for its own; use it as an async context manager.

    `answers` replaces the next answers, `pause_s` delays each one, and `asked` holds the forms that came, without the
    tokens.
    """

    def __init__(self, trusted: KeySet, audiences: set[str], *, expires_in: int = 300) -> None:
        self.key = SigningKey.generate()
        self.keys = KeySet.parse(public_set(self.key), "the endpoint's keys")
        self.url = ""
        self.asked: list[dict[str, str]] = []
        self.subjects: list[dict[str, Any]] = []
        self.given: list[str] = []
        self.answers: list[Callable[[], web.StreamResponse]] = []
        self.pause_s = 0.0
        self.clock: Callable[[], datetime] = lambda: datetime.now(UTC)
        self._trusted = trusted
        self._audiences = audiences
        self._expires_in = expires_in

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/token", self._token)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/token"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    async def _token(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        self.asked.append({name: str(value) for name, value in form.items() if name != "subject_token"})
        await asyncio.sleep(self.pause_s)
        if self.answers:
            return self.answers.pop(0)()
        if request.content_type != "application/x-www-form-urlencoded" or request.query_string:
            return refusal("invalid_request")
        if any(len(form.getall(name)) > 1 for name in ONCE if name in form) or not ONCE - {"scope"} <= form.keys():
            return refusal("invalid_request")
        if form["grant_type"] != GRANT:
            return refusal("unsupported_grant_type")
        if form["subject_token_type"] != JWT or form["requested_token_type"] != ACCESS or "actor_token_type" in form:
            return refusal("invalid_request")
        audience, scope = str(form.get("audience", "")), str(form.get("scope", ""))
        try:
            shown = check_presented(
                str(form["subject_token"]), self._trusted, audience=self.url, now=self.clock(), leeway_s=5
            )
        except RecordError:
            return refusal("invalid_request")
        if audience not in self._audiences:
            return refusal("invalid_target")
        if scope != shown.scope:
            return refusal("invalid_scope")
        self.subjects.append(unchecked(str(form["subject_token"])).claims)
        return self.grant(shown.sub, audience, scope, shown.act)

    def grant(self, sub: str, audience: str, scope: str, act: dict[str, Any]) -> web.Response:
        """Give a token."""
        now = int(self.clock().timestamp())
        claims = {
            "iss": "https://sts.example.org",
            "sub": sub,
            "aud": audience,
            "scope": scope,
            "act": act,
            "iat": now,
            "exp": now + self._expires_in,
            "jti": f"sts-{len(self.given)}",
        }
        self.given.append(self.key.sign(claims, "at+jwt"))
        return answer(access_token=self.given[-1], expires_in=self._expires_in)


def answer(**members: Any) -> web.Response:
    """An answer in the form of RFC 8693, 2.2.1; None leaves a member out."""
    full = {"access_token": "opaque-token-41", "issued_token_type": ACCESS, "token_type": "Bearer", "expires_in": 300}
    body = {name: value for name, value in {**full, **members}.items() if value is not None}
    return web.json_response(body, headers={"Cache-Control": "no-store", "Pragma": "no-cache"})


def refusal(error: str, status: int = 400) -> web.Response:
    """An error in the form of RFC 6749, 5.2; its sentence quotes what came in, as careless servers do."""
    return web.json_response({"error": error, "error_description": "bad token eyJhbGciOi..."}, status=status)
