-module(esdb_crypto_nif).
-moduledoc """
Ed25519, digests and text encodings for tokens and identities.

```erlang
1> {Public, Private} = crypto:generate_key(eddsa, ed25519),
   Signature = esdb_crypto_nif:sign_ed25519(~"hello", Private),
   esdb_crypto_nif:verify_ed25519(~"hello", Signature, Public).
true
2> {ok, Key} = esdb_crypto_nif:verify_key(Public),
   esdb_crypto_nif:verify_ed25519(~"hello", Signature, Key).
true
3> esdb_crypto_nif:base64_encode_urlsafe(<<251, 255>>).
<<"-_8">>
4> esdb_crypto_nif:base58_encode(<<0, 0, 1>>).
<<"112">>
```

Where OTP's `crypto` is as fast it does the work, with the library or without, but for signatures of
messages above 64 KiB: those OTP would verify and sign faster, on the caller's scheduler, and the
library does it on a dirty one. Data is a binary or iodata.

## Which signatures are valid

Verification is strict: the equation of RFC 8032 without the cofactor, and besides it refused are S
not below the group's order, a y-coordinate not below p in the key or in R, and a key or an R of
small order. So every node, with the library or without, gives one answer, and no signature can be
altered into another valid one.
""".

%% Ed25519
-export([verify_ed25519/3, verify_ed25519_batch/1, verify_key/1, sign_ed25519/2]).
%% Digests and secrets
-export([hash_sha256/1, hash_sha256_base64/1, hmac_sha256/2, secure_compare/2]).
%% Text encodings
-export([base64_encode_urlsafe/1, base64_decode_urlsafe/1, base58_encode/1, base58_decode/1]).
-export_type([key/0]).

-nifs([
    verify_n/3,
    verify_d/3,
    verify_batch_n/1,
    verify_batch_d/1,
    verify_key_n/1,
    sign_n/2,
    sign_d/2,
    sha256_n/1,
    sha256_base64_n/1,
    hmac_sha256_n/2,
    equal_n/2,
    equal_d/2,
    base64_encode_n/1,
    base64_encode_d/1,
    base64_decode_n/1,
    base64_decode_d/1,
    base58_encode_n/1,
    base58_encode_d/1,
    base58_decode_n/1,
    base58_decode_d/1
]).

%% Opaque: a public key, and what a library has computed about it. The 32 bytes are the key; the
%% reference only makes it faster, and where it means nothing (another node, another load, no
%% library) it is ignored.
-opaque key() :: {esdb_ed25519_key, <<_:256>>, reference() | none}.

%% Bytes that a normal scheduler takes, 0.1 to 0.3 ms each, measured: signed, digested, compared,
%% encoded.
-define(SHORT_SIGNED, 65_536).
-define(SHORT_EQUAL, 131_072).
-define(SHORT_BASE64, 262_144).
-define(SHORT_BASE58, 1024).
%% What one signature costs, in bytes hashed in the same time; a scheduler takes about ten.
-define(SIGNATURE, 16_384).
-define(MALFORMED, 32).
-define(SHORT_SIGNATURES, 163_840).
%% From here on OTP's digests are as fast, and they give way to other processes by themselves.
-define(OTP_DIGEST, 1024).
%% Base58 is quadratic: what is longer is no identifier. The text limit is what the data limit
%% encodes to.
-define(MAX_BASE58_DATA, 8192).
-define(MAX_BASE58_TEXT, 11_188).

-include("esdb_nif.hrl").

%% Ed25519

-doc """
Whether `Signature` is a valid signature of `Message` by `Key`, 32 bytes or a handle of
`verify_key/1`.

Whatever is malformed (a key, a signature or a message of another type or length) is not valid:
`false`.

Without the library OTP hashes the message in one go, about 2 ms for a megabyte, on a normal
scheduler; with it long messages go to a dirty one.
""".
-spec verify_ed25519(Message, Signature, Key) -> boolean() when
    Message :: iodata() | term(),
    Signature :: binary() | term(),
    Key :: binary() | key() | term().
verify_ed25519(Message, Signature, Key) ->
    case signed_item({Message, Signature, Key}) of
        {Data, _, _} when byte_size(Data) =< ?SHORT_SIGNED -> verify_n(Data, Signature, Key);
        {Data, _, _} -> verify_d(Data, Signature, Key);
        malformed -> false
    end.

