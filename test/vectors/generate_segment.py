#!/usr/bin/env python3
"""Writes segment.json beside this script: packed segments by an implementation that is not ours.

    python3 -m venv /tmp/v && /tmp/v/bin/pip install xxhash zstandard
    /tmp/v/bin/python test/vectors/generate_segment.py

It follows doc/format.md with struct, and writes external terms by itself. `valid` are segments with the
events that they hold, as one external term; where `canonical` is true, packing these events gives the very
bytes. `damaged` are segments with what is wrong with them; `repaired` says that all checksums were made anew.
"""

import json
import pathlib
import struct

import xxhash
import zstandard

NAMES = ["versions", "positions", "epoch_us", "event_ids", "types", "streams", "data", "metadata", "others"]
KEYS = ["version", "position", "epoch_us", "event_id", "event_type", "stream_id", "data", "metadata"]
NONE = -(2**63)


# external terms


class Atom(str):
    pass


class Raw(bytes):
    """An encoded term without its first byte."""


def term(value):
    if isinstance(value, Raw):
        return bytes(value)
    if isinstance(value, Atom):
        name = value.encode()
        return struct.pack(">BB", 119, len(name)) + name
    if isinstance(value, int):
        if 0 <= value < 256:
            return struct.pack(">BB", 97, value)
        if -(2**31) <= value < 2**31:
            return struct.pack(">Bi", 98, value)
        size = (abs(value).bit_length() + 7) // 8
        head = struct.pack(">BB", 110, size) if size < 256 else struct.pack(">BI", 111, size)
        return head + bytes([value < 0]) + abs(value).to_bytes(size, "little")
    if isinstance(value, float):
        return struct.pack(">Bd", 70, value)
    if isinstance(value, bytes):
        return struct.pack(">BI", 109, len(value)) + value
    if isinstance(value, tuple):
        return struct.pack(">BB", 104, len(value)) + b"".join(map(term, value))
    if isinstance(value, list):
        if not value:
            return b"j"
        if all(type(v) is int and 0 <= v < 256 for v in value):
            return struct.pack(">BH", 107, len(value)) + bytes(value)
        return struct.pack(">BI", 108, len(value)) + b"".join(map(term, value)) + b"j"
    if isinstance(value, dict):
        # The order of terms, for the keys that stand here: integers, atoms, then binaries.
        def order(key):
            kind = 1 if isinstance(key, Atom) else 2 if isinstance(key, bytes) else 0
            return (kind, key)

        pairs = b"".join(term(key) + term(value[key]) for key in sorted(value, key=order))
        return struct.pack(">BI", 116, len(value)) + pairs
    raise TypeError(value)


def external(value):
    return b"\x83" + term(value)


A = Atom


# sections


def ends(pieces):
    result, end = b"", 0
    for piece in pieces:
        end += len(piece)
        result += struct.pack("<I", end)
    return result + b"".join(pieces)


