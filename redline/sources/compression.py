"""Compressed bytes: blocks of Snappy, buffers of LZ4 and Zstandard, decompressed within a limit."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np

from redline.sources.pushed import SubmissionRefused

MISSING_SNAPPY = (
    "Prometheus remote write needs cramjam, which is not installed: "
    "pip install 'redline[prometheus]'"
)
MISSING_CODECS = (
    "compressed Arrow streams need cramjam, which is not installed: pip install 'redline[arrow]'"
)
CODECS = ("lz4", "zstd")  # of buffers, in the order of the numbers that Arrow gives them
# a block cannot hold more: an element of 3 bytes copies 64 at most
MAX_RATIO = 22
MAX_HEADER = 5  # bytes of the header, a varint of 32 bits


def has_snappy() -> bool:
    """Return whether the library for Snappy is installed."""
    return find_spec("cramjam") is not None


def decompress_block(body: bytes, max_compressed: int, max_size: int) -> bytes:
    """Return what a block holds.

    Args:
        body: the block.
        max_compressed: bytes that it may have.
        max_size: bytes that it may hold, by its own header; no room is made for more.

    Raises:
        ImportError: says what to install.
        SubmissionRefused: too long, or no block of Snappy.
    """
    if len(body) > max_compressed:
        wanted = f"at most {max_compressed:,} bytes"
        raise SubmissionRefused("body", wanted, f"{len(body):,}; send fewer samples in a request")
    size = declared_size(body)
    if size > max_size:
        wanted = f"at most {max_size:,} bytes when decompressed"
        raise SubmissionRefused("body", wanted, f"{size:,}; send fewer samples in a request")
    if size > MAX_RATIO * len(body):
        wanted = f"a block of Snappy, which holds at most {MAX_RATIO} times its length"
        raise SubmissionRefused("body", wanted, f"{len(body):,} bytes that declare {size:,}")
    try:
        import cramjam
    except ImportError as error:
        raise ImportError(MISSING_SNAPPY) from error
    try:
        return bytes(cramjam.snappy.decompress_raw(body))
    except cramjam.DecompressionError as error:
        raise SubmissionRefused("body", "a block of Snappy", str(error)) from None


def declared_size(body: bytes) -> int:
    """Return how many bytes a block holds, by its header; SubmissionRefused where it has none."""
    size = 0
    for place, byte in enumerate(body[:MAX_HEADER]):
        size |= (byte & 127) << 7 * place
        if byte < 128:
            if size >= 1 << 32:
                break
            return size
    wanted = "a block of Snappy, which begins with its length in up to 32 bits"
    raise SubmissionRefused("body", wanted, f"{body[:MAX_HEADER].hex(' ') or 'no bytes'}")


def decompress_buffer(data: memoryview, codec: str, size: int) -> memoryview:
    """Return the bytes that a buffer holds, exactly so many.

    Raises:
        ImportError: says what to install.
        SubmissionRefused: it is broken, or holds another number of bytes.
    """
    try:
        import cramjam
    except ImportError as error:
        raise ImportError(MISSING_CODECS) from error
    library = cramjam.lz4 if codec == "lz4" else cramjam.zstd
    found = np.empty(size, np.uint8)
    try:
        count = library.decompress_into(data, found)
    except cramjam.DecompressionError as error:
        raise SubmissionRefused(
            "body", f"{size:,} bytes compressed with {codec}", f"{error}"
        ) from None
    if count != size:
        raise SubmissionRefused("body", f"{size:,} bytes compressed with {codec}", f"{count:,}")
    return found.data


def compress_block(data: bytes) -> bytes:
    """Return a block of Snappy.

    Raises:
        ImportError: says what to install.
    """
    try:
        import cramjam
    except ImportError as error:
        raise ImportError(MISSING_SNAPPY) from error
    return bytes(cramjam.snappy.compress_raw(data))
