-module(erl_esdb_pattern).
-moduledoc """
Patterns of stream names: `*` stands for any bytes, also none; everything else, `?` too, for itself.

```erlang
1> Pattern = erl_esdb_pattern:compile(~"order-*").
2> erl_esdb_pattern:matches(~"order-7", Pattern).
true
3> erl_esdb_pattern:prefix(Pattern).
~"order-"
```
""".

-export([compile/1, matches/2, prefix/1, name/1]).
-export_type([pattern/0]).

-opaque pattern() :: {exact, binary()} | {Prefix :: binary(), [binary()], Suffix :: binary()}.

-doc "Takes a pattern apart at its stars.".
-spec compile(binary()) -> pattern().
compile(Pattern) ->
    case binary:split(Pattern, ~"*", [global]) of
        [Name] -> {exact, Name};
        [Prefix | Rest] -> {Prefix, [P || P <- lists:droplast(Rest), P =/= <<>>], lists:last(Rest)}
    end.

-doc "What all names that match begin with.".
-spec prefix(pattern()) -> binary().
prefix({exact, Name}) -> Name;
prefix({Prefix, _, _}) -> Prefix.

-doc "The only name that matches, where there is but one.".
-spec name(pattern()) -> {ok, binary()} | several.
name({exact, Name}) -> {ok, Name};
name(_) -> several.

-doc """
Whether a name matches.

The first place of each part is as good as any later one, so the time is linear in the name.
""".
-spec matches(binary(), pattern()) -> boolean().
matches(Name, {exact, Pattern}) ->
    Name =:= Pattern;
matches(Name, {Prefix, Parts, Suffix}) ->
    Inner = byte_size(Name) - byte_size(Prefix) - byte_size(Suffix),
    Inner >= 0 andalso
        binary:longest_common_prefix([Name, Prefix]) =:= byte_size(Prefix) andalso
        binary:longest_common_suffix([Name, Suffix]) =:= byte_size(Suffix) andalso
        has(binary_part(Name, byte_size(Prefix), Inner), Parts).

-spec has(binary(), [binary()]) -> boolean().
has(_Inner, []) ->
    true;
has(Inner, [Part | Parts]) ->
    case binary:match(Inner, Part) of
        {At, Size} -> has(behind(At + Size, Inner), Parts);
        nomatch -> false
    end.

-spec behind(non_neg_integer(), binary()) -> binary().
behind(At, Name) -> binary_part(Name, At, byte_size(Name) - At).
