-module(erl_esdb_ra_command).
-moduledoc """
Commands of `m:erl_esdb_log` as they are in the log of Ra, where what an append says besides its
events is written with each of them. What all appends say has its place in a tuple, without a name;
what few say stays in a map behind it. An append to one stream is its part alone.

```erlang
1> Append = {append, ~"s", -1, ~"events", #{count => 1, epoch_us => 5, ids => [7], facts => ~""}}.
2> erl_esdb_ra_command:pack(Append).
{<<"s">>,-1,<<"events">>,{1,5,[7],<<>>}}
3> erl_esdb_ra_command:unpack(v(2)) =:= Append.
true
```
""".

-export([pack/1, unpack/1]).
-export_type([packed/0]).

-import(erl_esdb_args, [all/2]).

-type packed() ::
    part()
    | {timeout, sweep}
    | {append_many, [part()], #{condition => erl_esdb_log:condition()}}
    | Other :: erl_esdb_log:command().
-type part() :: {Stream :: binary(), erl_esdb_log:expected(), Packed :: binary(), summary()}.
-type summary() ::
    {count(), EpochUs :: integer(), ids(), facts()}
    | {count(), EpochUs :: integer(), ids(), facts(), Rest :: map()}.
-type count() :: non_neg_integer().
-type ids() :: [erl_esdb_seen:hash()].
-type facts() :: erl_esdb_recent:facts().

-doc "As it is sent to Ra.".
-spec pack(erl_esdb_log:command()) -> packed().
pack({append, Stream, Expected, Packed, Summary}) ->
    {Stream, Expected, Packed, pack_summary(Summary)};
pack({append_many, Parts, Common}) ->
    {append_many, [{S, E, P, pack_summary(Summary)} || {S, E, P, Summary} <- Parts], Common};
pack(Command) ->
    Command.

-spec pack_summary(erl_esdb_log:summary()) -> summary().
pack_summary(#{count := Count, epoch_us := Time} = Summary) ->
    Ids = maps:get(ids, Summary, []),
    Facts = maps:get(facts, Summary, any),
    case maps:without([count, epoch_us, ids, facts], Summary) of
        Rest when map_size(Rest) =:= 0 -> {Count, Time, Ids, Facts};
        Rest -> {Count, Time, Ids, Facts, Rest}
    end.

-doc "As `m:erl_esdb_log` applies it. Whatever else it is given is what it answers.".
-spec unpack(packed() | term()) -> erl_esdb_log:command() | term().
unpack({Stream, Expected, Packed, Summary}) when is_binary(Stream) ->
    {append, Stream, Expected, Packed, unpack_summary(Summary)};
unpack({append_many, Parts, Common} = Command) ->
    case all(fun is_part/1, Parts) of
        true -> {append_many, [{S, E, P, unpack_summary(Y)} || {S, E, P, Y} <- Parts], Common};
        false -> Command
    end;
%% As a timer of the machine makes it.
unpack({timeout, sweep}) ->
    sweep;
unpack(Other) ->
    Other.

-spec is_part(term()) -> boolean().
is_part(Part) -> is_tuple(Part) andalso tuple_size(Part) =:= 4.

-spec unpack_summary(summary() | term()) -> erl_esdb_log:summary() | term().
unpack_summary({Count, Time, Ids, Facts}) ->
    #{count => Count, epoch_us => Time, ids => Ids, facts => Facts};
unpack_summary({Count, Time, Ids, Facts, #{} = Rest}) ->
    Rest#{count => Count, epoch_us => Time, ids => Ids, facts => Facts};
unpack_summary(Other) ->
    Other.