def section(number, values):
    if number <= 3:
        return b"".join(struct.pack("<q", NONE if value is None else value) for value in values)
    if number == 4:
        bits = bytearray((len(values) + 7) // 8)
        for i, value in enumerate(values):
            bits[i // 8] |= (value is not None) << i % 8
        return bytes(bits) + ends([value or b"" for value in values])
    if number <= 6:
        names = list(dict.fromkeys(value for value in values if value is not None))
        codes = [0 if value is None else names.index(value) + 1 for value in values]
        return struct.pack(f"<{len(codes)}I", *codes) + struct.pack("<I", len(names)) + ends(names)
    return ends([value or b"" for value in values])


def columns(events):
    rows = []
    for event in events:
        row, rest = [None] * 9, dict(event)
        for i, key in enumerate(KEYS):
            value = event.get(A(key))
            fits = (i < 3 and type(value) is int and NONE < value < 2**63) or (3 <= i < 6 and type(value) is bytes) or (
                i >= 6 and value is not None)
            if fits:
                row[i] = external(value) if i >= 6 else value
                del rest[A(key)]
        row[8] = external(rest) if rest else None
        rows.append(row)
    found = {i + 1: section(i + 1, [row[i] for row in rows]) for i in range(9) if any(row[i] is not None for row in rows)}
    return found or ({9: bytes(4 * len(events))} if events else {})


def segment(count, sections, compress=None, magic=b"ESDS", version=1, flags=0, reserved=0, entry=None, head=None, tail=b""):
    """The whole; the last arguments forge what they are named after."""
    stored = []
    for number, content in sorted(sections.items()):
        codec, bytes_ = 0, content
        if compress and len(content) >= 64:
            frame = compress(content)
            if len(frame) < len(content):
                codec, bytes_ = 1, frame
        stored.append([number, codec, 0, 0, len(bytes_), len(content), xxhash.xxh3_64_intdigest(bytes_), bytes_])
    offset = 16 + 40 * len(stored) + 8
    table = b""
    for row in stored:
        row.insert(4, offset)
        offset += row[5]
        if entry:
            entry(row)
        table += struct.pack("<BBHIQQQQ", *row[:-1])
    first = magic + struct.pack("<BBHII", version, flags, len(stored), count, reserved) + table
    first = head(first) if head else first
    return first + struct.pack("<Q", xxhash.xxh3_64_intdigest(first)) + b"".join(row[-1] for row in stored) + tail


def zstd(dictionary=None):
    given = {"dict_data": zstandard.ZstdCompressionDict(dictionary, dict_type=zstandard.DICT_TYPE_RAWCONTENT)} if dictionary else {}
    return zstandard.ZstdCompressor(level=3, write_checksum=True, write_content_size=True, **given).compress


def events():
    """By name."""
    shop = [
        {A("event_id"): b"e-%d" % i, A("event_type"): [b"placed", b"paid", b"sent"][i % 3], A("stream_id"): b"order-%d" % (i // 3),
         A("version"): i % 3, A("position"): i, A("epoch_us"): 1700000000000000 + 1000 * i,
         A("data"): {A("amount"): 10 * i, b"amount": i / 4, A("sum"): (A("sum"), i), A("tags"): [A("a"), b"b", i]},
         A("metadata"): {A("actor"): {A("id"): i % 2}}}
        for i in range(9)
    ]
    return {
        "none": [],
        "one empty event": [{}],
        "nine empty events": [{}] * 9,
        "shop": shop,
        "some fields": [{A("version"): 7}, {A("event_type"): b"t", A("data"): b"bytes"}, {A("metadata"): []}, {A("event_id"): b""}],
        "others": [{A("foo"): 1, b"foo": 2.5}, {A("version"): 2**80, A("event_id"): A("ok"), A("epoch_us"): NONE}, {A("event_type"): 5}],
        "limits": [{A("version"): 2**63 - 1, A("position"): -(2**63) + 1}, {A("version"): -1, A("position"): 0}],
        "terms": [{A("data"): value} for value in [
            0, 255, 256, -1, 2**31 - 1, -(2**31), 2**31, 2**64, -(2**64), 2**2100, 0.0, -0.0, 1.5, 1e308, A(""), A("ok"), A("\u00e9"), b"", b"\0",
            [], [1, 2, 255], [1, 256], [A("a"), [b"b"]], (), (1, (2,)), {}, {A("a"): {b"b": {1: []}}},
            Raw(b"\x4d\0\0\0\1\3\xa0"), Raw(b"l\0\0\0\1a\1a\2")]],
    }


def valid():
    for name, list_ in events().items():
        content = external(list_)
        yield {"name": name, "canonical": True, "events": content.hex(), "segment": segment(len(list_), columns(list_)).hex()}
    shop = events()["shop"]
    packed = segment(9, columns(shop), zstd())
    yield {"name": "shop, compressed", "canonical": False, "events": external(shop).hex(), "segment": packed.hex()}
    text = b"amount tags actor order-placed paid sent" * 4 + external(shop[3])
    packed = segment(9, columns(shop), zstd(text))
    yield {"name": "shop, with a dictionary", "canonical": False, "events": external(shop).hex(), "segment": packed.hex(), "dictionary": text.hex()}


def patched(content, at, bytes_):
    return content[:at] + bytes_ + content[at + len(bytes_):]


def damaged():
    small = [{A("event_id"): b"%d" % i, A("event_type"): [b"a", b"b", b"c"][i % 3], A("stream_id"): b"s", A("version"): i, A("position"): i,
              A("epoch_us"): i, A("data"): {A("amount"): i}, A("metadata"): i} for i in range(9)]
    found = columns(small)
    whole = segment(9, found)
    start = 16 + 40 * 8 + 8

    def case(name, bytes_, wrong, **more):
        return {"name": name, "segment": bytes_.hex(), "error": wrong, **more}

    def forged(name, number, content):
        return case(name, segment(9, {**found, number: content}), NAMES[number - 1], repaired=True)

    yield case("nothing", b"", "header")
    yield case("magic", b"ESDT" + whole[4:], "header")
    yield case("magic alone", b"ESDS", "header")
    for length in (5, 15, 16, 40, 16 + 40 * 8 + 7, start, len(whole) - 1):
        yield case(f"cut off at {length}", whole[:length], "header")
    yield case("version 2", segment(9, found, version=2), "version 2", repaired=True)
    yield case("version 2, nothing else", b"ESDS\2", "version 2")
    yield case("flags", segment(9, found, flags=1), "header", repaired=True)
    yield case("reserved", segment(9, found, reserved=1), "header", repaired=True)
    yield case("header flipped", patched(whole, 12, b"\1"), "header")
    yield case("checksum of the header", patched(whole, start - 8, b"\0" * 8), "header")
    yield case("behind the end", whole + b"\0", "header")
    yield case("count without sections", segment(1, {}), "header", repaired=True)
    yield case("too many events", segment(2**24 + 1, found), "header", repaired=True)
    yield case("sections above nine", segment(9, {**found, 10: b""}), "header", repaired=True)
    yield case("ten sections", segment(9, {**found, 0: b"", 9: found[7]}), "header", repaired=True)
    yield case("section 0", segment(9, {**found, 0: b""}), "header", repaired=True)

    def entry(place, value, number=7):
        def change(row):
            if row[0] == number:
                row[place] = value(row[place]) if callable(value) else value
        return change

    for name, place, value in [("codec 2", 1, 2), ("reserved 2", 2, 1), ("reserved 4", 3, 1), ("offset", 4, lambda o: o + 1),
                               ("offset, enormous", 4, 2**64 - 1), ("stored, more", 5, lambda s: s + 1), ("stored, enormous", 5, 2**64 - 1),
                               ("size, more", 6, lambda s: s + 1), ("size, enormous", 6, 2**64 - 1), ("twice the same id", 0, 6),
                               ("id descending", 0, 1)]:
        yield case("entry: " + name, segment(9, found, entry=entry(place, value)), "header", repaired=True)
    yield case("1 GiB compressed", segment(9, found, entry=lambda r: (entry(1, 1)(r), entry(6, 2**30)(r))), "header", repaired=True)

    # Each section: a flipped bit, and with its checksum made anew one byte less and one more.
    offset = start
    for number, content in sorted(found.items()):
        yield case(f"{NAMES[number - 1]} flipped", patched(whole, offset, bytes([whole[offset] ^ 1])), NAMES[number - 1])
        yield forged(f"{NAMES[number - 1]}, a byte less", number, content[:-1])
        yield forged(f"{NAMES[number - 1]}, a byte more", number, content + b"\0")
        yield forged(f"{NAMES[number - 1]}, nothing", number, b"")
        offset += len(content)

    yield forged("ids: a bit behind the last", 4, patched(found[4], 1, b"\3"))
    yield forged("ids: an absent one with bytes", 4, patched(found[4], 0, b"\xfe"))
    yield forged("ids: ends descend", 4, patched(found[4], 2, struct.pack("<I", 99)))
    yield forged("types: a name too far", 5, patched(found[5], 0, struct.pack("<I", 4)))
    yield forged("types: names without end", 5, patched(found[5], 36, struct.pack("<I", 2**32 - 1)))
    yield forged("streams: ends descend", 6, patched(found[6], 40, struct.pack("<I", 50)))
    yield forged("data: ends descend", 7, patched(found[7], 0, struct.pack("<I", 2**32 - 1)))
    yield forged("data: the last end", 7, patched(found[7], 32, struct.pack("<I", 2**32 - 1)))

    # Terms: what only a question that visits them finds.
    broken = {
        "no version byte": b"a\1",
        "nothing behind it": b"\x83",
        "unknown tag": b"\x83\xff",
        "compressed": b"\x83\x50" + struct.pack(">I", 2**32 - 1) + b"x",
        "binary cut off": external({A("amount"): Raw(struct.pack(">BI", 109, 2**32 - 1))}),
        "map without end": b"\x83" + struct.pack(">BI", 116, 2**32 - 1),
        "list without end": external({A("amount"): Raw(struct.pack(">BI", 108, 2**32 - 1))}),
        "float that is none": external({A("amount"): Raw(b"\x46" + b"\xff" * 8)}),
        "a key twice": b"\x83" + struct.pack(">BI", 116, 2) + term(A("a")) + term(1) + term(A("a")) + term(2),
        "more than a term": external({A("amount"): 1}) + b"\0",
        "name that is no text": external({A("amount"): Raw(b"\x77\1\xff")}),
        "an integer for an atom's name": external({A("amount"): Raw(b"\x64\0\1a")}),
        "a bit string of no bits": external({A("amount"): Raw(b"\x4d\0\0\0\1\0\0")}),
    }
    for name, payload in broken.items():
        row = [payload if i == 4 else external({}) for i in range(9)]
        yield {**forged("data: " + name, 7, section(7, row)), "term": True}
    yield {**forged("others: no map", 9, section(9, [external(5)] + [b""] * 8)), "term": True}

    frame = zstd()(found[7])
    for name, content, size in [("no frame", b"x" * 100, 200), ("frame cut off", frame[:-1], len(found[7])),
                                ("frame of another size", frame, len(found[7]) + 1), ("frame of a smaller size", frame, len(found[7]) - 1),
                                ("checksum of the frame", frame[:-1] + bytes([frame[-1] ^ 1]), len(found[7]))]:
        change = lambda r, size=size: (entry(1, 1)(r), entry(6, size)(r))
        yield case("zstd: " + name, segment(9, {**found, 7: content}, entry=change), "data", repaired=True)


def main():
    content = {"about": "hex; see generate_segment.py", "valid": list(valid()), "damaged": list(damaged())}
    text = json.dumps(content, separators=(",", ":")).replace("},{", "},\n{").replace('":[', '":\n[')
    (pathlib.Path(__file__).parent / "segment.json").write_text(text + "\n")
    print("segment", len(text))


if __name__ == "__main__":
    main()
