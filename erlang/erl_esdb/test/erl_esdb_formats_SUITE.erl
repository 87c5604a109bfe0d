-module(erl_esdb_formats_SUITE).
-moduledoc """
Files of each format that was ever written, in `data/format_N` beside this suite, are read; those of
a later one are refused. Files of a released format are never written again, only read.

`write/1` has made those of format 1:

```erlang
1> erl_esdb_formats_SUITE:write("erlang/erl_esdb/test/data/format_1").
```
""".

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("../include/erl_esdb.hrl").

-define(STORE, golden).
-define(S, <<"orders-1">>).
-define(KEY, <<"0123456789abcdef0123456789abcdef">>).

suite() -> [{timetrap, {minutes, 10}}].

all() -> erl_esdb_test:all().

groups() ->
    erl_esdb_test:groups([
        lines_of_json,
        segments,
        archives,
        a_backup,
        chain_hashes,
        later_exports,
        later_archives,
        later_backups
    ]).

init_per_suite(Config) ->
    {ok, _} = application:ensure_all_started(erl_esdb),
    Config.

end_per_suite(_Config) -> application:stop(erl_esdb).

init_per_group(Engine, Config) -> erl_esdb_test:init_per_group(Engine, Config).

end_per_group(Engine, Config) -> erl_esdb_test:end_per_group(Engine, Config).

init_per_testcase(Case, Config) ->
    Dir = filename:join(proplists:get_value(priv_dir, Config), atom_to_list(Case)),
    ok = filelib:ensure_path(Dir),
    start(),
    [{dir, Dir} | Config].

end_per_testcase(_Case, _Config) -> erl_esdb:stop_store(?STORE).

start() ->
    Options = #{integrity => #{enabled => true, key => ?KEY}},
    {ok, _} = erl_esdb_test:start_store(?STORE, maps:merge(erl_esdb_test:options(), Options)).

%% Beside the source of this suite; rebar3 may have linked it elsewhere.
golden() ->
    Source = proplists:get_value(source, ?MODULE:module_info(compile)),
    filename:join([filename:dirname(Source), "data", "format_1"]).

golden(Name) -> filename:join(golden(), Name).

%% A copy that may be changed.
copied(Config, Name) ->
    Copy = filename:join(proplists:get_value(dir, Config), Name),
    ok = filelib:ensure_dir(Copy),
    {ok, _} = file:copy(golden(Name), Copy),
    Copy.

%% ---- what is in the files

