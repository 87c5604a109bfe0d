-module(esdb_demo_import).
-moduledoc """
Takes events from a source into the stores of one or two lanes, a thousand at a time, or fewer where
they are large.

Of each thousand the events of one stream go in as one batch, in their order. Items that are no
event, events whose id was there before, and events that the store refuses are counted and named:
each of the first few reasons once, and the places of as many as can be read.

```erlang
1> esdb_demo_import:run({ndjson, "events.ndjson.gz"}, demo, [Lane], Style).
{ok,#{events => 36053,problems => 0,reasons => [],problem_places => [],append_us => [402113]}}
```
""".

-export([run/4]).
-export_type([imported/0, where/0]).

%% Events and problems that are taken together.
-define(CHUNK, 1000).
%% Bytes of the events of a chunk as terms; a store takes 64 MiB in one batch.
-define(CHUNK_BYTES, 16_777_216).
%% Reasons of problems that are kept, and places (one, or several in a row) that are.
-define(NAMED, 5).
-define(PLACES, 200).
%% Characters of a name, or of a reason, from outside in a sentence.
-define(SHOWN, 60).

-doc "The number of a line, or the hash of a commit.".
-type where() :: pos_integer() | binary().
-type imported() :: #{
    events := non_neg_integer(),
    problems := non_neg_integer(),
    %% Of each of the first five reasons where it was met first, and how often in all.
    reasons := [{First :: where(), Why :: binary(), Times :: pos_integer()}],
    %% First and last of each run of problems, in their order; at most 200 runs.
    problem_places := [{where(), where()}],
    %% One number a lane.
    append_us := [non_neg_integer()]
}.

-type event() :: {event, where(), esdb_demo_event:commit()}.
-type problem() :: {problem, where(), Why :: binary()}.

-record(import, {
    store :: atom(),
    lanes :: [esdb_demo_lane:lane()],
    progress :: esdb_demo_terminal:progress(),
    seen = #{} :: #{binary() => []},
    refused = 0 :: non_neg_integer(),
    %% Newest first; problems wait here too, so that they are named in their order.
    chunk = [] :: [event() | problem()],
    size = 0 :: non_neg_integer(),
    bytes = 0 :: non_neg_integer(),
    problems = 0 :: non_neg_integer(),
    reasons = [] :: [{where(), binary(), pos_integer()}],
    places = [] :: [{where(), where()}],
    append_us :: [non_neg_integer()]
}).

-doc """
Imports everything that the source has and shows how far it is.

## Errors
One sentence for people, of the source or about a store that does not answer.
""".
-spec run(Source, Store :: atom(), [esdb_demo_lane:lane()], esdb_demo_terminal:style()) ->
    {ok, imported()} | {error, Sentence :: binary()}
when
    Source :: esdb_demo_source:source().
run(Source, Store, Lanes, Style) ->
    Progress = esdb_demo_terminal:progress("Importing", Style),
    Import = #import{
        store = Store, lanes = Lanes, progress = Progress, append_us = [0 || _ <- Lanes]
    },
    try
        maybe
            {ok, End} ?= esdb_demo_source:fold(Source, fun item/2, Import),
            {ok, finish(flush(End))}
        end
    catch
        throw:{?MODULE, Sentence} -> {error, Sentence}
    after
        ok = esdb_demo_terminal:clear(Style)
    end.

