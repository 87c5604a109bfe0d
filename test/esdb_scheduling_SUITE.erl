-module(esdb_scheduling_SUITE).
-moduledoc """
No call keeps a normal scheduler busy, however large its input.

The runtime reports each stretch that a process spends on a scheduler without a pause of more than
two milliseconds (`long_schedule`). A function that blocks is reported at every call; a machine
that is busy with something else causes a report now and then. So a function is called many times,
and fails if more than three in four of the calls were reported. Where the machine is so busy that
short copies, which cannot block, are often reported too, the limit is doubled until they are not.
""".

-compile(export_all).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-define(LIMIT_MS, 2).
%% A call in Erlang takes long, so on a busy machine every one is set aside by the operating system
%% for some milliseconds; what OTP does in one go, which is what could block there, would take
%% longer.
-define(LIMIT_IN_ERLANG_MS, 20).
%% What blocks in the suite's own first case takes longer.
-define(LIMIT_BUSY_MS, 40).
-define(OPINIONS, 12).
-define(TRIES, 12).
%% Of these, more than three in four, and more than one in four.
-define(MOST, 10).
-define(OFTEN, 4).
-define(REPORTED_MS, 50).
-define(COPIED, 250_000).
-define(LARGE, 64 * 1024 * 1024).
%% The twins get less: with more, the garbage collections of their own heaps would be what is seen.
-define(LARGE_IN_ERLANG, 2 * 1024 * 1024).

suite() -> [{timetrap, {minutes, 10}}].

all() ->
    [
        a_call_that_blocks_is_seen,
        hash_functions_do_not_block,
        crypto_functions_do_not_block,
        compression_does_not_block,
        decompression_does_not_block,
        streams_do_not_block,
        many_small_items_do_not_block,
        dictionaries_do_not_block,
        aggregates_do_not_block,
        filters_do_not_block,
        short_filters_do_not_block,
        questions_to_segments_do_not_block,
        questions_to_short_segments_do_not_block,
        graphs_do_not_block,
        files_do_not_block,
        runs_do_not_block,
        many_short_calls_do_not_block
    ].

init_per_suite(Config) ->
    Size =
        case esdb_hash_nif:implementation() of
            nif -> ?LARGE;
            erlang -> ?LARGE_IN_ERLANG
        end,
    %% Compressible, and not the same everywhere.
    Data = << <<N:32, "an event of a stream">> || N <- lists:seq(1, Size div 24) >>,
    %% Not in the configuration, which Common Test writes into its logs.
    persistent_term:put(?MODULE, Data),
    Config.

end_per_suite(_Config) ->
    persistent_term:erase(?MODULE).

data() -> persistent_term:get(?MODULE).

%% Without this one the others could pass because nothing is ever reported.
a_call_that_blocks_is_seen(_Config) ->
    Data = data(),
    Large = binary:copy(Data, 4 * ?LARGE div byte_size(Data)),
    Blocks = fun() -> true = crypto:hash_equals(Large, Large) end,
    %% Two opinions are as good as all of them: none is to differ.
    ?assertMatch({blocks, _}, judge(Blocks, limit(), 2)).

hash_functions_do_not_block(_Config) ->
    Data = data(),
    none_block([
        {xxhash3, fun() -> esdb_hash_nif:xxhash3(Data) end},
        {xxhash3_seeded, fun() -> esdb_hash_nif:xxhash3(Data, 7) end},
        {xxhash64, fun() -> esdb_hash_nif:xxhash64(Data) end},
        {fnv1a, fun() -> esdb_hash_nif:fnv1a(Data) end},
        {update, fun() -> esdb_hash_nif:update(esdb_hash_nif:new(), Data) end},
        {partition_hash, fun() -> esdb_hash_nif:partition_hash(Data, 16) end},
        {stream_partition, fun() -> esdb_hash_nif:stream_partition(Data, Data, 16) end}
    ]).

