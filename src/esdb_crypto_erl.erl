-module(esdb_crypto_erl).
-moduledoc false.
%% The twin of the library behind esdb_crypto_nif: OTP's crypto and base64, made as strict as it,
%% and Base58 by big integers. Arguments are checked by esdb_crypto_nif.

-export([verify/3, verify_key/1, sign/2]).
-export([sha256/1, sha256_base64/1, hmac_sha256/2, equal/2]).
-export([base64_encode/1, base64_decode/1]).
-export([base58_encode/1, base58_decode/1]).

%% The field of Curve25519 is the integers modulo P; the points of prime order are L.
-define(P, (1 bsl 255 - 19)).
-define(L, (1 bsl 252 + 27742317777372353535851937790883648493)).
%% The curve is -x^2 + y^2 = 1 + D x^2 y^2.
-define(D, 37095705934669439343138083508754565189542113879843219016388785533085940283555).
%% A y-coordinate of the points of order 8; the other one is P minus it.
-define(Y8, 2707385501144840649318225287225658788936804267575313519463743609750303402022).

-define(ALPHABET, ~"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz").
%% A check in reductions, of which a process has 4,000 until it is interrupted, about a
%% millisecond. OTP does not count the time of its calls, so a process that makes many would not be
%% interrupted.
-define(CHECK, 600).
%% Bytes that are compared in the time of a reduction.
-define(EQUAL, 128).
%% 58^10, the greatest power that is a small integer.
-define(DIGITS, 10).
-define(CHUNK, 430804206899405824).

%% Ed25519

%% crypto:verify/5 checks without the cofactor and refuses S >= L, but takes keys and R of small
%% order, and whether it takes other unusual encodings depends on the version of OpenSSL; some of
%% them it raises on.
-spec verify(binary(), binary(), binary()) -> boolean().
verify(Message, <<R:32/binary, S:256/little>> = Signature, <<_:32/binary>> = Key) when S < ?L ->
    is_acceptable(R) andalso is_acceptable(Key) andalso otp_verify(Message, Signature, Key);
verify(_, _, _) ->
    false.

-spec otp_verify(binary(), binary(), binary()) -> boolean().
otp_verify(Message, Signature, Key) ->
    true = erlang:bump_reductions(?CHECK),
    try
        crypto:verify(eddsa, none, Message, Signature, [Key, ed25519])
    catch
        %% An encoding that this version of OpenSSL does not even take. That it has no Ed25519 at
        %% all is no answer to whether a signature is valid.
        error:{Class, _, _} when Class =/= notsup -> false
    end.

%% Whether the y-coordinate is below P and not that of a point whose order divides 8.
-spec is_acceptable(binary()) -> boolean().
is_acceptable(<<Encoding:256/little>>) ->
    Y = y(Encoding),
    Y < ?P andalso not lists:member(Y, [0, 1, ?P - 1, ?Y8, ?P - ?Y8]).

%% Without the sign of x.
-spec y(non_neg_integer()) -> non_neg_integer().
y(Encoding) -> Encoding band (1 bsl 255 - 1).

-spec verify_key(binary()) -> {ok, {esdb_ed25519_key, binary(), none}} | {error, invalid_key}.
verify_key(<<Encoding:256/little>> = Key) ->
    case is_acceptable(Key) andalso is_on_curve(y(Encoding)) of
        true -> {ok, {esdb_ed25519_key, Key, none}};
        false -> {error, invalid_key}
    end;
verify_key(_) ->
    {error, invalid_key}.

%% x^2 = (y^2 - 1) / (D y^2 + 1) has a solution if numerator times denominator is a square (Euler).
-spec is_on_curve(non_neg_integer()) -> boolean().
is_on_curve(Y) ->
    true = erlang:bump_reductions(?CHECK),
    YY = Y * Y rem ?P,
    Product = (YY - 1) * (?D * YY + 1) rem ?P,
    binary:decode_unsigned(crypto:mod_pow(Product, (?P - 1) div 2, ?P)) =:= 1.

-spec sign(binary(), binary()) -> binary().
sign(Message, PrivateKey) ->
    true = erlang:bump_reductions(?CHECK),
    crypto:sign(eddsa, none, Message, [PrivateKey, ed25519]).

%% Digests and secrets

-spec sha256(binary()) -> binary().
sha256(Data) -> crypto:hash(sha256, Data).

-spec sha256_base64(binary()) -> binary().
sha256_base64(Data) -> base64_encode(sha256(Data)).

-spec hmac_sha256(binary(), binary()) -> binary().
hmac_sha256(Key, Data) -> crypto:mac(hmac, sha256, Key, Data).

