-module(erl_esdb_integrity).
-moduledoc """
Proof that events are as they were written.

A store with the option `integrity => #{enabled => true, key => <<_:256>>}` signs what is appended:
each event names the one before it by its chain hash and carries a code that only who has the key
can make (`m:erl_esdb_chain`). Reads of a stream check both, and one more event than they answer.
The key is in no command, no event and no log.

```erlang
1> {ok, _} = erl_esdb:start_store(audit, #{integrity => #{enabled => true, key => Key}}).
2> {ok, 1} = erl_esdb_streams:append(audit, ~"entries", -1, [Event, Event]).
3> erl_esdb_integrity:verify_stream(audit, ~"entries").
{ok,#{events => 2,first => 0,last => 1,signed => 2,stream_id => <<"entries">>,...}}
```

| `verify` of a read | meaning |
|---|---|
| `skip_legacy` (default) | events from before the store signed pass |
| `strict` | such events are a violation too |
| `skip_all` | nothing is checked |

A violation is `{error, {integrity_violation, Details}}`, the details a map: `layer` (`storage` or
`snapshot`), `stream_id`, `version` of the first event that is wrong, `kind` and `context`:

| kind | meaning |
|---|---|
| `chain_mismatch` | the event does not name the one before it: one was changed, removed or put in |
| `mac_mismatch` | the event was changed, or signed with an unknown key |
| `missing_integrity` | the event is not signed, and should be |
| `tip_mismatch` | the newest events are not those that the store wrote last (`verify_stream/2`) |
| `snapshot_anchor_mismatch` | a snapshot is not of the events that it was made of |
| `snapshot_mac_mismatch` | a snapshot was changed |

What is scavenged leaves the chain hash of the last event that was removed, and of removed events
that a snapshot is of, under a code: there the chain goes on. Reads that go on into archives
(`archives`) check those events with the others, and subscriptions what they send. Reads over many
streams (`read_log/5`, by type or tag) check nothing.

A stream that is cut or made again while it is read is no violation: before one is told, the events
and what they follow are looked at again, until nothing was removed in between.
""".

-export([verify_stream/2, verify_stream/3, verify_store/1, verify_store/2]).
-export([seal/4, read/5, confirmed/4, check_archived/6, truncation/6]).
-export([sealed/3, opened/3, seal_snapshot/4, check_snapshot/5, anchors/4, anchor/5]).
-export_type([mode/0, report/0, options/0, keys/0, anchor/0]).

-include("erl_esdb.hrl").

-define(PAGE, 1000).

-type mode() :: skip_legacy | strict | skip_all.
-type violation() :: {integrity_violation, map()}.
-doc """
`archived`: events in archives; only where they were asked for.
""".
-type report() :: #{
    stream_id := binary(),
    first := non_neg_integer(),
    last := integer(),
    events := non_neg_integer(),
    signed := non_neg_integer(),
    tip := erl_esdb_chain:tip(),
    archived => non_neg_integer()
}.
-doc """
`timeout`: of each call to the store; a stream is read page by page. `archives`: where events were
archived that are to be checked too.
""".
-type options() :: #{
    timeout => timeout(), archives => erl_esdb_archive_backend:backend(), _ => _
}.
-doc "What signs, if a store does.".
-type keys() :: disabled | erl_esdb_chain:keys().
-type code() :: {pos_integer(), erl_esdb_chain:hash()}.
-doc """
What a snapshot is kept with: the chain hash of its event, where that stood in the store, and a code
of it all.
""".
-type seal() :: #{
    anchor := erl_esdb_chain:hash(), position := non_neg_integer(), code := code()
}.
-doc "What is kept of an event that was removed; the position is not known of each.".
-type anchor() :: #{
    hash := erl_esdb_chain:hash(), position := non_neg_integer() | none, code := code()
}.

-record(proof, {
    store :: atom(),
    keys :: erl_esdb_chain:keys(),
    stream :: binary(),
    %% of a call to the store
    timeout :: timeout()
}).

%% ---- asking for all

-doc "The same as `verify_stream/3` without options.".
-spec verify_stream(Store :: atom(), Stream :: binary()) ->
    {ok, report()} | {error, violation() | integrity_disabled | term()}.
