%% What every `esdb_*_nif` module begins with: it loads its library, where there is one, and tells.
%% The library replaces implementation/0 in place, so each module needs its own.

%% Handed to the library, which refuses to load into code of another version.
-ifndef(LOAD_INFO).
-define(LOAD_INFO, esdb_nif:version()).
-endif.

-export([implementation/0, is_nif_loaded/0]).
-nifs([implementation/0]).
-on_load(init_nif/0).
%% Dialyzer does not know that the library replaces implementation/0.
-dialyzer({nowarn_function, is_nif_loaded/0}).

-spec init_nif() -> ok | {error, term()}.
init_nif() ->
    esdb_nif:loaded(?MODULE, erlang:load_nif(esdb_nif:path(?MODULE), ?LOAD_INFO)).

-doc "Which implementation answers: `nif` when the library is loaded, else `erlang`.".
-spec implementation() -> esdb_nif:implementation().
implementation() -> erlang.

-doc "Whether the native library is loaded.".
-spec is_nif_loaded() -> boolean().
is_nif_loaded() -> implementation() =:= nif.
