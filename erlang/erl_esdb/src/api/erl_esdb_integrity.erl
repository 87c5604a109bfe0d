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
that a snapshot is of, under a code: there the chain goes on. Reads over many streams (`read_log/5`,
by type or tag, subscriptions) check nothing.
""".

-export([verify_stream/2, verify_store/1]).
-export([seal/4, check/5, keep_anchors/4, forget/2]).
-export([sealed/2, opened/2, seal_snapshot/3, check_snapshot/4]).
-export_type([mode/0, report/0]).

-include("erl_esdb.hrl").

-define(PAGE, 1000).

-type mode() :: skip_legacy | strict | skip_all.
-type violation() :: {integrity_violation, map()}.
-type report() :: #{
    stream_id := binary(),
    first := non_neg_integer(),
    last := integer(),
    events := non_neg_integer(),
    signed := non_neg_integer(),
    tip := erl_esdb_chain:tip()
}.
-type keys() :: disabled | erl_esdb_chain:keys().
-doc "What a snapshot is kept with: the chain hash of its event, and a code of both.".
-type seal() :: #{anchor := erl_esdb_chain:hash(), code := {pos_integer(), erl_esdb_chain:hash()}}.

%% ---- asking for all

-doc """
Checks all events of a stream that are kept, from its first to its tip, also those that its metadata
hides. Answers how many events there are and how many of them are signed.