-doc """
`verify_ed25519/3` of each `{Message, Signature, Key}`, in their order.

Each answer is that of the single call; what is no such tuple is `false`. With the native library
each key is prepared once, so it gains most where few keys signed many messages. In Erlang each
signature is one call of OTP's, which does not give way to other processes: a megabyte of message
takes some milliseconds. Something else than a proper list is `badarg`.
""".
-spec verify_ed25519_batch(Items) -> [boolean()] when
    Items :: [{iodata(), binary(), binary() | key()} | term()].
verify_ed25519_batch(Items) ->
    Checked = signed_items(Items),
    case signed_weight(Checked, 0) of
        Weight when Weight =< ?SHORT_SIGNATURES -> verify_batch_n(Checked);
        _ -> verify_batch_d(Checked)
    end.

-doc """
Decodes and checks a public key once, for many verifications.

It can be kept, shared by processes and sent to other nodes. `{error, invalid_key}` is the answer
for bytes under which no signature is valid: not 32, not a point of the curve, not canonical, of
small order. Something else than a binary is `badarg`.
""".
-spec verify_key(PublicKey :: binary()) -> {ok, key()} | {error, invalid_key}.
verify_key(PublicKey) when is_binary(PublicKey) -> verify_key_n(PublicKey);
verify_key(_) -> error(badarg).

-doc """
The signature (64 bytes) of `Message` with a private key: the 32 bytes that RFC 8032 calls the seed,
and that `crypto:generate_key(eddsa, ed25519)` gives. Another length is `badarg`.

Without the library OTP does it in one go on a normal scheduler, about 4 ms for a megabyte.
""".
-spec sign_ed25519(Message :: iodata(), PrivateKey :: <<_:256>>) -> <<_:512>>.
sign_ed25519(Message, PrivateKey) when
    is_binary(Message), is_binary(PrivateKey), byte_size(PrivateKey) =:= 32
->
    case byte_size(Message) =< ?SHORT_SIGNED of
        true -> sign_n(Message, PrivateKey);
        false -> sign_d(Message, PrivateKey)
    end;
sign_ed25519(Message, PrivateKey) when is_list(Message) ->
    sign_ed25519(iolist_to_binary(Message), PrivateKey);
sign_ed25519(_, _) ->
    error(badarg).

%% Digests and secrets

-doc "SHA-256, 32 bytes.".
-spec hash_sha256(Data :: iodata()) -> <<_:256>>.
hash_sha256(Data) when is_binary(Data), byte_size(Data) =< ?OTP_DIGEST -> sha256_n(Data);
hash_sha256(Data) when is_binary(Data) -> esdb_crypto_erl:sha256(Data);
hash_sha256(Data) -> hash_sha256(flat(Data)).

-doc "SHA-256 as 43 characters of URL-safe Base64 without padding.".
-spec hash_sha256_base64(Data :: iodata()) -> <<_:344>>.
hash_sha256_base64(Data) when is_binary(Data), byte_size(Data) =< ?OTP_DIGEST ->
    sha256_base64_n(Data);
hash_sha256_base64(Data) when is_binary(Data) ->
    base64_encode_urlsafe(esdb_crypto_erl:sha256(Data));
hash_sha256_base64(Data) ->
    hash_sha256_base64(flat(Data)).

-doc "HMAC with SHA-256 (RFC 2104), 32 bytes, with a key of any length.".
-spec hmac_sha256(Key :: iodata(), Data :: iodata()) -> <<_:256>>.
hmac_sha256(Key, Data) when is_binary(Key), is_binary(Data) ->
    case byte_size(Key) + byte_size(Data) of
        Size when Size =< ?SHORT_SIGNED -> hmac_sha256_n(Key, Data);
        _ -> esdb_crypto_erl:hmac_sha256(Key, Data)
    end;
hmac_sha256(Key, Data) when is_list(Key) ->
    hmac_sha256(iolist_to_binary(Key), Data);
hmac_sha256(Key, Data) when is_binary(Key) ->
    hmac_sha256(Key, flat(Data));
hmac_sha256(_, _) ->
    error(badarg).

-doc """
Whether two binaries are equal, in a time that does not depend on where they differ.

Binaries of different lengths are not, and that is told at once. Something else than binaries is
`badarg`.
""".
-spec secure_compare(Left :: binary(), Right :: binary()) -> boolean().
secure_compare(Left, Right) when is_binary(Left), is_binary(Right) ->
    case byte_size(Left) of
        Size when Size =< ?SHORT_EQUAL -> equal_n(Left, Right);
        _ -> equal_d(Left, Right)
    end;
