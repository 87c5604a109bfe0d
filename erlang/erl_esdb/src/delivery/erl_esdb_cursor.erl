-module(erl_esdb_cursor).
-moduledoc """
A place in the log of a store, and what is wanted from there on.

```erlang
1> {ok, Filter} = erl_esdb_filters:compile(event_type, ~"Paid").
2> {more, Events, Cursor1} = erl_esdb_cursor:page(erl_esdb_cursor:new(shop, Filter, 0), 100).
```

Where only one stream can be meant, that stream is read and nothing else. The place is a position
all the same: a stream that is deleted and made again begins at version 0, with positions that go
on.

In a store that signs what it holds, the events that are wanted are verified before they are
answered, old ones and new ones alike (`m:erl_esdb_integrity`); those of the log are read once more
from their streams for that.
""".

-export([new/3, page/2, position/1, first_position/5]).
-export_type([cursor/0]).

-include("erl_esdb.hrl").

-record(stream, {
    name :: binary(),
    %% number of the stream, which tells one from another of the same name, and its next version
    no :: pos_integer() | undefined,
    version = 0 :: non_neg_integer()
}).

-record(cursor, {
    store :: atom(),
    filter :: erl_esdb_filters:filter(),
    position :: non_neg_integer(),
    stream :: #stream{} | undefined
}).

-opaque cursor() :: #cursor{}.

-doc "A cursor that begins at a position.".
-spec new(Store :: atom(), erl_esdb_filters:filter(), Position :: non_neg_integer()) -> cursor().
new(Store, Filter, Position) ->
    Stream =
        case erl_esdb_filters:stream(Filter) of
            {ok, Name} -> #stream{name = Name};
            any -> undefined
        end,
    #cursor{store = Store, filter = Filter, position = Position, stream = Stream}.