crypto_functions_do_not_block(_Config) ->
    Data = data(),
    Message = message(),
    {Public, Private} = crypto:generate_key(eddsa, ed25519),
    Signature = esdb_crypto_nif:sign_ed25519(Message, Private),
    Text = esdb_crypto_nif:base64_encode_urlsafe(Data),
    Copy = binary:copy(Data),
    Longest = binary:part(Data, 0, 8192),
    none_block([
        {verify_ed25519, fun() ->
            true = esdb_crypto_nif:verify_ed25519(Message, Signature, Public)
        end},
        {sign_ed25519, fun() -> esdb_crypto_nif:sign_ed25519(Message, Private) end},
        {hash_sha256, fun() -> esdb_crypto_nif:hash_sha256(Data) end},
        {hmac_sha256, fun() -> esdb_crypto_nif:hmac_sha256(~"key", Data) end},
        {secure_compare, fun() -> true = esdb_crypto_nif:secure_compare(Data, Copy) end},
        {base64_encode, fun() -> esdb_crypto_nif:base64_encode_urlsafe(Data) end},
        {base64_decode, fun() -> {ok, _} = esdb_crypto_nif:base64_decode_urlsafe(Text) end},
        {base58, fun() -> esdb_crypto_nif:base58_decode(esdb_crypto_nif:base58_encode(Longest)) end}
    ]).

%% OTP signs and verifies in one go, which the twin cannot change and its documentation tells.
message() ->
    case esdb_crypto_nif:implementation() of
        nif -> data();
        erlang -> binary:part(data(), 0, 100_000)
    end.

compression_does_not_block(_Config) ->
    Data = data(),
    none_block([
        {Algorithm, fun() -> {ok, _} = esdb_archive_nif:compress(Data, Algorithm, Level) end}
     || {Algorithm, Level} <- [{lz4, 1}, {zstd, 1}, {zlib, 1}]
    ]).

decompression_does_not_block(_Config) ->
    Data = data(),
    %% zlib is OTP's in both modes, and so is what joins the pieces of the content,
    %% `iolist_to_binary`. It pauses after each quarter of a megabyte; where the operating system
    %% takes long for a page of new memory (50 us on some virtual machines), the quarter itself
    %% takes 3 to 5 ms. So little is joined here, and the decompression of much is watched as a
    %% stream, below.
    Short = binary:part(Data, 0, 1_000_000),
    none_block([
        decompression(Data, lz4), decompression(Data, zstd), decompression(Short, zlib)
    ]).

decompression(Data, Algorithm) ->
    Packed = packed(Data, Algorithm),
    {Algorithm, fun() -> {ok, _} = esdb_archive_nif:decompress(Packed, Algorithm) end}.

streams_do_not_block(_Config) ->
    Data = stream_data(),
    none_block([
        {{Direction, Algorithm}, fun() -> pump(Content, Direction, Algorithm) end}
     || Algorithm <- [zstd, zlib],
        {Direction, Content} <- [{compress, Data}, {decompress, packed(Data, Algorithm)}]
    ]).

packed(Data, Algorithm) ->
    {ok, Packed} = esdb_archive_nif:compress(Data, Algorithm),
    Packed.

%% On OTP 27 streams are written in Erlang in both modes, and take ten seconds for 64 MB.
stream_data() ->
    case code:ensure_loaded(zstd) of
        {module, zstd} -> data();
        {error, _} -> binary:part(data(), 0, min(?LARGE_IN_ERLANG, byte_size(data())))
    end.

pump(Data, Direction, Algorithm) ->
    {ok, Stream} = opened(Direction, Algorithm),
    drain(esdb_archive_nif:stream_update(Stream, Data)).