-spec finish(#import{}) -> imported().
finish(#import{progress = Progress} = Import) ->
    #{events := Events} = Imported = imported(Import),
    ok = esdb_demo_terminal:finish(Events, Progress),
    Imported.

-spec imported(#import{}) -> imported().
imported(Import) ->
    #{
        events => map_size(Import#import.seen) - Import#import.refused,
        problems => Import#import.problems,
        reasons => lists:reverse(Import#import.reasons),
        problem_places => lists:reverse(Import#import.places),
        append_us => Import#import.append_us
    }.

-spec item(esdb_demo_source:item(), #import{}) -> #import{}.
item({event, Where, #{event_id := Id}}, #import{seen = Seen} = Import) when is_map_key(Id, Seen) ->
    item({problem, Where, ~"this event_id was there before"}, Import);
item({event, _, #{event_id := Id} = Event} = Item, #import{seen = Seen} = Import) ->
    keep(Item, erlang:external_size(Event), Import#import{seen = Seen#{Id => []}});
item({problem, _, _} = Item, Import) ->
    keep(Item, 0, Import);
item({progress, Share}, #import{progress = Progress, seen = Seen} = Import) ->
    Import#import{progress = esdb_demo_terminal:step(Share, map_size(Seen), Progress)}.

-spec keep(event() | problem(), non_neg_integer(), #import{}) -> #import{}.
keep(Item, Bytes, #import{chunk = Chunk, size = Size, bytes = Before} = Import) ->
    flush_full(Import#import{chunk = [Item | Chunk], size = Size + 1, bytes = Before + Bytes}).

-spec problem(where(), binary(), #import{}) -> #import{}.
problem(Where, Why, #import{problems = N, reasons = Reasons, places = Places} = Import) ->
    Import#import{
        problems = N + 1, reasons = reason(Where, Why, Reasons), places = place(Where, Places)
    }.

%% Newest first, as long as there is room.
-spec reason(where(), Why, Reasons) -> Reasons when
    Why :: binary(), Reasons :: [{where(), Why, pos_integer()}].
reason(Where, Why, Reasons) ->
    case lists:keyfind(Why, 2, Reasons) of
        {First, Why, Times} -> lists:keyreplace(Why, 2, Reasons, {First, Why, Times + 1});
        false when length(Reasons) < ?NAMED -> [{Where, Why, 1} | Reasons];
        false -> Reasons
    end.

%% Newest first, as long as there is room.
-spec place(where(), [{where(), where()}]) -> [{where(), where()}].
place(Line, [{From, To} | Places]) when is_integer(Line), Line =:= To + 1 ->
    [{From, Line} | Places];
place(Where, Places) when length(Places) < ?PLACES -> [{Where, Where} | Places];
place(_, Places) -> Places.

-spec flush_full(#import{}) -> #import{}.
flush_full(#import{size = Size, bytes = Bytes} = Import) when
    Size >= ?CHUNK; Bytes >= ?CHUNK_BYTES
->
    flush(Import);
flush_full(Import) ->
    Import.

-spec flush(#import{}) -> #import{}.
flush(#import{chunk = Chunk, store = Store, lanes = Lanes, append_us = Before} = Import) ->
    Items = lists:reverse(Chunk),
    Batches = batches([Event || {event, _, Event} <- Items]),
    Done = [append(Lane, Store, Batches) || Lane <- Lanes],
    Sum = lists:zipwith(fun(Us, {Took, _}) -> Us + Took end, Before, Done),
    Refused = maps:from_list(lists:append([Reasons || {_, Reasons} <- Done])),
    Next = Import#import{
        chunk = [],
        size = 0,
        bytes = 0,
        append_us = Sum,
        refused = Import#import.refused + map_size(Refused)
    },
    lists:foldl(fun(Item, In) -> settle(Item, Refused, In) end, Next, Items).

-spec append(esdb_demo_lane:lane(), atom(), [{binary(), [map()]}]) ->
    {Micros :: non_neg_integer(), [esdb_demo_steps:refused()]}.
append(Lane, Store, Batches) ->
    case esdb_demo_lane:call(Lane, append, [Store, Batches]) of
        {ok, Micros, Refused} -> {Micros, Refused};
        {error, {Stream, Reason}} -> throw({?MODULE, failed(Stream, Reason)})
    end.

%% An item of a chunk that went to the stores.
-spec settle(event() | problem(), #{binary() => term()}, #import{}) -> #import{}.
settle({problem, Where, Why}, _, Import) ->
    problem(Where, Why, Import);
settle({event, Where, #{event_id := Id}}, Refused, Import) ->
    case Refused of
        #{Id := Reason} -> problem(Where, refusal(Reason), Import);
        #{} -> Import
    end.

-spec refusal(term()) -> binary().
refusal({stream_id_too_long, Size, Max}) -> too_large("stream_id", Size, Max);
refusal({event_too_large, Size, Max}) -> too_large("event", Size, Max);
refusal(Reason) -> esdb_demo_text:binary(["the store refuses it: ", shown(Reason)]).

-spec too_large(string(), integer(), integer()) -> binary().
too_large(What, Size, Max) ->
    [Has, May] = [esdb_demo_chart:number(N) || N <- [Size, Max]],
    esdb_demo_text:binary(["the ", What, " has ", Has, " bytes, the store takes ", May]).

-spec failed(binary(), term()) -> binary().
failed(Stream, Reason) ->
    Name = esdb_demo_chart:label(Stream, ?SHOWN),
    Why = ["the store does not take events of the stream ", Name, ": ", shown(Reason)],
    esdb_demo_text:binary(Why).

-spec shown(term()) -> unicode:chardata().
shown(Reason) ->
    esdb_demo_chart:label(io_lib:format("~0tp", [Reason]), ?SHOWN).

-spec batches([esdb_demo_event:commit()]) -> [{binary(), [map()]}].
batches(Events) ->
    Groups = maps:groups_from_list(
        fun(#{stream_id := Stream}) -> Stream end, fun esdb_demo_event:to_new/1, Events
    ),
    maps:to_list(Groups).
