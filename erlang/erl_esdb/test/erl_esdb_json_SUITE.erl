-module(erl_esdb_json_SUITE).
-moduledoc "JSON as the form of data: what is stored, what is read, what is left alone.".

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("proper/include/proper.hrl").
-include("../include/erl_esdb.hrl").

-define(JSON, #{codec => json}).

suite() -> [{timetrap, {minutes, 10}}].

all() -> erl_esdb_test:all().

groups() -> erl_esdb_test:groups(cases()).

cases() -> [F || {F, 1} <- ?MODULE:module_info(exports), lists:prefix("b_", atom_to_list(F))].

init_per_group(Engine, Config) -> erl_esdb_test:init_per_group(Engine, Config).

end_per_group(Engine, Config) -> erl_esdb_test:end_per_group(Engine, Config).

init_per_testcase(_Case, Config) -> [{store, erl_esdb_test:start_store(#{})} | Config].

end_per_testcase(_Case, Config) ->
    _ = erl_esdb:stop_store(store(Config)),
    ok.

store(Config) -> proplists:get_value(store, Config).

append(Store, Event, Options) -> erl_esdb_streams:append(Store, ~"s", any, [Event], Options).

%% The newest event, as it is stored and decoded.
newest(Store) ->
    {ok, [Stored]} = erl_esdb_streams:read_log(Store, last, 1, backward, #{}),
    {ok, [Decoded]} = erl_esdb_streams:read_log(Store, last, 1, backward, #{decode => json}),
    #event{version = Version} = Stored,
    {ok, [Decoded]} = erl_esdb_streams:read(Store, ~"s", Version, 1, forward, #{decode => json}),
    {Stored, Decoded}.

b_data_are_text(Config) ->
    Data = #{total => 42, ~"items" => [#{sku => ~"a", price => 1.5}], paid => true, note => null},
    {ok, 0} = append(store(Config), #{event_type => ~"T", data => Data}, ?JSON),
    {Stored, Decoded} = newest(store(Config)),
    #event{data = Text, data_content_type = ~"application/json"} = Stored,
    ?assert(is_binary(Text)),
    Expected = #{
        ~"total" => 42,
        ~"items" => [#{~"sku" => ~"a", ~"price" => 1.5}],
        ~"paid" => true,
        ~"note" => null
    },
    ?assertEqual(Expected, json:decode(Text)),
    ?assertEqual(Stored#event{data = Expected}, Decoded).

b_metadata_stay_a_map(Config) ->
    Metadata = #{causation_id => ~"e-1", schema_version => 2, from => #{node => here}},
    Event = #{event_type => ~"T", data => #{}, metadata => Metadata},
    {ok, 0} = append(store(Config), Event, ?JSON),
    {Stored, Decoded} = newest(store(Config)),
    ?assertEqual(
        #{~"causation_id" => ~"e-1", ~"schema_version" => 2, ~"from" => #{~"node" => ~"here"}},
        Stored#event.metadata
    ),
    ?assertEqual(Stored#event.metadata, Decoded#event.metadata).

b_a_record_may_be_appended(Config) ->
    {ok, 0} = append(store(Config), #{event_type => ~"T", data => #{n => 1}}, #{}),
    {Stored, _} = newest(store(Config)),
    {ok, 1} = append(store(Config), Stored#event{event_id = ~"other"}, ?JSON),
    {#event{data = Text}, #event{data = Data}} = newest(store(Config)),
    ?assertEqual({~"{\"n\":1}", #{~"n" => 1}}, {Text, Data}).

b_text_of_another_language(Config) ->
    Text = ~"  {\"b\": [1, 2.50, \"\\u00e4\"], \"a\": {}} ",
    Event = #{event_type => ~"T", data => Text},
    [{ok, _} = append(store(Config), Event, Options) || Options <- [#{}, ?JSON]],
    {#event{data = Stored}, #event{data = Data}} = newest(store(Config)),
    ?assertEqual(Text, Stored),
    ?assertEqual(#{~"a" => #{}, ~"b" => [1, 2.5, ~"ä"]}, Data).

b_other_content_types_are_left_alone(Config) ->
    Event = #{event_type => ~"T", data => ~"{}", data_content_type => ~"text/plain"},
    {ok, 0} = append(store(Config), Event, ?JSON),
    {Stored, Decoded} = newest(store(Config)),
    ?assertEqual({~"{}", ~"{}"}, {Stored#event.data, Decoded#event.data}),
    Term = #{event_type => ~"T", data => #{t => {1}}, data_content_type => ~"application/x-erlang"},
    {ok, 1} = append(store(Config), Term, ?JSON),
    {#event{data = #{t := {1}}}, #event{data = #{t := {1}}}} = newest(store(Config)).

b_terms_stay_terms_without_the_codec(Config) ->
    Data = #{tuple => {a, 1}, pid => self()},
    {ok, 0} = append(store(Config), #{event_type => ~"T", data => Data}, #{}),
    {Stored, Decoded} = newest(store(Config)),
    ?assertEqual({Data, Data}, {Stored#event.data, Decoded#event.data}).

b_what_has_no_json_is_refused(Config) ->
    Twice = #{a => 1, ~"a" => 2},
    [
        ?assertEqual(
            {error, {invalid_event, {not_json, Key}}},
            append(store(Config), maps:merge(#{event_type => ~"T", data => #{}}, Event), ?JSON)
        )
     || {Key, Event} <- [
            {data, #{data => #{t => {1, 2}}}},
            {data, #{data => #{b => <<255>>}}},
            {data, #{data => #{f => fun() -> ok end}}},
            {data, #{data => #{{a} => 1}}},
            {data, #{data => #{deep => [Twice]}}},
            {data, #{data => ~"no json"}},
            {data, #{data => ~""}},
            {metadata, #{metadata => #{p => self()}}},
            {metadata, #{metadata => Twice}}
        ]
    ],
    %% What is wrong otherwise is told as ever.
    [
        ?assertEqual({error, {invalid_event, Why}}, append(store(Config), Event, ?JSON))
     || {Why, Event} <- [
            {not_an_event, x},
            {{missing, data}, #{event_type => ~"T"}},
            {{missing, event_type}, #{data => #{}}},
            {{bad_type, data}, #{event_type => ~"T", data => [1]}},
            {{bad_type, metadata}, #{event_type => ~"T", data => #{}, metadata => []}}
        ]
    ],
    ?assertEqual(-1, erl_esdb_streams:get_version(store(Config), ~"s")).

%% The reader of a page gets all of it; who must know asks for each.
b_text_that_lies_about_itself(Config) ->
    {ok, 0} = append(store(Config), #{event_type => ~"T", data => ~"{\"half"}, #{}),
    {Stored, Decoded} = newest(store(Config)),
    ?assertEqual(Stored, Decoded),
    ?assertEqual({error, {invalid_json, ~"s", 0}}, erl_esdb_json:decode(Stored)).

b_a_codec_of_the_store(_Config) ->
    Store = erl_esdb_test:start_store(?JSON),
    Event = #{event_type => ~"T", data => #{n => 1}},
    {ok, 0} = erl_esdb_streams:append(Store, ~"s", any, [Event]),
    ?assertMatch({#event{data = ~"{\"n\":1}"}, _}, newest(Store)),
    {ok, 1} = append(Store, Event, #{codec => none}),
    ?assertMatch({#event{data = #{n := 1}}, _}, newest(Store)),
    ok = erl_esdb:stop_store(Store),
    ?assertEqual(
        {error, {invalid_option, codec, xml}}, erl_esdb:start_store(Store, #{codec => xml})
    ).

b_every_read_decodes(Config) ->
    Store = store(Config),
    Event = #{event_type => ~"T", data => #{n => 1}, tags => [~"red"]},
    {ok, _} = erl_esdb_streams:append_many(Store, [{~"s", any, [Event]}], ?JSON),
    Decode = #{decode => json},
    [
        ?assertMatch({ok, [#event{data = #{~"n" := 1}}]}, Read)
     || Read <- [
            erl_esdb_streams:read(Store, ~"s", 0, 9, forward, Decode),
            erl_esdb_streams:read_log(Store, 0, 9, forward, Decode),
            erl_esdb_streams:read_by_event_types(Store, [~"T"], Decode),
            erl_esdb_streams:read_by_tags(Store, [~"red"], Decode),
            erl_esdb_streams:read_category(Store, ~"*", 0, 9, forward, Decode)
        ]
    ],
    {ok, [#event{data = ~"{\"n\":1}"}]} = erl_esdb_streams:read_by_tags(Store, [~"red"], #{}).

b_misuse(Config) ->
    Event = #{event_type => ~"T", data => #{}},
    ?assertError(badarg, append(store(Config), Event, #{codec => xml})),
    Read = fun(Options) -> erl_esdb_streams:read(store(Config), ~"s", 0, 1, forward, Options) end,
    ?assertError(badarg, Read(#{decode => xml})),
    ?assertError(
        badarg, erl_esdb_streams:read_log(store(Config), 0, 1, forward, #{decode => true})
    ).

%% Whatever a map holds: it comes back as JSON has it, or is refused.
b_any_map_round_trips(_Config) ->
    Leaf = oneof([integer(), float(), boolean(), null, utf8(), binary(), atom(), any()]),
    Key = oneof([utf8(), atom(), integer()]),
    Value = oneof([Leaf, list(Leaf), map(Key, Leaf)]),
    Property = ?FORALL(
        Data,
        map(Key, Value),
        case erl_esdb_json:encode(#{event_type => ~"T", data => Data}) of
            {ok, #{data := Text}} -> same(Data, json:decode(Text));
            {error, {invalid_event, {not_json, data}}} -> true
        end
    ),
    erl_esdb_test:property(500, Property).

same(Map, Read) when is_map(Map) ->
    map_size(Map) =:= map_size(Read) andalso
        lists:all(fun({K, V}) -> same(V, maps:get(key(K), Read)) end, maps:to_list(Map));
same(List, Read) when is_list(List) ->
    length(List) =:= length(Read) andalso
        lists:all(fun({V, R}) -> same(V, R) end, lists:zip(List, Read));
same(Atom, Read) when Atom =:= true; Atom =:= false; Atom =:= null ->
    Atom =:= Read;
same(Atom, Read) when is_atom(Atom) ->
    atom_to_binary(Atom) =:= Read;
same(Value, Read) ->
    Value == Read.

key(Key) when is_atom(Key) -> atom_to_binary(Key);
key(Key) when is_integer(Key) -> integer_to_binary(Key);
key(Key) -> Key.
