-module(bench_crypto).
-moduledoc "Signatures, digests and encodings against OTP's, and Base58 against the Erlang twin.".

-export([run/0]).

-doc "Measures all rows.".
-spec run() -> ok.
run() ->
    esdb_bench:title("Crypto"),
    signatures(),
    long_messages(),
    digests(),
    lists:foreach(fun base64/1, [{"1 KiB", 1024, 4.0}, {"64 KiB", 65_536, 4.0}]),
    base58(rand:bytes(32)),
    esdb_bench:note("SHA-256 above 1 KiB and HMAC above 64 KiB are OTP's in both modes.", []).

-spec signatures() -> float().
signatures() ->
    {Public, Private} = crypto:generate_key(eddsa, ed25519),
    Message = rand:bytes(350),
    Signature = crypto:sign(eddsa, none, Message, [Private, ed25519]),
    {ok, Key} = esdb_crypto_nif:verify_key(Public),
    Ours = fun(By) -> esdb_crypto_nif:verify_ed25519(Message, Signature, By) end,
    Otp = fun() -> crypto:verify(eddsa, none, Message, Signature, [Public, ed25519]) end,
    compare("Ed25519 verify, one by one", 2.5, #{
        ours => {"verify_ed25519", fun() -> Ours(Public) end},
        rival => {"crypto:verify", Otp}
    }),
    compare("Ed25519 verify, prepared key", 3.5, #{
        ours => {"verify_ed25519", fun() -> Ours(Key) end},
        rival => {"crypto:verify", Otp}
    }),
    Items = lists:duplicate(100, {Message, Signature, Public}),
    compare("Ed25519 verify, batch of 100, one key", none, #{
        ours => {"verify_ed25519_batch", fun() -> esdb_crypto_nif:verify_ed25519_batch(Items) end},
        rival => {"crypto:verify of each", fun() -> [Otp() || _ <- Items] end}
    }),
    compare("Ed25519 sign", none, #{
        ours => {"sign_ed25519", fun() -> esdb_crypto_nif:sign_ed25519(Message, Private) end},
        rival => {"crypto:sign", fun() -> crypto:sign(eddsa, none, Message, [Private, ed25519]) end}
    }).

%% What is long is done on another scheduler: OTP's is faster there, and blocks.
-spec long_messages() -> ok.
long_messages() ->
    {Public, Private} = crypto:generate_key(eddsa, ed25519),
    lists:foreach(
        fun({Name, Size}) ->
            Message = rand:bytes(Size),
            Sign = fun() -> crypto:sign(eddsa, none, Message, [Private, ed25519]) end,
            Signature = Sign(),
            compare("Ed25519 verify, " ++ Name, none, #{
                ours => {"verify_ed25519", fun() ->
                    esdb_crypto_nif:verify_ed25519(Message, Signature, Public)
                end},
                rival => {"crypto:verify", fun() ->
                    crypto:verify(eddsa, none, Message, Signature, [Public, ed25519])
                end}
            }),
            compare("Ed25519 sign, " ++ Name, none, #{
                ours => {"sign_ed25519", fun() ->
                    esdb_crypto_nif:sign_ed25519(Message, Private)
                end},
                rival => {"crypto:sign", Sign}
            })
        end,
        [{"64 KiB", 65_536}, {"1 MiB", 1_048_576}]
    ).

-spec digests() -> float().
digests() ->
    Data = rand:bytes(350),
    Key = rand:bytes(32),
    Same = binary:copy(Key),
    compare("SHA-256, 350 B", none, #{
        ours => {"hash_sha256", fun() -> esdb_crypto_nif:hash_sha256(Data) end},
        rival => {"crypto:hash", fun() -> crypto:hash(sha256, Data) end}
    }),
    compare("HMAC-SHA-256, 350 B", none, #{
        ours => {"hmac_sha256", fun() -> esdb_crypto_nif:hmac_sha256(Key, Data) end},
        rival => {"crypto:mac", fun() -> crypto:mac(hmac, sha256, Key, Data) end}
    }),
    compare("secure_compare, 32 B", none, #{
        ours => {"secure_compare", fun() -> esdb_crypto_nif:secure_compare(Key, Same) end},
        rival => {"crypto:hash_equals", fun() -> crypto:hash_equals(Key, Same) end}
    }).

-spec base64({string(), pos_integer(), float()}) -> float().
base64({Size, Bytes, Goal}) ->
    Data = rand:bytes(Bytes),
    Options = #{mode => urlsafe, padding => false},
    Text = base64:encode(Data, Options),
    compare("Base64 encode, " ++ Size, Goal, #{
        ours => {"base64_encode_urlsafe", fun() -> esdb_crypto_nif:base64_encode_urlsafe(Data) end},
        rival => {"base64:encode/2", fun() -> base64:encode(Data, Options) end}
    }),
    compare("Base64 decode, " ++ Size, none, #{
        ours => {"base64_decode_urlsafe", fun() -> esdb_crypto_nif:base64_decode_urlsafe(Text) end},
        rival => {"base64:decode/2", fun() -> {ok, base64:decode(Text, Options)} end}
    }).

-spec base58(binary()) -> float().
base58(Data) ->
    Text = esdb_crypto_erl:base58_encode(Data),
    compare("Base58 encode, 32 B", 8.0, #{
        ours => {"base58_encode", fun() -> esdb_crypto_nif:base58_encode(Data) end},
        rival => {"twin", fun() -> esdb_crypto_erl:base58_encode(Data) end}
    }),
    compare("Base58 decode, 32 B", none, #{
        ours => {"base58_decode", fun() -> esdb_crypto_nif:base58_decode(Text) end},
        rival => {"twin", fun() -> esdb_crypto_erl:base58_decode(Text) end}
    }).

-spec compare(string(), float() | none, esdb_bench:row()) -> float().
compare(What, none, Row) -> esdb_bench:compare(What, Row);
compare(What, Goal, Row) -> esdb_bench:compare(What, Row#{goal => Goal}).
