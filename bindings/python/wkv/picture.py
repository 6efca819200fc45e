# SPDX-License-Identifier: Apache-2.0
"""A state as a picture for notebooks: how large the numbers of each head of each layer are."""
from __future__ import annotations

import base64
import html as escape
import math
import struct
import zlib
from typing import TYPE_CHECKING, List

from ._base import numpy
from .errors import Error

if TYPE_CHECKING:
    from .cache import Cache


def magnitudes(cache: Cache) -> List[List[float]]:
    """Root mean square of the WKV state of each head: [layers][heads]."""
    i = cache.model.info
    rows = []
    for layer in range(i.layers):
        state = cache.read_state(layer, "wkv")
        if numpy is not None:
            rows.append([float(x) for x in numpy.sqrt(numpy.square(state).mean(axis=(1, 2)))])
            continue
        flat, size = memoryview(state).cast("B").cast("f"), i.head_size * i.head_size
        rows.append([math.sqrt(sum(x * x for x in flat[h * size:(h + 1) * size]) / size) for h in range(i.heads)])
    return rows


def png(rows: List[List[float]]) -> bytes:
    """One pixel a number, dark blue for zero to yellow for the largest."""
    top = max(max(row) for row in rows) or 1.0
    lines = b"".join(b"\0" + b"".join(_colour(value / top) for value in row) for row in rows)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", len(rows[0]), len(rows), 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


_STOPS = ((13, 8, 60), (84, 20, 120), (180, 50, 90), (245, 125, 30), (250, 240, 110))


def _colour(share: float) -> bytes:
    place = math.sqrt(min(max(share, 0.0), 1.0)) * (len(_STOPS) - 1)
    lower = min(int(place), len(_STOPS) - 2)
    return bytes(round(a + (b - a) * (place - lower)) for a, b in zip(_STOPS[lower], _STOPS[lower + 1]))


def html(cache: Cache) -> str:
    """The picture with a caption. A cache that cannot be read now shows its text alone."""
    caption = escape.escape(repr(cache))
    if cache.closed:
        return f"<code>{caption}</code>"
    try:
        rows = magnitudes(cache)
    except Error:
        return f"<code>{caption}</code>"
    i = cache.model.info
    cell = max(4, min(16, 480 // max(i.heads, 1)))
    data = base64.b64encode(png(rows)).decode()
    return (f'<figure style="margin:0"><img alt="state" width="{i.heads * cell}" height="{i.layers * cell}" '
            f'style="image-rendering:pixelated" src="data:image/png;base64,{data}"/>'
            f'<figcaption><code>{caption}</code><br/>{i.layers} layers down, {i.heads} heads across; '
            f'brightest: {max(map(max, rows)):.3g}</figcaption></figure>')
