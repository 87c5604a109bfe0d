-module(erl_esdb_delivery_SUITE).
-moduledoc """
Delivery as a whole: subscribers that crash at any time, many of them, the feed, and the outbox,
which is pure, against any sequence of calls.
""".

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("proper/include/proper.hrl").
-include("../include/erl_esdb.hrl").

suite() -> [{timetrap, {minutes, 10}}].

all() -> erl_esdb_test:all().

groups() -> erl_esdb_test:groups(cases()).

cases() ->
    [
        the_feed_wakes_who_waits,
        no_wake_is_lost,
        readers_of_a_stream_are_woken_for_it,
        an_outbox_loses_nothing,
        what_several_share_is_lost_by_none,
        who_gets_what_another_had_left,
        a_word_from_before_a_rewind,
        a_word_for_each_copy,
        a_word_between_two_copies,
        words_for_several_of_which_there_are_copies,
        a_mailbox_of_what_lanes_had,
        an_acknowledgement_costs_what_it_acknowledges,
        a_late_word_wakes_nobody_in_vain,
        a_log_that_comes_back_wakes_again,
        subscribers_that_crash,
        a_thousand_subscribers,
        a_thousand_streams,
        a_selector_that_matches_little_is_not_read_again,
        what_is_removed_unread_is_passed_over,
        a_subscription_that_cannot_start_harms_no_other,
        whatever_is_killed_delivery_goes_on
    ].

init_per_group(Engine, Config) -> erl_esdb_test:init_per_group(Engine, Config).

end_per_group(Engine, Config) -> erl_esdb_test:end_per_group(Engine, Config).

options() -> #{}.

append(Store, Stream, Events) ->
    {ok, Version} = erl_esdb_streams:append(Store, Stream, any, Events),
    Version.

%% ---- the feed

the_feed_wakes_who_waits(_Config) ->
    Store = erl_esdb_test:start_store(options()),
    {ok, Feed} = erl_esdb_feed:subscribe(Store),
    ?assertEqual(wait, erl_esdb_feed:wait(Feed, 0)),
    [append(Store, <<"s">>, erl_esdb_test:events(1)) || _ <- lists:seq(1, 100)],
    receive {erl_esdb_feed, Store} -> ok after 60_000 -> error(missing) end,
    %% One message, however much was written.
    {error, unknown_request} = gen_server:call(erl_esdb_feed:pid(Feed), x),
    receive {erl_esdb_feed, Store} -> error(twice) after 0 -> ok end,
    ?assertEqual(ready, erl_esdb_feed:wait(Feed, 99)),
    ?assertEqual(wait, erl_esdb_feed:wait(Feed, 100)),
    ok = erl_esdb:stop_store(Store),
    ?assertEqual({error, {store_not_started, Store}}, erl_esdb_feed:subscribe(Store)),
    ?assertEqual(ok, erl_esdb_feed:committed(Store, 7)).

readers_of_a_stream_are_woken_for_it(_Config) ->
    Store = erl_esdb_test:start_store(options()),
    {ok, Feed} = erl_esdb_feed:subscribe(Store, {ok, <<"s">>}),
    ?assertEqual(wait, erl_esdb_feed:wait(Feed, 0)),
    Written = fun() -> {error, unknown_request} = gen_server:call(erl_esdb_feed:pid(Feed), x) end,
    [append(Store, <<"t">>, erl_esdb_test:events(1)) || _ <- lists:seq(1, 100)],
    Written(),
    receive {erl_esdb_feed, Store} -> error(woken_for_another) after 0 -> ok end,
    _ = append(Store, <<"s">>, erl_esdb_test:events(1)),
    receive {erl_esdb_feed, Store} -> ok after 60_000 -> error(missing) end,
    %% After more than is looked at one is woken to look for oneself.
    ?assertEqual(wait, erl_esdb_feed:wait(Feed, 101)),
    _ = append(Store, <<"t">>, erl_esdb_test:events(2000)),
    receive {erl_esdb_feed, Store} -> ok after 60_000 -> error(missing) end,
    ok = erl_esdb:stop_store(Store).

%% A reader that only ever waits for the next event gets to the end of what others write.
no_wake_is_lost(_Config) ->
    Store = erl_esdb_test:start_store(options()),
    Count = 5000,
    Self = self(),
    Readers = [
        spawn_link(fun() ->
            {ok, Feed} = erl_esdb_feed:subscribe(Store),
            ok = follow(Feed, Store, 0, 2 * Count),
            Self ! {there, self()}
        end)
     || _ <- lists:seq(1, 3)
    ],
    Write = fun(S) ->
        fun() -> [append(Store, S, erl_esdb_test:events(1)) || _ <- lists:seq(1, Count)] end
    end,
    _ = erl_esdb_test:concurrently([Write(<<"a">>), Write(<<"b">>)]),
    [receive {there, Reader} -> ok after 60_000 -> error(lost) end || Reader <- Readers],
    ok = erl_esdb:stop_store(Store).

follow(_Feed, _Store, End, End) ->
    ok;
follow(Feed, Store, Position, End) ->
    case erl_esdb_feed:wait(Feed, Position) of
        ready -> ok;
        wait -> receive {erl_esdb_feed, Store} -> ok end
    end,
    {ok, Next} = erl_esdb_store:next_position(Store),
    follow(Feed, Store, Next, End).

