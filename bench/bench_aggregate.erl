-module(bench_aggregate).
-moduledoc """
Aggregates over lists of maps, against the loops that a user would write, on generated events of
some 350 bytes.

Two loops stand for the user: one that knows the shape of the events and matches on it, the least
that Erlang can do, and one of functions of `maps` and `lists` for fields that are known at run time
only.
""".

-export([run/0]).

-doc "Measures all rows.".
-spec run() -> ok.
run() ->
    esdb_bench:title("Aggregates over lists of maps"),
    lists:foreach(fun group_by/1, [1000, 100_000]),
    Events = events(1000),
    group_by_numbers(Events),
    one_field(Events),
    tagged(Events),
    field_statistics(Events),
    packed(Events),
    esdb_bench:note(
        "Sums, counts and folds over maps are Erlang in both modes: only `group_by/3` is native. "
        "Of its 37 ns for an event 2 count the list, 27 are spent on asking the virtual machine "
        "for what an event holds (three fields of maps, the bytes of the key, the integer), and 8 "
        "on the group: five times faster than a loop of 120 ns would be less than the first two.",
        []
    ).

-spec group_by(pos_integer()) -> float().
group_by(N) ->
    Events = events(N),
    Ours = fun() -> esdb_aggregate_nif:group_by(Events, event_type, [count, {sum, amount}]) end,
    What = io_lib:format("group by type: count and sum, ~b events", [N]),
    esdb_bench:compare(What ++ ", fields known at run time", #{
        ours => {"group_by/3", Ours},
        rival => {"maps:update_with", fun() -> updated(Events, event_type, amount) end},
        goal => 5.0
    }),
    esdb_bench:compare(What ++ ", twin", #{
        ours => {"group_by/3", Ours},
        rival => {"esdb_aggregate_erl", fun() -> twin(Events) end}
    }),
    esdb_bench:compare(What ++ ", shape written down", #{
        ours => {"group_by/3", Ours},
        rival => {"a loop that matches", fun() -> matched(Events, #{}) end}
    }).

-spec group_by_numbers([map()]) -> float().
group_by_numbers(Events) ->
    esdb_bench:compare("group by area: five aggregates, 1000 events", #{
        ours => {"group_by/3", fun() ->
            Field = amount,
            Numbers = [{sum, Field}, {min, Field}, {max, Field}, {avg, Field}],
            esdb_aggregate_nif:group_by(Events, [area], [count | Numbers])
        end},
        rival => {"maps:groups_from_list", fun() -> grouped(Events, area, amount) end},
        goal => 5.0
    }).