verify_stream(Store, Stream) -> verify_stream(Store, Stream, #{}).

-doc """
Checks all events of a stream that are kept, from its first to its tip, also those that its metadata
hides; with `archives` before these the archived ones. Answers how many events there are and how
many of them are signed.

It reads page by page. Errors: `{integrity_violation, Details}`, `integrity_disabled`,
`{stream_not_found, Stream}`, `{invalid_option, archives, Value}`, what a read answers, and what
`erl_esdb_archive:check/4` finds of the first archive that is damaged or not there.
""".
-spec verify_stream(Store :: atom(), Stream :: binary(), options()) ->
    {ok, report()} | {error, violation() | integrity_disabled | term()}.
verify_stream(Store, Stream, Options) when is_binary(Stream), is_map(Options) ->
    maybe
        {ok, Keys, Settings} ?= enabled(Store),
        ok ?= erl_esdb_archive_backend:check_option(Options),
        {ok, Archived} ?= verify_archives(Store, Stream, Options),
        {ok, Report} ?= verify_kept(proof(Store, Keys, Stream, Settings, Options)),
        {ok, maps:merge(Report, Archived)}
    end;
verify_stream(_, _, _) ->
    error(badarg).

-spec verify_archives(atom(), binary(), options()) -> {ok, map()} | {error, term()}.
verify_archives(Store, Stream, #{archives := Backend} = Options) ->
    maybe
        {ok, Check} ?= erl_esdb_archive:check(Store, Stream, Backend, Options),
        #{events := Events, damaged := []} ?= Check,
        {ok, #{archived => Events}}
    else
        #{damaged := [{Key, wrong_versions} | _]} -> {error, {wrong_versions, Key}};
        #{damaged := [{_Key, Reason} | _]} -> {error, Reason};
        {error, Reason} -> {error, Reason}
    end;
verify_archives(_Store, _Stream, #{}) ->
    {ok, #{}}.

-doc "The same as `verify_store/2` without options.".
-spec verify_store(Store :: atom()) ->
    {ok, #{streams := non_neg_integer(), events := non_neg_integer(), signed := non_neg_integer()}}
    | {error, violation() | integrity_disabled | term()}.
verify_store(Store) -> verify_store(Store, #{}).

-doc """
`verify_stream/3` for all streams of a store, in the order of their names; the first that is wrong
is the result.
""".
-spec verify_store(Store :: atom(), options()) ->
    {ok, #{streams := non_neg_integer(), events := non_neg_integer(), signed := non_neg_integer()}}
    | {error, violation() | integrity_disabled | term()}.
verify_store(Store, Options) when is_map(Options) ->
    maybe
        {ok, _, _} ?= enabled(Store),
        ok ?= erl_esdb_archive_backend:check_option(Options),
        Page = (maps:with([timeout], Options))#{limit => ?PAGE},
        verify_streams(Store, Page, Options, #{streams => 0, events => 0, signed => 0})
    end;
verify_store(_, _) ->
    error(badarg).

-spec verify_streams(atom(), map(), options(), map()) -> {ok, map()} | {error, term()}.
verify_streams(Store, Page, Options, Sum) ->
    maybe
        {ok, Streams, Next} ?= erl_esdb_store:names(Store, Page),
        {ok, Sum1} ?= verify_each(Store, Streams, Options, Sum),
        case Next of
            done -> {ok, Sum1};
            _ -> verify_streams(Store, Page#{from => Next}, Options, Sum1)
        end
    end.

-spec verify_each(atom(), [binary()], options(), map()) -> {ok, map()} | {error, term()}.
verify_each(Store, [Stream | Streams], Options, Sum) ->
    case verify_stream(Store, Stream, Options) of
        {ok, #{events := Events, signed := Signed}} ->
            #{streams := N, events := E, signed := S} = Sum,
            Sum1 = Sum#{streams := N + 1, events := E + Events, signed := S + Signed},
            verify_each(Store, Streams, Options, Sum1);
        %% Deleted a moment ago.
        {error, {stream_not_found, Stream}} ->
            verify_each(Store, Streams, Options, Sum);
        {error, Reason} ->
            {error, Reason}
    end;
verify_each(_Store, [], _Options, Sum) ->
    {ok, Sum}.

%% The last page and the tip have to be of one moment: otherwise once more. What is wrong with a
%% page is so whatever happened since.
-spec verify_kept(#proof{}) -> {ok, report()} | {error, term()}.
verify_kept(#proof{store = Store, stream = Stream} = Proof) ->
    maybe
        {ok, #{first := First, next := Next} = Info} ?= info(Proof),
        {ok, Found} ?= verify_from(Proof, First, Next, {none, 0, 0}),
        {error, Violation} ?= reported(Stream, Info, Found),
        case extent(Store, Stream) =:= extent(Info) of
            true -> {error, Violation};
            false -> verify_kept(Proof)
        end
    end.

%% The first version that was found, how many events and how many of them signed; then the last.
-spec verify_from(#proof{}, integer(), integer(), Found) -> {ok, Found} | {error, term()} when
    Found :: tuple().
verify_from(Proof, From, Next, Found) when From < Next ->
    Count = min(?PAGE, Next - From),
    maybe
        {ok, Events} ?= verified(Proof, fun() -> kept(Proof, From, Count) end, skip_legacy),
        verify_from(Proof, From + Count, Next, found(Events, Found))
    end;
verify_from(_Proof, _From, _Next, Found) ->
    {ok, Found}.

-spec found([event()], tuple()) -> tuple().
found([], Found) ->
    Found;
found([#event{version = First} | _] = Events, Found) ->
    {Before, Count, Signed} = {element(1, Found), element(2, Found), element(3, Found)},
    New = length([signed || Event <- Events, erl_esdb_chain:is_signed(Event)]),
    First1 =
        case Before of
            none -> First;
            _ -> Before
        end,
    {First1, Count + length(Events), Signed + New, lists:last(Events)}.

-spec reported(binary(), erl_esdb_log:info(), tuple()) -> {ok, report()} | {error, violation()}.
reported(Stream, #{first := Same, next := Same} = Info, {none, 0, 0}) ->
    {ok, report(Stream, Info, {Same, 0, 0, Same - 1})};
reported(Stream, #{first := First, signed := Signed}, {none, 0, 0}) when is_integer(Signed) ->
    {error, violation(storage, Stream, First, tip_mismatch, #{})};
reported(Stream, #{next := Next} = Info, {none, 0, 0}) ->
    {ok, report(Stream, Info, {Next, 0, 0, Next - 1})};
reported(Stream, #{tip := Tip} = Info, {First, Count, Signed, #event{version = Last} = Event}) ->
    case erl_esdb_chain:is_signed(Event) andalso erl_esdb_chain:chain_hash(Event) =/= Tip of
        true -> {error, violation(storage, Stream, Last, tip_mismatch, #{})};
        false -> {ok, report(Stream, Info, {First, Count, Signed, Last})}
    end.

-spec report(binary(), erl_esdb_log:info(), Found) -> report() when
    Found :: {non_neg_integer(), non_neg_integer(), non_neg_integer(), integer()}.
report(Stream, #{tip := Tip}, {First, Count, Signed, Last}) ->
    #{
        stream_id => Stream,
        first => First,
        last => Last,
        events => Count,
        signed => Signed,
        tip => Tip
    }.

-spec enabled(atom()) ->
    {ok, erl_esdb_chain:keys(), erl_esdb_engine:settings()} | {error, term()}.
enabled(Store) ->
    case erl_esdb_store:engine(Store) of
        {ok, _, _, #{integrity := Keys} = Settings} when Keys =/= disabled ->
            {ok, Keys, Settings};
        {ok, _, _, _} ->
            {error, integrity_disabled};
        {error, Reason} ->
            {error, Reason}
    end.

-spec proof(atom(), erl_esdb_chain:keys(), binary(), erl_esdb_engine:settings(), map()) ->
    #proof{}.
proof(Store, Keys, Stream, Settings, Options) ->
    #proof{
        store = Store,
        keys = Keys,
        stream = Stream,
        timeout = erl_esdb_store:timeout(Options, Settings)
    }.

-spec info(#proof{}) -> {ok, erl_esdb_log:info()} | {error, term()}.
info(#proof{store = Store, stream = Stream} = Proof) ->
    erl_esdb_store:info(Store, Stream, (timed(Proof))#{hidden => true}).

-spec timed(#proof{}) -> #{timeout := timeout()}.
timed(#proof{timeout = Timeout}) -> #{timeout => Timeout}.

%% ---- signing

-doc """
Signs bodies that go behind this tip. Their versions begin with that which comes next, and they all
have this time. Answers them and the new tip.
""".
-spec seal(erl_esdb_chain:keys(), binary(), Place, [erl_esdb_event:body()]) ->
    {[erl_esdb_event:body()], erl_esdb_chain:tip()}
when
    Place :: #{
        next := non_neg_integer(), epoch_us := integer(), tip := erl_esdb_chain:tip(), _ => _
    }.
seal(Keys, Stream, #{next := Next, epoch_us := Time, tip := Tip}, Bodies) ->
    Events = [
        erl_esdb_event:unsigned(Stream, Version, Time, Body)
     || {Version, Body} <- lists:enumerate(Next, Bodies)
    ],
    {Signed, Tip1} = erl_esdb_chain:sign(Keys, Tip, Events),
    {lists:zipwith(fun erl_esdb_event:signed/2, Bodies, Signed), Tip1}.

%% ---- checking what is read

-doc """
What a fun reads of a stream, events that follow each other upwards or downwards, if they are right.
Options: `verify`, `timeout`.
""".
-spec read(atom(), erl_esdb_engine:settings(), binary(), map(), fun(() -> Answer)) -> Answer when
    Answer :: {ok, [event()]} | {error, violation() | term()}.
read(Store, #{integrity := Keys} = Settings, Stream, Options, Read) when Keys =/= disabled ->
    Mode = maps:get(verify, Options, skip_legacy),
    verified(proof(Store, Keys, Stream, Settings, Options), Read, Mode);
read(_Store, _Settings, _Stream, _Options, Read) ->
    Read().

-spec verified(#proof{}, fun(() -> Answer), mode()) -> Answer when
    Answer :: {ok, [event()]} | {error, violation() | term()}.
verified(#proof{store = Store, stream = Stream} = Proof, Read, Mode) ->
    Look = fun() ->
        maybe
            {ok, Events} ?= Read(),
            check(Proof, Events, Mode)
        end
    end,
    confirmed(Store, Stream, Proof#proof.timeout, Look).

-doc """
Looks, and where that finds a violation looks again, as it may come of a stream that was cut or made
again while we looked: until nothing was in between, or the time is up.
""".
-spec confirmed(atom(), binary(), timeout(), fun(() -> Answer)) ->
    Answer | {error, {timeout, atom()}}
when
    Answer :: {ok, term()} | {error, violation() | term()}.
confirmed(Store, Stream, Timeout, Look) ->
    case Look() of
        {error, {integrity_violation, _}} ->
            Until = erl_esdb_store:deadline(#{timeout => Timeout}, #{timeout => Timeout}),
            confirm(Store, Stream, Until, Look);
        Answer ->
            Answer
    end.

-spec confirm(atom(), binary(), erl_esdb_store:deadline(), fun(() -> Answer)) ->
    Answer | {error, {timeout, atom()}}
when
    Answer :: {ok, term()} | {error, violation() | term()}.
confirm(Store, Stream, Until, Look) ->
    Before = extent(Store, Stream),
    case {Look(), extent(Store, Stream), erl_esdb_store:left(Until)} of
        {{error, {integrity_violation, _}} = Violation, Before, _} -> Violation;
        {{error, {integrity_violation, _}}, _, 0} -> {error, {timeout, Store}};
        {{error, {integrity_violation, _}}, _, _} -> confirm(Store, Stream, Until, Look);
        {Answer, _, _} -> Answer
    end.

-spec extent(atom(), binary()) -> map() | term().
extent(Store, Stream) ->
    case erl_esdb_store:info(Store, Stream, #{hidden => true}) of
        {ok, Info} -> extent(Info);
        {error, Reason} -> Reason
    end.

%% What changes when events of a stream are removed.
-spec extent(erl_esdb_log:info()) -> map().
extent(Info) -> maps:with([no, base, first], Info).

-spec check(#proof{}, [event()], mode()) -> {ok, [event()]} | {error, violation() | term()}.
check(_Proof, Events, Mode) when Events =:= []; Mode =:= skip_all ->
    {ok, Events};
check(Proof, Events, Mode) ->
    maybe
        {ok, Info} ?= info(Proof),
        {ok, Chained} ?= behind_legacy(upwards(Events), Info, Mode),
        ok ?= chained(Proof, Chained, fun(Event) -> tip_before(Proof, Event, Info) end),
        {ok, Events}
    end.

-doc """
Events of a stream, upwards, the older ones from its archives; the one before them, if it is known;
and what is known of the stream. Where versions are missing in between nothing tells what the next
event has to name: then its code alone counts, which covers the name.
""".
-spec check_archived(
    atom(), erl_esdb_engine:settings(), [event()], [event()], erl_esdb_log:info(), map()
) ->
    ok | {error, violation() | term()}.
check_archived(Store, #{integrity := Keys} = Settings, Known, [_ | _] = Events, Info, Options) when
    Keys =/= disabled
->
    [#event{stream_id = Stream} | _] = Events,
    Proof = proof(Store, Keys, Stream, Settings, Options),
    Mode = maps:get(verify, Options, skip_legacy),
    Tip = fun(Event) -> tip_behind(Proof, Known, Event, Info) end,
    maybe
        false ?= Mode =:= skip_all,
        {ok, Chained} ?= behind_legacy(Events, Info, Mode),
        runs_chained(Proof, runs(Chained), Tip)
    else
        true -> ok;
        {error, Reason} -> {error, Reason}
    end;
check_archived(_Store, _Settings, _Known, _Events, _Info, _Options) ->
    ok.

%% Events without a gap.
-spec runs([event()]) -> [[event(), ...]].
runs([#event{version = A} = Event | Events]) ->
    case runs(Events) of
        [[#event{version = B} | _] = Run | Runs] when B =:= A + 1 -> [[Event | Run] | Runs];
        Runs -> [[Event] | Runs]
    end;
runs([]) ->
    [].

-spec runs_chained(#proof{}, [[event(), ...]], tip_fun()) -> ok | {error, term()}.
runs_chained(Proof, [Run | Runs], Tip) ->
    maybe
        ok ?= chained(Proof, Run, Tip),
        runs_chained(Proof, Runs, Tip)
    end;
runs_chained(_Proof, [], _Tip) ->
    ok.

-spec tip_behind(#proof{}, [event()], event(), erl_esdb_log:info()) ->
    {ok, erl_esdb_chain:tip() | undefined} | {error, term()}.
tip_behind(_Proof, _Known, #event{version = Version}, #{signed := Version}) ->
    {ok, none};
tip_behind(Proof, Known, #event{version = Version} = Event, #{first := First} = Info) ->
    case [Before || #event{version = V} = Before <- Known, V =:= Version - 1] of
        [Before] -> hash_of(Before);
        [] when Version >= First -> tip_before(Proof, Event, Info);
        [] -> {ok, Event#event.prev_event_hash}
    end.

-spec upwards([event()]) -> [event()].
upwards([#event{version = A}, #event{version = B} | _] = Events) when A > B ->
    lists:reverse(Events);
upwards(Events) ->
    Events.

%% Those that came since the store signs, if the others may be there.
-spec behind_legacy([event()], erl_esdb_log:info(), mode()) ->
    {ok, [event()]} | {error, violation()}.
behind_legacy(Events, Info, Mode) ->
    case {lists:splitwith(fun(Event) -> is_legacy(Event, Info) end, Events), Mode} of
        {{[#event{stream_id = Stream, version = Version} | _], _}, strict} ->
            Context = #{detail => legacy_event_under_strict_mode},
            {error, violation(storage, Stream, Version, missing_integrity, Context)};
        {{_, Chained}, _} ->
            {ok, Chained}
    end.

-spec is_legacy(event(), erl_esdb_log:info()) -> boolean().
is_legacy(#event{version = Version}, #{signed := Signed}) ->
    Signed =:= none orelse Version < Signed.

%% What the first event of some has to name.
-type tip_fun() :: fun(
    (event()) -> {ok, erl_esdb_chain:tip() | undefined} | {error, violation() | term()}
).

-spec chained(#proof{}, [event()], tip_fun()) -> ok | {error, term()}.
chained(_Proof, [], _Tip) ->
    ok;
chained(#proof{keys = Keys}, [First | _] = Events, TipOf) ->
    maybe
        {ok, Tip} ?= TipOf(First),
        {ok, _} ?= erl_esdb_chain:verify(Keys, Tip, Events),
        ok
    else
        {error, #{kind := _} = Violation} -> {error, {integrity_violation, Violation}};
        {error, Reason} -> {error, Reason}
    end.

-spec tip_before(#proof{}, event(), erl_esdb_log:info()) ->
    {ok, erl_esdb_chain:tip()} | {error, term()}.
tip_before(_Proof, #event{version = First}, #{signed := First}) ->
    {ok, none};
%% What was before a tombstone is gone, but for the tip.
tip_before(_Proof, #event{version = First}, #{base := First, base_tip := Tip}) ->
    {ok, Tip};
tip_before(Proof, #event{version = First}, #{no := No}) ->
    case hash_at(Proof, No, First - 1) of
        {ok, {Hash, _Position}} -> {ok, Hash};
        {unknown, Detail} -> no_tip(Proof, First, Detail);
        {error, Reason} -> {error, Reason}
    end.

-spec no_tip(#proof{}, non_neg_integer(), atom()) -> {error, violation()}.
no_tip(#proof{stream = Stream}, Version, Detail) ->
    {error, violation(storage, Stream, Version, chain_mismatch, #{detail => Detail})}.

%% The chain hash of a signed event that is kept or was removed, and where it stands.
-spec hash_at(#proof{}, pos_integer(), non_neg_integer()) ->
    {ok, {erl_esdb_chain:hash(), non_neg_integer() | none}}
    | {unknown, anchor_missing | anchor_mac_mismatch}
    | {error, term()}.
hash_at(Proof, No, Version) ->
    case kept(Proof, Version, 1) of
        {ok, [#event{position = Position} = Event]} ->
            maybe
                {ok, Hash} ?= hash_of(Event),
                {ok, {Hash, Position}}
            end;
        {ok, []} ->
            anchored_at(Proof, No, Version);
        {error, Reason} ->
            {error, Reason}
    end.

-spec hash_of(event()) -> {ok, erl_esdb_chain:hash()} | {error, violation()}.
hash_of(#event{stream_id = Stream, version = Version} = Event) ->
    case erl_esdb_chain:is_signed(Event) of
        true -> {ok, erl_esdb_chain:chain_hash(Event)};
        false -> {error, violation(storage, Stream, Version, missing_integrity, #{})}
    end.

-spec kept(#proof{}, non_neg_integer(), pos_integer()) -> {ok, [event()]} | {error, term()}.
kept(#proof{store = Store, stream = Stream} = Proof, From, Count) ->
    Options = (timed(Proof))#{hidden => true, verify => skip_all},
    erl_esdb_store:read(Store, Stream, From, Count, forward, Options).

%% ---- anchors: chain hashes of events that are not there any more
%%
%% A document each, `{integrity, Stream, No, Version}': No is the number of the stream, so that
%% those of a stream that was deleted are none of its namesake. It is not in the code, as a restored
%% stream has another one.

-spec anchored_at(#proof{}, pos_integer(), non_neg_integer()) ->
    {ok, {erl_esdb_chain:hash(), non_neg_integer() | none}}
    | {unknown, anchor_missing | anchor_mac_mismatch}
    | {error, term()}.
anchored_at(#proof{store = Store, keys = Keys, stream = Stream} = Proof, No, Version) ->
    case erl_esdb_store:get_document(Store, {integrity, Stream, No, Version}, timed(Proof)) of
        {ok, #{hash := Hash, position := Position, code := Code}} ->
            case is_code(Keys, anchor_bytes(Stream, Version, Position, Hash), Code) of
                true -> {ok, {Hash, Position}};
                false -> {unknown, anchor_mac_mismatch}
            end;
        {error, not_found} ->
            {unknown, anchor_missing};
        {error, Reason} ->
            {error, Reason}
    end.

-spec anchor_bytes(binary(), non_neg_integer(), non_neg_integer() | none, erl_esdb_chain:hash()) ->
    iolist().
anchor_bytes(Stream, Version, Position, Hash) ->
    [~"anchor|", bytes({Stream, Version, Position, Hash})].

-spec bytes(term()) -> binary().
bytes(Term) -> term_to_binary(Term, [deterministic, {minor_version, 2}]).

-spec is_code(erl_esdb_chain:keys(), iodata(), term()) -> boolean().
is_code(Keys, Bytes, {Id, Code}) when is_binary(Code) ->
    case erl_esdb_chain:code_of(Id, Keys, Bytes) of
        {ok, Own} -> esdb_crypto_nif:secure_compare(Own, Code);
        unknown_key -> false
    end;
is_code(_, _, _) ->
    false.

-doc "What is kept of an event that was removed.".
-spec anchor(
    erl_esdb_chain:keys(),
    Stream :: binary(),
    Version :: non_neg_integer(),
    Position :: non_neg_integer() | none,
    erl_esdb_chain:hash()
) -> anchor().
anchor(Keys, Stream, Version, Position, Hash) ->
    Code = erl_esdb_chain:code(Keys, anchor_bytes(Stream, Version, Position, Hash)),
    #{hash => Hash, position => Position, code => Code}.

-doc """
The anchors of a stream with this number by their versions, as they are kept. Option: `timeout`.
""".
-spec anchors(atom(), binary(), No :: pos_integer(), #{timeout => timeout(), _ => _}) ->
    {ok, #{non_neg_integer() => anchor()}} | {error, term()}.
anchors(Store, Stream, No, Timed) ->
    maybe
        {ok, Keys} ?= anchor_keys(Store, {Stream, No, 0}, {Stream, No, last}, Timed),
        anchor_each(Store, Keys, Timed, #{})
    end.

-spec anchor_each(atom(), [tuple()], map(), map()) -> {ok, map()} | {error, term()}.
anchor_each(Store, [{_, _, _, Version} = Key | Keys], Timed, Anchors) ->
    case erl_esdb_store:get_document(Store, Key, Timed) of
        {ok, Anchor} -> anchor_each(Store, Keys, Timed, Anchors#{Version => Anchor});
        %% Removed since it was listed.
        {error, not_found} -> anchor_each(Store, Keys, Timed, Anchors);
        {error, Reason} -> {error, Reason}
    end;
anchor_each(_Store, [], _Timed, Anchors) ->
    {ok, Anchors}.

%% Every atom is greater than every number.
-spec anchor_keys(atom(), tuple(), tuple(), map()) -> {ok, [tuple()]} | {error, term()}.
anchor_keys(Store, From, To, Timed) ->
    [First, Last] = [list_to_tuple([integrity | tuple_to_list(Place)]) || Place <- [From, To]],
    case erl_esdb_store:list_documents(Store, First, Last, Timed) of
        {ok, Found} -> {ok, [Key || {Key, _} <- Found]};
        {error, Reason} -> {error, Reason}
    end.

-doc """
The command that removes the events of a stream before a version, when what a chain needs of them
is kept: where the stream is the one with this number (`any`: the one that is there now), which
the command sees to. Events that come in the meantime stay.

Errors: `{stream_not_found, Stream}`, `{stream_replaced, Stream}`.
""".
-spec truncation(
    atom(),
    erl_esdb_engine:settings(),
    Stream :: binary(),
    No :: pos_integer() | any,
    Before :: non_neg_integer(),
    Timed :: #{timeout => timeout(), _ => _}
) -> {ok, erl_esdb_log:command()} | {error, term()}.
truncation(Store, #{integrity := Keys} = Settings, Stream, No, Before, Timed) when
    Keys =/= disabled
->
    Proof = proof(Store, Keys, Stream, Settings, Timed),
    maybe
        {ok, #{no := Found} = Info} ?= info(Proof),
        true ?= No =:= any orelse No =:= Found,
        {ok, Before1} ?= keep_anchors(Proof, Info, Before),
        {ok, {truncate, Stream, Before1, sight(Info, Before)}}
    else
        false -> {error, {stream_replaced, Stream}};
        {error, Reason} -> {error, Reason}
    end;
truncation(_Store, _Settings, Stream, any, Before, _Timed) ->
    {ok, {truncate, Stream, Before}};
truncation(_Store, _Settings, Stream, No, Before, _Timed) ->
    {ok, {truncate, Stream, Before, #{no => No}}}.

%% Where all goes that there is, what comes meanwhile goes too, and has to be looked at.
-spec sight(erl_esdb_log:info(), non_neg_integer()) -> erl_esdb_log:sight().
sight(#{no := No, next := Next}, Before) when Before > Next -> #{no => No, next => Next};
sight(#{no := No}, _Before) -> #{no => No}.

-spec keep_anchors(#proof{}, erl_esdb_log:info(), non_neg_integer()) ->
    {ok, non_neg_integer()} | {error, term()}.
keep_anchors(Proof, #{signed := Signed, next := Next} = Info, Before) ->
    Before1 = min(Before, Next),
    maybe
        {ok, Versions} ?= needed(Proof, Signed, Before1 - 1),
        ok ?= keep_each(Proof, Info, Versions),
        ok ?= drop_others(Proof, Info, Versions),
        {ok, Before1}
    end.

%% The last one, and those that snapshots are of.
-spec needed(#proof{}, none | non_neg_integer(), integer()) ->
    {ok, [non_neg_integer()]} | {error, term()}.
needed(_Proof, Signed, Last) when Signed =:= none; Last < Signed ->
    {ok, []};
needed(#proof{store = Store, stream = Stream} = Proof, Signed, Last) ->
    {From, To} = {{snapshot, Stream, Signed}, {snapshot, Stream, Last}},
    case erl_esdb_store:list_documents(Store, From, To, timed(Proof)) of
        {ok, Found} -> {ok, lists:usort([Last | [Version || {{_, _, Version}, _} <- Found]])};
        {error, Reason} -> {error, Reason}
    end.

-spec keep_each(#proof{}, erl_esdb_log:info(), [non_neg_integer()]) -> ok | {error, term()}.
keep_each(Proof, Info, [Version | Versions]) ->
    case kept(Proof, Version, 1) of
        {ok, [Event]} ->
            maybe
                ok ?= keep(Proof, Info, Event),
                keep_each(Proof, Info, Versions)
            end;
        %% Removed before, when its anchor was kept.
        {ok, []} ->
            keep_each(Proof, Info, Versions);
        {error, Reason} ->
            {error, Reason}
    end;
keep_each(_Proof, _Info, []) ->
    ok.

-spec keep(#proof{}, erl_esdb_log:info(), event()) -> ok | {error, term()}.
keep(#proof{store = Store, keys = Keys, stream = Stream} = Proof, #{no := No}, Event) ->
    #event{version = Version, position = Position} = Event,
    maybe
        {ok, Hash} ?= hash_of(Event),
        Anchor = anchor(Keys, Stream, Version, Position, Hash),
        Key = {integrity, Stream, No, Version},
        {ok, _} ?= erl_esdb_store:put_document(Store, Key, Anchor, timed(Proof)),
        ok
    end.

%% Anchors below that nobody needs any more, and those of namesakes that were deleted. The one
%% before the first event that is kept is needed until that is removed; it goes the next time.
-spec drop_others(#proof{}, erl_esdb_log:info(), [non_neg_integer()]) -> ok | {error, term()}.
drop_others(_Proof, _Info, []) ->
    ok;
drop_others(#proof{store = Store, stream = Stream} = Proof, #{no := No, first := First}, Needed) ->
    To = min(First - 1, lists:max(Needed)) - 1,
    case anchor_keys(Store, {Stream, 0, 0}, {Stream, No, To}, timed(Proof)) of
        {ok, Keys} ->
            Others = [Key || {_, _, N, V} = Key <- Keys, N < No orelse not lists:member(V, Needed)],
            erl_esdb_store:delete_documents(Store, Others, timed(Proof));
        {error, Reason} ->
            {error, Reason}
    end.

%% ---- snapshots

-doc "What is kept of a snapshot: itself, in a store that signs with its seal. Option: `timeout`.".
-spec sealed(atom(), snapshot(), map()) ->
    {ok, snapshot() | {sealed, snapshot(), seal()}} | {error, term()}.
sealed(Store, Snapshot, Options) ->
    maybe
        {ok, _, _, Settings} ?= erl_esdb_store:engine(Store),
        {ok, Seal} ?= seal_snapshot(Store, Settings, Snapshot, Options),
        {ok, with_seal(Snapshot, Seal)}
    end.

-spec with_seal(snapshot(), none | seal()) -> snapshot() | {sealed, snapshot(), seal()}.
with_seal(Snapshot, none) -> Snapshot;
with_seal(Snapshot, Seal) -> {sealed, Snapshot, Seal}.

-doc "The snapshot of what is kept, if it is right. One without a seal is older than the signing.".
-spec opened(atom(), snapshot() | {sealed, snapshot(), seal()}, map()) ->
    {ok, snapshot()} | {error, violation() | term()}.
opened(_Store, #snapshot{} = Snapshot, _Options) ->
    {ok, Snapshot};
opened(Store, {sealed, Snapshot, Seal}, Options) ->
    maybe
        {ok, _, _, Settings} ?= erl_esdb_store:engine(Store),
        ok ?= check_snapshot(Store, Settings, Snapshot, Seal, Options),
        {ok, Snapshot}
    end.

-doc """
What a snapshot is to be kept with: `none` where the store does not sign.

Error: `{snapshot_anchor_unavailable, #{stream_id, version, reason => event_not_found |
event_is_legacy}}`: there is no signed event of its version.
""".
-spec seal_snapshot(atom(), erl_esdb_engine:settings(), snapshot(), map()) ->
    {ok, none | seal()} | {error, term()}.
seal_snapshot(Store, #{integrity := Keys} = Settings, Snapshot, Options) when Keys =/= disabled ->
    #snapshot{stream_id = Stream, version = Version} = Snapshot,
    case anchor_of(proof(Store, Keys, Stream, Settings, Options), Version) of
        {ok, {Hash, Position}} ->
            Code = erl_esdb_chain:code(Keys, snapshot_bytes(Snapshot, Hash, Position)),
            {ok, #{anchor => Hash, position => Position, code => Code}};
        {unavailable, Reason} ->
            {error, unavailable(Stream, Version, Reason)};
        {unknown, _} ->
            {error, unavailable(Stream, Version, event_not_found)};
        {error, Reason} ->
            {error, Reason}
    end;
seal_snapshot(_Store, _Settings, _Snapshot, _Options) ->
    {ok, none}.

-spec unavailable(binary(), non_neg_integer(), atom()) -> {snapshot_anchor_unavailable, map()}.
unavailable(Stream, Version, Reason) ->
    {snapshot_anchor_unavailable, #{stream_id => Stream, version => Version, reason => Reason}}.

-spec anchor_of(#proof{}, non_neg_integer()) ->
    {ok, {erl_esdb_chain:hash(), non_neg_integer() | none}}
    | {unavailable | unknown, atom()}
    | {error, term()}.
anchor_of(Proof, Version) ->
    case info(Proof) of
        {ok, #{next := Next}} when Version >= Next -> {unavailable, event_not_found};
        {ok, #{signed := Signed}} when Signed =:= none; Version < Signed ->
            {unavailable, event_is_legacy};
        {ok, #{no := No}} -> hash_at(Proof, No, Version);
        {error, {stream_not_found, _}} -> {unavailable, event_not_found};
        {error, Reason} -> {error, Reason}
    end.

-doc """
Whether a snapshot is of the events of its stream, and as it was saved.

The event that it was made of may be gone, with its stream or with what was kept of it, and another
stream may have the name by now, which its position tells. Then there is nothing to compare with,
and the code alone counts: it covers the chain hash of that event.
""".
-spec check_snapshot(
    atom(), erl_esdb_engine:settings(), snapshot(), none | seal() | term(), map()
) ->
    ok | {error, violation() | term()}.
check_snapshot(Store, #{integrity := Keys} = Settings, Snapshot, Seal, Options) when
    Keys =/= disabled, Seal =/= none
->
    #snapshot{stream_id = Stream, version = Version} = Snapshot,
    #{anchor := Anchor, position := Position, code := Code} = Seal,
    Mismatch = fun(Kind) -> {error, violation(snapshot, Stream, Version, Kind, #{})} end,
    Found = anchor_of(proof(Store, Keys, Stream, Settings, Options), Version),
    maybe
        ok ?= anchored(Found, {Anchor, Position}),
        true ?= is_code(Keys, snapshot_bytes(Snapshot, Anchor, Position), Code),
        ok
    else
        mismatch -> Mismatch(snapshot_anchor_mismatch);
        false -> Mismatch(snapshot_mac_mismatch);
        {error, Reason} -> {error, Reason}
    end;
check_snapshot(_Store, _Settings, _Snapshot, _Seal, _Options) ->
    ok.

-spec anchored(Found, {Hash, Position}) -> ok | mismatch | {error, term()} when
    Found :: {ok, {Hash, Position}} | {unavailable | unknown, atom()} | {error, term()},
    Hash :: erl_esdb_chain:hash(),
    Position :: non_neg_integer() | none.
anchored({ok, Same}, Same) -> ok;
anchored({ok, {_Hash, Position}}, {_Anchor, Position}) -> mismatch;
anchored({ok, _OfAnotherEvent}, _) -> ok;
anchored({unavailable, _}, _) -> ok;
anchored({unknown, anchor_missing}, _) -> ok;
anchored({unknown, anchor_mac_mismatch}, _) -> mismatch;
anchored({error, {integrity_violation, _}}, _) -> mismatch;
anchored({error, Reason}, _) -> {error, Reason}.

-spec snapshot_bytes(snapshot(), erl_esdb_chain:hash(), non_neg_integer() | none) -> iolist().
snapshot_bytes(Snapshot, Anchor, Position) ->
    #snapshot{stream_id = Stream, version = Version, data = Data} = Snapshot,
    #snapshot{metadata = Metadata, timestamp = Time} = Snapshot,
    [~"snap|", bytes({snapshot, Stream, Version, Data, Metadata, Time, Anchor, Position})].

-spec violation(storage | snapshot, binary(), non_neg_integer(), atom(), map()) -> violation().
violation(Layer, Stream, Version, Kind, Context) ->
    {integrity_violation, #{
        layer => Layer, stream_id => Stream, version => Version, kind => Kind, context => Context
    }}.
