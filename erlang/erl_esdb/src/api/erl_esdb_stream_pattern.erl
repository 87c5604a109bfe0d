-module(erl_esdb_stream_pattern).
-moduledoc """
Patterns of stream names: `*` is any run of bytes, everything else is itself. A pattern matches a
whole name.

```erlang
1> Orders = erl_esdb_stream_pattern:compile(~"order-*").
2> erl_esdb_stream_pattern:matches(Orders, ~"order-1").
true
```
""".

-export([compile/1, matches/2, weight/1]).
-export_type([pattern/0]).

-opaque pattern() :: [binary(), ...].

-doc "Makes a pattern ready for many names.".
-spec compile(Pattern :: binary()) -> pattern().
compile(Pattern) when is_binary(Pattern) -> binary:split(Pattern, ~"*", [global]);
compile(_) -> error(badarg).

-doc "Whether the pattern matches the name.".
-spec matches(pattern(), Stream :: binary()) -> boolean().
matches([Name], Stream) ->
    Name =:= Stream;
matches([Prefix | Parts], Stream) ->
    Size = byte_size(Prefix),
    case Stream of
        <<Prefix:Size/binary, Rest/binary>> -> follow(Parts, Rest);
        _ -> false
    end.

%% The first place is as good as any for what is not the last part: it leaves most to the others.
-spec follow([binary(), ...], binary()) -> boolean().
follow([Suffix], Rest) ->
    Size = byte_size(Suffix),
    Size =< byte_size(Rest) andalso binary_part(Rest, byte_size(Rest), -Size) =:= Suffix;
follow([<<>> | Parts], Rest) ->
    follow(Parts, Rest);
follow([Part | Parts], Rest) ->
    case binary:split(Rest, Part) of
        [_, After] -> follow(Parts, After);
        [_] -> false
    end.

-doc "How many bytes a pattern names: of two that match, the one with more is the closer one.".
-spec weight(pattern()) -> non_neg_integer().
weight(Parts) -> iolist_size(Parts).
