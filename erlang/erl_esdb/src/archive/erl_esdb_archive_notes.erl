-module(erl_esdb_archive_notes).
-moduledoc """
What a store notes of the archives of its streams: under which names they stand, and which versions
were archived.

```erlang
1> {ok, Name} = erl_esdb_archive_notes:name(shop, ~"order-1", 7, #{}).
2> ok = erl_esdb_archive_notes:note({shop, ~"order-1", 7, #{}}, Name, {0, 100}).
3> erl_esdb_archive_notes:all(shop, ~"order-1", 7, #{}).
{ok,#{own => [Name],parts => #{Name => [{noted,0,100}]}}}
```

Notes are documents without content. All is in their keys, which end in the number of the stream and
one of these:

| | |
|---|---|
| `Name` | archives are written under this name |
| `{Name, noted, From, Before}` | these versions were archived under it |
| `{Name, unnoted, From, Before}` | of these it is not known |
| `replaced` | put again each time before notes are removed that others take the place of |

So who notes changes nothing that somebody else notes at the same time. A part that touches others
takes their place, so that a stream that is archived again and again has few.

Keys are listed one after the other, while they come and go: who lists them may pass the place of a
new one before it is there, and that of the old one after it is gone. So a list counts only where
nothing was replaced from its begin to its end.

A copy of a store that was restored goes another way than its model, which may have archived more
versions under a name since. So the copy gets the parts and not the name: it reads the archives of
its model as far as they are its past, and writes others.
""".

-export([name/4, all/4, note/3, forget/2, restore/3]).
-export([in_backup/1, past/2, joined/1]).
-export_type([notes/0, part/0, span/0, copied/0, at/0]).

