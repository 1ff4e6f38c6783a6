"""``/docs`` and ``/redoc``: the OpenAPI document as one page for people, without scripts or anything remote.

Both addresses show the same page, because people type either. A browser that has never been online can read it.
"""

import json
from collections.abc import Iterator
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, Response

router = APIRouter(include_in_schema=False)

_HEADERS = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"}
_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;margin:0 auto;max-width:60rem;padding:1rem;color:#1c2430;background:#fff}
h1{margin:.5rem 0}h2{margin:2.5rem 0 .5rem;border-bottom:1px solid #d5dbe3}h3{margin:1.2rem 0 .3rem;font-size:1rem}
.m{font:700 .8rem monospace;background:#1f5f8b;color:#fff;border-radius:4px;padding:.15rem .5rem;margin-right:.5rem}
.m.post{background:#2d7a3e}code,pre{font-family:ui-monospace,monospace;font-size:.9rem}
pre{background:#f3f5f8;padding:.7rem;overflow-x:auto;border-radius:6px;white-space:pre-wrap}
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.3rem .5rem;border-top:1px solid #e3e8ee;
vertical-align:top}summary{cursor:pointer;padding:.2rem 0}nav a{display:block}
@media(prefers-color-scheme:dark){body{background:#14181e;color:#dce3ec}pre{background:#1d232c}a{color:#8cc4ee}
td,th,h2{border-color:#303945}}
"""


@router.get("/docs")
@router.get("/redoc")
async def show(request: Request) -> Response:
    return HTMLResponse(page(request.app.openapi()), headers=_HEADERS)


def page(document: dict[str, Any]) -> str:
    """The whole document as HTML."""
    info = document["info"]
    operations = [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<title>{escape(info['title'])} API</title><style>{_STYLE}</style>",
        f"<h1>{escape(info['title'])} <small>{escape(info['version'])}</small></h1>",
        _text(info.get("description", "")),
        '<p>For programs: <a href="/openapi.json">openapi.json</a></p><nav>',
        *(f'<a href="#{_anchor(path, method)}">{_title(path, method)}</a>' for path, method, _ in operations),
        "</nav>",
    ]
    for path, method, operation in operations:
        parts.extend(_operation(path, method, operation))
    parts.append("<h2>Schemas</h2>")
    for name, schema in document["components"]["schemas"].items():
        parts.append(f'<details id="{escape(name)}"><summary>{escape(name)}</summary>{_json(schema)}</details>')
    return "".join(parts)


def _operation(path: str, method: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f'<h2 id="{_anchor(path, method)}">{_title(path, method)}</h2>'
    yield f"<p><strong>{escape(operation.get('summary', ''))}</strong></p>"
    yield _text(operation.get("description", ""))
    if parameters := operation.get("parameters"):
        yield "<h3>Parameters</h3><table>"
        for parameter in parameters:
            yield (
                f"<tr><td><code>{escape(parameter['name'])}</code><td>{escape(parameter['in'])}"
                f"<td>{escape(parameter.get('description', ''))}<td><code>{_short(parameter['schema'])}</code>"
            )
        yield "</table>"
    if body := operation.get("requestBody"):
        yield "<h3>Body</h3>"
        yield from _content(body["content"])
    yield "<h3>Answers</h3>"
    for status, answer in operation["responses"].items():
        yield f"<details><summary><code>{escape(status)}</code> {escape(answer.get('description', ''))}</summary>"
        yield from _content(answer.get("content", {}))
        yield "</details>"


def _content(content: dict[str, Any]) -> Iterator[str]:
    for media_type, shape in content.items():
        schema = shape.get("schema", {})
        named = schema.get("$ref", "").rpartition("/")[2]
        link = f' <a href="#{escape(named)}">{escape(named)}</a>' if named else ""
        yield f"<p><code>{escape(media_type)}</code>{link}</p>"
        if "example" in shape:
            yield _json(shape["example"])
        for given in shape.get("examples", {}).values():
            yield f"<p>{escape(given.get('summary', ''))}</p>{_json(given['value'])}"


def _title(path: str, method: str) -> str:
    return f'<span class="m {method}">{method.upper()}</span><code>{escape(path)}</code>'


def _anchor(path: str, method: str) -> str:
    return escape(method + path.replace("/", "-").replace("{", "").replace("}", ""))


def _short(schema: dict[str, Any]) -> str:
    hidden = {"title", "description", "examples"}
    return escape(", ".join(f"{key}: {value}" for key, value in schema.items() if key not in hidden))


def _text(text: str) -> str:
    return f"<pre>{escape(text)}</pre>" if "|" in text else f"<p>{escape(text)}</p>"


def _json(value: Any) -> str:
    shown = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
    return f"<pre>{escape(shown)}</pre>"