%% Terms of all kinds; what JSON says exactly, and what it does not.
new_events() ->
    [
        #{
            event_id => <<"id-", (integer_to_binary(N))/binary>>,
            event_type => <<"Placed">>,
            data => Data,
            metadata => #{<<"by">> => <<"ann">>},
            tags => [<<"eu">> | Tags]
        }
     || {N, {Data, Tags}} <- lists:enumerate([
            {#{<<"total">> => 42}, []},
            {#{<<"text">> => <<"grüß"/utf8>>, <<"list">> => [1, 2.5, true, null]}, [<<"vip">>]},
            {#{big => 1 bsl 80, tuple => {a, "b", <<255>>}}, []},
            {<<0, 255>>, []},
            {#{}, []}
        ])
    ].

append(Stream, Expected, Time, Events) ->
    Options = #{epoch_us => Time},
    {ok, _} = erl_esdb_streams:append(?STORE, Stream, Expected, Events, Options).

fill() ->
    append(?S, -1, 1_700_000_000_000_000, new_events()),
    append(<<"buried">>, -1, 1_700_000_000_000_001, [#{event_type => <<"t">>, data => #{}}]),
    append(<<"cut">>, -1, 1_700_000_000_000_002, new_events()).

write(Dir) ->
    start(),
    fill(),
    File = fun(Name) -> filename:join(Dir, Name) end,
    ok = filelib:ensure_path(Dir),
    {ok, _} = erl_esdb_export:to_file(?STORE, File("export.ndjson"), #{streams => ?S}),
    Segments = #{streams => ?S, format => segments},
    {ok, _} = erl_esdb_export:to_file(?STORE, File("export.esdb"), Segments),
    Archive = #{base_dir => File("archive"), dictionary_size => 256},
    {ok, Files} = erl_esdb_archive_file:init(Archive),
    Samples = [
        #{event_type => <<"s">>, data => #{number => N, text => <<"a sample of text">>}}
     || N <- lists:seq(1, 200)
    ],
    append(<<"orders-0">>, -1, 1_600_000_000_000_000, Samples),
    [
        {ok, _} = erl_esdb_scavenge:archive_and_scavenge(
            ?STORE, Stream, {erl_esdb_archive_file, Files}, #{
                before_version => 1_000, require_snapshot => false
            }
        )
     || Stream <- [<<"orders-0">>, <<"cut">>]
    ],
    ok = erl_esdb_streams:delete(?STORE, <<"orders-0">>),
    ok = erl_esdb_streams:delete(?STORE, <<"buried">>, #{mode => tombstone}),
    ok = erl_esdb_snapshots:save(?STORE, ?S, 3, #{total => 42}),
    ok = erl_esdb_store:save_checkpoints(?STORE, #{{test, <<"checkpoint">>} => 7}),
    {ok, _} = erl_esdb_backup:backup(?STORE, File("backup")),
    erl_esdb:stop_store(?STORE).

%% Of the stream: ids, data, metadata, tags and times.
content(Stream, Options) ->
    {ok, Events} = erl_esdb_streams:read(?STORE, Stream, 0, 99, forward, Options),
    [
        {Id, Data, Metadata, Tags, Time}
     || #event{
            event_id = Id, data = Data, metadata = Metadata, tags = Tags, epoch_us = Time
        } <- Events
    ].

expected(Time) ->
    [
        {Id, Data, Metadata, Tags, Time}
     || #{event_id := Id, data := Data, metadata := Metadata, tags := Tags} <- new_events()
    ].

%% ---- cases

lines_of_json(_Config) ->
    {ok, #{events := 5}} = erl_esdb_import:from_file(?STORE, golden("export.ndjson"), #{}),
    ?assertEqual(expected(1_700_000_000_000_000), content(?S, #{})).

segments(_Config) ->
    {ok, #{events := 5}} = erl_esdb_import:from_file(?STORE, golden("export.esdb"), #{}),
    ?assertEqual(expected(1_700_000_000_000_000), content(?S, #{})).

%% With a dictionary and without; the first one was trained on its own stream.
archives(_Config) ->
    {ok, State} = erl_esdb_archive_file:init(#{base_dir => golden("archive")}),
    {ok, [Key], _} = erl_esdb_archive_file:list(State, ?STORE, <<"orders-0">>),
    {ok, Events, _} = erl_esdb_archive_file:read(State, Key),
    ?assertEqual(
        [#{number => N, text => <<"a sample of text">>} || N <- lists:seq(1, 200)],
        [Data || #event{data = Data} <- Events]
    ),
    {ok, [Plain], _} = erl_esdb_archive_file:list(State, ?STORE, <<"cut">>),
    ?assertMatch({ok, [_, _, _, _, _], _}, erl_esdb_archive_file:read(State, Plain)).

a_backup(_Config) ->
    {ok, #{position := 211, events := 5}} = erl_esdb_backup:restore(?STORE, golden("backup")),
    ?assertEqual(expected(1_700_000_000_000_000), content(?S, #{verify => strict})),
    ?assertMatch({ok, #snapshot{data = #{total := 42}}}, erl_esdb_snapshots:load(?STORE, ?S)),
    ?assertEqual({ok, 7}, erl_esdb_store:checkpoint(?STORE, {test, <<"checkpoint">>})),
    {ok, Files} = erl_esdb_archive_file:init(#{base_dir => golden("archive")}),
    Archives = #{archives => {erl_esdb_archive_file, Files}, verify => strict},
    ?assertEqual(expected(1_700_000_000_000_002), content(<<"cut">>, Archives)),
    New = [#{event_type => <<"t">>, data => #{}}],
    ?assertEqual({ok, 1}, erl_esdb_streams:append(?STORE, <<"buried">>, -1, New)),
    ?assertEqual({ok, 5}, erl_esdb_streams:append(?STORE, <<"cut">>, 4, New)),
    ?assertMatch({ok, _}, erl_esdb_integrity:verify_store(?STORE)).

%% Computed with another program from the bytes that `erl_esdb_chain` draws.
chain_hashes(_Config) ->
    {ok, Keys} = erl_esdb_chain:keys(#{enabled => true, key => ?KEY}),
    Event = #event{
        event_id = <<"e-1">>,
        event_type = <<"Opened">>,
        stream_id = <<"account-1">>,
        version = 0,
        data = #{<<"owner">> => <<"ann">>},
        metadata = #{},
        timestamp = 1_700_000_000_000,
        epoch_us = 1_700_000_000_000_000,
        tags = [<<"eu">>]
    },
    {[Signed], Tip} = erl_esdb_chain:sign(Keys, none, [Event]),
    Hex = fun(Bytes) -> binary:encode_hex(Bytes, lowercase) end,
    {1, Code} = Signed#event.mac,
    ?assertEqual(
        {
            <<"7a8677bd2cc659aca428860a5e1d6cd33cb9fc2fad4438a80c36c32c95673adc">>,
            <<"4a788cee7c0bb7a092b61377cfc1c7b3fa281302434af6d4417e16a19451ebee">>
        },
        {Hex(Tip), Hex(Code)}
    ).

later_exports(Config) ->
    File = copied(Config, "export.esdb"),
    later(File, 2),
    ?assertEqual(
        {error, {segment, 1, {unsupported_version, 9}}},
        erl_esdb_import:from_file(?STORE, File, #{})
    ).

%% It is refused also where it would be written again, as a damaged one is.
later_archives(Config) ->
    {ok, State} = erl_esdb_archive_file:init(#{base_dir => golden("archive")}),
    {ok, [Key], _} = erl_esdb_archive_file:list(State, ?STORE, <<"cut">>),
    {ok, Events, _} = erl_esdb_archive_file:read(State, Key),
    Path = filename:join("archive", Key),
    Copy = copied(Config, Path),
    Base = filename:join(proplists:get_value(dir, Config), "archive"),
    {ok, Other} = erl_esdb_archive_file:init(#{base_dir => Base}),
    {ok, Events, _} = erl_esdb_archive_file:read(Other, Key),
    later(Copy, 2),
    {ok, Later} = file:read_file(Copy),
    Refused = {error, {unsupported_version, 9}},
    ?assertEqual(Refused, erl_esdb_archive_file:read(Other, Key)),
    ?assertEqual(Refused, erl_esdb_archive_file:archive(Other, Key, Events)),
    ?assertEqual({ok, Later}, file:read_file(Copy)).

%% The manifest names the format; where it does not, the files do.
later_backups(Config) ->
    Dir = filename:dirname(copied(Config, "backup/manifest.json")),
    [Events, _] = [copied(Config, ["backup/", F]) || F <- ["events.esdb", "documents.esdb"]],
    later(Events, 2),
    {ok, Json} = file:read_file(filename:join(Dir, "manifest.json")),
    {ok, Hash} = erl_esdb_file:sha256(Events),
    #{<<"files">> := #{<<"events.esdb">> := File} = Files} = Manifest = json:decode(Json),
    Write = fun(Map) ->
        ok = file:write_file(filename:join(Dir, "manifest.json"), json:encode(Map))
    end,
    Write(Manifest#{<<"files">> := Files#{<<"events.esdb">> := File#{<<"sha256">> := Hash}}}),
    Refused = {error, {unsupported_version, 9}},
    ?assertEqual(Refused, erl_esdb_backup:restore(?STORE, Dir)),
    Write(Manifest#{<<"format">> := 9}),
    ?assertEqual(Refused, erl_esdb_backup:restore(?STORE, Dir)),
    ?assertEqual({ok, 0}, erl_esdb_store:next_position(?STORE)).

%% As a release that writes format 9 would begin it.
later(File, At) ->
    {ok, <<Begin:At/binary, 1, Rest/binary>>} = file:read_file(File),
    ok = file:write_file(File, <<Begin/binary, 9, Rest/binary>>).