%% ---- the outbox

%% Whatever is added, taken, settled, acknowledged and lost: with `manual', whoever goes on from the
%% floor misses nothing that was not acknowledged, and what is taken is in order without a gap.
an_outbox_loses_nothing(_Config) ->
    Call = oneof([{add, range(1, 5)}, {take, range(0, 5)}, {ack, nat()}, rewind, {settle, nat()}]),
    Property = ?FORALL(
        {Ack, Window, Calls},
        {oneof([auto, manual]), range(1, 5), list(Call)},
        begin
            Box = erl_esdb_outbox:new(0, #{ack => Ack, window => Window}),
            Start = #{box => Box, ack => Ack, read => 0, sent => 0, acked => -1, out => 0},
            lists:foldl(fun outbox_step/2, Start, Calls),
            true
        end
    ),
    erl_esdb_test:property(1000, Property).

outbox_step({add, Count}, #{box := Box, read := Read} = Model) ->
    Events = [#event{position = P} || P <- lists:seq(Read, Read + Count - 1)],
    {ok, Box1} = erl_esdb_outbox:add(Events, Read + Count, Box),
    checked(Model#{box := Box1, read := Read + Count});
outbox_step({take, Count}, #{box := Box, sent := Sent, out := Out, ack := Ack} = Model) ->
    %% An atom is greater than any number.
    Limit = min(erl_esdb_outbox:limit(Box), erl_esdb_outbox:left_for(me, Box)),
    {Events, Box0} = erl_esdb_outbox:take(min(Count, Limit), Box),
    Box1 = lists:foldl(fun(E, B) -> erl_esdb_outbox:sent(me, [E], B) end, Box0, Events),
    true = length(Events) =< min(Count, Limit),
    true = [E#event.position || E <- Events] =:= lists:seq(Sent, Sent + length(Events) - 1),
    Ack =:= auto orelse is_integer(Limit) orelse error(limit),
    checked(Model#{box := Box1, sent := Sent + length(Events), out := Out + length(Events)});
outbox_step({ack, _}, #{sent := 0} = Model) ->
    Model;
outbox_step({ack, N}, #{box := Box, sent := Sent} = Model) ->
    Position = N rem Sent,
    checked(Model#{box := erl_esdb_outbox:acknowledged(Position, Box), acked := Position});
outbox_step({settle, Backlog}, #{box := Box} = Model) ->
    checked(Model#{box := erl_esdb_outbox:settle(me, Backlog, Box)});
outbox_step(rewind, #{box := Box} = Model) ->
    Floor = erl_esdb_outbox:floor(Box),
    Box1 = erl_esdb_outbox:rewind(Box),
    Floor = erl_esdb_outbox:floor(Box1),
    checked(Model#{box := Box1, read := Floor, sent := Floor, out := 0}).

checked(#{box := Box, ack := Ack, sent := Sent, acked := Acked} = Model) ->
    Floor = erl_esdb_outbox:floor(Box),
    %% Never beyond what was handed over, and never beyond what was acknowledged.
    true = Floor =< Sent,
    true = Ack =:= auto orelse Floor =< max(Acked + 1, 0) orelse Floor =:= Sent,
    true = Acked < 0 orelse Acked + 1 >= Sent orelse Floor =< Acked + 1,
    Model.

%% Several receivers share what is read, in messages of any size; they work, are looked at, and die,
%% what they have is taken from them, and the whole is begun again from its place, in any order. In
%% the end each event was handled; once where nobody died, nothing was taken, and nothing began
%% again. They are known to have handled what has left their mailboxes, or what they acknowledge,
%% one event or all that they have handled.
what_several_share_is_lost_by_none(_Config) ->
    Receiver = range(1, 3),
    Call = frequency([
        {3, {read, range(1, 9)}},
        {4, {send, Receiver, range(1, 4)}},
        {4, {work, Receiver}},
        {2, {look, Receiver}},
        {2, {ack, Receiver, oneof([last, all])}},
        {1, {die, Receiver}},
        {1, {take, Receiver}},
        {1, restart}
    ]),
    %% Receivers that have much before them when another goes on, hear of it again, and die.
    Busy = frequency([
        {3, {read, range(1, 9)}},
        {4, {send, range(1, 2), range(1, 4)}},
        {1, {work, 2}},
        {1, {ack, 2, all}}
    ]),
    Succeeded = ?LET(
        {Before, Then},
        {list(Busy), list(Busy)},
        Before ++ [succeed] ++ Then ++ [{die, N} || N <- [1, 2, 3]]
    ),
    Property = ?FORALL(
        {Ack, Count, Calls},
        {oneof([auto, manual]), range(1, 40), oneof([list(Call), Succeeded])},
        begin
            Boxes = #{N => [] || N <- [1, 2, 3]},
            Start = #{
                ack => Ack,
                box => fresh(Ack, 0),
                ends => 2 * Count,
                mail => Boxes,
                handled => Boxes,
                done => []
            },
            #{done := Done} = Drained = drained(lists:foldl(fun shared_step/2, Start, Calls)),
            true = Ack =:= auto orelse is_acknowledged(Drained),
            Expected = lists:seq(0, 2 * Count - 1, 2),
            Crashes = lists:filter(fun may_repeat/1, Calls),
            lists:usort(Done) =:= Expected andalso
                (Crashes =/= [] orelse lists:sort(Done) =:= Expected)
        end
    ),
    erl_esdb_test:property(2000, Property).

may_repeat({Call, _Receiver}) -> lists:member(Call, [die, take]);
may_repeat(Call) -> lists:member(Call, [restart, succeed]).

fresh(Ack, Place) -> erl_esdb_outbox:new(Place, #{ack => Ack, max_queue => 7}).

%% Only each second event is wanted. The first message of a mailbox is in the hands of its owner.
shared_step({read, Count}, #{box := Box, ends := End} = Model) ->
    From = erl_esdb_outbox:next(Box),
    To = min(End, From + min(Count, erl_esdb_outbox:room(Box))),
    Events = [#event{position = P} || P <- lists:seq(From, To - 1), P rem 2 =:= 0],
    {ok, Box1} = erl_esdb_outbox:add(Events, max(From, To), Box),
    Model#{box := Box1};
shared_step({send, Receiver, Count}, #{box := Box, mail := Mail} = Model) ->
    case erl_esdb_outbox:take(Count, Box) of
        {[], Box1} ->
            Model#{box := Box1};
        {Events, Box1} ->
            #{Receiver := Before} = Mail,
            Message = [E#event.position || E <- Events],
            Model#{
                box := erl_esdb_outbox:sent(Receiver, Events, Box1),
                mail := Mail#{Receiver := Before ++ [Message]}
            }
    end;
shared_step({work, Receiver}, #{mail := Mail, handled := Handled, done := Done} = Model) ->
    case {Mail, Handled} of
        {#{Receiver := [Message | Left]}, #{Receiver := Before}} ->
            Model#{
                mail := Mail#{Receiver := Left},
                handled := Handled#{Receiver := lists:reverse(Message) ++ Before},
                done := Message ++ Done
            };
        {#{}, #{}} ->
            Model
    end;
%% The last that it has handled, itself or through another; with it all that it was sent before.
shared_step({ack, Receiver, How}, #{ack := manual, box := Box, handled := Handled} = Model) ->
    case {How, Handled} of
        {_, #{Receiver := []}} ->
            Model;
        {all, #{Receiver := [Last | _]}} ->
            Model#{box := erl_esdb_outbox:acknowledged(Last, Receiver, Box)};
        {last, #{Receiver := [Last | _]}} ->
            Model#{box := erl_esdb_outbox:done(Last, Box)}
    end;
shared_step({ack, _Receiver, _How}, Model) ->
    Model;
shared_step({look, _Receiver}, #{ack := manual} = Model) ->
    Model;
shared_step({look, Receiver}, #{box := Box, mail := Mail} = Model) ->
    #{Receiver := Messages} = Mail,
    Backlog = max(0, length(Messages) - 1),
    Box1 = erl_esdb_outbox:settle(Receiver, Backlog, Box),
    true = erl_esdb_outbox:waiting(Receiver, Backlog, Box1) >= length(lists:append(Messages)) - 4,
    Model#{box := Box1};
%% Another has its name then, who has handled nothing.
shared_step({die, Receiver}, #{box := Box, mail := Mail, handled := Handled} = Model) ->
    Model#{
        box := erl_esdb_outbox:silent(Receiver, erl_esdb_outbox:lose(Receiver, Box)),
        mail := Mail#{Receiver := []},
        handled := Handled#{Receiver := []}
    };
%% It lives, with what it has in its mailbox, and may get the same again.
shared_step({take, Receiver}, #{ack := manual, box := Box} = Model) ->
    Model#{box := erl_esdb_outbox:lose(Receiver, Box)};
shared_step({take, _Receiver}, Model) ->
    Model;
shared_step(restart, #{ack := Ack, box := Box, mail := Mail} = Model) ->
    %% Nobody is left who could handle what was in mailboxes.
    Place = erl_esdb_outbox:place(Box),
    Rewound = erl_esdb_outbox:rewind(Box),
    true = erl_esdb_outbox:next(Rewound) =:= erl_esdb_outbox:next(fresh(Ack, Place)),
    true = Place =:= erl_esdb_outbox:place(Rewound),
    Nothing = #{R => [] || R := _ <- Mail},
    Model#{box := fresh(Ack, Place), mail := Nothing, handled := Nothing};
%% They live, and have what they were sent; and get some of it again, dealt in another way.
shared_step(succeed, #{ack := manual, box := Box, mail := Mail} = Model) ->
    New = fresh(manual, erl_esdb_outbox:place(Box)),
    Model#{box := erl_esdb_outbox:doubt(maps:keys(Mail), New)};
shared_step(succeed, Model) ->
    Model.

drained(#{box := Box, ends := End, mail := Mail} = Model) ->
    #{queue := #{size := Size}} = erl_esdb_outbox:info(Box),
    case {erl_esdb_outbox:next(Box) >= End andalso Size =:= 0, [R || R := [_ | _] <- Mail]} of
        {true, []} -> Model;
        {true, [Receiver | _]} -> drained(shared_step({work, Receiver}, Model));
        {false, _} -> drained(shared_step({send, 1, 4}, shared_step({read, 9}, Model)))
    end.

%% Who acknowledges each event that it has handled leaves none open.
is_acknowledged(#{box := Box, handled := Handled}) ->
    Words = [{Position, R} || R := Positions <- Handled, Position <- lists:reverse(Positions)],
    Say = fun({Position, R}, Acc) -> erl_esdb_outbox:acknowledged(Position, R, Acc) end,
    Said = lists:foldl(Say, Box, Words),
    erl_esdb_outbox:floor(Said) =:= erl_esdb_outbox:next(Said).

%% Older events come after newer ones then: the place is that of the oldest, and what is
%% acknowledged is found wherever it stands.
who_gets_what_another_had_left(_Config) ->
    [auto, manual] = [left_over(Ack) || Ack <- [auto, manual]].

left_over(Ack) ->
    Box0 = erl_esdb_outbox:new(0, #{ack => Ack}),
    {ok, Box1} = erl_esdb_outbox:add([#event{position = P} || P <- [0, 1, 2, 3]], 4, Box0),
    {[E0, E1, E2, E3], Box2} = erl_esdb_outbox:take(4, Box1),
    Box3 = erl_esdb_outbox:sent(a, [E0, E1], Box2),
    Box4 = erl_esdb_outbox:lose(a, erl_esdb_outbox:sent(b, [E2, E3], Box3)),
    ?assertEqual(0, erl_esdb_outbox:next(Box4)),
    {ok, Box5} = erl_esdb_outbox:add([E0, E1, E2], 3, Box4),
    ?assertEqual(4, erl_esdb_outbox:next(Box5)),
    {[E0, E1], Box6} = erl_esdb_outbox:take(4, Box5),
    Box7 = erl_esdb_outbox:sent(b, [E0, E1], Box6),
    ?assertEqual(0, erl_esdb_outbox:floor(Box7)),
    Again = erl_esdb_outbox:new(erl_esdb_outbox:place(Box7), #{ack => Ack}),
    ?assertEqual(0, erl_esdb_outbox:next(Again)),
    Box8 = erl_esdb_outbox:acknowledged(1, Box7),
    Left = #{auto => {0, 4}, manual => {2, 2}},
    #{floor := Floor, unhandled := Count} = erl_esdb_outbox:info(Box8),
    ?assertEqual(map_get(Ack, Left), {Floor, Count}),
    Ack.

%% Who lives while all begins again says of what it was sent before nothing about what it has since.
a_word_from_before_a_rewind(_Config) ->
    Box0 = erl_esdb_outbox:new(0, #{ack => manual}),
    Events = [E0, E1, E2, E3] = [#event{position = P} || P <- [0, 1, 2, 3]],
    {ok, Box1} = erl_esdb_outbox:add(Events, 4, Box0),
    {Events, Box2} = erl_esdb_outbox:take(4, Box1),
    Box3 = erl_esdb_outbox:sent(b, [E1, E3], erl_esdb_outbox:sent(a, [E0, E2], Box2)),
    {ok, Box4} = erl_esdb_outbox:add(Events, 4, erl_esdb_outbox:rewind(Box3)),
    {Events, Box5} = erl_esdb_outbox:take(4, Box4),
    Box6 = erl_esdb_outbox:sent(a, [E0, E1, E2], erl_esdb_outbox:sent(b, [E3], Box5)),
    Box7 = erl_esdb_outbox:acknowledged(2, a, Box6),
    ?assertMatch(#{floor := 1, unhandled := 2}, erl_esdb_outbox:info(Box7)),
    Box8 = erl_esdb_outbox:acknowledged(1, a, Box7),
    ?assertMatch(#{floor := 3, unhandled := 1}, erl_esdb_outbox:info(Box8)).

%% Each of its copies is spoken of.
a_word_for_each_copy(_Config) ->
    Box0 = erl_esdb_outbox:new(0, #{ack => manual}),
    [E0, E1] = [#event{position = P} || P <- [0, 1]],
    {ok, Box1} = erl_esdb_outbox:add([E0], 1, Box0),
    {_, Box2} = erl_esdb_outbox:take(1, Box1),
    Box3 = lists:foldl(fun(_, Box) -> taken_back(E0, Box) end, Box2, [first, second]),
    {ok, Box4} = erl_esdb_outbox:add([E0, E1], 2, Box3),
    {[E0, E1], Box5} = erl_esdb_outbox:take(2, Box4),
    %% It has 0, 0, 1 and 0 in its mailbox, and 1 is not handled.
    Box6 = erl_esdb_outbox:sent(a, [E0], erl_esdb_outbox:sent(a, [E1], Box5)),
    Box8 = lists:foldl(fun(_, Box) -> erl_esdb_outbox:acknowledged(0, a, Box) end, Box6, [1, 2]),
    ?assertMatch(#{unhandled := 1}, erl_esdb_outbox:info(Box8)),
    ?assertEqual(1, erl_esdb_outbox:floor(Box8)).

%% One that acknowledges each fifth, and may have all from elsewhere, twice from here besides:
%% its words leave room for more, and one that is certain leaves nothing open.
words_for_several_of_which_there_are_copies(_Config) ->
    Box0 = erl_esdb_outbox:doubt([a], erl_esdb_outbox:new(0, #{ack => manual, window => 10})),
    Events = [#event{position = P} || P <- lists:seq(0, 9)],
    Send = fun(E, Box) -> erl_esdb_outbox:sent(a, [E], Box) end,
    Box1 = taken(Events, 10, Box0),
    Box2 = erl_esdb_outbox:lose(a, lists:foldl(Send, Box1, Events)),
    Box3 = lists:foldl(Send, taken(Events, 10, Box2), Events),
    ?assertEqual(0, erl_esdb_outbox:left_for(a, Box3)),
    Say = fun(P, Box) -> erl_esdb_outbox:acknowledged(P, a, Box) end,
    Box4 = lists:foldl(Say, Box3, [4, 9, 4, 9, 4, 9]),
    ?assertEqual(10, erl_esdb_outbox:left_for(a, Box4)),
    ?assertMatch(#{unhandled := 8, floor := 0}, erl_esdb_outbox:info(Box4)),
    Box5 = erl_esdb_outbox:certain_from(10, Box4),
    Last = #event{position = 10},
    Box6 = Say(10, Send(Last, taken([Last], 11, Box5))),
    ?assertMatch(#{unhandled := 0, floor := 11}, erl_esdb_outbox:info(Box6)).

taken(Events, Next, Box) ->
    {ok, Box1} = erl_esdb_outbox:add(Events, Next, Box),
    {Events, Box2} = erl_esdb_outbox:take(length(Events), Box1),
    Box2.

%% Its second word comes when it has been sent the event a third time, behind another one.
a_word_between_two_copies(_Config) ->
    Box0 = erl_esdb_outbox:new(0, #{ack => manual}),
    [E0, E1] = [#event{position = P} || P <- [0, 1]],
    {ok, Box1} = erl_esdb_outbox:add([E0], 1, Box0),
    {_, Box2} = erl_esdb_outbox:take(1, Box1),
    %% It has 0 and 0 in its mailbox, and another receiver has the event now.
    Box3 = erl_esdb_outbox:lose(a, erl_esdb_outbox:sent(a, [E0], taken_back(E0, Box2))),
    {ok, Box4} = erl_esdb_outbox:add([E0], 1, Box3),
    {[E0], Box5} = erl_esdb_outbox:take(1, Box4),
    Box6 = erl_esdb_outbox:acknowledged(0, a, erl_esdb_outbox:sent(b, [E0], Box5)),
    {ok, Box7} = erl_esdb_outbox:add([E0, E1], 2, erl_esdb_outbox:lose(b, Box6)),
    {[E0, E1], Box8} = erl_esdb_outbox:take(2, Box7),
    Box9 = erl_esdb_outbox:sent(a, [E0], erl_esdb_outbox:sent(a, [E1], Box8)),
    %% Of 0, 1 and 0 it has handled the first.
    Box10 = erl_esdb_outbox:acknowledged(0, a, Box9),
    ?assertMatch(#{floor := 1, unhandled := 1}, erl_esdb_outbox:info(Box10)).

taken_back(Event, Box) ->
    Lost = erl_esdb_outbox:lose(a, erl_esdb_outbox:sent(a, [Event], Box)),
    {ok, Read} = erl_esdb_outbox:add([Event], 1, Lost),
    {[Event], Taken} = erl_esdb_outbox:take(1, Read),
    erl_esdb_outbox:lose(b, erl_esdb_outbox:sent(b, [Event], Taken)).

%% What lanes had counts as it stands in the mailbox.
a_mailbox_of_what_lanes_had(_Config) ->
    Box0 = erl_esdb_outbox:new(0, #{}),
    Events = [#event{position = P} || P <- lists:seq(0, 8)],
    {ok, Box1} = erl_esdb_outbox:add(Events, 9, Box0),
    {Events, Box2} = erl_esdb_outbox:take(9, Box1),
    Lane = fun(#event{position = P}) -> {lane, P rem 3} end,
    Send = fun(E, Box) -> erl_esdb_outbox:sent(Lane(E), [E], Box) end,
    Sent = lists:foldl(Send, Box2, Events),
    Box3 = erl_esdb_outbox:merge([{lane, N} || N <- [0, 1, 2]], me, Sent),
    ?assertEqual([me], erl_esdb_outbox:receivers(Box3)),
    ?assertEqual(1, erl_esdb_outbox:waiting(me, 1, erl_esdb_outbox:settle(me, 1, Box3))),
    ?assertMatch(#{unhandled := 9}, erl_esdb_outbox:info(Box3)).

%% One after the other: eight times as many cost about eight times as much.
an_acknowledgement_costs_what_it_acknowledges(_Config) ->
    Cost = fun(Count) ->
        Box = erl_esdb_outbox:new(0, #{ack => manual, window => Count, max_queue => Count}),
        Events = [#event{position = P} || P <- lists:seq(0, Count - 1)],
        {ok, Full} = erl_esdb_outbox:add(Events, Count, Box),
        {Events, Taken} = erl_esdb_outbox:take(infinity, Full),
        Out = lists:foldl(fun(E, B) -> erl_esdb_outbox:sent(me, [E], B) end, Taken, Events),
        erl_esdb_test:reductions(fun() ->
            lists:foldl(fun erl_esdb_outbox:acknowledged/2, Out, lists:seq(0, Count - 1))
        end)
    end,
    ?assert(Cost(8000) < 16 * Cost(1000)).

%% The word of a commit that comes after others, when a feed has just begun.
a_late_word_wakes_nobody_in_vain(_Config) ->
    Store = erl_esdb_test:start_store(options()),
    _ = append(Store, <<"s">>, erl_esdb_test:events(5)),
    {ok, Feed} = erl_esdb_feed:subscribe(Store, {ok, <<"s">>}),
    ok = erl_esdb_feed:committed(Store, 3),
    ?assertEqual(wait, erl_esdb_feed:wait(Feed, 5)),
    _ = append(Store, <<"s">>, erl_esdb_test:events(1)),
    receive {erl_esdb_feed, Store} -> ok after 60_000 -> error(missing) end,
    ?assertEqual(ready, erl_esdb_feed:wait(Feed, 5)),
    ok = erl_esdb:stop_store(Store).

%% An engine that begins anew has less at first, and whoever reads then waits for the rest.
a_log_that_comes_back_wakes_again(_Config) ->
    Store = erl_esdb_test:start_store(options()),
    _ = append(Store, <<"s">>, erl_esdb_test:events(5)),
    {ok, Feed} = erl_esdb_feed:subscribe(Store, {ok, <<"s">>}),
    ?assertEqual(wait, erl_esdb_feed:wait(Feed, 5)),
    _ = append(Store, <<"s">>, erl_esdb_test:events(1)),
    receive {erl_esdb_feed, Store} -> ok after 60_000 -> error(missing) end,
    [
        begin
            ok = erl_esdb_feed:committed(Store, Fewer),
            ?assertEqual(wait, erl_esdb_feed:wait(Feed, Fewer)),
            ok = erl_esdb_feed:committed(Store, 6),
            receive {erl_esdb_feed, Store} -> ok after 10_000 -> error({missing, Fewer}) end
        end
     || Fewer <- [3, 0]
    ],
    ?assertEqual(wait, erl_esdb_feed:wait(Feed, 6)),
    _ = append(Store, <<"t">>, erl_esdb_test:events(1)),
    {error, unknown_request} = gen_server:call(erl_esdb_feed:pid(Feed), x),
    receive {erl_esdb_feed, Store} -> error(woken_for_another) after 0 -> ok end,
    ok = erl_esdb:stop_store(Store).

%% ---- subscribers that crash

%% Any appends to a few streams, messages of up to four events, subscribers that die after some of
%% their events, also within a message, whether they acknowledge or not, and others that are
%% attached in their place. Together they see each event of each stream, and each of them sees a
%% stream in order; where none dies, each event once.
subscribers_that_crash(_Config) ->
    Lives = list(range(0, 12)),
    Property = ?FORALL(
        {Batches, Ack, Size, Deaths},
        {
            non_empty(list({range(1, 3), range(1, 6)})),
            oneof([auto, manual]),
            range(1, 4),
            Lives
        },
        begin
            Store = erl_esdb_test:start_store(options()),
            Seen = seen(Store, Batches, {Ack, Size}, Deaths),
            ok = erl_esdb:stop_store(Store),
            right(Seen, Batches, Deaths)
        end
    ),
    erl_esdb_test:property(60, Property).

seen(Store, Batches, {Ack, Size}, Deaths) ->
    Self = self(),
    First = subscriber(Store, Ack, Deaths, Self),
    %% Subscribed by a process that ends: nobody else takes the events.
    Options = #{subscriber => First, ack => Ack, window => 4, batch => Size},
    [{ok, Key}] = erl_esdb_test:concurrently([
        fun() -> erl_esdb_subscriptions:subscribe(Store, stream, <<"$all">>, <<"n">>, Options) end
    ]),
    Keeper = keeper(Store, Key, First, Ack, Deaths, Self),
    [append(Store, <<S>>, erl_esdb_test:events(Count)) || {S, Count} <- Batches],
    _ = append(Store, <<"end">>, [erl_esdb_test:event(last)]),
    Seen = saw(Store, []),
    Keeper ! stop,
    Seen.

%% What each subscriber saw, in order, until the last event was seen.
saw(Store, Seen) ->
    receive
        {saw, Store, _, #event{stream_id = <<"end">>}} ->
            lists:reverse(Seen);
        {saw, Store, Pid, #event{stream_id = Stream, version = Version}} ->
            saw(Store, [{Pid, Stream, Version} | Seen])
    after 60_000 -> error({never_ended, lists:reverse(Seen)})
    end.

%% Dies after as many events as stand first in the list, if there is a number.
subscriber(Store, Ack, [Life | _], Report) ->
    spawn(fun() -> take(Store, Ack, Life, Report) end);
subscriber(Store, Ack, [], Report) ->
    spawn(fun() -> take(Store, Ack, infinity, Report) end).

take(Store, Ack, Life, Report) ->
    receive
        {events, Events} ->
            take(Store, Ack, handled(Events, Store, Ack, Life, Report), Report)
    end.

%% Its life ends where it may: before, within or after a message.
handled(_Events, _Store, _Ack, 0, _Report) ->
    exit(crashed);
handled([Event | Events], Store, Ack, Life, Report) ->
    Report ! {saw, Store, self(), Event},
    _ = acknowledge(Ack, Store, Event),
    handled(Events, Store, Ack, less(Life), Report);
handled([], _Store, _Ack, Life, _Report) ->
    Life.

less(infinity) -> infinity;
less(Life) -> Life - 1.

acknowledge(manual, Store, #event{position = Position}) ->
    ok = erl_esdb_subscriptions:ack(Store, <<"n">>, undefined, Position);
acknowledge(auto, _, _) ->
    ok.

%% Attaches the next subscriber when one has died.
keeper(Store, Key, Subscriber, Ack, Deaths, Report) ->
    spawn(fun() -> keep(Store, Key, Subscriber, Ack, Deaths, Report) end).

keep(Store, Key, Subscriber, Ack, Deaths, Report) ->
    Ref = monitor(process, Subscriber),
    receive
        {'DOWN', Ref, process, _, _} ->
            Left = lists:nthtail(min(1, length(Deaths)), Deaths),
            Next = subscriber(Store, Ack, Left, Report),
            ok = erl_esdb_subscriptions:attach(Store, Key, Next),
            keep(Store, Key, Next, Ack, Left, Report);
        stop ->
            exit(Subscriber, kill)
    end.

right(Seen, Batches, Deaths) ->
    Counts = lists:foldl(
        fun({S, Count}, Acc) -> maps:update_with(<<S>>, fun(N) -> N + Count end, Count, Acc) end,
        #{},
        Batches
    ),
    Expected = lists:sort([{S, V} || S := Count <- Counts, V <- lists:seq(0, Count - 1)]),
    Names = [{S, V} || {_, S, V} <- Seen],
    Pids = lists:usort([Pid || {Pid, _, _} <- Seen]),
    Complete = lists:usort(Names) =:= Expected,
    Once = Deaths =/= [] orelse lists:sort(Names) =:= Expected,
    Ordered = lists:all(
        fun({Pid, S}) -> is_rising([V || {P, T, V} <- Seen, P =:= Pid, T =:= S]) end,
        [{Pid, S} || Pid <- Pids, S <- maps:keys(Counts)]
    ),
    Complete andalso Once andalso Ordered.

%% Without a gap: one after the other.
is_rising([]) -> true;
is_rising([First | _] = Versions) -> Versions =:= lists:seq(First, First + length(Versions) - 1).

%% ---- many

a_thousand_subscribers(_Config) ->
    Store = erl_esdb_test:start_store(options()),
    Self = self(),
    Count = 100,
    Begin = erlang:monotonic_time(millisecond),
    Subscribers = [
        spawn_link(fun() ->
            Selector = {stream, <<"$all">>},
            {ok, _} = erl_esdb_subscriptions:subscribe(
                Store, element(1, Selector), element(2, Selector), <<N:32>>, #{subscriber => self()}
            ),
            Self ! {subscribed, self()},
            Self ! {got, self(), [receive {events, [E]} -> E end || _ <- lists:seq(1, Count)]}
        end)
     || N <- lists:seq(1, 1000)
    ],
    [receive {subscribed, Pid} -> ok end || Pid <- Subscribers],
    Subscribed = erlang:monotonic_time(millisecond),
    [append(Store, <<(N rem 5)>>, erl_esdb_test:events(10)) || N <- lists:seq(1, Count div 10)],
    [
        receive
            {got, Pid, Events} ->
                ?assertEqual(lists:seq(0, Count - 1), [E#event.position || E <- Events])
        end
     || Pid <- Subscribers
    ],
    End = erlang:monotonic_time(millisecond),
    Time = max(1, End - Subscribed),
    ct:pal("1000 subscriptions made in ~b ms, ~b events to each in ~b ms: ~b messages a second", [
        Subscribed - Begin, Count, Time, Count * 1000 * 1000 div Time
    ]),
    ok = erl_esdb:stop_store(Store).

%% Each with a subscriber of its own, while all are written to.
a_thousand_streams(_Config) ->
    Store = erl_esdb_test:start_store(options()),
    Self = self(),
    Names = [<<"stream-", (integer_to_binary(N))/binary>> || N <- lists:seq(1, 1000)],
    Subscriber = fun(Name) ->
        {ok, _} = erl_esdb_subscriptions:subscribe(Store, stream, Name, Name),
        Self ! {subscribed, self()},
        Self ! {got, self(), [receive {event, E} -> E end || _ <- [1, 2, 3]]}
    end,
    Pids = [{Name, spawn_link(fun() -> Subscriber(Name) end)} || Name <- Names],
    [receive {subscribed, Pid} -> ok end || {_, Pid} <- Pids],
    [append(Store, Name, erl_esdb_test:events(1)) || _ <- [1, 2, 3], Name <- Names],
    [
        receive
            {got, Pid, Events} ->
                Expected = [{Name, V} || V <- [0, 1, 2]],
                ?assertEqual(Expected, [{E#event.stream_id, E#event.version} || E <- Events])
        after 60_000 -> error({missing, Name})
        end
     || {Name, Pid} <- Pids
    ],
    ok = erl_esdb:stop_store(Store).

%% The place that is saved moves also when nothing is selected.
a_selector_that_matches_little_is_not_read_again(_Config) ->
    Store = erl_esdb_test:start_store(options()),
    {ok, Key} = erl_esdb_subscriptions:subscribe(Store, event_type, <<"Rare">>, <<"n">>),
    [append(Store, <<"s">>, erl_esdb_test:events(100)) || _ <- lists:seq(1, 10)],
    NextKey = erl_esdb_subscriptions_store:next_key(Key),
    erl_esdb_test:await(fun() -> {ok, 1000} =:= erl_esdb_store:checkpoint(Store, NextKey) end),
    ok = erl_esdb_subscriptions:unsubscribe(Store, Key),
    ?assertEqual({error, not_found}, erl_esdb_store:checkpoint(Store, NextKey)),
    ok = erl_esdb:stop_store(Store).

%% By more than a reader looks at in one go; and the same where it is only hidden.
what_is_removed_unread_is_passed_over(_Config) ->
    Remove = fun(Store) -> {ok, {0, 900}} = erl_esdb_store:truncate(Store, <<"s">>, 900) end,
    Hide = fun(Store) ->
        ok = erl_esdb_streams:set_metadata(Store, <<"s">>, #{truncate_before => 900}, #{})
    end,
    [passes_over(Gone) || Gone <- [Remove, Hide]].

passes_over(Gone) ->
    Store = erl_esdb_test:start_store(options()),
    %% Ten events at most have gone out, or are about to: the rest is still to be read.
    Options = #{window => 5, max_queue => 5},
    {ok, Key} = erl_esdb_subscriptions:subscribe(Store, stream, <<"s">>, <<"n">>, Options),
    999 = append(Store, <<"s">>, erl_esdb_test:events(1000)),
    erl_esdb_test:await(fun() ->
        {ok, #{position := At}} = erl_esdb_subscriptions:info(Store, Key),
        At =:= 10
    end),
    _ = Gone(Store),
    1009 = append(Store, <<"s">>, erl_esdb_test:events(10)),
    Next = fun(_) -> receive {event, E} -> E#event.version after 60_000 -> none end end,
    ?assertEqual(
        lists:seq(0, 9) ++ lists:seq(900, 1009), [Next(N) || N <- lists:seq(1, 120)]
    ),
    ok = erl_esdb:stop_store(Store).

a_subscription_that_cannot_start_harms_no_other(_Config) ->
    Store = erl_esdb_test:start_store(options()),
    {ok, _} = erl_esdb_subscriptions:subscribe(Store, stream, <<"s">>, <<"n">>),
    %% One that no version of ours would have written: it is found when all begins again.
    Broken = #subscription{type = stream, selector = not_a_name, subscription_name = <<"broken">>},
    ok = erl_esdb_subscriptions_store:put(Store, Broken),
    erl_esdb_test:quietly(fun() ->
        {ok, {Feed, _}} = erl_esdb_delivery:find(Store, feed, none),
        exit(Feed, kill),
        erl_esdb_test:await(fun() -> {ok, Feed} =/= feed(Store) end),
        _ = append(Store, <<"s">>, erl_esdb_test:events(1)),
        receive {event, #event{version = 0}} -> ok after 60_000 -> error(missing) end,
        ok = erl_esdb_subscriptions:unsubscribe(Store, erl_esdb_subscriptions_store:key(Broken))
    end),
    ok = erl_esdb:stop_store(Store).

%% Each process that delivers, one after the other, while events are written: all of them come, in
%% order but for those that come again. The engine, whose store this is, lives on.
whatever_is_killed_delivery_goes_on(_Config) ->
    Store = erl_esdb_test:start_store(options()),
    Engine = erl_esdb_test:orderer(Store),
    {ok, Key} = erl_esdb_subscriptions:subscribe(Store, stream, <<"$all">>, <<"n">>),
    Victims = [
        fun() -> feed(Store) end,
        fun() -> erl_esdb_delivery:pid(Store, checkpoints, none) end,
        fun() -> erl_esdb_delivery:pid(Store, subscriptions, none) end,
        fun() -> erl_esdb_delivery:pid(Store, manager, none) end,
        fun() -> erl_esdb_delivery:pid(Store, subscription, Key) end,
        fun() -> {ok, whereis(erl_esdb_pg)} end
    ],
    Kill = fun(Victim, Version) ->
        %% An event may come before all are back that ended with the one before.
        erl_esdb_test:await(fun() -> is_there(Victim()) end),
        {ok, Pid} = Victim(),
        exit(Pid, kill),
        Version = append(Store, <<"s">>, erl_esdb_test:events(1)),
        ok = comes(Version),
        Version + 1
    end,
    _ = erl_esdb_test:quietly(fun() -> lists:foldl(Kill, 0, Victims) end),
    ?assertEqual(Engine, erl_esdb_test:orderer(Store)),
    %% Also members of groups are known again.
    erl_esdb_test:await(fun() -> is_pid(whereis(erl_esdb_pg)) end),
    Self = self(),
    Handler = spawn_link(fun() -> receive {event, Event} -> Self ! {handled, Event} end end),
    ok = erl_esdb_emitter_group:join(Store, Key, Handler),
    %% Events before the subscription has heard of it come here.
    erl_esdb_test:await(fun() ->
        _ = append(Store, <<"s">>, erl_esdb_test:events(1)),
        receive {handled, _} -> true after 0 -> false end
    end),
    ok = erl_esdb:stop_store(Store).

is_there({ok, Pid}) -> is_pid(Pid) andalso is_process_alive(Pid);
is_there({error, not_found}) -> false;
is_there(error) -> false.

comes(Version) ->
    receive
        {event, #event{version = Version}} -> ok;
        {event, #event{version = Earlier}} when Earlier < Version -> comes(Version)
    after 60_000 -> error({missing, Version})
    end.

feed(Store) ->
    case erl_esdb_delivery:find(Store, feed, none) of
        {ok, {Pid, _}} -> {ok, Pid};
        error -> error
    end.
