#!/usr/bin/env python3
"""Writes the vectors that the suites and the Rust tests read, with implementations that are not ours.

    pip install xxhash base58 cryptography
    python3 test/vectors/generate.py            all files
    python3 test/vectors/generate.py hash       one of them

One function makes one file of its name. Output depends on nothing but this script, so that a difference
after running it is a finding.
"""

import base64
import hashlib
import hmac
import json
import pathlib
import sys

HERE = pathlib.Path(__file__).parent


def data(length):
    """The buffer of xxHash's own sanity checks (cli/xsum_sanity_check.c)."""
    state, result = 2654435761, bytearray()
    for _ in range(length):
        result.append(state >> 56)
        state = state * 11400714785074694797 % 2**64
    return bytes(result)


# hash


def hash_vectors():
    """XXH64 and XXH3 of the first bytes of data(), FNV-1a of texts."""
    import xxhash

    published = {
        "xxh64": [(0, 0xEF46DB3751D8E999), (1, 0xE934A84ADB052768), (14, 0x8282DCC4994E35C8), (222, 0xB641AE8CB691C174)],
        "xxh3": [(0, 0x2D06800538D394C2), (1, 0xC44BDFF4074EECDB), (6, 0x27B56A84CD2D7325), (12, 0xA713DAF0DFBB77E7),
                 (24, 0xA3FE70BF9D3510EB), (48, 0x397DA259ECBA1F11), (80, 0xBCDEFBBB2C47C90A), (195, 0xCD94217EE362EC3A)],
    }
    functions = {"xxh64": xxhash.xxh64_intdigest, "xxh3": xxhash.xxh3_64_intdigest}
    for name, rows in published.items():
        for length, value in rows:
            assert functions[name](data(length), 0) == value, (name, length)

    lengths = list(range(0, 301)) + [
        511, 512, 513, 1023, 1024, 1025, 1087, 1088, 1089, 1216, 2047, 2048, 2049, 2112, 2367, 4096, 8191, 65536, 100003,
    ]
    seeds = [0, 1, 0x9E3779B185EBCA8D, 2**32, 2**64 - 1]
    # Every length with seed 0 and with one of the others, boundaries with all.
    boundaries = {0, 1, 3, 4, 8, 9, 16, 17, 31, 32, 33, 128, 129, 240, 241, 1024, 1025, 2048, 2049, 65536}
    rows = [
        [length, seed, xxhash.xxh64_intdigest(data(length), seed), xxhash.xxh3_64_intdigest(data(length), seed)]
        for length in lengths
        for seed in (seeds if length in boundaries else [0, seeds[1 + length % 4]])
    ]
    return {
        "about": "xxhash: [length of data(), seed, XXH64, XXH3-64]; see generate.py",
        "data": data(64).hex(),
        "published": {name: [list(row) for row in rows_] for name, rows_ in published.items()},
        "xxhash": rows,
        "fnv1a": [[text.hex(), fnv1a(text)] for text in
                  [b"", b"a", b"foobar", b"\0", b"\xff" * 9, b"http://www.isthe.com/chongo/bio.html", data(1000)]],
        "partitions": [[text.hex(), n, xxhash.xxh3_64_intdigest(text) % n] for text in
                       [b"", b"orders-1001", data(300)] for n in [1, 2, 8, 16, 1000, 2**31, 2**32 - 1]],
        "streams": [[store.hex(), stream.hex(), n, xxhash.xxh3_64_intdigest(store + b"\0" + stream) % n]
                    for store in [b"", b"shop", data(240)] for stream in [b"", b"orders-1001", data(1500)]
                    for n in [16, 2**32 - 1]],
    }


def fnv1a(text):
    """RFC 9923."""
    value = 0xCBF29CE484222325
    for byte in text:
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