Errors: `{integrity_violation, Details}`, `integrity_disabled`, `{stream_not_found, Stream}` and
what a read answers. It reads page by page.
""".
-spec verify_stream(atom(), binary()) ->
    {ok, report()} | {error, violation() | integrity_disabled | term()}.
verify_stream(Store, Stream) ->
    maybe
        {ok, Keys} ?= enabled(Store),
        verify_stream(Store, Keys, Stream)
    end.

-doc """
The same for all streams of a store, in the order of their names; the first that is wrong is the
result.
""".
-spec verify_store(atom()) ->
    {ok, #{streams := non_neg_integer(), events := non_neg_integer(), signed := non_neg_integer()}}
    | {error, violation() | integrity_disabled | term()}.
verify_store(Store) ->
    maybe
        {ok, Keys} ?= enabled(Store),
        verify_streams(Store, Keys, #{}, #{streams => 0, events => 0, signed => 0})
    end.

-spec verify_streams(atom(), erl_esdb_chain:keys(), map(), map()) -> {ok, map()} | {error, term()}.
verify_streams(Store, Keys, Options, Sum) ->
    maybe
        {ok, Streams, Next} ?= erl_esdb_store:names(Store, Options#{limit => ?PAGE}),
        {ok, Sum1} ?= verify_each(Store, Keys, Streams, Sum),
        case Next of
            done -> {ok, Sum1};
            _ -> verify_streams(Store, Keys, #{from => Next}, Sum1)
        end
    end.

-spec verify_each(atom(), erl_esdb_chain:keys(), [binary()], map()) ->
    {ok, map()} | {error, term()}.
verify_each(Store, Keys, [Stream | Streams], #{streams := N, events := E, signed := S} = Sum) ->
    case verify_stream(Store, Keys, Stream) of
        {ok, #{events := Events, signed := Signed}} ->
            Sum1 = Sum#{streams := N + 1, events := E + Events, signed := S + Signed},
            verify_each(Store, Keys, Streams, Sum1);
        %% Deleted a moment ago.
        {error, {stream_not_found, Stream}} ->
            verify_each(Store, Keys, Streams, Sum);
        {error, Reason} ->
            {error, Reason}
    end;
verify_each(_Store, _Keys, [], Sum) ->
    {ok, Sum}.

-spec verify_stream(atom(), erl_esdb_chain:keys(), binary()) -> {ok, report()} | {error, term()}.
verify_stream(Store, Keys, Stream) ->
    maybe
        {ok, #{next := Next} = Info} ?= erl_esdb_store:info(Store, Stream),
        {ok, Found} ?= verify_from(Store, Keys, Stream, 0, Next, {none, 0, 0}),
        reported(Stream, Info, Found)
    end.

%% The first version that was found, how many events and how many of them signed; then the last.
-spec verify_from(atom(), erl_esdb_chain:keys(), binary(), integer(), integer(), Found) ->
    {ok, Found} | {error, term()}
when
    Found :: tuple().
verify_from(Store, Keys, Stream, From, Next, Found) when From < Next ->
    Count = min(?PAGE, Next - From),
    maybe
        {ok, Events} ?= read(Store, Stream, From, Count),
        {ok, _} ?= check(Store, Keys, Stream, Events, skip_legacy),
        verify_from(Store, Keys, Stream, From + Count, Next, found(Events, Found))
    end;
verify_from(_Store, _Keys, _Stream, _From, _Next, Found) ->
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

-spec reported(binary(), map(), tuple()) -> {ok, report()} | {error, violation()}.
reported(Stream, #{next := Next, tip := Tip}, {none, 0, 0}) ->
    {ok, #{
        stream_id => Stream, first => Next, last => Next - 1, events => 0, signed => 0, tip => Tip
    }};
reported(Stream, #{tip := Tip}, {First, Count, Signed, #event{version = Last} = Event}) ->
    case erl_esdb_chain:is_signed(Event) andalso erl_esdb_chain:chain_hash(Event) =/= Tip of
        true ->
            {error, violation(storage, Stream, Last, tip_mismatch, #{})};
        false ->
            {ok, #{
                stream_id => Stream,
                first => First,
                last => Last,
                events => Count,
                signed => Signed,
                tip => Tip
            }}
    end.

-spec enabled(atom()) -> {ok, erl_esdb_chain:keys()} | {error, term()}.
enabled(Store) ->
    case keys(Store) of
        {ok, disabled} -> {error, integrity_disabled};
        Answer -> Answer
    end.

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

-doc "Events of a stream that follow each other, upwards or downwards: they, if they are right.".
-spec check(atom(), keys(), binary(), [event()], mode()) ->
    {ok, [event()]} | {error, violation() | term()}.
check(_Store, disabled, _Stream, Events, _Mode) ->
    {ok, Events};
check(_Store, _Keys, _Stream, Events, Mode) when Events =:= []; Mode =:= skip_all ->
    {ok, Events};
check(Store, Keys, Stream, Events, Mode) ->
    maybe
        {ok, Info} ?= erl_esdb_store:info(Store, Stream),
        {Legacy, Chained} = lists:splitwith(fun(E) -> is_legacy(E, Info) end, upwards(Events)),
        ok ?= passes(Legacy, Mode),
        ok ?= chained(Store, Keys, Stream, Chained, Info),
        {ok, Events}
    end.

-spec upwards([event()]) -> [event()].
upwards([#event{version = A}, #event{version = B} | _] = Events) when A > B ->
    lists:reverse(Events);
upwards(Events) ->
    Events.

-spec is_legacy(event(), map()) -> boolean().
is_legacy(#event{version = Version}, #{signed := Signed}) ->
    Signed =:= none orelse Version < Signed.

-spec passes([event()], mode()) -> ok | {error, violation()}.
passes([#event{stream_id = Stream, version = Version} | _], strict) ->
    Context = #{detail => legacy_event_under_strict_mode},
    {error, violation(storage, Stream, Version, missing_integrity, Context)};
passes(_, _) ->
    ok.

-spec chained(atom(), erl_esdb_chain:keys(), binary(), [event()], map()) -> ok | {error, term()}.
chained(_Store, _Keys, _Stream, [], _Info) ->
    ok;
chained(Store, Keys, Stream, [#event{version = First} | _] = Events, Info) ->
    maybe
        {ok, Tip} ?= tip_before(Store, Keys, Stream, First, Info),
        {ok, _} ?= erl_esdb_chain:verify(Keys, Tip, Events),
        ok
    else
        {error, #{kind := _} = Violation} -> {error, {integrity_violation, Violation}};
        {error, Reason} -> {error, Reason}
    end.

%% What the event of this version has to name.
-spec tip_before(atom(), erl_esdb_chain:keys(), binary(), non_neg_integer(), map()) ->
    {ok, erl_esdb_chain:tip()} | {error, term()}.
tip_before(_Store, _Keys, _Stream, First, #{signed := First}) ->
    {ok, none};
%% What was before a tombstone is gone, but for the tip.
tip_before(_Store, _Keys, _Stream, First, #{base := First, base_tip := Tip}) ->
    {ok, Tip};
tip_before(Store, Keys, Stream, First, _Info) ->
    hash_at(Store, Keys, Stream, First - 1).

%% The chain hash of a signed event, that is kept or was removed.
-spec hash_at(atom(), erl_esdb_chain:keys(), binary(), non_neg_integer()) ->
    {ok, erl_esdb_chain:hash()} | {error, term()}.
hash_at(Store, Keys, Stream, Version) ->
    case read(Store, Stream, Version, 1) of
        {ok, [Event]} -> hash_of(Event);
        {ok, []} -> anchor(Store, Keys, {Stream, Version});
        {error, Reason} -> {error, Reason}
    end.

-spec hash_of(event()) -> {ok, erl_esdb_chain:hash()} | {error, violation()}.
hash_of(#event{stream_id = Stream, version = Version} = Event) ->
    case erl_esdb_chain:is_signed(Event) of
        true -> {ok, erl_esdb_chain:chain_hash(Event)};
        false -> {error, violation(storage, Stream, Version, missing_integrity, #{})}
    end.

-spec read(atom(), binary(), non_neg_integer(), pos_integer()) -> {ok, [event()]} | {error, term()}.
read(Store, Stream, From, Count) ->
    Options = #{hidden => true, verify => skip_all},
    erl_esdb_store:read(Store, Stream, From, Count, forward, Options).

%% ---- anchors: chain hashes of events that are not there any more

%% Not the number of the stream, which another has after a restore. An old anchor in place of a new
%% one makes a mismatch, no more.
-type place() :: {Stream :: binary(), Version :: non_neg_integer()}.

-spec anchor(atom(), erl_esdb_chain:keys(), place()) ->
    {ok, erl_esdb_chain:hash()} | {error, term()}.
anchor(Store, Keys, {Stream, Version} = Place) ->
    case erl_esdb_store:get_document(Store, {integrity, Stream, Version}) of
        {ok, #{hash := Hash, code := Code}} ->
            case is_code(Keys, anchor_bytes(Place, Hash), Code) of
                true -> {ok, Hash};
                false -> no_anchor(Stream, Version, anchor_mac_mismatch)
            end;
        {error, not_found} ->
            no_anchor(Stream, Version, anchor_missing);
        {error, Reason} ->
            {error, Reason}
    end.

-spec no_anchor(binary(), non_neg_integer(), atom()) -> {error, violation()}.
no_anchor(Stream, Version, Detail) ->
    {error, violation(storage, Stream, Version + 1, chain_mismatch, #{detail => Detail})}.

-spec anchor_bytes(place(), erl_esdb_chain:hash()) -> iolist().
anchor_bytes(Place, Hash) -> [~"anchor|", bytes({Place, Hash})].

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

-doc """
Keeps what a chain needs of the events before a version, which are about to be removed. Answers
before which version they may be: events that come in the meantime stay.
""".
-spec keep_anchors(atom(), keys(), binary(), Before :: non_neg_integer()) ->
    {ok, Before :: non_neg_integer()} | {error, term()}.
keep_anchors(_Store, disabled, _Stream, Before) ->
    {ok, Before};
keep_anchors(Store, Keys, Stream, Before) ->
    maybe
        {ok, #{signed := Signed, next := Next, first := First}} ?=
            erl_esdb_store:info(Store, Stream, #{hidden => true}),
        Before1 = min(Before, Next),
        Versions = versions(Store, Stream, Signed, Before1 - 1),
        ok ?= keep_each(Store, Keys, Stream, Versions),
        ok ?= drop_others(Store, Stream, First, Versions),
        {ok, Before1}
    end.

%% The last one, and those that snapshots are of.
-spec versions(atom(), binary(), none | non_neg_integer(), integer()) -> [non_neg_integer()].
versions(_Store, _Stream, Signed, Last) when Signed =:= none; Last < Signed ->
    [];
versions(Store, Stream, Signed, Last) ->
    From = {snapshot, Stream, Signed},
    case erl_esdb_store:list_documents(Store, From, {snapshot, Stream, Last}) of
        {ok, Found} -> lists:usort([Last | [Version || {{_, _, Version}, _} <- Found]]);
        {error, _} -> [Last]
    end.

-spec keep_each(atom(), erl_esdb_chain:keys(), binary(), [non_neg_integer()]) ->
    ok | {error, term()}.
keep_each(Store, Keys, Stream, [Version | Versions]) ->
    Place = {Stream, Version},
    maybe
        {ok, [Event]} ?= read(Store, Stream, Version, 1),
        {ok, Hash} ?= hash_of(Event),
        Code = erl_esdb_chain:code(Keys, anchor_bytes(Place, Hash)),
        Anchor = #{hash => Hash, code => Code},
        {ok, _} ?= erl_esdb_store:put_document(Store, {integrity, Stream, Version}, Anchor),
        keep_each(Store, Keys, Stream, Versions)
    else
        %% Removed before, when its anchor was kept.
        {ok, []} -> keep_each(Store, Keys, Stream, Versions);
        {error, Reason} -> {error, Reason}
    end;
keep_each(_Store, _Keys, _Stream, []) ->
    ok.

%% Anchors below that nobody needs any more. The one before the first event that is kept is needed
%% until that is removed; it goes the next time.
-spec drop_others(atom(), binary(), non_neg_integer(), [non_neg_integer()]) ->
    ok | {error, term()}.
drop_others(_Store, _Stream, _First, []) ->
    ok;
drop_others(Store, Stream, First, Needed) ->
    To = min(First - 1, lists:max(Needed)) - 1,
    case erl_esdb_store:list_documents(Store, {integrity, Stream, 0}, {integrity, Stream, To}) of
        {ok, Found} ->
            Keys = [Key || {Key, _} <- Found],
            Others = [Key || {_, _, V} = Key <- Keys, not lists:member(V, Needed)],
            lists:foreach(fun(Key) -> erl_esdb_store:delete_document(Store, Key) end, Others);
        {error, Reason} ->
            {error, Reason}
    end.

-doc "Removes the anchors of a stream that was deleted.".
-spec forget(atom(), binary()) -> ok | {error, term()}.
forget(Store, Stream) ->
    %% Every atom is greater than every number.
    case erl_esdb_store:list_documents(Store, {integrity, Stream, 0}, {integrity, Stream, last}) of
        {ok, Found} ->
            lists:foreach(fun({Key, _}) -> erl_esdb_store:delete_document(Store, Key) end, Found);
        {error, Reason} ->
            {error, Reason}
    end.

%% ---- snapshots

-doc "What is kept of a snapshot: itself, in a store that signs with its seal.".
-spec sealed(atom(), snapshot()) ->
    {ok, snapshot() | {sealed, snapshot(), seal()}} | {error, term()}.
sealed(Store, Snapshot) ->
    maybe
        {ok, Keys} ?= keys(Store),
        {ok, Seal} ?= seal_snapshot(Store, Keys, Snapshot),
        {ok, kept(Snapshot, Seal)}
    end.

-spec kept(snapshot(), none | seal()) -> snapshot() | {sealed, snapshot(), seal()}.
kept(Snapshot, none) -> Snapshot;
kept(Snapshot, Seal) -> {sealed, Snapshot, Seal}.

-doc "The snapshot of what is kept, if it is right. One without a seal is older than the signing.".
-spec opened(atom(), snapshot() | {sealed, snapshot(), seal()}) ->
    {ok, snapshot()} | {error, violation() | term()}.
opened(_Store, #snapshot{} = Snapshot) ->
    {ok, Snapshot};
opened(Store, {sealed, Snapshot, Seal}) ->
    maybe
        {ok, Keys} ?= keys(Store),
        ok ?= check_snapshot(Store, Keys, Snapshot, Seal),
        {ok, Snapshot}
    end.

-spec keys(atom()) -> {ok, keys()} | {error, term()}.
keys(Store) ->
    maybe
        {ok, _, _, Settings} ?= erl_esdb_store:engine(Store),
        {ok, maps:get(integrity, Settings, disabled)}
    end.

-doc """
What a snapshot is to be kept with: `none` where the store does not sign.

