"""``/docs`` and ``/redoc``: the OpenAPI document as one page for people, without scripts or anything remote."""

from fastapi import APIRouter

router = APIRouter(include_in_schema=False)