# crypto: Ed25519 by the textbook, to make the cases that a library would not make

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
I = pow(2, (P - 1) // 4, P)
IDENTITY = (0, 1)


def add(p, q):
    (x1, y1), (x2, y2) = p, q
    t = D * x1 * x2 * y1 * y2 % P
    return ((x1 * y2 + x2 * y1) * pow(1 + t, -1, P) % P, (y1 * y2 + x1 * x2) * pow(1 - t, -1, P) % P)


def times(n, p):
    result = IDENTITY
    while n:
        if n & 1:
            result = add(result, p)
        p, n = add(p, p), n >> 1
    return result


def negative(p):
    return (-p[0] % P, p[1])


def recover(y, sign):
    """The point with this y and this sign of x, or None."""
    u, v = (y * y - 1) % P, (D * y * y + 1) % P
    x = u * pow(v, 3, P) * pow(u * pow(v, 7, P), (P - 5) // 8, P) % P
    if v * x * x % P != u:
        x = x * I % P
    if v * x * x % P != u or (x == 0 and sign):
        return None
    return (x if x % 2 == sign else P - x, y)


def encode(point):
    return (point[1] | (point[0] % 2) << 255).to_bytes(32, "little")


BASE = recover(4 * pow(5, -1, P) % P, 0)


def torsion_generator():
    """A point of order 8: some point of the curve times L."""
    y = 2
    while True:
        point = recover(y, 0)
        if point and times(4, times(L, point)) != IDENTITY:
            return times(L, point)
        y += 1


TORSION = torsion_generator()
SMALL = [times(i, TORSION) for i in range(8)]


def challenge(r, a, message):
    return int.from_bytes(hashlib.sha512(r + a + message).digest(), "little") % L


def strict(message, signature, key):
    """The rule of doc/: RFC 8032 without the cofactor, canonical encodings only, nothing of small order."""
    if len(signature) != 64 or len(key) != 32:
        return False
    s = int.from_bytes(signature[32:], "little")
    points = []
    for encoded in (key, signature[:32]):
        number = int.from_bytes(encoded, "little")
        y = number % 2**255
        point = recover(y, number >> 255) if y < P else None
        if point is None or point in SMALL:
            return False
        points.append(point)
    a, r = points
    k = challenge(signature[:32], key, message)
    return s < L and add(times(s, BASE), negative(times(k, a))) == r


def private(seed):
    """The scalar of a private key."""
    number = int.from_bytes(hashlib.sha512(seed).digest()[:32], "little")
    return number % 2**254 & ~7 | 2**254


def scalar(text):
    return int.from_bytes(hashlib.sha512(text.encode()).digest(), "little") % L


def little(number):
    return number.to_bytes(32, "little")


def search(accept, make):
    """The first of a row of messages whose challenge is as wanted."""
    number = 0
    while True:
        message = b"message %d" % number
        r, s, a = make(message)
        if accept(challenge(r, a, message)):
            return message, r + s, a
        number += 1


def edge_cases():
    """One signature for each way in which implementations differ, most of them true by some equation."""
    seed = hashlib.sha256(b"key").digest()
    x = private(seed)
    key = encode(times(x, BASE))
    nonce = scalar("nonce")
    point = times(nonce, BASE)

    def signed(r, a, secret, nonce_):
        return lambda message: (r, little((nonce_ + challenge(r, a, message) * secret) % L), a)

    def case(name, accept, make):
        message, signature, public = search(accept, make)
        return {"name": name, "message": message.hex(), "signature": signature.hex(), "key": public.hex(),
                "valid": strict(message, signature, public)}

    always = lambda k: True
    eighth = lambda k: k % 8 == 0
    no_eighth = lambda k: k % 8 != 0
    r = encode(point)
    cases = [case("plain", always, signed(r, key, x, nonce))]
    # A of small order: true where k is a multiple of 8.
    for i, small in enumerate(SMALL):
        cases.append(case(f"small A {i}", eighth, signed(r, encode(small), 0, nonce)))
    # Any signature of R = S*B is true by the equation with the cofactor, whatever the message.
    cases.append(case("small A, by cofactor", no_eighth, signed(r, encode(SMALL[1]), 0, nonce)))
    # R of small order: true for the neutral element, by the cofactor for the others.
    for i, small in enumerate(SMALL):
        cases.append(case(f"small R {i}", always, signed(encode(small), key, x, 0)))
    # A small, R small and S = 0: true for many messages.
    cases.append(case("small A and R, S zero", eighth, lambda m: (encode(IDENTITY), little(0), encode(SMALL[1]))))
    # Parts of small order in A and in R of large order.
    mixed_key = encode(add(times(x, BASE), SMALL[1]))
    mixed_r = encode(add(point, SMALL[1]))
    cases.append(case("mixed A, true", eighth, signed(r, mixed_key, x, nonce)))
    cases.append(case("mixed A, by cofactor", no_eighth, signed(r, mixed_key, x, nonce)))
    cases.append(case("mixed R, by cofactor", always, signed(mixed_r, key, x, nonce)))
    # kT = -T: the parts in A and R cancel out, so the equation holds without the cofactor.
    cases.append(case("mixed A and R, true", lambda k: k % 8 == 7, signed(mixed_r, mixed_key, x, nonce)))
    cases.append(case("mixed A and R, by cofactor", lambda k: k % 8 == 3, signed(mixed_r, mixed_key, x, nonce)))
    # Encodings that are not canonical: y >= p, or a sign where x is zero.
    for name, encoded in [("y = p + 1", little(P + 1)), ("y = p", little(P)), ("y = p, signed", little(P + 2**255)),
                          ("y = p + 1, signed", little(P + 1 + 2**255)), ("y = 1, signed", little(1 + 2**255)),
                          ("y = p - 1, signed", little(P - 1 + 2**255)), ("y = p + 3", little(P + 3)),
                          ("y = p + 18", little(P + 18))]:
        cases.append(case("A not canonical: " + name, eighth, signed(r, encoded, 0, nonce)))
        cases.append(case("R not canonical: " + name, always, signed(encoded, key, x, 0)))
    # S beyond the order.
    message, signature, _ = search(always, signed(r, key, x, nonce))
    s = int.from_bytes(signature[32:], "little")
    for name, other in [("S + L", s + L), ("S + 8L", s + 8 * L), ("S = L", L), ("S = L - 1", L - 1), ("S = 0", 0),
                        ("S all ones", 2**256 - 1)]:
        changed = signature[:32] + little(other)
        cases.append({"name": name, "message": message.hex(), "signature": changed.hex(), "key": key.hex(),
                      "valid": strict(message, changed, key)})
    # A key that is no point; lengths that are none.
    no_point = next(little(y) for y in range(2, 99) if recover(y, 0) is None)
    odd = [("no point", signature, no_point), ("short key", signature, key[:31]), ("long key", signature, key + b"\0"),
           ("short signature", signature[:63], key), ("long signature", signature + b"\0", key), ("empty", b"", b"")]
    cases += [{"name": name, "message": message.hex(), "signature": sig.hex(), "key": a.hex(),
               "valid": strict(message, sig, a)} for name, sig, a in odd]
    return cases


RFC_8032 = [
    ("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
     "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
     "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"),
    ("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
     "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
     "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"),
    ("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
     "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "af82",
     "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"),
    ("833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
     "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
     hashlib.sha512(b"abc").hexdigest(),
     "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704"),
]


def crypto_vectors():
    """Ed25519, digests, Base64 and Base58."""
    import base58
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

    signatures = [dict(zip(("private", "key", "message", "signature"), row)) for row in RFC_8032]
    for length in [0, 1, 64, 350, 1023, 5000]:
        secret = hashlib.sha256(b"private %d" % length).digest()
        key = Ed25519PrivateKey.from_private_bytes(secret)
        public = key.public_key().public_bytes_raw()
        signatures.append({"private": secret.hex(), "key": public.hex(), "message": data(length).hex(),
                           "signature": key.sign(data(length)).hex()})
    for row in signatures:
        values = [bytes.fromhex(row[name]) for name in ("private", "message", "signature", "key")]
        assert Ed25519PrivateKey.from_private_bytes(values[0]).sign(values[1]) == values[2], row
        assert strict(*values[1:]), row

    cases = edge_cases()
    assert {True, False} == {case["valid"] for case in cases}
    for row in cases:
        message, signature, key = (bytes.fromhex(row[name]) for name in ("message", "signature", "key"))
        try:
            Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
            row["openssl"] = True
        except (InvalidSignature, ValueError):
            row["openssl"] = False
        # OpenSSL is more lenient than we are, never stricter.
        assert row["openssl"] or not row["valid"], row

    payloads = [b"", b"\0", b"\0\0", b"\0\0\1", b"Hello World!", b"\xff" * 33, data(32), data(64), data(1000), data(4096),
                bytes.fromhex("00010966776006953d5567439e5e39f86a0d273beed61967f6"),
                bytes.fromhex("00000000000000000000123456789abcdef0"),
                bytes.fromhex("ed01") + (1).to_bytes(32, "big")]
    known = {"00": "1", "0000": "11", "000001": "112", "": "",
             "00010966776006953d5567439e5e39f86a0d273beed61967f6": "16UwLL9Risc3QfPqBUvKofHmBQ7wMtjvM",
             "ed010000000000000000000000000000000000000000000000000000000000000001":
                 "6MkeTG3bFFSLYVU7VqhgZxqr6YzpaGrQtFMh1uvqGy1vDnQ"}
    encoded = [[payload.hex(), base58.b58encode(payload).decode()] for payload in payloads]
    for payload, text in known.items():
        assert base58.b58encode(bytes.fromhex(payload)).decode() == text, payload

    nist = [b"", b"abc", b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", data(1), data(55), data(56),
            data(64), data(1023), data(1024), data(1025), data(3000)]
    assert hashlib.sha256(b"abc").hexdigest().startswith("ba7816bf8f01cfea414140de5dae2223b00361a3")
    macs = [(b"\x0b" * 20, b"Hi There"), (b"Jefe", b"what do ya want for nothing?"), (b"\xaa" * 20, b"\xdd" * 50),
            (b"\xaa" * 131, b"Test Using Larger Than Block-Size Key - Hash Key First"), (b"", b""), (data(32), data(350))]
    return {
        "about": "hex everywhere but in texts; see generate.py",
        "ed25519": signatures,
        "ed25519_edge": cases,
        "sha256": [[text.hex(), hashlib.sha256(text).hexdigest()] for text in nist],
        "hmac_sha256": [[key.hex(), text.hex(), hmac.new(key, text, "sha256").hexdigest()] for key, text in macs],
        "base58": encoded,
        "base58_invalid": [["0", 0x30], ["1O", 0x4F], ["zzI1l", 0x49], ["l", 0x6C], [" 1", 0x20], ["1\n", 0x0A],
                           ["z+/0", 0x2B], ["1\x00", 0]],
        "base64": [[data(n).hex(), base64.urlsafe_b64encode(data(n)).rstrip(b"=").decode()]
                   for n in list(range(0, 66)) + [255, 256, 1000]],
        "base64_invalid": ["A", "AAAAA", "AA==", "AAA=", "=", "A=", "AB", "A_", "AAB", "AA-", "AA A", " AAA", "AAAA\n", "AA\r\n",
                           "+AAA", "AA/A", "AA.A", "AAA\x00", "\u00e9A", "AAAA====", "AA=A"],
    }


FILES = {"hash": hash_vectors, "crypto": crypto_vectors}


def main(names):
    for name in names or FILES:
        text = json.dumps(FILES[name](), indent=None, separators=(",", ":"))
        # A row a line: a change is seen in a diff.
        text = text.replace('],[', '],\n[').replace('},{', '},\n{').replace('":[', '":\n[')
        (HERE / f"{name}.json").write_text(text + "\n")
        print(name, len(text))


if __name__ == "__main__":
    main(sys.argv[1:])