Error: `{snapshot_anchor_unavailable, #{stream_id, version, reason => event_not_found |
event_is_legacy}}`: there is no signed event of its version.
""".
-spec seal_snapshot(atom(), keys(), snapshot()) -> {ok, none | seal()} | {error, term()}.
seal_snapshot(_Store, disabled, _Snapshot) ->
    {ok, none};
seal_snapshot(Store, Keys, #snapshot{stream_id = Stream, version = Version} = Snapshot) ->
    case anchor_of(Store, Keys, Stream, Version) of
        {ok, Hash} ->
            Code = erl_esdb_chain:code(Keys, snapshot_bytes(Snapshot, Hash)),
            {ok, #{anchor => Hash, code => Code}};
        {unavailable, Reason} ->
            Details = #{stream_id => Stream, version => Version, reason => Reason},
            {error, {snapshot_anchor_unavailable, Details}};
        {error, Reason} ->
            {error, Reason}
    end.

-spec anchor_of(atom(), erl_esdb_chain:keys(), binary(), non_neg_integer()) ->
    {ok, erl_esdb_chain:hash()} | {unavailable, atom()} | {error, term()}.
anchor_of(Store, Keys, Stream, Version) ->
    case erl_esdb_store:info(Store, Stream) of
        {ok, #{next := Next}} when Version >= Next -> {unavailable, event_not_found};
        {ok, #{signed := Signed}} when Signed =:= none; Version < Signed ->
            {unavailable, event_is_legacy};
        {ok, _} -> hash_at(Store, Keys, Stream, Version);
        {error, {stream_not_found, _}} -> {unavailable, event_not_found};
        {error, Reason} -> {error, Reason}
    end.

-doc "Whether a snapshot is of the events of its stream, and as it was saved.".
-spec check_snapshot(atom(), keys(), snapshot(), none | seal() | term()) ->
    ok | {error, violation() | term()}.
check_snapshot(_Store, Keys, _Snapshot, Seal) when Keys =:= disabled; Seal =:= none ->
    ok;
check_snapshot(Store, Keys, #snapshot{stream_id = Stream, version = Version} = Snapshot, Seal) ->
    #{anchor := Anchor, code := Code} = Seal,
    Mismatch = fun(Kind) -> {error, violation(snapshot, Stream, Version, Kind, #{})} end,
    maybe
        ok ?= anchored(anchor_of(Store, Keys, Stream, Version), Anchor, Mismatch),
        true ?= is_code(Keys, snapshot_bytes(Snapshot, Anchor), Code),
        ok
    else
        false -> Mismatch(snapshot_mac_mismatch);
        {error, Reason} -> {error, Reason}
    end.

-spec anchored({ok, Hash} | {unavailable, atom()} | {error, term()}, Hash, fun()) ->
    ok | {error, violation() | term()}
when
    Hash :: erl_esdb_chain:hash().
anchored({ok, Hash}, Hash, _Mismatch) -> ok;
%% The stream was deleted: its snapshots stay, and the code is theirs.
anchored({unavailable, _}, _, _Mismatch) -> ok;
anchored({error, {Failure, _} = Reason}, _, _) when Failure =/= integrity_violation ->
    {error, Reason};
anchored(_, _, Mismatch) -> Mismatch(snapshot_anchor_mismatch).

-spec snapshot_bytes(snapshot(), erl_esdb_chain:hash()) -> iolist().
snapshot_bytes(Snapshot, Anchor) ->
    #snapshot{stream_id = Stream, version = Version, data = Data} = Snapshot,
    #snapshot{metadata = Metadata, timestamp = Time} = Snapshot,
    [~"snap|", bytes({snapshot, Stream, Version, Data, Metadata, Time, Anchor})].

-spec violation(storage | snapshot, binary(), non_neg_integer(), atom(), map()) -> violation().
violation(Layer, Stream, Version, Kind, Context) ->
    {integrity_violation, #{
        layer => Layer, stream_id => Stream, version => Version, kind => Kind, context => Context
    }}.