-spec one_field([map()]) -> float().
one_field(Events) ->
    esdb_bench:compare("sum of a field, 1000 events", #{
        ours => {"sum_field/2", fun() -> esdb_aggregate_nif:sum_field(Events, amount) end},
        rival => {"lists:sum of a comprehension", fun() ->
            lists:sum([N || #{data := #{amount := N}} <- Events])
        end}
    }),
    esdb_bench:compare("count of a value, 1000 events", #{
        ours => {"count_where/3", fun() ->
            esdb_aggregate_nif:count_where(Events, area, ~"area-3")
        end},
        rival => {"length of a comprehension", fun() ->
            length([E || #{data := #{area := ~"area-3"}} = E <- Events])
        end}
    }).

-spec tagged([map()]) -> float().
tagged(Events) ->
    esdb_bench:compare("tagged fold, 1000 events", #{
        ours => {"aggregate_events/3", fun() ->
            esdb_aggregate_nif:aggregate_events(Events, #{}, false)
        end},
        rival => {"maps:fold and maps:put", fun() -> folded(Events) end}
    }).

%% The same questions to a segment, through the same functions.
-spec packed([map()]) -> float().
packed(Events) ->
    Segment = esdb_segment_nif:pack(Events),
    Encoded = [term_to_binary(Event) || Event <- Events],
    Decoded = fun() -> [binary_to_term(Event) || Event <- Encoded] end,
    Asked = [count, {sum, amount}],
    esdb_bench:compare("sum of a field, 1000 events, packed", #{
        ours => {"sum_field/2", fun() -> esdb_aggregate_nif:sum_field(Segment, amount) end},
        rival =>
            {"binary_to_term, lists:sum", fun() ->
                lists:sum([
                    N
                 || Event <- Encoded, #{data := #{amount := N}} <- [binary_to_term(Event)]
                ])
            end}
    }),
    esdb_bench:compare("group by type: count and sum, 1000 events, packed", #{
        ours => {"group_by/3", fun() ->
            esdb_aggregate_nif:group_by(Segment, event_type, Asked)
        end},
        rival => {"binary_to_term, a loop", fun() -> matched(Decoded(), #{}) end}
    }).

-spec field_statistics([map()]) -> float().
field_statistics(Events) ->
    esdb_bench:compare("statistics, 1000 events", #{
        ours => {"aggregation_stats/1", fun() ->
            #{unique_fields := Fields} = esdb_aggregate_nif:aggregation_stats(Events),
            Fields
        end},
        rival => {"lists:usort of all keys", fun() ->
            length(lists:usort([K || #{data := Data} <- Events, K := _ <- Data]))
        end}
    }).

%% What a user would write.

-spec updated([map()], term(), term()) -> map().
updated(Events, Key, Field) ->
    lists:foldl(
        fun(#{Key := Group, data := #{Field := N}}, Groups) ->
            Add = fun([Count, Sum]) -> [Count + 1, Sum + N] end,
            maps:update_with(Group, Add, [1, N], Groups)
        end,
        #{},
        Events
    ).

-spec matched([map()], map()) -> map().
matched([#{event_type := Type, data := #{amount := N}} | Events], Groups) ->
    case Groups of
        #{Type := [Count, Sum]} -> matched(Events, Groups#{Type := [Count + 1, Sum + N]});
        #{} -> matched(Events, Groups#{Type => [1, N]})
    end;
matched([], Groups) ->
    Groups.

-spec grouped([map()], term(), term()) -> map().
grouped(Events, Key, Field) ->
    KeyOf = fun(#{data := #{Key := Value}}) -> Value end,
    NumberOf = fun(#{data := #{Field := N}}) -> N end,
    #{
        Group => begin
            Sum = lists:sum(Ns),
            [length(Ns), Sum, lists:min(Ns), lists:max(Ns), Sum / length(Ns)]
        end
     || Group := Ns <- maps:groups_from_list(KeyOf, NumberOf, Events)
    }.

-spec folded([map()]) -> map().
folded(Events) ->
    Field = fun
        (K, {sum, N}, State) ->
            {sum, Sum} = maps:get(K, State, {sum, 0}),
            maps:put(K, {sum, Sum + N}, State);
        (K, V, State) ->
            maps:put(K, V, State)
    end,
    lists:foldl(fun(#{data := Data}, State) -> maps:fold(Field, State, Data) end, #{}, Events).

-spec twin([map()]) -> map().
twin(Events) ->
    Questions = [count, {sum, {data, [amount]}}],
    esdb_aggregate_erl:grouped(Events, {event, [event_type]}, Questions).

%% As they come from a store: decoded, so that no two share a binary.
-spec events(pos_integer()) -> [map()].
events(N) -> [binary_to_term(term_to_binary(event(I))) || I <- lists:seq(1, N)].

-spec event(pos_integer()) -> map().
event(I) ->
    Digits = integer_to_binary(I),
    #{
        event_id => <<"0195f2c8-7a4e-7000-8000-", (integer_to_binary(100_000_000_000 + I))/binary>>,
        event_type => <<"type-", (integer_to_binary(I * 7919 rem 12))/binary>>,
        stream_id => <<"stream-", (integer_to_binary(I rem 100))/binary>>,
        version => I,
        epoch_us => 1_760_000_000_000_000 + I * 1000,
        data => #{
            amount => I * 104_729 rem 10_000,
            area => <<"area-", (integer_to_binary(I * 31 rem 20))/binary>>,
            note => <<"a text as it comes in events, number ", Digits/binary>>,
            total => {sum, I rem 17},
            status => open
        },
        metadata => #{actor_id => <<"actor-", Digits/binary>>, correlation_id => Digits}
    }.
