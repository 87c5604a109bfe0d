#!/usr/bin/env python3
"""Writes archive.json beside this script: what independent implementations make of the same contents.

    python3 -m venv /tmp/v && /tmp/v/bin/pip install zstandard lz4
    /tmp/v/bin/python test/vectors/generate_archive.py

LZ4 is liblz4 and Zstandard is libzstd, by their Python packages; zlib is Python's own. Everything is made
from fixed seeds, so that another run writes the same file as long as the versions of the libraries agree.
"""

import base64
import json
import pathlib
import random
import zlib

import lz4.block
import zstandard


def events(count):
    """Events of a shop, about 120 bytes each."""
    rnd = random.Random(7)
    kinds = ["order_placed", "order_paid", "order_shipped", "order_cancelled"]
    for number in range(count):
        yield (
            '{"event_id":"%032x","event_type":"%s","stream_id":"order-%d","data":{"items":%d,"total":%d}}'
            % (rnd.getrandbits(128), rnd.choice(kinds), rnd.randrange(500), rnd.randrange(1, 9), number * 17)
        ).encode()


def contents():
    """By name, pieces and how often each is repeated: so zeros take no room in the file."""
    rnd = random.Random(11)
    return {
        "empty": [],
        "one byte": [(b"a", 1)],
        "abc": [(b"abc", 7)],
        "zeros": [(b"\0", 70000)],
        "random": [(rnd.randbytes(700), 1)],
        "four letters": [(bytes(rnd.choice(b"acgt") for _ in range(3000)), 1)],
        "events": [(b"\n".join(events(60)), 1)],
        "long distance": [(rnd.randbytes(200), 1), (b"\0", 66000), (b"".join(events(3)), 1), (rnd.randbytes(200), 2)],
    }


def joined(pieces):
    return b"".join(data * times for data, times in pieces)


def zstd_cases(name, content, dictionaries):
    for level in (1, 3, 9, 19):
        yield name, f"zstd {level}", "zstd", zstandard.ZstdCompressor(level=level, write_checksum=True).compress(content), None
    plain = zstandard.ZstdCompressor(level=3, write_checksum=False, write_content_size=False)
    yield name, "zstd without sizes", "zstd", plain.compress(content), None
    stream = zstandard.ZstdCompressor(level=3).compressobj()
    yield name, "zstd stream", "zstd", stream.compress(content) + stream.flush(), None
    half = len(content) // 2
    frame = zstandard.ZstdCompressor(level=5).compress
    skippable = (0x184D2A5F).to_bytes(4, "little") + (3).to_bytes(4, "little") + b"???"
    yield name, "zstd frames", "zstd", frame(content[:half]) + skippable + frame(content[half:]), None
    for which, dictionary in dictionaries.items():
        if name in ("abc", "events", "one byte"):
            compressor = zstandard.ZstdCompressor(level=3, dict_data=zstandard.ZstdCompressionDict(dictionary))
            yield name, f"zstd dictionary {which}", "zstd", compressor.compress(content), which


def other_cases(name, content):
    for mode in ({}, {"mode": "high_compression", "compression": 9}):
        yield name, f"lz4 {mode.get('mode', 'default')}", "lz4", lz4.block.compress(content, **mode), None
    for level in (0, 1, 6, 9):
        if level or len(content) < 4000:
            yield name, f"zlib {level}", "zlib", zlib.compress(content, level), None


def main():
    samples = list(events(1200))
    dictionaries = {
        "trained": zstandard.train_dictionary(4096, samples).as_bytes(),
        "raw": b"".join(samples[:20]),
    }
    b64 = lambda data: base64.b64encode(data).decode()
    known = contents()
    cases = [
        {"content": content, "by": by, "algorithm": algorithm, "compressed": b64(data), "dictionary": dictionary}
        for name, whole in known.items()
        for content, by, algorithm, data, dictionary in (*zstd_cases(name, joined(whole), dictionaries), *other_cases(name, joined(whole)))
    ]
    document = {
        "by": {"zstd": ".".join(map(str, zstandard.ZSTD_VERSION)), "lz4": lz4.library_version_string(), "zlib": zlib.ZLIB_VERSION},
        "contents": {name: [[b64(data), times] for data, times in pieces] for name, pieces in known.items()},
        "dictionaries": {name: {"bytes": b64(data), "id": zstandard.ZstdCompressionDict(data).dict_id()} for name, data in dictionaries.items()},
        "cases": cases,
    }
    path = pathlib.Path(__file__).with_name("archive.json")
    path.write_text(json.dumps(document, indent=1) + "\n")
    print(path, path.stat().st_size, "bytes,", len(cases), "cases")


if __name__ == "__main__":
    main()
