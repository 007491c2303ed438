"""Answers of the OpenSubsonic interface as XML or JSON: a dict of what a call found -> a response with status 200.

    {"song": {"id": "7", "title": "Blue", "genres": [{"name": "Jazz"}]}}

    <subsonic-response xmlns="http://subsonic.org/restapi" status="ok" version="1.16.1" …>
      <song id="7" title="Blue"><genres name="Jazz"/></song>
    </subsonic-response>

In XML a scalar is an attribute, a dict an element, a list one element for each entry, and "value" the text of its element.
What is None is left out of both.  Errors have status 200 as well, with a code and a message, as the interface demands.
Source: https://opensubsonic.netlify.app/docs/responses/subsonic-response/ and …/responses/error/
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from enum import IntEnum
from typing import Any
from xml.etree import ElementTree

from starlette.responses import Response

import tonelake

API_VERSION = "1.16.1"
NAMESPACE = "http://subsonic.org/restapi"
FORMS = ("xml", "json")
HEADERS = {"Cache-Control": "no-store"}
# All that XML 1.0 cannot hold, even as a reference: https://www.w3.org/TR/xml/#charsets
FORBIDDEN_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
SURROGATES = re.compile("[\ud800-\udfff]")


class Code(IntEnum):
    """Error codes of the interface, as far as this service sends them."""

    GENERIC = 0
    MISSING = 10
    BAD_LOGIN = 40
    CONFLICT = 43
    BAD_KEY = 44
    FORBIDDEN = 50
    NOT_FOUND = 70


class Refused(Exception):
    """A call that is answered by an error of the interface: its code and a sentence."""

    def __init__(self, code: Code, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.retry_after_s = code, message, retry_after_s


def answered(found: Mapping[str, Any], form: str) -> Response:
    """Return the response for what a call found, in a form of FORMS."""
    return written({"status": "ok", **envelope(), **found}, form)


def refused(error: Refused, form: str) -> Response:
    """Return the response for an error."""
    response = written({
        "status": "failed", **envelope(), "error": {"code": int(error.code), "message": error.message},
    }, form)
    if error.retry_after_s is not None:
        response.headers["Retry-After"] = str(error.retry_after_s)
    return response


def envelope() -> dict[str, Any]:
    """Return the fields that every answer carries besides its status."""
    return {"version": API_VERSION, "type": "tonelake", "serverVersion": tonelake.__version__, "openSubsonic": True}


def written(body: Mapping[str, Any], form: str) -> Response:
    if form == "json":
        return Response(as_json({"subsonic-response": body}), 200, HEADERS, "application/json")
    return Response(as_xml(body), 200, HEADERS, "text/xml")        # Starlette adds charset=utf-8


def as_json(body: Any) -> bytes:
    r"""Return JSON as UTF-8, without what is None.

    >>> as_json({"a": None, "b": [{"c": True, "d": None}], "e": "\ud800é"}).decode()
    '{"b":[{"c":true}],"e":"�é"}'
    """
    text = json.dumps(without_none(body), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return SURROGATES.sub("\ufffd", text).encode()


def without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: without_none(one) for name, one in value.items() if one is not None}
    return [without_none(one) for one in value] if isinstance(value, list) else value


def as_xml(body: Mapping[str, Any]) -> bytes:
    """Return the XML document of an answer as UTF-8.

    >>> as_xml({"status": "ok", "genre": [{"value": "R&B", "songCount": 3}], "a": None}).decode()[-81:]
    'org/restapi" status="ok"><genre songCount="3">R&amp;B</genre></subsonic-response>'
    """
    root = ElementTree.Element("subsonic-response", {"xmlns": NAMESPACE})
    fill_element(root, body)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)


def fill_element(element: ElementTree.Element, found: Mapping[str, Any]) -> None:
    for name, value in found.items():
        if value is None:
            continue
        if name == "value":
            element.text = xml_text(value)
        elif isinstance(value, Mapping):
            fill_element(ElementTree.SubElement(element, name), value)
        elif isinstance(value, list):
            for one in value:
                child = ElementTree.SubElement(element, name)
                if isinstance(one, Mapping):
                    fill_element(child, one)
                else:
                    child.text = xml_text(one)
        else:
            element.set(name, xml_text(value))


def xml_text(value: object) -> str:
    r"""Return a scalar as text that XML can hold: characters that it forbids are removed.

    >>> xml_text(True), xml_text(0.5), xml_text("a\x00b\ud800")
    ('true', '0.5', 'ab')
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    return FORBIDDEN_IN_XML.sub("", str(value))
