"""The page as a browser takes it apart."""

from __future__ import annotations

import base64
import gzip
import html.parser
import itertools
import json
from typing import Any


class Reader(html.parser.HTMLParser):
    """What a browser would see: elements with their attributes, and the text of scripts by their class or id."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.data: dict[str, list[str]] = {}
        self._in = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.tags.append((tag, found))
        self._in = str(found.get("class") or found.get("id") or tag) if tag == "script" else ""

    def handle_endtag(self, tag: str) -> None:
        self._in = ""

    def handle_data(self, data: str) -> None:
        if self._in:
            self.data.setdefault(self._in, []).append(data)


def lines(reader: Reader, name: str) -> list[str]:
    return gzip.decompress(base64.b64decode("".join(reader.data[name]))).decode().split("\n")


def unpacked(reader: Reader) -> list[dict[str, Any]]:
    """The samples of a page, their tokens cut out of the text as the page does it, in units of 16 bits."""
    found = []
    for line in lines(reader, "samples"):
        head, rest = map(json.loads, line.split("\t"))
        text = "".join(part for _, _, part in head["parts"]).encode("utf-16-le", errors="surrogatepass")
        ends = [2 * end for end in itertools.accumulate(rest["cuts"])]
        tokens = [
            text[i:j].decode("utf-16-le", errors="surrogatepass")
            for i, j in zip([0, *ends], ends, strict=False)
        ]
        found.append({**head, **rest, "tokens": tokens})
    return found
