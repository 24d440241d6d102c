"""JSON bodies of requests that change something."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from litestar import Request

from stream.serve.problems import BadRequest, NotJson

Body_ = TypeVar("Body_")


async def read_body(request: Request[Any, Any, Any], decoder: msgspec.json.Decoder[Body_]) -> Body_:
    """The body of a request.

    A browser asks before it sends such a content type for a page of another origin, and this API then refuses.

    Raises:
        NotJson: it is declared as something else.
        BadRequest: it does not fit.
    """
    if request.content_type[0] != "application/json":
        raise NotJson("send the body with `Content-Type: application/json`")
    try:
        return decoder.decode(await request.body())
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise BadRequest(f"the body does not fit ({error}); /docs has its fields") from None