secure_compare(_, _) ->
    error(badarg).

%% Text encodings

-doc "Base64 for URLs and file names (RFC 4648, section 5) without padding.".
-spec base64_encode_urlsafe(Data :: iodata()) -> binary().
base64_encode_urlsafe(Data) when is_binary(Data), byte_size(Data) =< ?SHORT_BASE64 ->
    base64_encode_n(Data);
base64_encode_urlsafe(Data) when is_binary(Data) ->
    base64_encode_d(Data);
base64_encode_urlsafe(Data) ->
    base64_encode_urlsafe(flat(Data)).

-doc """
The data of an encoding that `base64_encode_urlsafe/1` makes, and of nothing else.

Padding, white space, `+` and `/`, a character over, and bits beyond the last byte that are not zero
are `{error, invalid_base64}`: two texts never stand for the same data.
""".
-spec base64_decode_urlsafe(Text :: iodata()) -> {ok, binary()} | {error, invalid_base64}.
base64_decode_urlsafe(Text) when is_binary(Text), byte_size(Text) =< ?SHORT_BASE64 ->
    base64_decode_n(Text);
base64_decode_urlsafe(Text) when is_binary(Text) ->
    base64_decode_d(Text);
base64_decode_urlsafe(Text) ->
    base64_decode_urlsafe(flat(Text)).

-doc """
Base58 with the Bitcoin alphabet; each zero byte in front is a `1` in front.

The work grows with the square of the length, so more than 8,192 bytes are `badarg`.
""".
-spec base58_encode(Data :: iodata()) -> binary().
base58_encode(Data) when is_binary(Data), byte_size(Data) =< ?SHORT_BASE58 ->
    base58_encode_n(Data);
base58_encode(Data) when is_binary(Data), byte_size(Data) =< ?MAX_BASE58_DATA ->
    base58_encode_d(Data);
base58_encode(Data) when is_list(Data) ->
    base58_encode(iolist_to_binary(Data));
base58_encode(_) ->
    error(badarg).

-doc """
The data of a Base58 text.

## Errors

- `{invalid_base58_char, C}`: `C` is the first byte that is not in the alphabet;
- `too_large`: the data is longer than the 8,192 bytes that `base58_encode/1` takes. A text of more
  than 11,188 bytes is not looked at.
""".
-spec base58_decode(Text :: iodata()) ->
    {ok, binary()} | {error, {invalid_base58_char, byte()} | too_large}.
base58_decode(Text) when is_binary(Text), byte_size(Text) =< ?SHORT_BASE58 ->
    base58_decode_n(Text);
base58_decode(Text) when is_binary(Text), byte_size(Text) =< ?MAX_BASE58_TEXT ->
    within_base58(base58_decode_d(Text));
base58_decode(Text) when is_binary(Text) ->
    {error, too_large};
base58_decode(Text) ->
    base58_decode(flat(Text)).

%% The longest texts may stand for a byte more.
-spec within_base58(Result) -> Result | {error, too_large} when
    Result :: {ok, binary()} | {error, {invalid_base58_char, byte()}}.
within_base58({ok, Data}) when byte_size(Data) > ?MAX_BASE58_DATA -> {error, too_large};
within_base58(Result) -> Result.

%% Arguments

-spec flat(iodata() | term()) -> binary().
flat(Data) when is_list(Data) -> iolist_to_binary(Data);
flat(_) -> error(badarg).

-type signed_item() :: {binary(), <<_:512>>, <<_:256>> | key()}.

-spec signed_items([term()] | term()) -> [signed_item() | malformed].
signed_items([Item | Items]) -> [signed_item(Item) | signed_items(Items)];
signed_items([]) -> [];
signed_items(_) -> error(badarg).

%% The item with its message as a binary.
-spec signed_item(term()) -> signed_item() | malformed.
signed_item({Message, Signature, Key} = Item) when
    is_binary(Signature), byte_size(Signature) =:= 64
->
    case is_key(Key) of
        true when is_binary(Message) -> Item;
        true when is_list(Message) -> flat_message(Item);
        _ -> malformed
    end;
signed_item(_) ->
    malformed.

-spec flat_message({iolist(), <<_:512>>, <<_:256>> | key()}) -> signed_item() | malformed.
flat_message({Message, Signature, Key}) ->
    try
        {iolist_to_binary(Message), Signature, Key}
    catch
        error:badarg -> malformed
    end.

