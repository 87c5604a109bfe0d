-module(esdb_demo_import).
-moduledoc """
Takes events from a source into the stores of one or two lanes, a thousand at a time.

Of each thousand the events of one stream go in as one batch, in their order. Items that are no event,
and events whose id was there before, are counted, and the first few are kept to be named.

```erlang
1> esdb_demo_import:run({ndjson, "events.ndjson.gz"}, demo, [Lane], fun(_, _) -> ok end).
{ok,#{events => 36053,problems => 0,first_problems => [],append_us => [402113]}}
```
""".

-export([run/4]).
-export_type([imported/0, watcher/0]).

-define(CHUNK, 1000).
-define(NAMED, 5).

-type imported() :: #{
    events := non_neg_integer(),
    problems := non_neg_integer(),
    first_problems := [{Where :: pos_integer() | binary(), Why :: binary()}],
    %% One number a lane.
    append_us := [non_neg_integer()]
}.

-doc "Is told how far the import is: the share of the source, and the number of events.".
-type watcher() :: fun((Share :: float() | unknown, Events :: non_neg_integer()) -> term()).

-record(import, {
    store :: atom(),
    lanes :: [esdb_demo_lane:lane()],
    watch :: watcher(),
    seen = #{} :: #{binary() => []},
    %% Newest first.
    chunk = [] :: [esdb_demo_event:event()],
    size = 0 :: non_neg_integer(),
    problems = 0 :: non_neg_integer(),
    first_problems = [] :: [{pos_integer() | binary(), binary()}],
    append_us :: [non_neg_integer()]
}).

-doc """
Imports everything that the source has.

## Errors
One sentence for people, of the source or about a batch that a store refused.
""".
-spec run(esdb_demo_source:source(), Store :: atom(), [esdb_demo_lane:lane()], watcher()) ->
    {ok, imported()} | {error, Sentence :: binary()}.
run(Source, Store, Lanes, Watch) ->
    Import = #import{store = Store, lanes = Lanes, watch = Watch, append_us = [0 || _ <- Lanes]},
    try esdb_demo_source:fold(Source, fun item/2, Import) of
        {ok, End} -> {ok, imported(flush(End))};
        {error, Sentence} -> {error, Sentence}
    catch
        throw:{?MODULE, Sentence} -> {error, Sentence}
    end.

-spec imported(#import{}) -> imported().
imported(Import) ->
    #{
        events => map_size(Import#import.seen),
        problems => Import#import.problems,
        first_problems => lists:reverse(Import#import.first_problems),
        append_us => Import#import.append_us
    }.

-spec item(esdb_demo_source:item(), #import{}) -> #import{}.
item({event, Where, #{event_id := Id}}, #import{seen = Seen} = Import) when is_map_key(Id, Seen) ->
    problem(Where, ~"this event_id was there before", Import);
item({event, _, #{event_id := Id} = Event}, #import{chunk = Chunk, size = Size} = Import) ->
    Seen = (Import#import.seen)#{Id => []},
    flush_full(Import#import{seen = Seen, chunk = [Event | Chunk], size = Size + 1});
item({problem, Where, Why}, Import) ->
    problem(Where, Why, Import);
item({progress, Share}, #import{watch = Watch, seen = Seen} = Import) ->
    _ = Watch(Share, map_size(Seen)),
    Import.

-spec problem(pos_integer() | binary(), binary(), #import{}) -> #import{}.
problem(Where, Why, #import{problems = N, first_problems = First} = Import) when N < ?NAMED ->
    Import#import{problems = N + 1, first_problems = [{Where, Why} | First]};
problem(_, _, #import{problems = N} = Import) ->
    Import#import{problems = N + 1}.

-spec flush_full(#import{}) -> #import{}.
flush_full(#import{size = ?CHUNK} = Import) -> flush(Import);
flush_full(Import) -> Import.

-spec flush(#import{}) -> #import{}.
flush(#import{chunk = Chunk, store = Store, lanes = Lanes, append_us = Before} = Import) ->
    Batches = batches(lists:reverse(Chunk)),
    Took = [append(Lane, Store, Batches) || Lane <- Lanes],
    Import#import{chunk = [], size = 0, append_us = lists:zipwith(fun erlang:'+'/2, Before, Took)}.

-spec append(esdb_demo_lane:lane(), atom(), [{binary(), [map()]}]) -> non_neg_integer().
append(Lane, Store, Batches) ->
    case esdb_demo_lane:call(Lane, append, [Store, Batches]) of
        {ok, Micros} -> Micros;
        {error, {Stream, Reason}} -> throw({?MODULE, refused(Stream, Reason)})
    end.

-spec refused(binary(), term()) -> binary().
refused(Stream, Reason) ->
    Text = io_lib:format("the store refused events of the stream ~ts: ~0tp", [Stream, Reason]),
    unicode:characters_to_binary(Text).

-spec batches([esdb_demo_event:event()]) -> [{binary(), [map()]}].
batches(Events) ->
    Groups = maps:groups_from_list(
        fun(#{stream_id := Stream}) -> Stream end, fun esdb_demo_event:to_new/1, Events
    ),
    maps:to_list(Groups).
