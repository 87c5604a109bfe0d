#!/usr/bin/env python3
"""Writes archive_rfc8878.json beside this script: Zstandard as its specification says, piece by piece.

    python3 -m venv /tmp/v && /tmp/v/bin/pip install zstandard
    /tmp/v/bin/python test/vectors/generate_rfc8878.py

The default distributions are those of RFC 8878, section 3.1.1.3.2.2; the decoding tables of its appendix A are
computed from them by the rules of section 4.1.1. The frames are made by hand from section 3.1.1, and libzstd (by
the package zstandard) reads each as stated here, or refuses it.
"""

import io
import json
import pathlib

import zstandard

DISTRIBUTIONS = {
    "literal_length": (6, [4, 3] + [2] * 11 + [1] * 3 + [2] * 9 + [3, 2] + [1] * 5 + [-1] * 4),
    "match_length": (6, [1, 4, 3] + [2] * 6 + [1] * 37 + [-1] * 7),
    "offset": (5, [1] * 6 + [2] * 3 + [1] * 15 + [-1] * 5),
}

FRAMES = [
    ("an empty frame", "28b52ffd2000010000", ""),
    ("an empty frame with the checksum of nothing", "28b52ffd240001000099e9d851", ""),
    ("one raw block", "28b52ffd200529000068656c6c6f", "hello"),
    ("one repeated block", "28b52ffd200a53000061", "aaaaaaaaaa"),
    ("a window instead of a size, a raw block and a repeated one", "28b52ffd000018000061626323000078", "abcxxxx"),
    ("a skippable frame, a frame, an empty skippable frame", "502a4d1803000000ffffff28b52ffd20010900007a5f2a4d1800000000", "z"),
    ("two frames", "28b52ffd20010900007928b52ffd20010900007a", "yz"),
    ("a compressed block of repeated literals", "28b52ffd20051d0000296100", "aaaaa"),
    ("a compressed block of raw literals", "28b52ffd00002d00001861626300", "abc"),
    ("a compressed block: three literals, then nine bytes from three back, by the predefined tables", "28b52ffd200c4d0000186162630100166e08", "abcabcabcabc"),
]

BROKEN = [
    ("a reserved type of block", "28b52ffd20010f00007a", "corrupt"),
    ("the reserved bit of the descriptor", "28b52ffd28010900007a", "corrupt"),
    ("no magic number", "28b52ffe2000010000", "corrupt"),
    ("a block larger than the window", "28b52ffd00000b200078", "corrupt"),
    ("fewer bytes than the size states", "28b52ffd20050900007a", "corrupt"),
    ("more bytes than the size states", "28b52ffd20011100007a7a", "corrupt"),
    ("no last block", "28b52ffd20010800007a", "truncated"),
    ("a wrong checksum of nothing", "28b52ffd240001000099e9d852", "checksum_mismatch"),
]


def table(log, distribution):
    """Section 4.1.1: for each state its symbol, the bits to read, and what to add to them."""
    size = 1 << log
    symbols = [None] * size
    high = size - 1
    for symbol, share in enumerate(distribution):
        if share == -1:
            symbols[high] = symbol
            high -= 1
    position = 0
    for symbol, share in enumerate(distribution):
        for _ in range(max(share, 0)):
            symbols[position] = symbol
            position = (position + (size >> 1) + (size >> 3) + 3) & (size - 1)
            while position > high:
                position = (position + (size >> 1) + (size >> 3) + 3) & (size - 1)
    following = [abs(share) for share in distribution]
    states = []
    for symbol in symbols:
        state = following[symbol]
        following[symbol] += 1
        bits = log - (state.bit_length() - 1)
        states.append([symbol, bits, (state << bits) - size])
    return states


def read(frame):
    """The content of all frames, by libzstd."""
    reader = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(frame), read_across_frames=True)
    return reader.read()


def refuses(frame):
    """Whether libzstd takes this for no complete frame."""
    unfinished = zstandard.ZstdDecompressor().decompressobj()
    try:
        unfinished.decompress(frame)
    except zstandard.ZstdError:
        return True
    return not unfinished.eof


def main():
    for name, frame, content in FRAMES:
        assert read(bytes.fromhex(frame)) == content.encode(), name
    for name, frame, _reason in BROKEN:
        assert refuses(bytes.fromhex(frame)), name
    vectors = {
        "about": "see generate_rfc8878.py",
        "distributions": {name: shares for name, (_, shares) in DISTRIBUTIONS.items()},
        "tables": {name: table(*distribution) for name, distribution in DISTRIBUTIONS.items()},
        "frames": [{"name": n, "frame": f, "content": c} for n, f, c in FRAMES],
        "broken": [{"name": n, "frame": f, "reason": r} for n, f, r in BROKEN],
    }
    path = pathlib.Path(__file__).with_name("archive_rfc8878.json")
    path.write_text(json.dumps(vectors, indent=1) + "\n")


if __name__ == "__main__":
    main()
