-module(erl_esdb_args).
-moduledoc """
What modules of the store ask of the arguments that they are given, and counts, which may be
`infinity`.

```erlang
1> ok = erl_esdb_args:check(erl_esdb_args:is_natural(7)).
2> erl_esdb_args:less(infinity, 10).
infinity
```
""".

-export([check/1, is_natural/1, is_count/1, is_proper/1, all/2, stream_id/1, less/2]).

%% Bytes of a stream's name: it is kept in RAM, in a key.
-define(MAX_STREAM_ID, 65_536).

-doc "Raises `badarg` where something does not hold that the caller was to see to.".
-spec check(boolean()) -> ok.
check(true) -> ok;
check(false) -> error(badarg).

-doc "Whether this is an integer from 0 on.".
-spec is_natural(term()) -> boolean().
is_natural(Value) -> is_integer(Value) andalso Value >= 0.

-doc "Whether this is such an integer, or `infinity`.".
-spec is_count(term()) -> boolean().
is_count(Value) -> is_natural(Value) orelse Value =:= infinity.

-doc "Whether this is a list, with `[]` at its end.".
-spec is_proper(term()) -> boolean().
is_proper([_ | Rest]) -> is_proper(Rest);
is_proper(Rest) -> Rest =:= [].

-doc "Whether this is such a list, and all its elements are as the fun wants them.".
-spec all(fun((term()) -> boolean()), term()) -> boolean().
all(Is, List) -> is_proper(List) andalso lists:all(Is, List).

-doc "Whether a stream may have this name.".
-spec stream_id(binary()) -> ok | {error, {stream_id_too_long, pos_integer(), pos_integer()}}.
stream_id(Stream) when byte_size(Stream) > ?MAX_STREAM_ID ->
    {error, {stream_id_too_long, byte_size(Stream), ?MAX_STREAM_ID}};
stream_id(Stream) when is_binary(Stream) ->
    ok.

-doc "What is left of a count.".
-spec less(non_neg_integer() | infinity, non_neg_integer()) -> non_neg_integer() | infinity.
less(infinity, _Taken) -> infinity;
less(Left, Taken) when is_integer(Left), is_integer(Taken) -> Left - Taken.
