-module(bench_segment).
-moduledoc """
Questions to packed segments against events kept as external terms: `binary_to_term` and a
comprehension or fold with the shape written down.

The rival's events are kept as a user would, each encoded by itself or all in one list, whichever
decodes faster here; where single events are to be kept, each by itself. Generated events are maps
of 350 bytes once encoded: an id, a type of 5, a stream of 100, version, time, eight fields of data,
two of metadata. With `EVENTS=File` (gzipped JSON, one event a line, see the demo) the real ones
follow, else the history of `test/data/commits.json`, which has ids and parents only.
""".

-export([run/0]).

-define(M, esdb_segment_nif).
%% An event of the rival's: how it is decoded again.
-type kept() :: {[binary()], fun(() -> [map()])}.

-doc "Measures all rows.".
-spec run() -> ok.
run() ->
    Thousand = orders(1_000),
    Size = byte_size(term_to_binary(hd(Thousand))),
    esdb_bench:title("Segments: 1,000 events"),
    esdb_bench:note("an event is ~b bytes as an external term", [Size]),
    questions(?M:pack(Thousand), kept(Thousand), {30.0, 10.0, 15.0}),
    building(Thousand),
    fold("tagged fold", balances(1_000), fun(Segment) -> Segment end),
    through_zstd([Thousand]),
    many(),
    real(os:getenv("EVENTS")).

-spec many() -> ok.
many() ->
    Events = orders(100_000),
    Kept = kept(Events),
    esdb_bench:title("Segments: 100,000 events, one segment"),
    questions(?M:pack(Events), Kept, {8.0, none, none}),
    esdb_bench:title("Segments: 100,000 events, a list of 100 segments"),
    Chunks = chunks(Events),
    questions([?M:pack(Chunk) || Chunk <- Chunks], Kept, {8.0, none, none}),
    fold("tagged fold, one segment", balances(100_000), fun(Segment) -> Segment end),
    through_zstd(Chunks).

%% Questions to the same events, with the goals of the sum, the filter and the groups.
-spec questions(?M:segments(), kept(), {G, G, G}) -> ok when G :: float() | none.
questions(Segments, {Each, All}, {Sum, Filter, Group}) ->
    Paid = {'and', [{event_type, ~"order_paid"}, {gt, amount, 50_000}]},
    Text = {regex, customer, ~"-[0-9]+7-"},
    {ok, Compiled} = re:compile("-[0-9]+7-"),
    Both = [count, {sum, amount}],
    row("sum of a field", Sum, #{
        ours => {"sum", fun() -> ?M:sum(Segments, amount) end},
        rival => {"decode", fun() -> sum(All(), 0) end}
    }),
    row("filter, a type and a number", Filter, #{
        ours => {"filter", fun() -> ?M:filter(Segments, Paid) end},
        rival => {"decode", fun() -> [E || E <- Each, is_large(binary_to_term(E))] end},
        same => fun are_packed/2
    }),
    row("count, a type and a number", none, #{
        ours => {"count_where", fun() -> ?M:count_where(Segments, Paid) end},
        rival => {"decode", fun() -> length([E || E <- All(), is_large(E)]) end}
    }),
    row("select, a type and a number", none, #{
        ours => {"select", fun() -> ?M:select(Segments, Paid) end},
        rival => {"decode", fun() -> [E || E <- All(), is_large(E)] end}
    }),
    row("count, a regular expression", none, #{
        ours => {"count_where", fun() -> ?M:count_where(Segments, Text) end},
        rival => {"decode, re", fun() -> length([E || E <- All(), is_found(E, Compiled)]) end}
    }),
    row("group by type: count, sum", Group, #{
        ours => {"group_by", fun() -> ?M:group_by(Segments, event_type, Both) end},
        rival => {"decode", fun() -> by_type(All(), #{}) end}
    }),
    row("group by a field: count, sum", Group, #{
        ours => {"group_by", fun() -> ?M:group_by(Segments, currency, Both) end},
        rival => {"decode", fun() -> by_currency(All(), #{}) end}
    }),
    row("group by a field: count", none, #{
        ours => {"group_by", fun() -> ?M:group_by(Segments, currency, count) end},
        rival => {"decode", fun() -> counts(All(), #{}) end}
    }).

%% What makes terms or bytes of all of it.
-spec building([map()]) -> ok.
building(Events) ->
    Segment = ?M:pack(Events),
    {_, All} = kept(Events),
    row("project two fields", none, #{
        ours => {"project", fun() -> ?M:project(Segment, [amount, currency]) end},
        rival => {"decode", fun() -> amounts(All()) end}
    }),
    row("all events", none, #{
        ours => {"to_events", fun() -> ?M:to_events(Segment) end},
        rival => {"decode", All}
    }),
    row("select all of them", none, #{
        ours => {"select", fun() -> ?M:select(Segment, true) end},
        rival => {"decode", All}
    }),
    row("pack", none, #{
        ours => {"pack", fun() -> ?M:pack(Events) end},
        rival => {"encode", fun() -> [term_to_binary(Event) || Event <- Events] end},
        same => fun are_packed/2
    }).

