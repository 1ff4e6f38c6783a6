"""Reading a request body: bounded while it arrives, and JSON in the strict sense only.

Python's ``json`` takes NaN, lone infinities, duplicate names and any depth; none of them is allowed here, because two
readers of one text must never disagree on what it says.
"""

import asyncio
import json
import math
import re
from typing import Any, NoReturn

from starlette.requests import ClientDisconnect, Request

from dreamforge.errors import ErrorCode
from dreamforge_api.problem import Problem

MAX_BYTES = 64 * 1024
MAX_DEPTH = 64
ARRIVES_WITHIN_SECONDS = 10.0

_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"')


async def read_json(request: Request) -> Any:
    """The body as Python values; raises :class:`Problem` with 400, 413 or 415."""
    _require_json(request)
    return parse(await read(request))


async def read(request: Request, limit: int = MAX_BYTES) -> bytes:
    """The body's bytes. Stops reading at the first byte over ``limit``, whatever the headers promise."""
    declared = request.headers.get("content-length")
    if declared is not None and _is_over(declared, limit):
        raise _too_large(limit)
    message = await request.receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        content: bytes = message.get("body", b"")
        if len(content) > limit:
            raise _too_large(limit)
        return content
    try:
        async with asyncio.timeout(ARRIVES_WITHIN_SECONDS):
            return await _read_rest(request, message, limit)
    except TimeoutError:
        raise _malformed("The body did not arrive in time") from None


def _is_over(declared: str, limit: int) -> bool:
    """Whether a ``Content-Length`` says so, however many digits it has: ``int`` reads no more than 4300."""
    digits = declared.lstrip("0")
    return declared.isdecimal() and (len(digits) > len(str(limit)) or int(digits or "0") > limit)


async def _read_rest(request: Request, message: Any, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        if message["type"] != "http.request":
            raise ClientDisconnect
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise _too_large(limit)
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)
        message = await request.receive()


def parse(content: bytes) -> Any:
    """Strict JSON: UTF-8 without a byte order mark, no NaN, no overflow, no duplicate names, bounded depth."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise _malformed("The body is not UTF-8 text") from None
    if not text.strip(" \t\r\n"):
        raise _malformed("The body is empty")
    if text.count("{") + text.count("[") > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        raise _malformed(f"The body is nested deeper than {MAX_DEPTH} levels")
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise _malformed(f"{error.msg} (line {error.lineno}, column {error.colno})") from None
    except (ValueError, RecursionError):  # a number with thousands of digits
        raise _malformed("A number is too long") from None


def _depth(text: str) -> int:
    depth = deepest = 0
    for char in _STRINGS.sub("", text):
        if char in "{[":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "}]":
            depth -= 1
    return deepest


def _require_json(request: Request) -> None:
    given = request.headers.get("content-type", "")
    if given.partition(";")[0].strip().lower() != "application/json":
        raise Problem(ErrorCode.UNSUPPORTED_MEDIA_TYPE, "Send the body as Content-Type: application/json")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise _malformed("A name stands twice in one object")
    return made


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise _malformed("A number is too large")
    return value


def _constant(name: str) -> NoReturn:
    raise _malformed(f"{name} is not JSON")


def _malformed(detail: str) -> Problem:
    return Problem(ErrorCode.MALFORMED_BODY, detail)


def _too_large(limit: int) -> Problem:
    return Problem(
        ErrorCode.BODY_TOO_LARGE, f"The body is larger than {limit} bytes", headers={"Connection": "close"}
    )


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_float, parse_constant=_constant)
