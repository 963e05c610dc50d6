"""Zstandard with the built-in dictionary, from the standard library (Python 3.14) or `backports.zstd` (extra ``zstd``).

Imported when it is first needed. The dictionary is that of LZ4, as raw content; it never changes either.
"""

from __future__ import annotations

import sys
from functools import cache

from ..errors import CheckpointCorruptError
from .lz4_dictionary import DICTIONARY

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LEVEL = 3

_dictionary = zstd.ZstdDict(DICTIONARY, is_raw=True)


@cache
def _compressor() -> zstd.ZstdCompressor:
    """All threads share it, since it has a lock of its own, and making one for each chunk costs time."""
    level, size = zstd.CompressionParameter.compression_level, zstd.CompressionParameter.content_size_flag
    compressor: zstd.ZstdCompressor = zstd.ZstdCompressor(options={level: LEVEL, size: 0}, zstd_dict=_dictionary)
    return compressor


def compress(plain: bytes) -> bytes:
    data: bytes = _compressor().compress(plain, zstd.ZstdCompressor.FLUSH_FRAME)
    return data


def decompress(data: bytes, size: int, what: object) -> bytes:
    """The plain bytes, never more than `size` + 1, so that a wrong claim is seen and costs no memory."""
    frame = zstd.ZstdDecompressor(zstd_dict=_dictionary)
    try:
        plain: bytes = frame.decompress(data, size + 1)
        if not frame.eof and len(plain) == size:  # an end of the frame that holds nothing is read with the next call
            plain += frame.decompress(b"", 1)
    except (zstd.ZstdError, EOFError) as error:
        raise CheckpointCorruptError(f"{what}: does not decompress ({error})") from error
    if not frame.eof or frame.unused_data:
        raise CheckpointCorruptError(f"{what}: not one whole frame of the {size} bytes it claims")
    return plain