-spec fold(string(), [map()], fun((binary()) -> ?M:segments())) -> ok.
fold(What, Events, As) ->
    Segments = As(?M:pack(Events)),
    {_, All} = kept(Events),
    Add = fun(#{data := Data}, State) -> maps:fold(fun tagged/3, State, Data) end,
    row(What, 5.0, #{
        ours => {"fold_tagged", fun() -> ?M:fold_tagged(Segments, #{}) end},
        rival => {"decode", fun() -> lists:foldl(Add, #{}, All()) end}
    }).

%% The rival compresses a chunk as one list of events.
-spec through_zstd([[map()]]) -> ok.
through_zstd(Chunks) ->
    Segments = [?M:pack(Chunk, #{compress => zstd}) || Chunk <- Chunks],
    Packed = [iolist_to_binary(zstd:compress(term_to_binary(Chunk))) || Chunk <- Chunks],
    Unpacked = fun(Chunk) -> binary_to_term(iolist_to_binary(zstd:decompress(Chunk))) end,
    What = io_lib:format("sum through zstd, ~b x 1,000", [length(Chunks)]),
    row(lists:flatten(What), 2.0, #{
        ours => {"sum", fun() -> ?M:sum(Segments, amount) end},
        rival => {"decode", fun() -> lists:sum([sum(Unpacked(Chunk), 0) || Chunk <- Packed]) end}
    }),
    esdb_bench:note("compressed: segments ~b bytes, the rival's lists ~b bytes", [
        iolist_size(Segments), iolist_size(Packed)
    ]).

-spec real(false | string()) -> ok.
real(File) ->
    {Origin, Commits} = commits(File),
    esdb_bench:title("Segments: commits"),
    esdb_bench:note("~b commits of ~ts", [length(Commits), Origin]),
    Segment = ?M:pack(Commits),
    {Each, All} = kept(Commits),
    Merged = {event_type, ~"CommitMerged"},
    Author = [metadata, ~"actor_id"],
    row("sum of insertions", none, #{
        ours => {"sum", fun() -> ?M:sum(Segment, ~"insertions") end},
        rival => {"decode", fun() -> insertions(All(), 0) end}
    }),
    row("filter merges", none, #{
        ours => {"filter", fun() -> ?M:filter(Segment, Merged) end},
        rival => {"decode", fun() -> [E || E <- Each, is_merge(binary_to_term(E))] end},
        same => fun are_packed/2
    }),
    row("group by stream: count", none, #{
        ours => {"group_by", fun() -> ?M:group_by(Segment, stream_id, count) end},
        rival => {"decode", fun() -> streams(All(), #{}) end}
    }),
    row("group by author: count", none, #{
        ours => {"group_by", fun() -> ?M:group_by(Segment, Author, count) end},
        rival => {"decode", fun() -> actors(All(), #{}) end}
    }).

-spec row(string(), float() | none, esdb_bench:row()) -> ok.
row(What, none, Row) ->
    _ = esdb_bench:compare(What, Row),
    ok;
row(What, Goal, Row) ->
    row(What, none, Row#{goal => Goal}).

%% A segment holds these events.
-spec are_packed(?M:segment(), [binary()]) -> boolean().
are_packed(Segment, Events) ->
    ?M:to_events(Segment) =:= [binary_to_term(Event) || Event <- Events].

%% The rival's copy of the events, and the faster way to have all of them back.
-spec kept([map()]) -> kept().
kept(Events) ->
    Each = [term_to_binary(Event) || Event <- Events],
    List = term_to_binary(Events),
    OneByOne = fun() -> [binary_to_term(Event) || Event <- Each] end,
    AtOnce = fun() -> binary_to_term(List) end,
    case time(OneByOne) =< time(AtOnce) of
        true -> {Each, OneByOne};
        false -> {Each, AtOnce}
    end.

%% The best of some calls, each in a process of its own.
-spec time(fun(() -> term())) -> non_neg_integer().
time(Fun) ->
    lists:min([
        begin
            {Pid, Monitor} = spawn_monitor(fun() -> exit(element(1, timer:tc(Fun))) end),
            receive
                {'DOWN', Monitor, process, Pid, Time} -> Time
            end
        end
     || _ <- lists:seq(1, 7)
    ]).

-spec chunks([map()]) -> [[map()]].
chunks([]) ->
    [];
chunks(Events) ->
    {Chunk, Rest} = lists:split(1_000, Events),
    [Chunk | chunks(Rest)].

%% The rival's side of each question.

-spec sum([map()], integer()) -> integer().
sum([#{data := #{amount := Amount}} | Events], Sum) -> sum(Events, Sum + Amount);
sum([], Sum) -> Sum.

-spec is_large(map()) -> boolean().
is_large(#{event_type := ~"order_paid", data := #{amount := Amount}}) -> Amount > 50_000;
is_large(_) -> false.

-spec is_found(map(), term()) -> boolean().
is_found(#{data := #{customer := Customer}}, Text) ->
    re:run(Customer, Text, [{capture, none}]) =:= match.

-spec by_type([map()], map()) -> map().
by_type([#{event_type := Type, data := #{amount := Amount}} | Events], Groups) ->
    by_type(Events, added(Type, Amount, Groups));
by_type([], Groups) ->
    Groups.

-spec by_currency([map()], map()) -> map().
by_currency([#{data := #{currency := Currency, amount := Amount}} | Events], Groups) ->
    by_currency(Events, added(Currency, Amount, Groups));
by_currency([], Groups) ->
    Groups.

-spec added(term(), integer(), map()) -> map().
added(Key, Amount, Groups) ->
    case Groups of
        #{Key := [Count, Sum]} -> Groups#{Key := [Count + 1, Sum + Amount]};
        #{} -> Groups#{Key => [1, Amount]}
    end.

-spec counts([map()], map()) -> map().
counts([#{data := #{currency := Currency}} | Events], Groups) ->
    counts(Events, counted(Currency, Groups));
counts([], Groups) ->
    Groups.

-spec amounts([map()]) -> [[term()]].
amounts(Events) ->
    [[Amount, Currency] || #{data := #{amount := Amount, currency := Currency}} <- Events].

-spec streams([map()], map()) -> map().
streams([#{stream_id := Stream} | Events], Groups) -> streams(Events, counted(Stream, Groups));
streams([], Groups) -> Groups.

-spec actors([map()], map()) -> map().
actors([#{metadata := Metadata} | Events], Groups) ->
    actors(Events, counted(maps:get(~"actor_id", Metadata, undefined), Groups));
actors([], Groups) ->
    Groups.

-spec counted(term(), map()) -> map().
counted(Key, Groups) ->
    case Groups of
        #{Key := Count} -> Groups#{Key := Count + 1};
        #{} -> Groups#{Key => 1}
    end.

-spec tagged(term(), term(), map()) -> map().
tagged(Key, {sum, More}, State) ->
    case State of
        #{Key := {_, Number}} -> State#{Key := {sum, Number + More}};
        #{} -> State#{Key => {sum, More}}
    end;
tagged(Key, Value, State) ->
    State#{Key => Value}.

-spec insertions([map()], integer()) -> integer().
insertions([#{data := #{~"insertions" := Number}} | Events], Sum) ->
    insertions(Events, Sum + Number);
insertions([_ | Events], Sum) ->
    insertions(Events, Sum);
insertions([], Sum) ->
    Sum.

-spec is_merge(map()) -> boolean().
is_merge(#{event_type := Type}) -> Type =:= ~"CommitMerged".

%% Events.

-spec orders(pos_integer()) -> [map()].
orders(Count) ->
    [
        (envelope(I))#{
            data => #{
                order_id => <<"order-", (integer_to_binary(I * 7919))/binary>>,
                amount => some(amount, I, 100_000),
                currency => element(some(currency, I, 4) + 1, {~"EUR", ~"USD", ~"GBP", ~"CHF"}),
                customer => <<(customer(I))/binary, "-x">>,
                items => some(items, I, 7) + 1,
                paid => some(paid, I, 2) =:= 0,
                discount => some(discount, I, 20) / 100,
                note => ~"deliver before noon"
            }
        }
     || I <- lists:seq(1, Count)
    ].

%% An account's: what adds up is tagged.
-spec balances(pos_integer()) -> [map()].
balances(Count) ->
    [
        (envelope(I))#{
            data => #{
                balance => {sum, some(amount, I, 100_000) - 50_000},
                bookings => {sum, 1},
                fees => {sum, I rem 20 / 100},
                status => {overwrite, ~"open"},
                owner => customer(I),
                currency => ~"EUR",
                reference => <<"order-", (integer_to_binary(I * 7919))/binary>>,
                limit => I rem 7 * 1_000
            }
        }
     || I <- lists:seq(1, Count)
    ].

-spec customer(pos_integer()) -> binary().
customer(I) -> <<"customer-", (integer_to_binary(some(customer, I, 9_999)))/binary>>.

-spec envelope(pos_integer()) -> map().
envelope(I) ->
    Types = {~"order_placed", ~"order_paid", ~"order_sent", ~"order_paid", ~"order_returned"},
    #{
        event_id => binary:encode_hex(erlang:md5(<<I:64>>), lowercase),
        event_type => element(some(type, I, 5) + 1, Types),
        stream_id => <<"order-", (integer_to_binary(some(stream, I, 100)))/binary>>,
        version => I div 100,
        epoch_us => 1_760_000_000_000_000 + I * 1_000_003,
        metadata => #{
            actor => <<"user-", (integer_to_binary(some(actor, I, 37)))/binary>>,
            correlation_id => <<"week-", (integer_to_binary(I div 1_000))/binary>>
        }
    }.

%% What differs from event to event and is the same in each run.
-spec some(atom(), pos_integer(), pos_integer()) -> non_neg_integer().
some(Field, I, Range) -> erlang:phash2({Field, I}, Range).

-spec commits(false | string()) -> {Origin :: string(), [map()]}.
commits(false) ->
    Origin = "test/data/commits.json",
    {ok, Json} = file:read_file(Origin),
    {Origin, [commit(Id, Parents) || [Id, Parents] <- json:decode(Json)]};
commits(File) ->
    {ok, Packed} = file:read_file(File),
    Lines = binary:split(zlib:gunzip(Packed), ~"\n", [global, trim_all]),
    {filename:basename(File), [with_envelope(json:decode(Line)) || Line <- Lines]}.

-spec commit(binary(), [binary()]) -> map().
commit(Id, Parents) ->
    Type =
        case Parents of
            [_, _ | _] -> ~"CommitMerged";
            _ -> ~"CommitAuthored"
        end,
    #{
        event_id => Id,
        event_type => Type,
        stream_id => ~"history",
        data => #{~"insertions" => length(Parents)},
        metadata => #{~"parents" => Parents}
    }.

-spec with_envelope(map()) -> map().
with_envelope(Event) ->
    #{binary_to_existing_atom(Key) => Value || Key := Value <- Event}.