-doc "All before this position was read.".
-spec position(cursor()) -> non_neg_integer().
position(#cursor{position = Position}) -> Position.

-doc """
Reads on, at most so many events, and answers those that are wanted: `more` where there may be
others right now, `done` at the end of the log.

Errors: `{integrity_violation, Details}`, with `detected_at => catchup_replay` in the `context` of
the details, where an event that is wanted is not as it was written: then none is answered. And the
failures of a store.
""".
-spec page(cursor(), pos_integer()) ->
    {more | done, [event()], cursor()} | {error, term()}.
page(#cursor{store = Store, position = Position} = Cursor, Max) ->
    %% The end first: what is written from here on is not taken for read where nothing was found.
    case erl_esdb_store:next_position(Store) of
        {ok, End} when End =< Position -> {done, [], Cursor};
        {ok, End} -> page(Cursor, Max, End);
        {error, Reason} -> {error, Reason}
    end.

-spec page(cursor(), pos_integer(), non_neg_integer()) ->
    {more | done, [event()], cursor()} | {error, term()}.
page(#cursor{store = Store, position = Position, stream = undefined} = Cursor, Max, End) ->
    case erl_esdb_store:read_log(Store, Position, Max, forward, #{}) of
        {ok, Events} -> verified(answer(Events, End, Cursor), Cursor, Max);
        {error, Reason} -> {error, Reason}
    end;
page(#cursor{store = Store, stream = #stream{name = Name} = Stream} = Cursor, Max, End) ->
    maybe
        {ok, Info} ?= erl_esdb_store:info(Store, Name),
        {ok, #stream{no = No, version = Version} = Stream1} ?= current(Info, Stream, Cursor),
        {ok, Events} ?= erl_esdb_store:read(Store, Name, Version, Max, forward, #{}),
        %% The same before and after, so it was this one that was read; and where nothing was found,
        %% not because it begins later by now.
        {ok, #{no := No, first := First}} ?= erl_esdb_store:info(Store, Name),
        true ?= Events =/= [] orelse First =< Version,
        answer(Events, End, Cursor#cursor{stream = advanced(Events, Stream1)})
    else
        {error, {stream_not_found, _}} -> answer([], End, Cursor);
        {error, Reason} -> {error, detected(Reason)};
        {ok, _Another} -> page(Cursor, Max, End);
        false -> page(Cursor, Max, End)
    end.

%% What was read of the log, if its streams verify. What is there no more was removed meanwhile.
-spec verified({more | done, [event()], cursor()}, cursor(), pos_integer()) ->
    {more | done, [event()], cursor()} | {error, term()}.
verified({_, Events, _} = Answer, #cursor{store = Store} = Cursor, Max) ->
    maybe
        {ok, _, _, #{integrity := Keys}} ?= erl_esdb_store:engine(Store),
        true ?= Keys =/= disabled,
        ok ?= are_verified(Store, runs(Events)),
        Answer
    else
        removed -> page(Cursor, Max);
        {error, Reason} -> {error, detected(Reason)};
        _Unsigned -> Answer
    end.

-spec are_verified(atom(), [[event(), ...]]) -> ok | removed | {error, term()}.
are_verified(Store, [[#event{stream_id = Stream, version = From} | _] = Run | Runs]) ->
    Options = #{hidden => true},
    case erl_esdb_store:read(Store, Stream, From, length(Run), forward, Options) of
        {ok, Run} -> are_verified(Store, Runs);
        {ok, _Others} -> removed;
        {error, {stream_not_found, Stream}} -> removed;
        {error, Reason} -> {error, Reason}
    end;
are_verified(_Store, []) ->
    ok.

%% The events of each stream, those together whose versions follow each other.
-spec runs([event()]) -> [[event(), ...]].
runs(Events) ->
    Streams = maps:groups_from_list(fun(#event{stream_id = Stream}) -> Stream end, Events),
    lists:append([lists:foldr(fun run/2, [], Group) || _ := Group <- Streams]).

-spec run(event(), [[event(), ...]]) -> [[event(), ...]].
run(#event{version = V} = Event, [[#event{version = Next} | _] = Run | Runs]) when V + 1 =:= Next ->
    [[Event | Run] | Runs];
run(Event, Runs) ->
    [[Event] | Runs].

-spec detected(term()) -> term().
detected({integrity_violation, #{context := Context} = Details}) ->
    {integrity_violation, Details#{context := Context#{detected_at => catchup_replay}}};
detected(Reason) ->
    Reason.

-spec current(erl_esdb_log:info(), #stream{}, cursor()) -> {ok, #stream{}} | {error, term()}.
current(#{no := No, first := First}, #stream{no = No, version = Version} = Stream, _Cursor) ->
    %% A page of what was removed or hidden would have nothing, whatever comes after it.
    {ok, Stream#stream{version = max(First, Version)}};
current(#{no := No, first := First, next := Next}, #stream{name = Name} = Stream, Cursor) ->
    #cursor{store = Store, position = Position} = Cursor,
    case version_from(Store, Name, Position, First, Next) of
        {ok, Version} -> {ok, Stream#stream{no = No, version = Version}};
        {error, Reason} -> {error, Reason}
    end.

-spec advanced([event()], #stream{}) -> #stream{}.
advanced([], Stream) -> Stream;
advanced(Events, Stream) -> Stream#stream{version = (lists:last(Events))#event.version + 1}.

-spec answer([event()], non_neg_integer(), cursor()) -> {more | done, [event()], cursor()}.
answer([], End, #cursor{position = Position} = Cursor) ->
    {done, [], Cursor#cursor{position = max(Position, End)}};
answer(Events, _End, #cursor{filter = Filter, position = Position} = Cursor) ->
    Wanted = [E || E <- Events, E#event.position >= Position, erl_esdb_filters:matches(Filter, E)],
    #event{position = Last} = lists:last(Events),
    {more, Wanted, Cursor#cursor{position = max(Position, Last + 1)}}.

%% The first version from `Low' to before `High' whose event has this position or a later one: in a
%% stream positions rise with versions. What is removed meanwhile lies before it.
-spec version_from(atom(), binary(), non_neg_integer(), Version, Version) ->
    {ok, Version} | {error, term()}
when
    Version :: non_neg_integer().
version_from(_Store, _Name, _Position, Low, High) when Low >= High ->
    {ok, Low};
version_from(Store, Name, Position, Low, High) ->
    Middle = (Low + High) div 2,
    case erl_esdb_store:read(Store, Name, Middle, 1, forward, #{}) of
        {ok, [#event{position = At}]} when At >= Position ->
            version_from(Store, Name, Position, Low, Middle);
        {ok, _} ->
            version_from(Store, Name, Position, Middle + 1, High);
        {error, Reason} ->
            {error, Reason}
    end.

-doc """
The position of the first event of a stream from a version on; the end of the log where there is
none yet. Option: `timeout`, of each look into the store.
""".
-spec first_position(Store :: atom(), Stream :: binary(), Version :: non_neg_integer(), End, #{
    timeout => timeout(), _ => _
}) -> {ok, End} | {error, term()} when End :: non_neg_integer().
first_position(Store, Stream, Version, End, Options) ->
    case erl_esdb_store:info(Store, Stream, Options) of
        {ok, #{first := First}} ->
            From = max(First, Version),
            first_of(erl_esdb_store:read(Store, Stream, From, 1, forward, Options), End);
        {error, {stream_not_found, _}} ->
            {ok, End};
        {error, Reason} ->
            {error, Reason}
    end.

-spec first_of({ok, [event()]} | {error, term()}, End) -> {ok, End} | {error, term()} when
    End :: non_neg_integer().
first_of({ok, [#event{position = Position}]}, _End) when is_integer(Position) -> {ok, Position};
first_of({ok, []}, End) -> {ok, End};
first_of({error, {stream_not_found, _}}, End) -> {ok, End};
first_of({error, Reason}, _End) -> {error, Reason}.