-spec is_key(term()) -> boolean().
is_key({esdb_ed25519_key, Key, _Ref}) -> is_binary(Key) andalso byte_size(Key) =:= 32;
is_key(Key) -> is_binary(Key) andalso byte_size(Key) =:= 32.

-spec signed_weight([signed_item() | malformed], non_neg_integer()) -> non_neg_integer().
signed_weight([{Message, _, _} | Items], Sum) ->
    signed_weight(Items, Sum + byte_size(Message) + ?SIGNATURE);
signed_weight([malformed | Items], Sum) ->
    signed_weight(Items, Sum + ?MALFORMED);
signed_weight([], Sum) ->
    Sum.

%% Replaced when the library is loaded: _n on the caller's scheduler, _d on a dirty one

-spec verify_n(binary(), binary(), binary() | key()) -> boolean().
verify_n(Message, Signature, Key) -> verify_in_erlang({Message, Signature, Key}).

-spec verify_d(binary(), binary(), binary() | key()) -> boolean().
verify_d(Message, Signature, Key) -> verify_in_erlang({Message, Signature, Key}).

-spec verify_batch_n([signed_item() | malformed]) -> [boolean()].
verify_batch_n(Items) -> [verify_in_erlang(Item) || Item <- Items].

-spec verify_batch_d([signed_item() | malformed]) -> [boolean()].
verify_batch_d(Items) -> [verify_in_erlang(Item) || Item <- Items].

-spec verify_in_erlang(signed_item() | malformed) -> boolean().
verify_in_erlang({Message, Signature, {esdb_ed25519_key, Key, _Ref}}) ->
    esdb_crypto_erl:verify(Message, Signature, Key);
verify_in_erlang({Message, Signature, Key}) ->
    esdb_crypto_erl:verify(Message, Signature, Key);
verify_in_erlang(malformed) ->
    false.

-spec verify_key_n(binary()) -> {ok, key()} | {error, invalid_key}.
verify_key_n(PublicKey) -> esdb_crypto_erl:verify_key(PublicKey).

-spec sign_n(binary(), binary()) -> binary().
sign_n(Message, PrivateKey) -> esdb_crypto_erl:sign(Message, PrivateKey).

-spec sign_d(binary(), binary()) -> binary().
sign_d(Message, PrivateKey) -> esdb_crypto_erl:sign(Message, PrivateKey).

-spec sha256_n(binary()) -> binary().
sha256_n(Data) -> esdb_crypto_erl:sha256(Data).

-spec sha256_base64_n(binary()) -> binary().
sha256_base64_n(Data) -> esdb_crypto_erl:sha256_base64(Data).

-spec hmac_sha256_n(binary(), binary()) -> binary().
hmac_sha256_n(Key, Data) -> esdb_crypto_erl:hmac_sha256(Key, Data).

-spec equal_n(binary(), binary()) -> boolean().
equal_n(Left, Right) -> esdb_crypto_erl:equal(Left, Right).

-spec equal_d(binary(), binary()) -> boolean().
equal_d(Left, Right) -> esdb_crypto_erl:equal(Left, Right).

-spec base64_encode_n(binary()) -> binary().
base64_encode_n(Data) -> esdb_crypto_erl:base64_encode(Data).

-spec base64_encode_d(binary()) -> binary().
base64_encode_d(Data) -> esdb_crypto_erl:base64_encode(Data).

-spec base64_decode_n(binary()) -> {ok, binary()} | {error, invalid_base64}.
base64_decode_n(Text) -> esdb_crypto_erl:base64_decode(Text).

-spec base64_decode_d(binary()) -> {ok, binary()} | {error, invalid_base64}.
base64_decode_d(Text) -> esdb_crypto_erl:base64_decode(Text).

-spec base58_encode_n(binary()) -> binary().
base58_encode_n(Data) -> esdb_crypto_erl:base58_encode(Data).

-spec base58_encode_d(binary()) -> binary().
base58_encode_d(Data) -> esdb_crypto_erl:base58_encode(Data).

-spec base58_decode_n(binary()) -> {ok, binary()} | {error, {invalid_base58_char, byte()}}.
base58_decode_n(Text) -> esdb_crypto_erl:base58_decode(Text).

-spec base58_decode_d(binary()) -> {ok, binary()} | {error, {invalid_base58_char, byte()}}.
base58_decode_d(Text) -> esdb_crypto_erl:base58_decode(Text).
