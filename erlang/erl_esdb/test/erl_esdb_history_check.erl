-module(erl_esdb_history_check).
-moduledoc """
The rules that a history is judged by. Pure; `erl_esdb_history:check/2` is the way in.

Calls that append the same events are attempts of one *append*; it may be there if one of them was
acknowledged or has an unknown outcome. Whatever names an event at a position is a *sighting* of it:
an acknowledgement, a read, a delivery, the end. Together they say which event is where: its
*place*. A position that an append begins at is a *run* of it; it has two only where what was
written first was removed and sent again.

| rule | broken when |
|---|---|
| `unknown_event` | an event is seen that nobody appended |
| `changed` | it has another content, or is in another stream |
| `refused_present` | all attempts to append it were refused |
| `too_early` | it was seen before anybody appended it |
| `position_twice` | two events have one position |
| `version_twice` | two events have one version of one life of a stream |
| `written_twice` | an event is at two places, and the first was not removed |
| `missing` | it was acknowledged, and is not there |
| `torn` | of an append some events are there and some not, or not one behind the other |
| `vanished` | it was seen, and is not there |
| `removed_present` | its removal was acknowledged, and it is there |
| `wrong_version` | it does not go behind the version that was expected |
| `condition_ignored` | what its condition forbids was there before it |
| `hole` | a position is empty, and nothing explains it |
| `version_hole` | in the end a version is missing between two |
| `order_of_positions` | in the end positions do not rise |
| `order` | an append began after another was acknowledged, and has an earlier position |
| `read_order` | a read is out of order, or has what it was not asked for |
| `read_missed` | it lacks an event |
| `read_removed` | it has one whose removal was acknowledged before it began |
| `damaged` | it is refused because an event is damaged, or lost |
| `not_selected` | a subscriber got what it did not ask for |
| `not_delivered` | it did not get what it did |
| `delivered_out_of_order` | of one stream |
| `delivered_twice` | and there was no fault before |
| `document_unknown` | a document has a value that nobody gave it |
| `document_stale` | it has one that it had before |

An event that may have been removed is not missed: a removal that is not known to have been refused
and that did not end before the append began explains that it is not there. So no rule says of a
store that keeps its promises that it does not.

A read is to have all that lies before what it has; a linearizable one also all that was
acknowledged before it began, one that reads your writes what was acknowledged by the same node, and
a local one what was read before it there. A node is one life of it.
""".

-export([check/2]).

-include("erl_esdb_history.hrl").

-type entry() :: erl_esdb_history:entry() | #final{}.
-type violation() :: erl_esdb_history:violation().
-type stamp() :: erl_esdb_history:stamp().
-type until() :: stamp() | infinity.

