"""The route in front of LiteLLM's token count: it changes the messages of the body, or nothing at all."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import orjson
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from proxy_plugin.admin.http import ApiError, Caller
from proxy_plugin.gateway.count_tokens import counting_routes

PATH = "/v1/messages/count_tokens"
ASKED = {"model": "claude", "system": "Be brief.", "messages": [{"role": "user", "content": "long é"}]}
SHORT = [{"role": "user", "content": "short"}]


def app(preview: Any, authenticate: Any, seconds: float = 10) -> Starlette:
    async def behind(request: Request) -> Response:
        body = await request.body()
        assert int(request.headers.get("content-length", len(body))) == len(body)
        return Response(body, headers={"x-query": request.url.query})

    made = Starlette(routes=[Route(PATH, behind, methods=["POST"])])
    made.router.routes[:0] = counting_routes(made, preview, authenticate, seconds)
    return made


async def alice(request: Request) -> Caller:
    return Caller("tenant of " + request.headers["x-api-key"], admin=False)


def shorter(caller: Caller, data: Mapping[str, Any]) -> Any:
    assert caller.tenant == "tenant of k"
    assert data["proxy_server_request"]["headers"]["x-api-key"] == "k"
    assert data["proxy_server_request"]["body"] == ASKED
    return SHORT if data["messages"] == ASKED["messages"] else data["messages"]


def post(made: Starlette, content: Any, path: str = PATH) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app=made)
        async with httpx.AsyncClient(transport=transport, base_url="http://proxy") as client:
            return await client.post(path, content=content, headers={"x-api-key": "k"})

    return asyncio.run(send())


def test_the_history_that_would_be_sent_is_counted() -> None:
    answer = post(app(shorter, alice), orjson.dumps(ASKED), PATH + "?beta=true")
    assert orjson.loads(answer.content) == {**ASKED, "messages": SHORT}
    assert answer.headers["x-query"] == "beta=true"


def test_a_body_in_pieces_is_one_body() -> None:
    async def pieces() -> Any:
        body = orjson.dumps(ASKED)
        for at in range(0, len(body), 7):
            yield body[at : at + 7]

    assert orjson.loads(post(app(shorter, alice), pieces()).content)["messages"] == SHORT


def refused(*_: Any) -> Any:
    raise ApiError(401, "no such key")


async def endless(_: Request) -> Caller:
    await asyncio.Event().wait()
    raise AssertionError


def same(_: str, data: Mapping[str, Any]) -> Any:
    return data["messages"]


def unwritable(*_: Any) -> Any:
    return [object()]


@pytest.mark.parametrize(
    ("preview", "authenticate", "seconds"),
    [(same, alice, 10), (refused, alice, 10), (unwritable, alice, 10), (shorter, refused, 10), (shorter, endless, 0)],
)
def test_whatever_fails_the_body_goes_on_as_it_came(preview: Any, authenticate: Any, seconds: float) -> None:
    body = b'{ "model":"claude",\n "messages" : [{"role":"user","content":"\\u00e9"}] }'
    assert post(app(preview, authenticate, seconds), body).content == body


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"7", b'{"messages": null}', b"\xff"])
def test_what_is_no_request_is_none_of_ours(body: bytes) -> None:
    assert post(app(same, alice), body).content == body


def test_where_litellm_has_no_such_route_there_is_none() -> None:
    assert post(app(shorter, alice), b"{}", "/messages/count_tokens").status_code == 404
    made = app(shorter, alice)
    made.router.routes.append(Route("/other", lambda _: JSONResponse({}), methods=["POST"]))
    assert post(made, b"{}", "/other").status_code == 200


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing of a request stands in the log."""
    yield
    assert "content" not in caplog.text
