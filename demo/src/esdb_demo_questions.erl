-module(esdb_demo_questions).
-moduledoc """
Asks the questions of the demo twice, of packed events through the library and in plain Erlang,
takes the times and compares the answers.

Events are kept as both ways need them, packed segments here and external terms there; that is timed
too. A question that takes less than 50 ms is asked three times, and the least time counts.

```erlang
1> Kept = esdb_demo_questions:add(Events, esdb_demo_questions:new()).
2> [Types | _] = esdb_demo_questions:ask(Kept), Types.
#{question => types,same => true,packed_us => 41,plain_us => 815,
  answer => #{<<"CommitAuthored">> => 299,<<"CommitMerged">> => 1}}
```
""".

-export([new/0, add/2, ask/1, storage/1]).
-export([large/0, name/1, answer/2]).
-export_type([kept/0, asked/0, answer/0, question/0, storage/0]).

-type groups(Value) :: #{Key :: term() => Value}.
-type question() :: types | weeks | streams | areas | large | graph | chain | {led_to, binary()}.
-type answer() ::
    groups(pos_integer())
    | groups([number()])
    | non_neg_integer()
    | {chain | circle, [Id :: binary()]}
    | [Id :: binary()]
    %% A sum of floats that no float holds.
    | out_of_range.

-type asked() :: #{
    question := question(),
    answer := answer(),
    same := boolean(),
    packed_us := non_neg_integer(),
    plain_us := non_neg_integer()
}.
%% What it took to keep the events both ways.
-type storage() :: #{
    segments := non_neg_integer(),
    packed_size := non_neg_integer(),
    packed_us := non_neg_integer(),
    plain_us := non_neg_integer()
}.

-record(kept, {
    %% Newest first.
    segments = [] :: [binary()],
    pages = [] :: [binary()],
    packed_us = 0 :: non_neg_integer(),
    plain_us = 0 :: non_neg_integer()
}).

-opaque kept() :: #kept{}.

%% Inserted lines above which an event is a large one.
-define(LARGE, 1000).
%% What takes less (in microseconds) is measured three times.
-define(QUICK, 50_000).

-doc "No events.".
-spec new() -> kept().
new() -> #kept{}.

-doc "The events before and these; a thousand at a time is a good number.".
-spec add([esdb_demo_event:commit()], kept()) -> kept().
add(Events, #kept{packed_us = PackedUs, plain_us = PlainUs} = Kept) ->
    case timer:tc(esdb_demo_packed, keep, [Events]) of
        {_, {error, too_large}} when length(Events) > 1 ->
            {First, Second} = lists:split(length(Events) div 2, Events),
            add(Second, add(First, Kept));
        {Us, Segment} when is_binary(Segment) ->
            {AlsoUs, Page} = timer:tc(esdb_demo_plain, keep, [Events]),
            Kept#kept{
                segments = [Segment | Kept#kept.segments],
                pages = [Page | Kept#kept.pages],
                packed_us = PackedUs + Us,
                plain_us = PlainUs + AlsoUs
            }
    end.

-doc "How many segments there are, their bytes, and the times that keeping took.".
-spec storage(kept()) -> storage().
storage(#kept{segments = Segments, packed_us = PackedUs, plain_us = PlainUs}) ->
    #{
        segments => length(Segments),
        packed_size => iolist_size(Segments),
        packed_us => PackedUs,
        plain_us => PlainUs
    }.

-doc "Inserted lines above which an event counts as `large`.".
-spec large() -> pos_integer().
large() -> ?LARGE.

-doc "The name of a question.".
-spec name(question()) -> types | weeks | streams | areas | large | graph | chain | led_to.
name({led_to, _}) -> led_to;
name(Question) -> Question.

-doc "The answer to a question among those that were asked.".
-spec answer(types | weeks | streams | areas | large | graph | chain, [asked()]) -> answer().
answer(Question, Asked) ->
    hd([Answer || #{question := Q, answer := Answer} <- Asked, Q =:= Question]).

-doc """
All questions, in the order of the report; there must be events.

In place of the graph its number of edges is the answer. What is asked for last is what the event in
the middle of the longest chain led to.
""".
-spec ask(kept()) -> [asked()].
ask(#kept{segments = Segments, pages = Pages}) ->
    Packed = answers(esdb_demo_packed, lists:reverse(Segments)),
    Plain = answers(esdb_demo_plain, lists:reverse(Pages)),
    lists:zipwith(fun asked/2, Packed, Plain).

-spec asked(Timed, Timed) -> asked() when Timed :: {question(), answer(), non_neg_integer()}.
asked({Question, Answer, PackedUs}, {Expected, ExpectedAnswer, PlainUs}) ->
    #{
        question => Question,
        answer => Answer,
        same => {Question, Answer} =:= {Expected, ExpectedAnswer},
        packed_us => PackedUs,
        plain_us => PlainUs
    }.

%% In a process of its own, which leaves nothing behind.
-spec answers(esdb_demo_packed | esdb_demo_plain, [binary()]) ->
    [{question(), answer(), Micros :: non_neg_integer()}].
answers(Module, Kept) ->
    erpc:call(node(), fun() ->
        Counted = [answer_of(Q, Module, Kept) || Q <- [types, weeks, streams, areas, large]],
        {graph, {Graph, Edges}, Us} = answer_of(graph, Module, Kept),
        {chain, {_, Chain}, _} = Longest = answer_of(chain, Module, Graph),
        Middle = lists:nth((length(Chain) + 1) div 2, Chain),
        Led = answer_of({led_to, Middle}, Module, Graph),
        Counted ++ [{graph, Edges, Us}, Longest, Led]
    end).

-spec answer_of(question(), esdb_demo_packed | esdb_demo_plain, term()) ->
    {question(), term(), Micros :: non_neg_integer()}.
answer_of(Question, Module, Kept) ->
    Ask = fun() -> Module:ask(Question, Kept) end,
    case once(Ask) of
        {Us, Answer} when Us < ?QUICK ->
            {Question, Answer, lists:min([Us | [element(1, once(Ask)) || _ <- [second, third]]])};
        {Us, Answer} ->
            {Question, Answer, Us}
    end.

%% What one question left behind shall not be the burden of the next.
-spec once(fun(() -> term())) -> {Micros :: non_neg_integer(), term()}.
once(Ask) ->
    true = erlang:garbage_collect(),
    timer:tc(fun() ->
        try
            Ask()
        catch
            error:badarith -> out_of_range
        end
    end).