%% One event of an append: the nth of all (`offset'), the nth of its part (`within').
-record(member, {
    id :: binary(),
    content :: erl_esdb_history:content(),
    stream :: binary(),
    expected :: integer(),
    key :: binary(),
    offset :: non_neg_integer(),
    within :: non_neg_integer()
}).

-record(append, {
    members :: [#member{}],
    condition :: none | {erl_esdb_query:query(), integer()},
    calls :: [#call{}],
    from :: stamp(),
    %% none where all attempts were refused
    possible :: [#call{}]
}).

-record(place, {
    position :: non_neg_integer(),
    version :: non_neg_integer(),
    member :: #member{},
    %% when its first attempt began, and when it was there for sure
    from :: stamp(),
    known :: until(),
    by :: entry()
}).

-record(run, {
    base :: integer(),
    append :: #append{},
    %% by offset
    places :: #{non_neg_integer() => #place{}},
    acked :: [#call{}]
}).

%% `surely': before which version all is gone, where that was acknowledged.
-record(removal, {
    from :: stamp(),
    to :: until(),
    kind :: truncate | hard | tombstone,
    before :: non_neg_integer() | infinity,
    surely :: non_neg_integer() | infinity,
    by :: #call{}
}).

-record(facts, {
    entries :: [erl_esdb_history:entry()],
    final :: #final{},
    appends :: #{binary() => #append{}},
    ids :: #{binary() => #member{}},
    places :: gb_trees:tree(non_neg_integer(), #place{}),
    streams :: #{binary() => gb_trees:tree({non_neg_integer(), non_neg_integer()}, #place{})},
    runs :: [#run{}],
    removals :: #{binary() => [#removal{}]},
    %% the positions there are in the end
    there :: #{non_neg_integer() => []},
    %% the highest position that was known when: to all, by a write through a node, by a read there
    floors :: #{term() => gb_trees:tree(stamp(), integer())},
    %% when the first fault was
    faulty :: until()
}).

-doc "See `erl_esdb_history:check/2`.".
-spec check([erl_esdb_history:entry()], #final{}) -> [violation()].
check(Entries, Final) ->
    {Facts, Strange} = facts(Entries, Final),
    Rules = [
        fun written_twice/1,
        fun version_twice/1,
        fun whole/1,
        fun removed_present/1,
        fun expected_version/1,
        fun conditions/1,
        fun holes/1,
        fun the_end/1,
        fun order/1,
        fun reads/1,
        fun deliveries/1,
        fun documents/1
    ],
    Found = [Strange | [Rule(Facts) || Rule <- Rules]],
    lists:uniq(fun({Rule, What, _}) -> {Rule, What} end, lists:append(Found)).

%% ---- what is known

-spec facts([erl_esdb_history:entry()], #final{}) -> {#facts{}, [violation()]}.
facts(Entries, Final) ->
    Appends = appends(Entries),
    Ids = #{M#member.id => M || #append{members = Ms} <- maps:values(Appends), M <- Ms},
    Sightings = sightings(Entries, Final, Appends),
    {Places, Strange} = places(Sightings, Appends, Ids),
    Runs = runs(Places, Appends),
    Facts = #facts{
        entries = Entries,
        final = Final,
        appends = Appends,
        ids = Ids,
        places = Places,
        streams = streams(Places),
        runs = Runs,
        removals = removals(Entries),
        there = #{Position => [] || #seen{position = Position} <- Final#final.events},
        floors = floors(Entries, Runs),
        faulty = lists:min([infinity | [At || #fault{at = At} <- Entries]])
    },
    {Facts, Strange}.

-spec appends([erl_esdb_history:entry()]) -> #{binary() => #append{}}.
appends(Entries) ->
    Calls = [{key(Parts), Call} || #call{op = {append, Parts, _}} = Call <- Entries],
    Grouped = maps:groups_from_list(
        fun({Key, _}) -> Key end, fun({_, Call}) -> Call end, Calls
    ),
    maps:map(fun append/2, Grouped).

-spec key([{binary(), integer(), [{binary(), erl_esdb_history:content()}]}]) -> binary().
key([{_, _, [{Id, _} | _]} | _]) -> Id.

-spec append(binary(), [#call{}]) -> #append{}.
append(Key, [#call{op = {append, Parts, Condition}} | _] = Calls) ->
    #append{
        members = members(Key, Parts, 0),
        condition = Condition,
        calls = Calls,
        from = lists:min([From || #call{from = From} <- Calls]),
        possible = [Call || #call{outcome = Outcome} = Call <- Calls, not is_refused(Outcome)]
    }.

-spec members(binary(), [tuple()], non_neg_integer()) -> [#member{}].
members(_Key, [], _Before) ->
    [];
members(Key, [{Stream, Expected, Events} | Parts], Before) ->
    Members = [
        #member{
            id = Id,
            content = Content,
            stream = Stream,
            expected = Expected,
            key = Key,
            offset = Before + Within,
            within = Within
        }
     || {Within, {Id, Content}} <- lists:enumerate(0, Events)
    ],
    Members ++ members(Key, Parts, Before + length(Events)).

-spec is_refused(erl_esdb_history:outcome()) -> boolean().
is_refused({refused, _}) -> true;
is_refused(_) -> false.

%% Every word of an event at a position: when it was said, and by what.
-spec sightings([entry()], #final{}, #{binary() => #append{}}) -> [{#seen{}, until(), entry()}].
sightings(Entries, Final, Appends) ->
    Read = [
        {Seen, To, Call}
     || #call{op = {read, _, _, _}, outcome = {ok, Seens}, to = To} = Call <- Entries, Seen <- Seens
    ],
    Delivered = [
        {Seen, At, Delivery}
     || #delivery{at = At, events = Seens} = Delivery <- Entries, Seen <- Seens
    ],
    End = [{Seen, infinity, Final} || Seen <- Final#final.events],
    lists:append([acknowledged(A) || A <- maps:values(Appends)]) ++ Read ++ Delivered ++ End.

-spec acknowledged(#append{}) -> [{#seen{}, until(), entry()}].
acknowledged(#append{members = Members, possible = Calls}) ->
    [
        {at(Member, length(Events) - 1 - Member#member.within, Placed), Call#call.to, Call}
     || #call{outcome = {ok, Placed}, op = {append, Parts, _}} = Call <- Calls,
        #member{stream = Stream} = Member <- Members,
        {S, _, Events} <- Parts,
        S =:= Stream
    ].

-spec at(#member{}, non_neg_integer(), [tuple()]) -> #seen{}.
at(#member{stream = Stream, id = Id, content = Content}, BeforeLast, Placed) ->
    {Stream, Version, Position} = lists:keyfind(Stream, 1, Placed),
    #seen{
        stream = Stream,
        version = Version - BeforeLast,
        position = Position - BeforeLast,
        id = Id,
        content = Content
    }.

-spec places([{#seen{}, until(), entry()}], map(), map()) -> {gb_trees:tree(), [violation()]}.
places(Sightings, Appends, Ids) ->
    lists:foldl(
        fun({Seen, At, By}, {Places, Strange}) ->
            maybe
                {ok, Member, Append} ?= identified(Seen, Appends, Ids),
                ok ?= in_time(Seen, Append, At),
                {ok, Places1} ?= placed(Seen, Member, Append, {At, By}, Places),
                {Places1, Strange}
            else
                {Rule, Calls} -> {Places, [{Rule, Seen, Calls ++ [By]} | Strange]}
            end
        end,
        {gb_trees:empty(), []},
        Sightings
    ).

-spec identified(#seen{}, map(), map()) -> {ok, #member{}, #append{}} | {atom(), [entry()]}.
identified(#seen{id = Id, stream = Stream, content = Content}, Appends, Ids) ->
    case Ids of
        #{Id := #member{key = Key, stream = S, content = C} = Member} ->
            #append{calls = Calls} = Append = map_get(Key, Appends),
            if
                S =/= Stream; C =/= Content -> {changed, Calls};
                Append#append.possible =:= [] -> {refused_present, Calls};
                true -> {ok, Member, Append}
            end;
        #{} ->
            {unknown_event, []}
    end.

-spec in_time(#seen{}, #append{}, until()) -> ok | {atom(), [entry()]}.
in_time(_Seen, #append{from = From}, At) when At > From -> ok;
in_time(_Seen, #append{calls = Calls}, _At) -> {too_early, Calls}.

-spec placed(#seen{}, #member{}, #append{}, {until(), entry()}, gb_trees:tree()) ->
    {ok, gb_trees:tree()} | {atom(), [entry()]}.
placed(#seen{position = Position, version = Version}, Member, Append, {At, By}, Places) ->
    case gb_trees:lookup(Position, Places) of
        none ->
            Place = #place{
                position = Position,
                version = Version,
                member = Member,
                from = Append#append.from,
                known = At,
                by = By
            },
            {ok, gb_trees:insert(Position, Place, Places)};
        {value, #place{member = Member, version = Version} = Place} when At < Place#place.known ->
            {ok, gb_trees:update(Position, Place#place{known = At, by = By}, Places)};
        {value, #place{member = Member, version = Version}} ->
            {ok, Places};
        {value, #place{by = Other}} ->
            {position_twice, [Other]}
    end.

-spec streams(gb_trees:tree()) -> #{binary() => gb_trees:tree()}.
streams(Places) ->
    lists:foldl(
        fun(#place{member = #member{stream = Stream}} = Place, Streams) ->
            Tree = maps:get(Stream, Streams, gb_trees:empty()),
            Key = {Place#place.version, Place#place.position},
            Streams#{Stream => gb_trees:insert(Key, Place, Tree)}
        end,
        #{},
        gb_trees:values(Places)
    ).

-spec runs(gb_trees:tree(), #{binary() => #append{}}) -> [#run{}].
runs(Places, Appends) ->
    Based = maps:groups_from_list(
        fun(#place{position = Position, member = #member{key = Key, offset = Offset}}) ->
            {Key, Position - Offset}
        end,
        gb_trees:values(Places)
    ),
    [run(map_get(Key, Appends), Base, Run) || {Key, Base} := Run <- Based].

-spec run(#append{}, integer(), [#place{}]) -> #run{}.
run(#append{possible = Calls} = Append, Base, Places) ->
    #run{
        base = Base,
        append = Append,
        places = #{Offset => P || #place{member = #member{offset = Offset}} = P <- Places},
        acked = [
            Call
         || #call{outcome = {ok, [{_, _, Last} | _]}} = Call <- Calls,
            {append, [{_, _, Events} | _], _} <- [Call#call.op],
            Last - length(Events) + 1 =:= Base
        ]
    }.

%% ---- removals

-spec removals([erl_esdb_history:entry()]) -> #{binary() => [#removal{}]}.
removals(Entries) ->
    maps:groups_from_list(
        fun({Stream, _}) -> Stream end,
        fun({_, Removal}) -> Removal end,
        [
            {Stream, removal(Call)}
         || #call{op = {What, Stream, _}, outcome = Outcome} = Call <- Entries,
            What =:= truncate orelse What =:= delete,
            not is_refused(Outcome)
        ]
    ).

-spec removal(#call{}) -> #removal{}.
removal(#call{op = {What, _, Arg}, from = From, to = To, outcome = Outcome} = Call) ->
    {Kind, Before} =
        case What of
            truncate -> {truncate, Arg};
            delete -> {Arg, infinity}
        end,
    Surely =
        case Outcome of
            {ok, Removed} when What =:= truncate -> Removed;
            {ok, _} -> infinity;
            unknown -> 0
        end,
    #removal{from = From, to = To, kind = Kind, before = Before, surely = Surely, by = Call}.

-spec removals(#facts{}, binary()) -> [#removal{}].
removals(#facts{removals = Removals}, Stream) -> maps:get(Stream, Removals, []).

%% Whether a version of a stream that was written after this moment may be gone before that one. A
%% version that is not known may be any.
-spec may_be_gone(#facts{}, binary(), non_neg_integer() | any, stamp(), until()) -> boolean().
may_be_gone(Facts, Stream, Version, From, Until) ->
    lists:any(
        fun(#removal{from = Begin, to = End, before = Before}) ->
            Begin < Until andalso End > From andalso (Version =:= any orelse Version < Before)
        end,
        removals(Facts, Stream)
    ).

-spec may_be_gone(#facts{}, #place{}, until()) -> boolean().
may_be_gone(Facts, #place{member = Member, version = Version, from = From}, Until) ->
    may_be_gone(Facts, Member#member.stream, Version, From, Until).

%% What has removed this place for sure, before that moment.
-spec gone_by(#facts{}, #place{}, until()) -> [#call{}].
gone_by(Facts, #place{member = Member, version = Version, known = Known}, Until) ->
    [
        By
     || #removal{from = Begin, to = End, surely = Surely, by = By} <-
            removals(Facts, Member#member.stream),
        Begin > Known,
        End < Until,
        Version < Surely
    ].

%% ---- appends

-spec written_twice(#facts{}) -> [violation()].
written_twice(#facts{places = Places} = Facts) ->
    ById = maps:groups_from_list(
        fun(#place{member = #member{id = Id}}) -> Id end, gb_trees:values(Places)
    ),
    [
        {written_twice, {Id, [P#place.position || P <- Twice]}, [P#place.by || P <- Twice]}
     || Id := [_, _ | _] = Twice <- ById, not may_be_twice(Facts, Twice)
    ].

%% Each time it was sent again, and all but the last were removed.
-spec may_be_twice(#facts{}, [#place{}]) -> boolean().
may_be_twice(#facts{appends = Appends} = Facts, [#place{member = Member} | _] = Places) ->
    #append{possible = Calls} = map_get(Member#member.key, Appends),
    length(Places) =< length(Calls) andalso
        lists:all(fun(Place) -> may_be_gone(Facts, Place, infinity) end, lists:droplast(Places)).

-spec version_twice(#facts{}) -> [violation()].
version_twice(#facts{streams = Streams} = Facts) ->
    [
        {version_twice, {Stream, Version, First, Second}, [A#place.by, B#place.by]}
     || Stream := Tree <- Streams,
        {
            {{Version, First}, A}, {{Version, Second}, B}
        } <- pairs(gb_trees:to_list(Tree)),
        not began_again(Facts, A, B)
    ].

-spec pairs([Element]) -> [{Element, Element}].
pairs([A | [B | _] = List]) -> [{A, B} | pairs(List)];
pairs(_) -> [].

-spec began_again(#facts{}, #place{}, #place{}) -> boolean().
began_again(Facts, #place{member = #member{stream = Stream}, from = From}, #place{known = Known}) ->
    lists:any(
        fun(#removal{kind = Kind, from = Begin, to = End}) ->
            Kind =:= hard andalso Begin < Known andalso End > From
        end,
        removals(Facts, Stream)
    ).

-spec whole(#facts{}) -> [violation()].
whole(#facts{runs = Runs} = Facts) ->
    lists:append([absent(Facts, Run) ++ scattered(Run) || Run <- Runs]).

-spec absent(#facts{}, #run{}) -> [violation()].
absent(Facts, #run{base = Base, append = #append{members = Members, calls = Calls}} = Run) ->
    {There, Absent} = lists:partition(fun(Member) -> is_there(Facts, Run, Member) end, Members),
    [
        {kind(Run, There), {Id, Base + Offset}, Calls ++ seen_by(Run) ++ [Facts#facts.final]}
     || #member{id = Id, offset = Offset} = Member <- Absent, not is_explained(Facts, Run, Member)
    ].

-spec is_there(#facts{}, #run{}, #member{}) -> boolean().
is_there(#facts{there = There}, #run{base = Base, places = Places}, #member{offset = Offset}) ->
    is_map_key(Offset, Places) andalso is_map_key(Base + Offset, There).

-spec is_explained(#facts{}, #run{}, #member{}) -> boolean().
is_explained(Facts, #run{append = #append{from = From}} = Run, #member{stream = Stream} = Member) ->
    may_be_gone(Facts, Stream, version(Run, Member), From, infinity).

-spec version(#run{}, #member{}) -> non_neg_integer() | any.
version(#run{places = Places}, #member{stream = Stream, within = Within}) ->
    Versions = [
        Version - W + Within
     || #place{version = Version, member = #member{stream = S, within = W}} <- maps:values(Places),
        S =:= Stream
    ],
    case Versions of
        [Version | _] -> Version;
        [] -> any
    end.

-spec kind(#run{}, [#member{}]) -> missing | torn | vanished.
kind(#run{acked = [_ | _]}, _) -> missing;
kind(#run{}, [_ | _]) -> torn;
kind(#run{}, []) -> vanished.

-spec seen_by(#run{}) -> [entry()].
seen_by(#run{places = Places}) ->
    lists:uniq([By || #place{by = By} <- maps:values(Places), not is_record(By, call)]).

%% The events of a part have one version after the other.
-spec scattered(#run{}) -> [violation()].
scattered(#run{append = #append{calls = Calls}, places = Places}) ->
    Firsts = lists:usort([{S, V - W} || {S, V, W} <- positions(Places)]),
    [
        {torn, {Stream, First, Second}, Calls}
     || {{Stream, First}, {Stream, Second}} <- pairs(Firsts)
    ].

-spec positions(#{non_neg_integer() => #place{}}) -> [{binary(), integer(), non_neg_integer()}].
positions(Places) ->
    [
        {Stream, Version, Within}
     || #place{version = Version, member = #member{stream = Stream, within = Within}} <-
            maps:values(Places)
    ].

-spec removed_present(#facts{}) -> [violation()].
removed_present(#facts{final = #final{events = Events} = Final} = Facts) ->
    [
        {removed_present, {Id, Position}, [Place#place.by | By] ++ [Final]}
     || #seen{position = Position, id = Id} <- Events,
        {value, Place} <- [gb_trees:lookup(Position, Facts#facts.places)],
        [_ | _] = By <- [gone_by(Facts, Place, infinity)]
    ].

-spec expected_version(#facts{}) -> [violation()].
expected_version(#facts{runs = Runs} = Facts) ->
    [
        {wrong_version, {Stream, Expected, First}, Append#append.calls ++ seen_by(Run)}
     || #run{append = Append, places = Places} = Run <- Runs,
        #place{version = Version, member = Member, known = Known} <- maps:values(Places),
        #member{stream = Stream, expected = Expected, within = Within} <- [Member],
        First <- [Version - Within],
        not may_begin(Facts, Stream, Expected, First, Known)
    ].

%% After a tombstone a stream that is not there goes on with its numbers.
-spec may_begin(#facts{}, binary(), integer(), integer(), until()) -> boolean().
may_begin(_Facts, _Stream, Expected, _First, _Known) when Expected < -1 ->
    true;
may_begin(_Facts, _Stream, Expected, First, _Known) when First =:= Expected + 1 ->
    true;
may_begin(Facts, Stream, -1, _First, Known) ->
    lists:any(
        fun(#removal{kind = Kind, from = From}) -> Kind =:= tombstone andalso From < Known end,
        removals(Facts, Stream)
    );
may_begin(_Facts, _Stream, _Expected, _First, _Known) ->
    false.

-spec conditions(#facts{}) -> [violation()].
conditions(#facts{runs = Runs} = Facts) ->
    [
        {condition_ignored, {Base, Position}, Append#append.calls ++ [By]}
     || #run{base = Base, append = Append} <- Runs,
        {Query, After} <- [Append#append.condition],
        #place{position = Position, by = By} = Place <-
            between(Facts#facts.places, After + 1, Base - 1),
        matches(Query, Place),
        not may_be_gone(Facts, Place, infinity)
    ].

-spec matches(erl_esdb_query:query(), #place{}) -> boolean().
matches([], _Place) ->
    true;
matches(Query, #place{member = #member{content = {Type, Tags, _}}}) ->
    lists:any(
        fun(Item) ->
            Types = maps:get(types, Item, []),
            (Types =:= [] orelse lists:member(Type, Types)) andalso
                maps:get(tags, Item, []) -- Tags =:= []
        end,
        Query
    ).

%% What has keys from the first to the second.
-spec between(gb_trees:tree(Key, #place{}), Key, Key | infinity) -> [#place{}].
between(Tree, From, To) -> until(gb_trees:next(gb_trees:iterator_from(From, Tree)), To).

-spec until(none | {term(), #place{}, term()}, term()) -> [#place{}].
until({Key, Place, Iterator}, To) when Key =< To -> [Place | until(gb_trees:next(Iterator), To)];
until(_, _To) -> [].

%% ---- positions

%% A position without an event that is known is explained by one whose append may have been done,
%% and which may have been removed before anybody saw it: there are to be enough of these.
-spec holes(#facts{}) -> [violation()].
holes(#facts{runs = Runs, there = There} = Facts) ->
    Known = lists:foldl(
        fun(#run{base = Base, append = #append{members = Members}}, Positions) ->
            maps:merge(Positions, #{Base + M#member.offset => [] || M <- Members})
        end,
        There,
        Runs
    ),
    Max = lists:max([-1 | maps:keys(Known)]),
    Holes = [Position || Position <- lists:seq(0, Max), not is_map_key(Position, Known)],
    case length(Holes) =< unseen(Facts) of
        true -> [];
        false -> [{hole, Holes, [Facts#facts.final]}]
    end.

-spec unseen(#facts{}) -> non_neg_integer().
unseen(#facts{appends = Appends, runs = Runs} = Facts) ->
    Seen = #{key_of(Append) => [] || #run{append = Append} <- Runs},
    lists:sum([
        length(Members)
     || Key := #append{possible = [_ | _], members = Members, from = From} <- Appends,
        not is_map_key(Key, Seen),
        lists:any(
            fun(#member{stream = Stream}) -> may_be_gone(Facts, Stream, any, From, infinity) end,
            Members
        )
    ]).

-spec key_of(#append{}) -> binary().
key_of(#append{members = [#member{key = Key} | _]}) -> Key.

-spec the_end(#facts{}) -> [violation()].
the_end(#facts{final = #final{events = Events} = Final}) ->
    [
        {order_of_positions, {A, B}, [Final]}
     || {#seen{position = A}, #seen{position = B}} <- pairs(Events), A >= B
    ] ++
        [
            {version_hole, {Stream, A, B}, [Final]}
         || Stream := Seen <- maps:groups_from_list(fun(#seen{stream = S}) -> S end, Events),
            {#seen{version = A}, #seen{version = B}} <- pairs(Seen),
            B =/= A + 1
        ].

-spec order(#facts{}) -> [violation()].
order(#facts{runs = Runs, places = Places} = Facts) ->
    Once = maps:groups_from_list(fun(#run{append = Append}) -> key_of(Append) end, Runs),
    [
        {order, {Base, Floor}, Calls ++ acked_at(Floor, Places)}
     || _ := [#run{base = Base, append = #append{from = From, calls = Calls}}] <- Once,
        Floor <- [floor_of(Facts, all, From)],
        Floor > Base
    ].

-spec acked_at(integer(), gb_trees:tree()) -> [entry()].
acked_at(Position, Places) ->
    [By || {value, #place{by = By}} <- [gb_trees:lookup(Position, Places)]].

%% ---- reads

-spec floors([erl_esdb_history:entry()], [#run{}]) -> #{term() => gb_trees:tree()}.
floors(Entries, Runs) ->
    Acked = [
        {Who, {To, Base + length(Members) - 1}}
     || #run{base = Base, append = #append{members = Members}, acked = Calls} <- Runs,
        #call{to = To, node = Node} <- Calls,
        Who <- [all, {written, Node}]
    ],
    Read = [
        {{node, Node}, {To, lists:max([P || #seen{position = P} <- Seen])}}
     || #call{op = {read, _, _, _}, outcome = {ok, [_ | _] = Seen}, node = Node, to = To} <- Entries
    ],
    Grouped = maps:groups_from_list(
        fun({Who, _}) -> Who end, fun({_, Known}) -> Known end, Acked ++ Read
    ),
    maps:map(fun(_Who, Known) -> rising(lists:sort(Known)) end, Grouped).

-spec rising([{stamp(), integer()}]) -> gb_trees:tree(stamp(), integer()).
rising(Known) ->
    {_, Tree} = lists:foldl(
        fun({At, Position}, {Highest, Tree}) ->
            Highest1 = max(Highest, Position),
            {Highest1, gb_trees:enter(At, Highest1, Tree)}
        end,
        {-1, gb_trees:empty()},
        Known
    ),
    Tree.

%% The highest position that was known there before this moment.
-spec floor_of(#facts{}, term(), stamp()) -> integer().
floor_of(#facts{floors = Floors}, Who, At) ->
    case Floors of
        #{Who := Tree} -> below(gb_trees:smaller(At, Tree));
        #{} -> -1
    end.

-spec below(none | {stamp(), integer()}) -> integer().
below(none) -> -1;
below({_, Position}) -> Position.

-spec reads(#facts{}) -> [violation()].
reads(#facts{entries = Entries} = Facts) ->
    lists:append([
        read(Facts, Call, Seen)
     || #call{op = {read, _, _, _}, outcome = {ok, Seen}} = Call <- Entries
    ]) ++
        [
            {damaged, {Stream, Version}, [Call]}
         || #call{op = {read, _, _, _}, outcome = {refused, Reason}} = Call <- Entries,
            {corrupt_events, Stream, Version} <- [Reason]
        ].

-spec read(#facts{}, #call{}, [#seen{}]) -> [violation()].
read(Facts, #call{op = {read, Of, Window, Consistency}, from = From, to = To} = Call, Seen) ->
    Got = #{Position => [] || #seen{position = Position} <- Seen},
    Floor = max(floor_of(Facts, bound(Consistency, Call), From), lists:max([-1 | maps:keys(Got)])),
    [
        {read_missed, {Of, Position}, [Place#place.by, Call]}
     || #place{position = Position} = Place <- in_window(Facts, Of, Window, Seen),
        Position =< Floor,
        not is_map_key(Position, Got),
        not may_be_gone(Facts, Place, To)
    ] ++
        [
            {read_removed, {Of, Position}, [Place#place.by | By] ++ [Call]}
         || Consistency =:= linearizable,
            Position := [] <- Got,
            {value, Place} <- [gb_trees:lookup(Position, Facts#facts.places)],
            [_ | _] = By <- [gone_by(Facts, Place, From)]
        ] ++
        [{read_order, {Of, Window}, [Call]} || not in_order(Of, Window, Seen)].

-spec bound(erl_esdb_history:consistency(), #call{}) -> term().
bound(linearizable, _) -> all;
bound(read_your_writes, #call{node = Node}) -> {written, Node};
bound(local, #call{node = Node}) -> {node, Node}.

%% The places that a read speaks of: those that it asked for, as far as its answer goes.
-spec in_window(#facts{}, binary() | log, tuple(), [#seen{}]) -> [#place{}].
in_window(_Facts, _Of, {_, 0, _}, _Seen) ->
    [];
in_window(#facts{places = Places}, log, {_, Count, _} = Window, Seen) ->
    Read = [Position || #seen{position = Position} <- Seen],
    {From, To} = narrowed(Window, length(Read) =:= Count, Read),
    between(Places, From, To);
in_window(#facts{streams = Streams}, Stream, {last, Count, backward} = Window, Seen) ->
    Read = [Version || #seen{version = Version} <- Seen],
    {From, To} = narrowed(Window, length(Read) =:= Count, Read),
    versions(Streams, Stream, From, To);
in_window(#facts{streams = Streams}, Stream, {From, Count, forward}, _Seen) ->
    versions(Streams, Stream, From, From + Count - 1);
in_window(#facts{streams = Streams}, Stream, {From, Count, backward}, _Seen) ->
    versions(Streams, Stream, max(0, From - Count + 1), From).

%% A full answer ends where it ends, another goes as far as there is anything.
-spec narrowed(tuple(), Full :: boolean(), [non_neg_integer()]) ->
    {non_neg_integer(), non_neg_integer() | infinity}.
narrowed({From, _, forward}, true, Read) -> {From, lists:max(Read)};
narrowed({From, _, forward}, false, _Read) -> {From, infinity};
narrowed({last, _, backward}, true, Read) -> {lists:min(Read), infinity};
narrowed({last, _, backward}, false, _Read) -> {0, infinity};
narrowed({From, _, backward}, true, Read) -> {lists:min(Read), From};
narrowed({From, _, backward}, false, _Read) -> {0, From}.

-spec versions(map(), binary(), non_neg_integer(), non_neg_integer() | infinity) -> [#place{}].
versions(Streams, Stream, From, To) ->
    case Streams of
        #{Stream := Tree} -> between(Tree, {From, -1}, {To, infinity});
        #{} -> []
    end.

-spec in_order(binary() | log, tuple(), [#seen{}]) -> boolean().
in_order(Of, {From, Count, Direction}, Seen) ->
    Read = [number(Of, S) || S <- Seen],
    length(Read) =< Count andalso lists:usort(Read) =:= ascending(Direction, Read) andalso
        lists:all(fun(N) -> is_asked(From, Direction, N) end, Read) andalso
        lists:all(fun(#seen{stream = Stream}) -> Of =:= log orelse Stream =:= Of end, Seen).

-spec number(binary() | log, #seen{}) -> non_neg_integer().
number(log, #seen{position = Position}) -> Position;
number(_Stream, #seen{version = Version}) -> Version.

-spec ascending(forward | backward, [non_neg_integer()]) -> [non_neg_integer()].
ascending(forward, Read) -> Read;
ascending(backward, Read) -> lists:reverse(Read).

-spec is_asked(non_neg_integer() | last, forward | backward, non_neg_integer()) -> boolean().
is_asked(last, backward, _N) -> true;
is_asked(From, forward, N) -> N >= From;
is_asked(From, backward, N) -> N =< From.

%% ---- subscribers

-spec deliveries(#facts{}) -> [violation()].
deliveries(#facts{entries = Entries} = Facts) ->
    All = maps:groups_from_list(
        fun(#delivery{subscription = Name}) -> Name end, [D || #delivery{} = D <- Entries]
    ),
    lists:append([
        subscription(Facts, Call, Selector, From, maps:get(Name, All, []))
     || #call{op = {subscribe, Name, Selector, From}, outcome = {ok, _}} = Call <- Entries
    ]).

-spec subscription(#facts{}, #call{}, term(), non_neg_integer(), [#delivery{}]) -> [violation()].
subscription(#facts{final = Final} = Facts, Call, Selector, From, Deliveries) ->
    Each = [{Seen, Delivery} || #delivery{events = Seens} = Delivery <- Deliveries, Seen <- Seens],
    Got = #{Position => [] || {#seen{position = Position}, _} <- Each},
    [
        {not_selected, Seen, [Call, Delivery]}
     || {Seen, Delivery} <- Each, not is_selected(Selector, From, Seen)
    ] ++
        [
            {not_delivered, Seen, [Call, Final]}
         || #seen{position = Position} = Seen <- Final#final.events,
            is_selected(Selector, From, Seen),
            not is_map_key(Position, Got)
        ] ++ repeated(Facts, Call, Each, #{}, #{}).

-spec is_selected({stream, binary()} | all, non_neg_integer(), #seen{}) -> boolean().
is_selected(all, From, #seen{position = Position}) -> Position >= From;
is_selected({stream, S}, From, #seen{stream = S, version = Version}) -> Version >= From;
is_selected({stream, _}, _From, #seen{}) -> false.

%% `Highest' is of each stream, `Got' has all positions that came. Who goes back may do so after a
%% fault, to where it was before.
-spec repeated(#facts{}, #call{}, [{#seen{}, #delivery{}}], map(), map()) -> [violation()].
repeated(_Facts, _Call, [], _Highest, _Got) ->
    [];
repeated(Facts, Call, [{Seen, Delivery} | Each], Highest, Got) ->
    #seen{stream = Stream, position = Position} = Seen,
    Rest = repeated(
        Facts,
        Call,
        Each,
        maps:update_with(Stream, fun(P) -> max(P, Position) end, Position, Highest),
        Got#{Position => []}
    ),
    Again = is_map_key(Position, Got),
    if
        Again, Facts#facts.faulty > Delivery#delivery.at ->
            [{delivered_twice, Seen, [Call, Delivery]} | Rest];
        not Again, map_get(Stream, Highest) > Position ->
            [{delivered_out_of_order, Seen, [Call, Delivery]} | Rest];
        true ->
            Rest
    end.

%% ---- documents

%% Who wrote what when; before all others there was nothing.
-type write() :: {Value :: term(), stamp() | first, until() | first, entry() | none}.

-spec documents(#facts{}) -> [violation()].
documents(#facts{entries = Entries, final = Final}) ->
    Writes = maps:groups_from_list(
        fun({Key, _}) -> Key end,
        fun({_, Write}) -> Write end,
        lists:filtermap(fun write/1, Entries)
    ),
    Read = [
        {Key, Value, Consistency, Call}
     || #call{op = {get, Key, Consistency}, outcome = {ok, Value}} = Call <- Entries
    ],
    lists:append(
        [
            document(maps:get(Key, Writes, []), Key, Value, Consistency, Call)
         || {Key, Value, Consistency, Call} <- Read
        ] ++
            [
                document(maps:get(Key, Writes, []), Key, Value, linearizable, Final)
             || Key := Value <- Final#final.documents
            ]
    ).

-spec write(erl_esdb_history:entry()) -> {true, {term(), write()}} | false.
write(#call{outcome = {refused, _}}) ->
    false;
write(#call{op = {put, Key, Value}, from = From, to = To} = Call) ->
    {true, {Key, {{value, Value}, From, To, Call}}};
write(#call{op = {forget, Key}, from = From, to = To} = Call) ->
    {true, {Key, {none, From, To, Call}}};
write(_) ->
    false.

-spec document([write()], term(), term(), erl_esdb_history:consistency(), #call{} | #final{}) ->
    [violation()].
document(Writes, Key, Value, Consistency, Reader) ->
    {From, To} =
        case Reader of
            #call{from = F, to = T} -> {F, T};
            #final{} -> {infinity, infinity}
        end,
    Given = [Write || {V, Begin, _, _} = Write <- Writes, V =:= Value, Begin < To],
    Initial = [{none, first, first, none} || Value =:= none],
    case Given ++ Initial of
        [] ->
            [{document_unknown, {Key, Value}, [Reader]}];
        Candidates ->
            Stale = Consistency =:= linearizable andalso
                lists:all(fun(Write) -> is_overwritten(Write, Writes, From) end, Candidates),
            [
                {document_stale, {Key, Value}, [By || {_, _, _, By} <- Writes] ++ [Reader]}
             || Stale
            ]
    end.

%% By one that began when it had ended, and ended before this moment.
-spec is_overwritten(write(), [write()], until()) -> boolean().
is_overwritten({_, _, first, _}, Writes, Before) ->
    lists:any(fun({_, _, To, _}) -> To < Before end, Writes);
is_overwritten({_, _, Ended, _}, Writes, Before) ->
    lists:any(fun({_, From, To, _}) -> From > Ended andalso To < Before end, Writes).
