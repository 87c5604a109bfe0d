-module(esdb_demo_import).
-moduledoc """
Takes events from a source into the stores of one or two lanes, a thousand at a time, or fewer where
they are large.

Of each thousand the events of one stream go in as one batch, in their order. Items that are no
event, and events whose id was there before, are counted and named: the reasons of the first few,
and the places of as many as can be read.

```erlang
1> esdb_demo_import:run({ndjson, "events.ndjson.gz"}, demo, [Lane], Style).
{ok,#{events => 36053,problems => 0,first_problems => [],problem_places => [],
      append_us => [402113]}}
```
""".

-export([run/4]).
-export_type([imported/0, where/0]).

-define(CHUNK, 1000).
%% Bytes of the events of a chunk as terms; a store takes 64 MiB in one batch.
-define(CHUNK_BYTES, 16_777_216).
%% Problems whose reason is kept, and places (one, or several in a row) that are.
-define(NAMED, 5).
-define(PLACES, 200).

-doc "The number of a line, or the hash of a commit.".
-type where() :: pos_integer() | binary().
-type imported() :: #{
    events := non_neg_integer(),
    problems := non_neg_integer(),
    first_problems := [{Where :: where(), Why :: binary()}],
    %% First and last of each run of problems, in their order; at most 200 runs.
    problem_places := [{where(), where()}],
    %% One number a lane.
    append_us := [non_neg_integer()]
}.

-record(import, {
    store :: atom(),
    lanes :: [esdb_demo_lane:lane()],
    progress :: esdb_demo_terminal:progress(),
    seen = #{} :: #{binary() => []},
    %% Newest first.
    chunk = [] :: [esdb_demo_event:commit()],
    size = 0 :: non_neg_integer(),
    bytes = 0 :: non_neg_integer(),
    problems = 0 :: non_neg_integer(),
    first_problems = [] :: [{where(), binary()}],
    places = [] :: [{where(), where()}],
    append_us :: [non_neg_integer()]
}).

-doc """
Imports everything that the source has and shows how far it is.

## Errors
One sentence for people, of the source or about a batch that a store refused.
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
finish(#import{seen = Seen, progress = Progress} = Import) ->
    ok = esdb_demo_terminal:finish(map_size(Seen), Progress),
    imported(Import).

-spec imported(#import{}) -> imported().
imported(Import) ->
    #{
        events => map_size(Import#import.seen),
        problems => Import#import.problems,
        first_problems => lists:reverse(Import#import.first_problems),
        problem_places => lists:reverse(Import#import.places),
        append_us => Import#import.append_us
    }.

-spec item(esdb_demo_source:item(), #import{}) -> #import{}.
item({event, Where, #{event_id := Id}}, #import{seen = Seen} = Import) when is_map_key(Id, Seen) ->
    problem(Where, ~"this event_id was there before", Import);
item({event, _, #{event_id := Id} = Event}, #import{chunk = Chunk, size = Size} = Import) ->
    Bytes = Import#import.bytes + erlang:external_size(Event),
    Seen = (Import#import.seen)#{Id => []},
    flush_full(Import#import{
        seen = Seen, chunk = [Event | Chunk], size = Size + 1, bytes = Bytes
    });
item({problem, Where, Why}, Import) ->
    problem(Where, Why, Import);
item({progress, Share}, #import{progress = Progress, seen = Seen} = Import) ->
    Import#import{progress = esdb_demo_terminal:step(Share, map_size(Seen), Progress)}.

-spec problem(where(), binary(), #import{}) -> #import{}.
problem(Where, Why, #import{problems = N, first_problems = First, places = Places} = Import) ->
    Import#import{
        problems = N + 1,
        first_problems = [{Where, Why} || N < ?NAMED] ++ First,
        places = place(Where, Places)
    }.

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
    Batches = batches(lists:reverse(Chunk)),
    Took = [append(Lane, Store, Batches) || Lane <- Lanes],
    Sum = lists:zipwith(fun erlang:'+'/2, Before, Took),
    Import#import{chunk = [], size = 0, bytes = 0, append_us = Sum}.

-spec append(esdb_demo_lane:lane(), atom(), [{binary(), [map()]}]) -> non_neg_integer().
append(Lane, Store, Batches) ->
    case esdb_demo_lane:call(Lane, append, [Store, Batches]) of
        {ok, Micros} -> Micros;
        {error, {Stream, Reason}} -> throw({?MODULE, refused(Stream, Reason)})
    end.

-spec refused(binary(), term()) -> binary().
refused(Stream, Reason) ->
    Text = io_lib:format("the store refused events of the stream ~ts: ~0tp", [Stream, Reason]),
    esdb_demo_text:binary(Text).

-spec batches([esdb_demo_event:commit()]) -> [{binary(), [map()]}].
batches(Events) ->
    Groups = maps:groups_from_list(
        fun(#{stream_id := Stream}) -> Stream end, fun esdb_demo_event:to_new/1, Events
    ),
    maps:to_list(Groups).