opened(compress, Algorithm) -> esdb_archive_nif:stream(compress, Algorithm, 1);
opened(decompress, Algorithm) -> esdb_archive_nif:stream(decompress, Algorithm, #{}).

drain({more, _, Stream}) -> drain(esdb_archive_nif:stream_update(Stream, <<>>));
drain({ok, _, Stream}) -> last(esdb_archive_nif:stream_finish(Stream)).

last({more, _, Stream}) -> last(esdb_archive_nif:stream_finish(Stream));
last({ok, _}) -> ok.

%% As long as a short call may be, and called so often that a stretch without a pause would show.
many_short_calls_do_not_block(_Config) ->
    Short = binary:part(data(), 0, 250_000),
    Name = binary:part(Short, 0, 1000),
    Page = binary:part(Short, 0, 16_000),
    {Public, Private} = crypto:generate_key(eddsa, ed25519),
    {ok, Key} = esdb_crypto_nif:verify_key(Public),
    Signature = esdb_crypto_nif:sign_ed25519(Name, Private),
    Text = esdb_crypto_nif:base64_encode_urlsafe(Short),
    none_block([
        {Call, fun() -> repeat(Fun, times(Times)) end}
     || {Call, Times, Fun} <- [
            {xxhash3, 2000, fun() -> esdb_hash_nif:xxhash3(Short) end},
            {fnv1a, 100, fun() -> esdb_hash_nif:fnv1a(Short) end},
            {verify, 500, fun() -> esdb_crypto_nif:verify_ed25519(Name, Signature, Public) end},
            {prepared, 500, fun() -> esdb_crypto_nif:verify_ed25519(Name, Signature, Key) end},
            {sign, 500, fun() -> esdb_crypto_nif:sign_ed25519(Name, Private) end},
            {verify_key, 500, fun() -> esdb_crypto_nif:verify_key(Public) end},
            {base64_encode, 300, fun() -> esdb_crypto_nif:base64_encode_urlsafe(Short) end},
            {base64_decode, 300, fun() -> esdb_crypto_nif:base64_decode_urlsafe(Text) end},
            {base58, 300, fun() -> esdb_crypto_nif:base58_encode(Name) end},
            {secure_compare, 2000, fun() -> esdb_crypto_nif:secure_compare(Short, Short) end},
            {compress, 1000, fun() -> esdb_archive_nif:compress(Name, zstd) end},
            {level_9, 100, fun() -> esdb_archive_nif:compress(Page, zstd, 9) end}
        ]
    ]).

%% In Erlang some of these take a hundred times as long.
times(Times) ->
    case esdb_hash_nif:implementation() of
        nif -> Times;
        erlang -> max(2, Times div 100)
    end.

repeat(_Fun, 0) ->
    ok;
repeat(Fun, Times) ->
    _ = Fun(),
    repeat(Fun, Times - 1).

many_small_items_do_not_block(_Config) ->
    Items = [<<N:32, "stream">> || N <- lists:seq(1, min(50_000, byte_size(data()) div 100))],
    {Public, Private} = crypto:generate_key(eddsa, ed25519),
    Signed = [
        {Item, esdb_crypto_nif:sign_ed25519(Item, Private), Public}
     || Item <- lists:sublist(Items, 300)
    ],
    {ok, Packed} = esdb_archive_nif:compress_batch(Items, zstd),
    none_block([
        {partition_hash_batch, fun() -> esdb_hash_nif:partition_hash_batch(Items, 16) end},
        {verify_ed25519_batch, fun() -> esdb_crypto_nif:verify_ed25519_batch(Signed) end},
        {compress_batch, fun() -> {ok, _} = esdb_archive_nif:compress_batch(Items, zstd) end},
        {decompress_batch, fun() -> {ok, _} = esdb_archive_nif:decompress_batch(Packed, zstd) end}
    ]).

dictionaries_do_not_block(_Config) ->
    Samples = [<<N:32, "an event of a stream, with a field or two">> || N <- lists:seq(1, 20_000)],
    {ok, Dictionary} = esdb_archive_nif:train_dictionary(Samples, 32_768),
    Large = binary:part(data(), 0, 1_000_000),
    Options = #{dictionary => esdb_archive_nif:dictionary(Dictionary), level => 9},
    none_block([
        {train, fun() -> {ok, _} = esdb_archive_nif:train_dictionary(Samples, 32_768) end},
        {prepare, fun() -> repeat(fun() -> esdb_archive_nif:dictionary(Large) end, times(10)) end},
        {as_bytes, fun() -> repeat(fun with_a_new_dictionary/0, times(100)) end},
        {compress, fun() -> {ok, _} = esdb_archive_nif:compress(Large, zstd, Options) end}
    ]).

aggregates_do_not_block(_Config) ->
    Of = fun(Value, Count) ->
        [#{data => #{group => N rem 7, value => Value + N}} || N <- lists:seq(1, Count)]
    end,
    Many = Of(0, min(300_000, byte_size(data()) div 200)),
    %% Few events, and work for each.
    Long = Of(1 bsl 4_000_000, 100),
    Short = Of(1 bsl 70, 1000),
    Key = binary:copy(~"k", min(1_000_000, byte_size(data()) div 10)),
    Keys = lists:duplicate(4_900, #{group => Key, value => 1}),
    List = lists:seq(1, 100_000),
    Lists = lists:duplicate(min(500, byte_size(data()) div 100_000), #{group => List, value => 1}),
    Groups = fun(Events) ->
        esdb_aggregate_nif:group_by(Events, group, [count, {sum, value}, {max, value}])
    end,
    none_block([
        {group_by, fun() -> Groups(Many) end},
        {long_integers, fun() -> Groups(Long) end},
        {longer_integers, fun() -> Groups(Of(1 bsl 7200, 2_000)) end},
        {long_keys, fun() -> Groups(Keys) end},
        {keys_that_are_lists, fun() -> Groups(Lists) end},
        {short_calls, fun() -> repeat(fun() -> Groups(Short) end, times(200)) end}
    ]).

filters_do_not_block(_Config) ->
    Text = letters(min(400_000, byte_size(data()) div 100)),
    Part = binary:part(Text, 0, byte_size(Text) div 10),
    Names = [<<"order-", (integer_to_binary(N))/binary>> || N <- lists:seq(1, 50_000)],
    Stars = binary:copy(~"*a", min(2_000_000, byte_size(data()) div 100)),
    Large = regex(~"[ab]*a[ab]{4000}x"),
    {esdb_regex, Bytes, Kept} = Large,
    {ok, Set} = esdb_filter_nif:match_set([Large]),
    Lengths = [<<(binary:copy(~"p", N))/binary, "*">> || N <- lists:seq(1, 2_000)],
    Prefixes = lists:duplicate(200, binary:copy(~"p", 2_000)),
    {ok, Many} = esdb_filter_nif:match_set(Lengths),
    none_block([
        {regex, fun() -> esdb_filter_nif:regex_match(Part, regex(~"a[ab]{14}[xy]")) end},
        {large_regex, fun() -> esdb_filter_nif:regex_match(Part, Large) end},
        {forged, fun() -> esdb_filter_nif:regex_match(Part, {esdb_regex, Bytes, {0, Kept}}) end},
        {in_a_set, fun() -> esdb_filter_nif:match_set_indices([Part], Set) end},
        {lengths, fun() -> esdb_filter_nif:match_set_indices(Prefixes, Many) end},
        {duplicates, fun() ->
            esdb_filter_nif:match_set_indices([~"ab"], lists:duplicate(20_000, ~"a*"))
        end},
        {wildcard, fun() -> {ok, _} = esdb_filter_nif:compile_wildcard(Stars) end},
        {as_text, fun() -> esdb_filter_nif:filter_by_wildcard([], Stars) end},
        {one_text, fun() -> esdb_filter_nif:wildcard_match(Text, Stars) end},
        {set_of_it, fun() -> {ok, _} = esdb_filter_nif:match_set([Stars]) end},
        {marked, fun() -> esdb_filter_nif:wildcard_match(Text, ~"*a?b?a?c*") end},
        {names, fun() -> esdb_filter_nif:count_matches(Names, regex(~"-[0-9]*7$")) end},
        {over_maps, fun() ->
            esdb_filter_nif:filter_count([#{text => Part}], {regex, text, ~"a[ab]{14}[xy]"})
        end},
        {too_large, fun() -> false = esdb_filter_nif:is_valid_regex(Text) end}
    ]).

%% As long as a normal scheduler takes them, and often: each has to say what it took.
short_filters_do_not_block(_Config) ->
    Text = letters(33_000),
    Of = fun(Size) -> binary:part(Text, 0, Size) end,
    Names = [binary:part(Text, N, 90) || N <- lists:seq(1, 1_000)],
    Regexes = [~"a[ab]{14}[xy]", ~"a[ab]{6}[^ab]", ~"[ab]*a[ab]{90}x", ~"(?:a|b[ab]{20})\\b[^ab]"],
    none_block(
        [
            {{Regex, Size}, fun() ->
                Handle = regex(Regex),
                Asked = Of(Size),
                repeat(fun() -> esdb_filter_nif:regex_match(Asked, Handle) end, times(40))
            end}
         || Regex <- Regexes, Size <- [90, 300, 1_000, 3_000, 33_000]
        ] ++
            [
                {Call, fun() -> repeat(Fun, times(80)) end}
             || {Call, Fun} <- [
                    {names, fun() -> esdb_filter_nif:count_matches(Names, regex(~"a[ab]{3}x")) end},
                    {wildcard, fun() -> esdb_filter_nif:match_indices(Names, ~"*a*b?a*") end},
                    {stars, fun() ->
                        esdb_filter_nif:compile_wildcard(binary:copy(~"*a", 500))
                    end},
                    {set, fun() ->
                        esdb_filter_nif:match_set([<<"*a*", N>> || N <- lists:seq(1, 180)])
                    end}
                ]
            ]
    ).

regex(Pattern) ->
    {ok, Handle} = esdb_filter_nif:compile_regex(Pattern),
    Handle.

%% A mixture of two, the same each time.
letters(Size) ->
    {Bytes, _} = rand:bytes_s(Size, rand:seed_s(exsss, 7)),
    << <<($a + C band 1)>> || <<C>> <= Bytes >>.

questions_to_segments_do_not_block(_Config) ->
    Most = byte_size(data()),
    Segment = esdb_segment_nif:pack(sold(min(300_000, Most div 200))),
    %% These are gone through in Erlang in both modes.
    Part = esdb_segment_nif:slice(Segment, 0, min(10_000, Most div 200)),
    Small = esdb_segment_nif:pack(sold(10)),
    none_block(
        [{{one, Name}, Call} || {Name, Call} <- questions(Segment)] ++
            [{{many, Name}, Call} || {Name, Call} <- questions(lists:duplicate(500, Small))] ++
            [
                {info, fun() -> #{} = esdb_segment_nif:info(Part) end},
                {verify, fun() -> ok = esdb_segment_nif:verify(Part) end},
                {project, fun() -> esdb_segment_nif:project(Part, [name, amount]) end},
                {numbers, fun() ->
                    esdb_segment_nif:count_where(Segment, {in, amount, lists:seq(-500, -1)})
                end}
            ]
    ).

%% As large as a normal scheduler takes them, whatever is asked.
questions_to_short_segments_do_not_block(_Config) ->
    Events = sold(1_000),
    Stored = esdb_segment_nif:pack(Events),
    Packed = esdb_segment_nif:pack(Events, #{compress => zstd}),
    %% Of these a megabyte has very many.
    Names = [#{data => #{name => integer_to_binary(I)}} || I <- lists:seq(1, 5_000)],
    Tiny = esdb_segment_nif:pack(Names),
    Paths = [amount, name, group, note, amount, name, group, note],
    none_block([
        {{Kind, Name}, fun() -> repeat(Call, times(100)) end}
     || {Kind, Segment} <- [{stored, Stored}, {packed, Packed}, {tiny, Tiny}],
        {Name, Call} <- [
            {project, fun() -> esdb_segment_nif:project(Segment, Paths) end}
            | questions(Segment)
        ]
    ]).

%% The answers are small: a large one would show the garbage collections of whoever gets it.
questions(Segments) ->
    [
        {sum, fun() -> esdb_segment_nif:sum(Segments, amount) end},
        {count, fun() -> esdb_segment_nif:count_where(Segments, {prefix, name, ~"1"}) end},
        {regex, fun() -> esdb_segment_nif:count_where(Segments, {regex, name, ~"[0-9]*7"}) end},
        {wildcard, fun() ->
            esdb_segment_nif:count_where(Segments, {wildcard, name, ~"*1?3*"})
        end},
        {first, fun() -> esdb_segment_nif:first(Segments, {eq, name, ~"none"}) end},
        {filter, fun() -> esdb_segment_nif:filter(Segments, {suffix, name, ~"77"}) end},
        {group_by, fun() -> esdb_segment_nif:group_by(Segments, group, [count, {sum, amount}]) end},
        {fold, fun() -> esdb_segment_nif:fold_tagged(Segments, #{}) end}
    ].

sold(Count) ->
    [
        #{
            event_type => ~"sold",
            version => N,
            data => #{
                amount => {sum, N},
                name => integer_to_binary(N),
                group => N rem 7,
                note => ~"a note that makes an event as long as events are, about this long"
            }
        }
     || N <- lists:seq(1, Count)
    ].

graphs_do_not_block(_Config) ->
    Count = min(200_000, byte_size(data()) div 200),
    Nodes = lists:seq(1, Count),
    Edges = [{N div 2, N} || N <- tl(Nodes)],
    Graph = esdb_graph_nif:new(Nodes, Edges),
    Small = esdb_graph_nif:new(lists:seq(1, 9_000), lists:sublist(Edges, 8_999)),
    %% Few ids, and long.
    Long = [<<N, (binary:copy(<<N>>, byte_size(data()) div 20))/binary>> || N <- lists:seq(1, 9)],
    %% The size of ids that are neither small nor binaries shows only where they are read.
    List = lists:seq(1, byte_size(data()) div 1_000),
    Lists = lists:duplicate(500, List),
    Deep = [{{N, #{list => List}}, undefined} || N <- lists:seq(1, 500)],
    Alike = [{binary:copy(Id), binary:copy(Id)} || Id <- lists:duplicate(50, hd(Long))],
    none_block([
        {lists, fun() -> [List] = esdb_graph_nif:find_roots(Lists, []) end},
        {deep_ids, fun() -> [] = esdb_graph_nif:build_edges(Deep) end},
        {alike, fun() -> [] = esdb_graph_nif:find_roots([hd(Long)], Alike) end},
        {new, fun() -> esdb_graph_nif:new(Nodes, Edges) end},
        {add, fun() -> esdb_graph_nif:add(Graph, [0], [{0, 1}]) end},
        {topo_sort, fun() -> {ok, _} = esdb_graph_nif:topo_sort(Nodes, Edges) end},
        {kept_sort, fun() -> {ok, _} = esdb_graph_nif:topo_sort(Graph) end},
        {longest_path, fun() -> {ok, _} = esdb_graph_nif:longest_path(Graph) end},
        {components, fun() -> [_] = esdb_graph_nif:components(Graph) end},
        {get_descendants, fun() -> esdb_graph_nif:get_descendants(Graph, 1) end},
        {has_path, fun() -> true = esdb_graph_nif:has_path(Graph, 1, Count) end},
        {build_edges, fun() -> esdb_graph_nif:build_edges([{N, N div 2} || N <- Nodes]) end},
        {long_ids, fun() -> {ok, _} = esdb_graph_nif:topo_sort(Long, []) end},
        {short_calls, fun() ->
            repeat(fun() -> esdb_graph_nif:descendants_count(Small, 1) end, times(2_000))
        end},
        {short_sorts, fun() -> repeat(fun() -> esdb_graph_nif:topo_sort(Small) end, times(200)) end}
    ]).

%% No cache can know it.
with_a_new_dictionary() ->
    Options = #{dictionary => rand:bytes(65_536)},
    {ok, _} = esdb_archive_nif:compress(~"x", zstd, Options).

%% The most that one call may ask for, by as many ranges as it may have, and in one piece.
files_do_not_block(Config) ->
    Name = filename:join(?config(priv_dir, Config), "large"),
    ok = file:write_file(Name, data()),
    Size = byte_size(data()) - 1,
    Count =
        case esdb_file_nif:implementation() of
            nif -> 65_536;
            %% OTP makes one call of each.
            erlang -> 2_000
        end,
    Scattered = [{N * (Size div Count), 1000} || N <- lists:seq(0, Count - 1)],
    %% Each call is made in a process of its own, whose file it must be.
    Read = fun(Ranges) ->
        {ok, File} = esdb_file_nif:open(Name),
        {ok, [_ | _]} = esdb_file_nif:read(File, Ranges),
        ok = esdb_file_nif:close(File)
    end,
    none_block([
        {scattered, fun() -> Read(Scattered) end},
        {whole, fun() -> Read([{0, Size}]) end}
    ]).

%% Some on the schedulers for long work, some that are just too short for them.
runs_do_not_block(_Config) ->
    Size = byte_size(data()),
    Records = binary:part(data(), 0, min(Size, 16_000_000) div 14 * 14),
    Short = binary:part(Records, 0, 49_152 div 14 * 14),
    Half = esdb_runs_nif:sort(binary:part(Records, 0, 130_000 div 14 * 14), 14),
    Run = esdb_runs_nif:sort(Records, 14),
    none_block([
        {sort, fun() -> esdb_runs_nif:sort(Records, 14) end},
        {sort_short, fun() -> esdb_runs_nif:sort(Short, 14) end},
        {merge, fun() -> esdb_runs_nif:merge([Run, Run, Run], 14) end},
        {merge_short, fun() -> esdb_runs_nif:merge([Half, Half], 14) end},
        {merge_many, fun() -> esdb_runs_nif:merge(lists:duplicate(50_000, ~"a"), 1) end}
    ]).

none_block(Calls) ->
    Judged = [{Name, judge(Call)} || {Name, Call} <- Calls],
    ct:log("at a limit in ms: ~p", [Judged]),
    ?assertEqual([], [Name || {Name, {blocks, _}} <- Judged]).

%% Whether most calls of many had a stretch that was too long. What blocks does so each time; where
%% a machine does much else for a moment, the next moment says something else.
judge(Call) -> judge(Call, limit(), ?OPINIONS).

judge(Call, Limit, Count) ->
    Opinions = [fun() -> judge(Call, Limit) end || _ <- lists:seq(1, Count)],
    lists:foldl(fun opinion/2, {blocks, Limit}, Opinions).

opinion(Judge, {blocks, _}) -> Judge();
opinion(_Judge, {does_not_block, _} = Judged) -> Judged.

judge(Call, Limit) ->
    case are_reported(?MOST, Call, Limit) of
        false -> {does_not_block, Limit};
        true -> judge_machine(Call, Limit)
    end.

%% The call, or the machine?
judge_machine(Call, Limit) ->
    case 2 * Limit =< ?LIMIT_BUSY_MS andalso are_reported(?OFTEN, fun cannot_block/0, Limit) of
        true -> judge(Call, 2 * Limit);
        false -> {blocks, Limit}
    end.

are_reported(Needed, Call, Limit) ->
    Before = erlang:system_monitor(self(), [{long_schedule, Limit}]),
    try
        at_least(Needed, ?TRIES, Call)
    after
        erlang:system_monitor(Before)
    end.

%% Ends as soon as the tries that are left cannot change the answer. So many calls follow each other
%% that, were none reported, nothing could be changed any more; their reports are waited for once.
at_least(Needed, _Left, _Call) when Needed =< 0 -> true;
at_least(Needed, Left, _Call) when Needed > Left -> false;
at_least(Needed, Left, Call) ->
    Calls = Left - Needed + 1,
    Reported = length(flush([run(Call) || _ <- lists:seq(1, Calls)])),
    at_least(Needed - Reported, Left - Calls, Call).

run(Call) ->
    {Pid, Monitor} = spawn_monitor(Call),
    receive
        {'DOWN', Monitor, process, Pid, normal} -> Pid;
        {'DOWN', Monitor, process, Pid, Reason} -> error(Reason)
    end.

%% Those of these processes that were reported.
flush([]) ->
    [];
flush(Pids) ->
    receive
        {monitor, Pid, long_schedule, _} ->
            case lists:member(Pid, Pids) of
                true -> [Pid | flush(lists:delete(Pid, Pids))];
                false -> flush(Pids)
            end
        %% A thread of the runtime's own sends the reports, some time after.
    after ?REPORTED_MS -> []
    end.

limit() ->
    case esdb_hash_nif:implementation() of
        nif -> ?LIMIT_MS;
        erlang -> ?LIMIT_IN_ERLANG_MS
    end.

%% Busy for as long as the calls that are watched, and asks for new memory as they do: a machine may
%% take long for that, too.
cannot_block() ->
    copy_until(erlang:monotonic_time(millisecond) + 50, binary:part(data(), 0, ?COPIED)).

copy_until(End, Data) ->
    case erlang:monotonic_time(millisecond) >= End of
        true -> ok;
        false -> copy_until(End, binary:copy(Data))
    end.