-spec equal(binary(), binary()) -> boolean().
equal(Left, Right) when byte_size(Left) =:= byte_size(Right) ->
    true = erlang:bump_reductions(1 + byte_size(Left) div ?EQUAL),
    crypto:hash_equals(Left, Right);
equal(_, _) ->
    false.

%% Base64

-spec base64_encode(binary()) -> binary().
base64_encode(Data) -> base64:encode(Data, #{mode => urlsafe, padding => false}).

%% base64 is lenient (white space, padding, bits beyond the last byte). Each data has one encoding:
%% what is not the encoding of what it decodes to is none.
-spec base64_decode(binary()) -> {ok, binary()} | {error, invalid_base64}.
base64_decode(Text) ->
    try base64:decode(Text, #{mode => urlsafe, padding => false}) of
        Data ->
            case base64_encode(Data) of
                Text -> {ok, Data};
                _ -> {error, invalid_base64}
            end
    catch
        error:_ -> {error, invalid_base64}
    end.

%% Base58

-spec base58_encode(binary()) -> binary().
base58_encode(Data) ->
    {Zeros, Number} = zeros_and_rest(Data, 0, 0),
    Text = base58_chunks(binary:decode_unsigned(Number), <<>>),
    <<(binary:copy(~"1", Zeros))/binary, Text/binary>>.

-spec base58_chunks(non_neg_integer(), binary()) -> binary().
base58_chunks(Number, Text) when Number < ?CHUNK ->
    <<(base58_digits(Number, <<>>))/binary, Text/binary>>;
base58_chunks(Number, Text) ->
    Digits = base58_digits(Number rem ?CHUNK, <<>>),
    Padding = binary:copy(~"1", ?DIGITS - byte_size(Digits)),
    base58_chunks(Number div ?CHUNK, <<Padding/binary, Digits/binary, Text/binary>>).

-spec base58_digits(non_neg_integer(), binary()) -> binary().
base58_digits(0, Text) ->
    Text;
base58_digits(Number, Text) ->
    base58_digits(Number div 58, <<(binary:at(?ALPHABET, Number rem 58)), Text/binary>>).

-spec base58_decode(binary()) -> {ok, binary()} | {error, {invalid_base58_char, byte()}}.
base58_decode(Text) ->
    case base58_values(Text, <<>>) of
        {ok, Values} ->
            {Zeros, Digits} = zeros_and_rest(Values, 0, 0),
            {ok, <<0:Zeros/unit:8, (minimal(base58_number(Digits, 0)))/binary>>};
        {error, _} = Error ->
            Error
    end.

-spec base58_values(binary(), binary()) -> {ok, binary()} | {error, {invalid_base58_char, byte()}}.
base58_values(<<Character, Text/binary>>, Values) ->
    case base58_value(Character) of
        none -> {error, {invalid_base58_char, Character}};
        Value -> base58_values(Text, <<Values/binary, Value>>)
    end;
base58_values(<<>>, Values) ->
    {ok, Values}.

-spec base58_value(byte()) -> 0..57 | none.
base58_value(C) when C >= $1, C =< $9 -> C - $1;
base58_value(C) when C >= $A, C =< $H -> C - $A + 9;
base58_value(C) when C >= $J, C =< $N -> C - $J + 17;
base58_value(C) when C >= $P, C =< $Z -> C - $P + 22;
base58_value(C) when C >= $a, C =< $k -> C - $a + 33;
base58_value(C) when C >= $m, C =< $z -> C - $m + 44;
base58_value(_) -> none.

-spec base58_number(binary(), non_neg_integer()) -> non_neg_integer().
base58_number(<<Chunk:?DIGITS/binary, Digits/binary>>, Number) ->
    base58_number(Digits, Number * ?CHUNK + small_number(Chunk, 0));
base58_number(<<Digit, Digits/binary>>, Number) ->
    base58_number(Digits, Number * 58 + Digit);
base58_number(<<>>, Number) ->
    Number.

-spec small_number(binary(), non_neg_integer()) -> non_neg_integer().
small_number(<<Digit, Digits/binary>>, Number) -> small_number(Digits, Number * 58 + Digit);
small_number(<<>>, Number) -> Number.

-spec minimal(non_neg_integer()) -> binary().
minimal(0) -> <<>>;
minimal(Number) -> binary:encode_unsigned(Number).

%% How many zero bytes come first, and the rest.
-spec zeros_and_rest(binary(), non_neg_integer(), byte()) -> {non_neg_integer(), binary()}.
zeros_and_rest(<<Zero, Rest/binary>>, Count, Zero) -> zeros_and_rest(Rest, Count + 1, Zero);
zeros_and_rest(Rest, Count, _) -> {Count, Rest}.