-doc "Versions from the first to before the second.".
-type span() :: {non_neg_integer(), non_neg_integer()}.
-doc "Versions of which it is known, or not, that they were archived.".
-type part() :: {noted | unnoted, From :: non_neg_integer(), Before :: non_neg_integer()}.
-doc """
`own`: the names that archives are written under; each archive of these belongs to the stream. Of
the other names those versions do that are in parts.
""".
-type notes() :: #{own := [binary()], parts := #{binary() => [part()]}}.
-doc "In a backup; without versions where nothing is known of a name. Old ones have noted spans.".
-type copied() :: #{binary() => [part() | span()]}.
-doc "A store, a stream, its number, and the options of calls.".
-type at() :: {Store :: atom(), binary(), pos_integer(), #{timeout => timeout()}}.
%% How the key of a document ends.
-type note() :: binary() | {binary(), noted | unnoted, non_neg_integer(), non_neg_integer()}.

-doc """
A name that archives are written under; the first time one is made. Option: `timeout`. Errors, here
and where something is noted: `{stream_not_found, Stream}`, `{stream_replaced, Stream}` where the
stream has not that number any more; then nothing is noted under it.
""".
-spec name(Store :: atom(), Stream :: binary(), No :: pos_integer(), #{timeout => timeout()}) ->
    {ok, binary()} | {error, term()}.
name(Store, Stream, No, Timed) ->
    case all(Store, Stream, No, Timed) of
        {ok, #{own := [Name | _]}} -> {ok, Name};
        {ok, #{own := []}} -> made({Store, Stream, No, Timed});
        {error, Reason} -> {error, Reason}
    end.

-spec made(at()) -> {ok, binary()} | {error, term()}.
made(At) ->
    Name = binary:encode_hex(crypto:strong_rand_bytes(8), lowercase),
    maybe
        ok ?= put_each(At, [Name]),
        ok ?= still(At),
        {ok, Name}
    end.

%% Who deletes a stream then removes its notes: those that come later, who put them.
-spec still(at()) -> ok | {error, term()}.
still({Store, Stream, No, Timed} = At) ->
    case erl_esdb_store:tip(Store, Stream, Timed) of
        {ok, #{no := No}} -> ok;
        {ok, #{no := none}} -> remove_all(At, {stream_not_found, Stream});
        {ok, #{}} -> remove_all(At, {stream_replaced, Stream});
        {error, Reason} -> {error, Reason}
    end.

-spec remove_all(at(), Why :: term()) -> {error, term()}.
remove_all(At, Why) ->
    maybe
        {ok, Notes} ?= found(At),
        ok ?= remove_each(At, Notes),
        {error, Why}
    end.

-doc "All that is noted. Option: `timeout`.".
-spec all(Store :: atom(), Stream :: binary(), No :: pos_integer(), #{timeout => timeout()}) ->
    {ok, notes()} | {error, term()}.
all(Store, Stream, No, Timed) ->
    maybe
        {ok, Notes} ?= listed({Store, Stream, No, Timed}),
        {Parts, Own} = lists:partition(fun is_tuple/1, Notes),
        ByName = maps:groups_from_list(fun(Part) -> element(1, Part) end, Parts),
        {ok, #{
            own => Own,
            parts => #{Name => parts_of(Of) || Name := Of <- ByName}
        }}
    end.

-spec listed(at()) -> {ok, [note()]} | {error, term()}.
listed({Store, _, _, Timed} = At) ->
    maybe
        {ok, _, _, Settings} ?= erl_esdb_store:engine(Store),
        {ok, Replaced} ?= replaced(At),
        listed(At, Replaced, erl_esdb_store:deadline(Timed, Settings))
    end.

%% What was removed meanwhile without a change of the number was replaced before it was asked for.
-spec listed(at(), non_neg_integer(), erl_esdb_store:deadline()) ->
    {ok, [note()]} | {error, term()}.
listed({Store, _, _, _} = At, Replaced, Until) ->
    maybe
        {ok, Found} ?= found(At),
        {ok, Replaced} ?= replaced(At),
        {ok, [Note || Note <- Found, Note =/= replaced]}
    else
        {ok, Now} ->
            case erl_esdb_store:left(Until) of
                0 -> {error, {timeout, Store}};
                _ -> listed(At, Now, Until)
            end;
        {error, Reason} ->
            {error, Reason}
    end.

%% Every atom, tuple and binary is greater than every number.
-spec found(at()) -> {ok, [note() | replaced]} | {error, term()}.
found({Store, Stream, No, Timed}) ->
    {First, Last} = {{archive, Stream, No, 0}, {archive, Stream, No + 1, -1}},
    case erl_esdb_store:list_documents(Store, First, Last, Timed) of
        {ok, Found} -> {ok, [Note || {{archive, _, _, Note}, _} <- Found]};
        {error, Reason} -> {error, Reason}
    end.

%% How often notes were replaced.
-spec replaced(at()) -> {ok, non_neg_integer()} | {error, term()}.
replaced({Store, Stream, No, Timed}) ->
    Key = {archive, Stream, No, replaced},
    case erl_esdb_store:list_documents(Store, Key, Key, Timed) of
        {ok, Found} -> {ok, lists:sum([Count || {_, Count} <- Found])};
        {error, Reason} -> {error, Reason}
    end.

-spec parts_of([note()]) -> [part()].
parts_of(Notes) ->
    [
        {Kind, From, Before}
     || Kind <- [noted, unnoted],
        {From, Before} <- joined([{A, B} || {_, K, A, B} <- Notes, K =:= Kind])
    ].

-doc "Spans in their order; those that touch are one.".
-spec joined([span()]) -> [span()].
joined(Spans) -> join(lists:sort(Spans)).

-spec join([span()]) -> [span()].
join([{A, B}, {C, D} | Spans]) when C =< B -> join([{A, max(B, D)} | Spans]);
join([Span | Spans]) -> [Span | join(Spans)];
join([]) -> [].

-doc """
Notes that versions were archived under a name. What is removed in the end is part of what was put
before: whoever notes at the same time, also on another node, nothing is lost.
""".
-spec note(at(), Name :: binary(), span()) -> ok | {error, term()}.
note(At, Name, {From, Before}) ->
    in_turn(At, fun(Notes) ->
        Touching = [
            Note
         || {Of, noted, A, B} = Note <- Notes, Of =:= Name, A =< Before, B >= From
        ],
        Low = lists:min([From | [A || {_, _, A, _} <- Touching]]),
        High = lists:max([Before | [B || {_, _, _, B} <- Touching]]),
        {[{Name, noted, Low, High}], Touching -- [{Name, noted, Low, High}]}
    end).

-doc """
Forgets that versions were archived, under whatever name. Who notes what touches them, on another
node and at the same time, may note them again.
""".
-spec forget(at(), span()) -> ok | {error, term()}.
forget(At, {Low, High} = Span) ->
    in_turn(At, fun(Notes) ->
        Over = [Note || {_, noted, A, B} = Note <- Notes, A < High, Low < B],
        {lists:append([without(Note, Span) || Note <- Over]), Over}
    end).

%% One after the other on a node, as long as the time of a call lasts: what is put in the place of
%% others, and these.
-spec in_turn(at(), fun(([note()]) -> {[note()], [note()]})) -> ok | {error, term()}.
in_turn({Store, Stream, _, Timed} = At, Change) ->
    Try = fun
        (before) -> {again, turn};
        (turn) -> {done, change(At, Change)}
    end,
    maybe
        {ok, _, _, Settings} ?= erl_esdb_store:engine(Store),
        Until = erl_esdb_store:deadline(Timed, Settings),
        {ok, Changed} ?= erl_esdb_turns:run([{?MODULE, Store, Stream}], Until, Try, before),
        Changed
    else
        {error, timeout} -> {error, {timeout, Store}};
        {error, Reason} -> {error, Reason}
    end.

-spec change(at(), fun(([note()]) -> {[note()], [note()]})) -> ok | {error, term()}.
change(At, Change) ->
    maybe
        {ok, Notes} ?= listed(At),
        {New, Old} = Change(Notes),
        ok ?= put_each(At, New),
        ok ?= replace(At, Old),
        still(At)
    end.

-spec replace(at(), [note()]) -> ok | {error, term()}.
replace(_At, []) ->
    ok;
replace(At, Old) ->
    maybe
        ok ?= put_each(At, [replaced]),
        remove_each(At, Old)
    end.

-spec without(note(), span()) -> [note()].
without({Name, Kind, From, Before}, {Low, High}) ->
    [{Name, Kind, A, B} || {A, B} <- [{From, min(Before, Low)}, {max(From, High), Before}], A < B].

-spec put_each(at(), [note() | replaced]) -> ok | {error, term()}.
put_each({Store, _, _, Timed} = At, Notes) ->
    erl_esdb_store:put_documents(Store, [{key(At, Note), []} || Note <- Notes], Timed).

-spec remove_each(at(), [note() | replaced]) -> ok | {error, term()}.
remove_each({Store, _, _, Timed} = At, Notes) ->
    erl_esdb_store:delete_documents(Store, [key(At, Note) || Note <- Notes], Timed).

-spec key(at(), note() | replaced) -> erl_esdb_log:document_key().
key({_, Stream, No, _}, Note) -> {archive, Stream, No, Note}.

%% ---- copies

-doc "What a backup has of notes.".
-spec in_backup(notes()) -> copied().
in_backup(#{own := Own, parts := Parts}) -> maps:merge(maps:from_keys(Own, []), Parts).

-doc """
What is the past of a copy whose next version is this one. Of names of which nothing is noted any
version before it may have been archived.
""".
-spec past(copied(), Next :: non_neg_integer()) -> #{binary() => [part(), ...]}.
past(Copied, Next) ->
    Before = fun(Parts) ->
        [{Kind, From, min(To, Next)} || {Kind, From, To} <- parts(Parts, Next), From < Next]
    end,
    #{Name => Past || Name := Parts <- Copied, [_ | _] = Past <- [Before(Parts)]}.

-spec parts([part() | span()], non_neg_integer()) -> [part()].
parts([], Next) -> [{unnoted, 0, Next}];
parts(Parts, _Next) -> [part(Part) || Part <- Parts].

-spec part(part() | span()) -> part().
part({From, Before}) -> {noted, From, Before};
part({_Kind, _From, _Before} = Part) -> Part.

-doc "Notes in a copy what is its past.".
-spec restore(at(), copied(), Next :: non_neg_integer()) -> ok | {error, term()}.
restore(At, Copied, Next) ->
    Past = maps:to_list(past(Copied, Next)),
    put_each(At, [{Name, Kind, A, B} || {Name, Parts} <- Past, {Kind, A, B} <- Parts]).
