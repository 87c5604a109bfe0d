-module(esdb_hash_nif).
-moduledoc "Non-cryptographic hashes (skeleton).".

-export([fnv1a/1]).
-export([implementation/0, is_nif_loaded/0]).

-nifs([implementation/0, fnv1a_n/1, fnv1a_d/1]).
-on_load(init_nif/0).

-define(SHORT, 262_144).

-spec init_nif() -> ok | {error, term()}.
init_nif() ->
    esdb_nif:loaded(?MODULE, erlang:load_nif(esdb_nif:path(?MODULE), esdb_nif:version())).

-doc "Which implementation answers: `nif` when the library is loaded, else `erlang`.".
-spec implementation() -> esdb_nif:implementation().
implementation() -> erlang.

-doc "Whether the native library is loaded.".
-spec is_nif_loaded() -> boolean().
is_nif_loaded() -> implementation() =:= nif.

-spec fnv1a(Data :: iodata()) -> 0..16#FFFFFFFFFFFFFFFF.
fnv1a(Data) when is_binary(Data), byte_size(Data) =< ?SHORT -> fnv1a_n(Data);
fnv1a(Data) when is_binary(Data) -> fnv1a_d(Data);
fnv1a(Data) when is_list(Data) -> fnv1a(iolist_to_binary(Data));
fnv1a(_) -> error(badarg).

fnv1a_n(Data) -> esdb_hash_erl:fnv1a(Data).
fnv1a_d(Data) -> esdb_hash_erl:fnv1a(Data).
