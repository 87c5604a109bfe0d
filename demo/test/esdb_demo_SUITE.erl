-module(esdb_demo_SUITE).
-moduledoc "The demo: sources, numbers against independent ones, report, exit statuses.".

-include_lib("stdlib/include/assert.hrl").
-include_lib("proper/include/proper.hrl").

-compile(export_all).

all() ->
    [
        event_what_a_line_must_have,
        event_to_the_store_and_back,
        events_of_many_pages_are_folded_in_order,
        pieces_are_those_of_a_split,
        ndjson_plain_gzipped_and_odd_line_ends_are_the_same,
        ndjson_malformed_lines_are_named_and_the_rest_goes_in,
        import_of_large_lines_goes_in_by_parts,
        import_names_the_places_of_many_problems,
        import_names_what_the_store_refuses,
        import_into_a_store_that_is_gone_is_one_sentence,
        ndjson_a_file_without_line_ends_is_one_problem,
        ndjson_files_that_cannot_be_read,
        git_merge_rename_binary_empty_and_names,
        git_user_configuration_changes_nothing,
        git_bare_shallow_and_single_commit,
        git_what_is_no_repository,
        git_paths_are_never_commands,
        program_that_hangs_is_stopped,
        questions_of_causes_are_those_of_a_naive_search,
        questions_of_many_events_and_circles,
        questions_of_any_json_have_the_same_answers,
        questions_tell_a_difference,
        facts_and_answers_are_those_of_a_plain_count,
        calendar_spans,
        chart_numbers_bars_and_names,
        terminal_styles,
        progress_in_plain_lines,
        samples_are_spread_evenly,
        archive_reads_back_and_keeps_to_its_budget,
        steps_agree_with_a_node_without_libraries,
        report_says_what_was_measured,
        report_of_a_long_history_has_its_busiest_weeks,
        report_alarms,
        report_of_a_store_that_came_back,
        check_tells_what_is_wrong,
        check_of_a_store,
        dot_is_valid_whatever_the_names,
        demo_of_a_file_in_each_mode,
        demo_of_a_repository,
        demo_without_a_place_for_its_drawing,
        demo_gets_what_make_was_given,
        demo_refuses_with_one_sentence,
        demo_whose_reader_is_gone_is_quiet,
        demo_ends_at_an_interrupt
    ] ++ on_disk(code:which(ra)).

on_disk(non_existing) -> [demo_without_ra];
on_disk(_) -> [demo_on_disk, demo_of_three_nodes].

%% Events

event_what_a_line_must_have(_) ->
    Good = #{
        event_id => ~"a",
        event_type => ~"T",
        stream_id => ~"s",
        epoch_us => 7,
        data => #{},
        metadata => #{}
    },
    {ok, Good} = parse(Good),
    {ok, Good} = parse(Good#{unknown => 1}),
    [
        ?assertMatch({error, Why}, parse(Broken), Broken)
     || {Why, Broken} <- [
            {~"event_id is missing", maps:remove(event_id, Good)},
            {~"event_id is not a non-empty string", Good#{event_id := 5}},
            {~"event_type is not a non-empty string", Good#{event_type := ~""}},
            {~"stream_id is not a non-empty string", Good#{stream_id := null}},
            {~"epoch_us is not an integer between the years 1970 and 9999", Good#{epoch_us := 1.0}},
            {~"epoch_us is not an integer between the years 1970 and 9999", Good#{epoch_us := -1}},
            {~"data is not an object", Good#{data := [1]}},
            {~"metadata is missing", maps:remove(metadata, Good)},
            {~"metadata has the reserved key $epoch_us", Good#{metadata := #{'$epoch_us' => 1}}}
        ]
    ],
    {error, ~"not a JSON object"} = esdb_demo_event:parse(~"[]"),
    {error, ~"not valid JSON"} = esdb_demo_event:parse(~"{"),
    {error, ~"not valid JSON"} = esdb_demo_event:parse(<<"{\"event_id\":\"", 255, "\"}">>),
    %% A number that would take minutes to convert.
    {error, ~"not valid JSON"} = esdb_demo_event:parse(binary:copy(~"9", 100_000)),
    {error, ~"more than one JSON value"} = esdb_demo_event:parse(<<(encode(Good))/binary, " 1">>).

parse(Event) ->
    esdb_demo_event:parse(encode(Event)).

encode(Event) ->
    iolist_to_binary(json:encode(Event)).

event_to_the_store_and_back(Config) ->
    Events = [E || {event, _, E} <- items(data_file(Config, "commits.ndjson.gz"))],
    300 = length(Events),
    Atoms = erlang:system_info(atom_count),
    with_store(fun(Store) ->
        Batches = [{S, [esdb_demo_event:to_new(E)]} || #{stream_id := S} = E <- Events],
        {ok, _, []} = esdb_demo_steps:append(Store, Batches),
        Read = esdb_demo_steps:fold(Store, fun(E, In) -> [E | In] end, []),
        Events = lists:reverse(Read),
        %% Null and absent are two things.
        Odds = [
            (hd(Events))#{event_id := Id, metadata := Metadata}
         || {Id, Metadata} <- [
                {~"x1", #{}},
                {~"x2", #{~"causation_id" => null, ~"actor_id" => ~"a"}},
                {~"x3", #{~"epoch_us" => ~"mine", ~"other" => null, ~"list" => [null, #{}]}}
            ]
        ],
        {ok, _, []} = esdb_demo_steps:append(Store, [{~"odd", lists:map(fun to_new/1, Odds)}]),
        All = lists:reverse(esdb_demo_steps:fold(Store, fun(E, In) -> [E | In] end, [])),
        ?assertEqual([E#{stream_id := ~"odd"} || E <- Odds], lists:nthtail(300, All))
    end),
    [#{metadata := Kept} | _] = [esdb_demo_event:to_new(E) || E <- tl(Events)],
    ?assertMatch(#{causation_id := _, correlation_id := _, actor_id := _, ~"parents" := [_]}, Kept),
    %% Whatever the keys are called, no atom is made of them; modules loaded on the way make a few.
    Foreign = #{<<"k", (integer_to_binary(N))/binary>> => N || N <- lists:seq(1, 20_000)},
    {ok, Odd} = parse((hd(Events))#{metadata := Foreign, data := Foreign}),
    _ = esdb_demo_event:to_new(Odd),
    ?assert(erlang:system_info(atom_count) - Atoms < 10_000).

to_new(Event) -> esdb_demo_event:to_new(Event).

events_of_many_pages_are_folded_in_order(_) ->
    Events = chained([integer_to_binary(N) || N <- lists:seq(1, 2500)]),
    with_store(fun(Store) ->
        Batches = [{~"s", [esdb_demo_event:to_new(E)]} || E <- Events],
        {ok, _, []} = esdb_demo_steps:append(Store, Batches),
        Ids = esdb_demo_steps:fold(Store, fun(#{event_id := Id}, In) -> [Id | In] end, []),
        ?assertEqual([Id || #{event_id := Id} <- Events], lists:reverse(Ids))
    end).

%% Cutting

pieces_are_those_of_a_split(_) ->
    holds(
        ?FORALL(
            {Parts, Limit},
            {list(binary_of(~"ab\n")), range(1, 12)},
            begin
                Whole = iolist_to_binary(Parts),
                Expected = [limited(P, Limit) || P <- binary:split(Whole, ~"\n", [global])],
                {Cut, End} = lists:foldl(
                    fun(Part, {Done, P}) ->
                        {More, Next} = esdb_demo_pieces:feed(Part, P),
                        {Done ++ More, Next}
                    end,
                    {[], esdb_demo_pieces:new($\n, Limit)},
                    Parts
                ),
                Expected =:= Cut ++ esdb_demo_pieces:rest(End)
            end
        )
    ).

binary_of(Bytes) ->
    ?LET(L, list(oneof(binary_to_list(Bytes))), list_to_binary(L)).

limited(Piece, Limit) when byte_size(Piece) > Limit -> too_long;
limited(Piece, _) -> Piece.

%% Files

ndjson_plain_gzipped_and_odd_line_ends_are_the_same(Config) ->
    Zipped = data_file(Config, "commits.ndjson.gz"),
    {ok, Bytes} = file:read_file(Zipped),
    Plain = zlib:gunzip(Bytes),
    Expected = items(Zipped),
    300 = length(Expected),
    Half = binary:part(Plain, 0, byte_size(Plain) div 2),
    Rest = binary:part(Plain, byte_size(Half), byte_size(Plain) - byte_size(Half)),
    Variants = #{
        "plain" => Plain,
        "no_last_line_end" => string:trim(Plain, trailing, "\n"),
        "crlf" => binary:replace(Plain, ~"\n", ~"\r\n", [global]),
        "byte_order_mark" => <<16#EF, 16#BB, 16#BF, Plain/binary>>,
        "two_members.gz" => [zlib:gzip(Half), zlib:gzip(Rest)],
        "misnamed.txt" => Bytes
    },
    [
        ?assertEqual(Expected, items(write(Config, Name, Content)), Name)
     || Name := Content <- Variants
    ].

ndjson_malformed_lines_are_named_and_the_rest_goes_in(Config) ->
    Path = data_file(Config, "malformed.ndjson"),
    {ok, Imported} = in_store(fun(Store) -> import({ndjson, Path}, Store) end),
    ?assertMatch(#{events := 3, problems := 12}, Imported),
    ?assertEqual(
        [
            {2, ~"not valid JSON", 2},
            {3, ~"event_id is missing", 1},
            {4, ~"epoch_us is not an integer between the years 1970 and 9999", 3},
            {6, ~"data is not an object", 1},
            {9, ~"not a JSON object", 1}
        ],
        maps:get(reasons, Imported)
    ),
    Problems = [Line || {problem, Line, _} <- items(Path)],
    %% The repeated id of line 11 is seen by the import, not by the reader.
    ?assertEqual([2, 3, 4, 5, 6, 9, 10, 12, 13, 14, 16], Problems),
    ?assertEqual([1, 7, 11, 15], [Line || {event, Line, _} <- items(Path)]).

import_of_large_lines_goes_in_by_parts(Config) ->
    [Event] = chained([~"id"]),
    Text = binary:copy(~"x", 100_000),
    Line = fun(N) -> encode(Event#{event_id := integer_to_binary(N), data := #{t => Text}}) end,
    Lines = [[Line(N), $\n] || N <- lists:seq(1, 800)],
    Path = write(Config, "large.ndjson", Lines),
    {ok, Imported} = in_store(fun(Store) -> import({ndjson, Path}, Store) end),
    ?assertMatch(#{events := 800, problems := 0}, Imported).

import_names_the_places_of_many_problems(Config) ->
    %% 300 lines: every second one is broken, and a few in a row at the beginning.
    Lines = [
        case N rem 2 =:= 0 orelse N < 6 of
            true -> "broken\n";
            false -> "\n"
        end
     || N <- lists:seq(1, 600)
    ],
    Path = write(Config, "many.ndjson", Lines),
    {ok, Imported} = in_store(fun(Store) -> import({ndjson, Path}, Store) end),
    #{problems := 303, problem_places := Places, reasons := Reasons} = Imported,
    ?assertEqual([{1, 6} | [{N, N} || N <- lists:seq(8, 404, 2)]], Places),
    ?assertEqual([{1, ~"not valid JSON", 303}], Reasons),
    Shown = (result(Config))#{imported := Imported#{append_us := [1]}, there := {none, ~"one"}},
    Text = flat(esdb_demo_report:render(Shown, style(false, 80))),
    [
        ?assertNotEqual(nomatch, string:find(Text, Part), {Part, Text})
     || Part <- [
            "303 items left out:\n    lines 1-6, 8, 10, 12,",
            " 404,",
            "and 98 more\n    line 1: not valid JSON (303 times)\n"
        ]
    ],
    [?assert(string:length(L) =< 80, L) || L <- lines(Text)].

%% What the store does not take is left out by itself: what stands beside it in the batch goes in.
import_names_what_the_store_refuses(Config) ->
    {ok, _} = application:ensure_all_started(erl_esdb),
    {ok, _} = erl_esdb:start_store(demo_test, #{max_event_size => 2000, max_batch_events => 7}),
    Names = [integer_to_binary(N) || N <- lists:seq(1, 40)],
    Large = fun
        (#{event_id := Id} = E) when Id =:= ~"9"; Id =:= ~"10"; Id =:= ~"40" ->
            E#{data := #{~"x" => binary:copy(~"x", 2000)}};
        (#{event_id := ~"20"} = E) ->
            E#{stream_id := binary:copy(~"s", 70_000)};
        (E) ->
            E
    end,
    Lines = [encode(Large(E#{stream_id := ~"one"})) || E <- chained(Names)],
    Odd = ["no event" | Lines] ++ [hd(Lines), lists:nth(9, Lines)],
    Path = write(Config, "refused.ndjson", lists:join("\n", Odd)),
    try
        {ok, Imported} = import({ndjson, Path}, demo_test),
        ?assertMatch(#{events := 36, problems := 7}, Imported),
        ?assertEqual(
            [{1, 1}, {10, 11}, {21, 21}, {41, 43}], maps:get(problem_places, Imported)
        ),
        ?assertMatch(
            [
                {1, ~"not valid JSON", 1},
                {10, <<"the event has 2,", _:3/binary, " bytes, the store takes 2,000">>, N},
                {11, _, _},
                {21, ~"the stream_id has 70,000 bytes, the store takes 65,536", 1},
                {41, _, _}
            ] when N < 3,
            maps:get(reasons, Imported)
        ),
        Ids = esdb_demo_steps:fold(demo_test, fun(#{event_id := Id}, In) -> [Id | In] end, []),
        ?assertEqual(Names -- [~"9", ~"10", ~"20", ~"40"], lists:reverse(Ids))
    after
        erl_esdb:stop_store(demo_test)
    end.

import_into_a_store_that_is_gone_is_one_sentence(Config) ->
    [Event] = chained([~"a"]),
    Long = Event#{stream_id := binary:copy(~"s", 60_000)},
    Path = write(Config, "gone.ndjson", encode(Long)),
    {error, Why} = import({ndjson, Path}, demo_test),
    Expected = [
        "the store does not take events of the stream ",
        lists:duplicate(58, $s),
        "..: {store_not_started,demo_test}"
    ],
    ?assertEqual(text(Expected), Why).

ndjson_a_file_without_line_ends_is_one_problem(Config) ->
    Path = write(Config, "endless.gz", zlib:gzip(binary:copy(~"x", 50_000_000))),
    ?assertEqual([{problem, 1, ~"longer than 4 MiB"}], items(Path)).

ndjson_files_that_cannot_be_read(Config) ->
    {ok, Bytes} = file:read_file(data_file(Config, "commits.ndjson.gz")),
    <<Head:8000/binary, Byte, Tail/binary>> = Bytes,
    Cut = write(Config, "cut.gz", Head),
    Flipped = write(Config, "flipped.gz", [Head, Byte bxor 255, Tail]),
    Garbage = write(Config, "garbage.gz", [Bytes, "garbage"]),
    [
        ?assertEqual({error, sentence(Path, "its gzip data is broken or cut off")}, fold(Path))
     || Path <- [Cut, Flipped, Garbage]
    ],
    Absent = filename:join(priv(Config), "absent"),
    ?assertEqual({error, sentence(Absent, "no such file or directory")}, fold(Absent)),
    Folder = priv(Config),
    ?assertEqual({error, sentence(Folder, "illegal operation on a directory")}, fold(Folder)),
    ?assertEqual({ok, []}, fold(write(Config, "empty", ""))).

sentence(Path, Why) ->
    unicode:characters_to_binary(["cannot read ", Path, ": ", Why]).

%% Repositories

git_merge_rename_binary_empty_and_names(Config) ->
    Repo = history(Config, "history"),
    {ok, Items} = fold_git(Repo),
    Events = [E || {event, _, E} <- Items],
    %% Parents come before their children.
    lists:foldl(
        fun(#{event_id := Id, metadata := #{~"parents" := Parents}}, Seen) ->
            [] = Parents -- Seen,
            [Id | Seen]
        end,
        [],
        Events
    ),
    ?assertEqual(
        [
            {~"area-lib", ~"CommitAuthored", 0, {2, 8, 0}, #{
                ~"." => {1, 0, 0}, ~"lib" => {1, 8, 0}
            }},
            {~"area-src", ~"CommitAuthored", 1, {1, 1, 0}, #{~"src" => {1, 1, 0}}},
            {~"area-.", ~"CommitAuthored", 1, {0, 0, 0}, #{}},
            {~"area-.", ~"CommitAuthored", 1, {3, 5, 0}, #{
                ~"." => {1, 3, 0}, ~"ä ö" => {1, 1, 0}, ~"öl" => {1, 1, 0}
            }},
            {~"area-.", ~"CommitMerged", 2, {0, 0, 0}, #{}}
        ],
        [brief(E) || E <- Events]
    ),
    [#{metadata := First, epoch_us := Time} | _] = Events,
    Hash = crypto:hash(sha256, ~"ann@example.org"),
    <<Actor:12/binary, _/binary>> = binary:encode_hex(Hash, lowercase),
    ?assertEqual(1_700_000_000_000_000, Time),
    ?assertEqual(
        #{
            ~"causation_id" => null,
            ~"parents" => [],
            ~"actor_id" => Actor,
            ~"correlation_id" => ~"week-2810"
        },
        First
    ),
    #{metadata := #{~"causation_id" := Cause, ~"parents" := [Cause, _]}} = lists:last(Events),
    %% What git makes of it is also what a file of these events gives.
    Path = write(Config, "history.ndjson", [[encode(E), $\n] || E <- Events]),
    ?assertEqual(Events, [E || {event, _, E} <- items(Path)]).

brief(#{stream_id := Stream, event_type := Type, data := Data, metadata := Metadata}) ->
    #{~"areas" := Areas} = Data,
    #{~"parents" := Parents} = Metadata,
    {Stream, Type, length(Parents), counts(Data), #{A => counts(C) || A := C <- Areas}}.

counts(#{~"files" := F, ~"insertions" := I, ~"deletions" := D}) ->
    {F, I, D}.

git_user_configuration_changes_nothing(Config) ->
    Repo = history(Config, "configured"),
    Lines = [[integer_to_list(N), "\n"] || N <- lists:seq(1, 50)],
    commit(Repo, 1_700_000_005, #{"one/a" => [Lines, "a\n"], "one/b" => [Lines, "b\n"]}, "two"),
    git(Repo, ["mv", "one", "src/two"]),
    Changed = #{"src/two/a" => [Lines, "a\nc\n"], "src/two/b" => [Lines, "b\nd\n"]},
    commit(Repo, 1_700_000_006, Changed, "renamed and changed"),
    {ok, Before} = fold_git(Repo),
    [{event, _, #{data := Last}} | _] = lists:reverse(Before),
    ?assertEqual({2, 2, 0}, counts(Last)),
    [
        git(Repo, ["config", Key, Value])
     || {Key, Value} <- [
            {"diff.renames", "false"},
            {"color.ui", "always"},
            {"core.quotePath", "true"},
            {"log.showSignature", "true"},
            {"log.date", "relative"},
            {"log.decorate", "full"},
            {"log.mailmap", "true"},
            {"format.pretty", "fuller"},
            {"diff.noprefix", "true"},
            {"log.showRoot", "false"},
            {"log.diffMerges", "first-parent"},
            {"diff.renameLimit", "1"},
            {"diff.algorithm", "patience"},
            {"diff.submodule", "log"},
            {"diff.ignoreSubmodules", "all"},
            {"i18n.logOutputEncoding", "UTF-16"}
        ]
    ],
    ?assertEqual({ok, Before}, fold_git(Repo)),
    %% A hook runs with these set to its own repository.
    true = os:putenv("GIT_DIR", "/nowhere"),
    try
        ?assertEqual({ok, Before}, fold_git(Repo))
    after
        os:unsetenv("GIT_DIR")
    end.

git_bare_shallow_and_single_commit(Config) ->
    Repo = history(Config, "origin"),
    {ok, All} = fold_git(Repo),
    Bare = fresh(Config, "bare.git"),
    git(".", ["clone", "-q", "--bare", Repo, Bare]),
    ?assertEqual({ok, All}, fold_git(Bare)),
    ?assertEqual({ok, All}, fold_git(filename:join(Repo, ".git"))),
    Tree = fresh(Config, "tree"),
    git(Repo, ["worktree", "add", "-q", "--detach", Tree]),
    ?assertEqual({ok, All}, fold_git(Tree)),
    Shallow = fresh(Config, "shallow"),
    git(".", ["clone", "-q", "--depth", "2", "file://" ++ Repo, Shallow]),
    [true, false, false] = [esdb_demo_git:is_shallow(R) || R <- [Shallow, Repo, Bare]],
    {ok, Items} = fold_git(Shallow),
    Few = [E || {event, _, E} <- Items],
    ?assert(length(Few) < length(All)),
    ?assertMatch([_ | _], [E || #{metadata := #{~"parents" := []}} = E <- Few]),
    Single = repository(Config, "single"),
    commit(Single, 1, #{"a" => "1\n"}, "first"),
    ?assertMatch({ok, [{event, _, #{event_type := ~"CommitAuthored"}}]}, fold_git(Single)).

git_what_is_no_repository(Config) ->
    Empty = repository(Config, "empty"),
    ?assertEqual({error, text(["the repository ", Empty, " has no commits yet"])}, fold_git(Empty)),
    Folder = fresh(Config, "folder"),
    ok = filelib:ensure_path(Folder),
    true = os:putenv("GIT_CEILING_DIRECTORIES", filename:dirname(Folder)),
    try
        {error, Why} = fold_git(Folder),
        Expected = text(["the folder ", Folder, " is no git repository (not a git repository"]),
        ?assertEqual(Expected, binary:part(Why, 0, byte_size(Expected)))
    after
        os:unsetenv("GIT_CEILING_DIRECTORIES")
    end,
    %% What is only inside a repository is none: its history is not this folder's.
    Repo = history(Config, "around"),
    Bare = fresh(Config, "around.git"),
    git(".", ["clone", "-q", "--bare", Repo, Bare]),
    Inside = filename:join(Repo, "of no interest"),
    ok = filelib:ensure_path(Inside),
    [
        ?assertEqual({error, inside(Path, Enclosing)}, fold_git(Path))
     || {Path, Enclosing} <- [
            {Inside, Repo},
            {filename:join(Repo, "src"), Repo},
            {filename:join(Repo, ".git/refs"), filename:join(Repo, ".git")},
            {filename:join(Bare, "refs"), Bare}
        ]
    ],
    Absent = fresh(Config, "absent"),
    ?assertEqual({error, text(["there is no folder ", Absent])}, fold_git(Absent)),
    Path = os:getenv("PATH"),
    true = os:putenv("PATH", Folder),
    try
        ?assertEqual({error, ~"there is no git on the PATH"}, fold_git(Empty))
    after
        os:putenv("PATH", Path)
    end.

inside(Path, Enclosing) ->
    text(["the folder ", Path, " is no git repository (it lies inside of ", Enclosing, ")"]).

git_paths_are_never_commands(Config) ->
    Repo = repository(Config, "--help; touch $(echo gone) `x` 'y' \"z\""),
    commit(
        Repo,
        1,
        #{
            "commit 0000\t1\t\tx" => "1\n",
            "-9\t9\tfolder/file" => "1\n2\n",
            "line\nbreak/commit x" => "1\n2\n3\n"
        },
        "names like commands and headers"
    ),
    git(Repo, ["mv", "commit 0000\t1\t\tx", "commit renamed\t1\t\tx"]),
    commit(Repo, 2, #{}, "rename"),
    {ok, [{event, _, #{data := First}}, {event, _, #{data := Second}}]} = fold_git(Repo),
    ?assertEqual({3, 6, 0}, counts(First)),
    #{~"areas" := Areas} = First,
    ?assertEqual([~"-9\t9\tfolder", ~".", ~"line\nbreak"], lists:sort(maps:keys(Areas))),
    ?assertEqual({1, 0, 0}, counts(Second)),
    ?assertNot(filelib:is_file("gone")).

program_that_hangs_is_stopped(_) ->
    Script = "echo $$; exec sleep 600",
    {Micros, {error, timeout}} = timer:tc(fun() ->
        esdb_demo_program:run("sh", ["-c", Script], 200)
    end),
    ?assert(Micros < 60_000_000),
    {error, not_found} = esdb_demo_program:run("no such program", [], 1000),
    {ok, 3, ~"out err"} = esdb_demo_program:run(
        "sh", ["-c", "printf 'out '; printf err >&2; exit 3"], 10_000
    ).

%% Chains and facts

questions_of_causes_are_those_of_a_naive_search(_) ->
    holds(
        ?FORALL(
            Links,
            ?SUCHTHAT(L, map(range(1, 12), oneof([none, range(1, 16)])), map_size(L) > 0),
            begin
                Asked = asked([linked(name(Id), name(Cause)) || Id := Cause <- Links]),
                %% Who is its own cause has none.
                Own = maps:filter(fun(Id, Cause) -> Id =:= Cause end, Links),
                Given = maps:merge(Links, #{Id => none || Id := _ <- Own}),
                Named = #{name(Id) => name(Cause) || Id := Cause <- Given},
                {Kind, Chain} = answer(chain, Asked),
                [Led] = [A || #{question := {led_to, _}, answer := A} <- Asked],
                [Of] = [Id || #{question := {led_to, Id}} <- Asked],
                Linked = lists:all(
                    fun({A, B}) -> maps:get(B, Named) =:= A end, pairs(Chain)
                ),
                Walks = #{Id => walk(Id, Named, []) || Id := _ <- Named},
                Longest = lists:max([length(Walk) || _ := Walk <- Walks]),
                Naive = [Id || Id := Walk <- Walks, Id =/= Of, lists:member(Of, Walk)],
                Circular = has_circle(Named),
                same(Asked) andalso Linked andalso
                    length(lists:usort(Chain)) =:= length(Chain) andalso
                    case Kind of
                        chain -> not Circular andalso length(Chain) =:= Longest;
                        circle -> Circular andalso maps:get(hd(Chain), Named) =:= lists:last(Chain)
                    end andalso
                    lists:sort(Led) =:= lists:sort(Naive)
            end
        )
    ).

linked(Id, Cause) ->
    [Event] = chained([Id]),
    Event#{metadata := #{~"causation_id" => Cause}}.

asked(Events) ->
    esdb_demo_questions:ask(kept(Events, esdb_demo_questions:new())).

kept([], Kept) ->
    Kept;
kept(Events, Kept) ->
    {Page, More} = lists:split(min(1000, length(Events)), Events),
    kept(More, esdb_demo_questions:add(Page, Kept)).

answer(Question, Asked) ->
    esdb_demo_questions:answer(Question, Asked).

same(Asked) ->
    lists:all(fun(#{same := Same}) -> Same end, Asked).

name(none) -> none;
name(N) -> integer_to_binary(N).

pairs([]) -> [];
pairs(Chain) -> lists:zip(lists:droplast(Chain), tl(Chain)).

walk(Id, Links, Path) ->
    case Links of
        #{Id := Cause} ->
            case lists:member(Id, Path) of
                true -> Path;
                false -> walk(Cause, Links, [Id | Path])
            end;
        #{} ->
            Path
    end.

has_circle(Links) ->
    lists:any(
        fun(Id) ->
            Path = walk(Id, Links, []),
            Path =/= [] andalso lists:member(maps:get(hd(Path), Links), Path)
        end,
        maps:keys(Links)
    ).

questions_of_many_events_and_circles(_) ->
    Ids = [integer_to_binary(N) || N <- lists:seq(1, 100_000)],
    [First | Others] = Events = chained(Ids),
    Asked = asked(Events),
    ?assert(same(Asked)),
    ?assertEqual({chain, Ids}, answer(chain, Asked)),
    ?assertEqual(99_999, answer(graph, Asked)),
    ?assertEqual(lists:nthtail(50_000, Ids), answer({led_to, ~"50000"}, Asked)),
    Circle = asked([First#{metadata := #{~"causation_id" => ~"100000"}} | Others]),
    ?assert(same(Circle)),
    ?assertEqual({circle, Ids}, answer(chain, Circle)),
    ?assertEqual(99_999, length(answer({led_to, ~"50000"}, Circle))),
    Alone = [~"x", ~"not there", null, 17],
    [
        ?assertEqual({chain, [~"x"]}, answer(chain, asked([linked(~"x", Cause)])), Cause)
     || Cause <- Alone
    ].

%% What is in data and metadata is free: whatever it is, both ways answer the same.
questions_of_any_json_have_the_same_answers(_) ->
    holds(
        ?FORALL(
            Parts,
            non_empty(list({json(), json(), json(), json(), range(1, 3)})),
            begin
                Events = [
                    (linked(integer_to_binary(N), Cause))#{
                        event_type := integer_to_binary(Stream),
                        stream_id := integer_to_binary(Stream),
                        data := #{~"insertions" => Lines, ~"areas" => Areas},
                        metadata := #{~"causation_id" => Cause, ~"correlation_id" => Week}
                    }
                 || {N, {Lines, Areas, Cause, Week, Stream}} <- lists:enumerate(Parts)
                ],
                [] =:= [A || #{same := false} = A <- asked(Events)]
            end
        )
    ),
    Large = [
        E#{stream_id := ~"s", data := #{~"insertions" => 1.0e308}}
     || E <- chained([~"a", ~"b"])
    ],
    Asked = asked(Large),
    ?assert(same(Asked)),
    ?assertEqual(out_of_range, answer(streams, Asked)).

json() ->
    frequency([
        {2, null},
        {1, boolean()},
        {3, oneof([0, 999, 1000, 1001, -5, 1 bsl 62, 1 bsl 90])},
        {2, oneof([0.0, 0.1, 1000.5, -3.25, 1.0e300])},
        {2, oneof([~"", ~"1", ~"2", ~"3", ~"week-1"])},
        {1, [~"1", 2]},
        {2, ?LET(N, oneof([3, -3, 2.5, null]), #{~"src" => #{~"insertions" => N}, ~"lib" => 1})}
    ]).

questions_tell_a_difference(_) ->
    [One, Two] = [kept(chained([Id]), esdb_demo_questions:new()) || Id <- [~"a", ~"b"]],
    %% The pages of the one and the segments of the other.
    Asked = esdb_demo_questions:ask(setelement(3, One, element(3, Two))),
    ?assertEqual(
        [{streams, #{~"a" => [1, 0]}}, {chain, {chain, [~"a"]}}, {{led_to, ~"a"}, []}],
        [{Q, Answer} || #{question := Q, answer := Answer, same := false} <- Asked]
    ).

facts_and_answers_are_those_of_a_plain_count(Config) ->
    Path = data_file(Config, "commits.ndjson.gz"),
    #{facts := Facts, asked := Asked, wrong := []} = in_store(fun(Store) ->
        {ok, #{events := 300, problems := 0}} = import({ndjson, Path}, Store),
        esdb_demo_steps:measure(Store, 1)
    end),
    {ok, Bytes} = file:read_file(Path),
    Jsons = [json:decode(L) || L <- binary:split(zlib:gunzip(Bytes), ~"\n", [global, trim])],
    Count = fun(Keys) -> #{K => length([X || X <- Keys, X =:= K]) || K <- lists:usort(Keys)} end,
    ?assertEqual(300, maps:get(events, Facts)),
    ?assertEqual(Count([maps:get(~"stream_id", J) || J <- Jsons]), maps:get(streams, Facts)),
    ?assertEqual(Count([maps:get(~"event_type", J) || J <- Jsons]), answer(types, Asked)),
    Correlations = [maps:get(~"correlation_id", maps:get(~"metadata", J)) || J <- Jsons],
    ?assertEqual(Count(Correlations), answer(weeks, Asked)),
    Lines = fun(#{~"data" := #{~"insertions" := N}}) -> N end,
    ByStream = maps:groups_from_list(fun(J) -> maps:get(~"stream_id", J) end, Lines, Jsons),
    Sums = #{Stream => [length(Ns), lists:sum(Ns)] || Stream := Ns <- ByStream},
    ?assertEqual(Sums, answer(streams, Asked)),
    ?assertEqual(length([J || J <- Jsons, Lines(J) > 1000]), answer(large, Asked)),
    Dates = [
        element(1, calendar:system_time_to_universal_time(Us, microsecond))
     || #{~"epoch_us" := Us} <- Jsons
    ],
    Epoch = calendar:date_to_gregorian_days(1970, 1, 1),
    Day = fun(Date) -> calendar:date_to_gregorian_days(Date) - Epoch end,
    #{days := Days} = Facts,
    ?assertEqual(Count(lists:map(Day, Dates)), Days),
    Monday = fun(Date) -> Day(Date) - calendar:day_of_the_week(Date) + 1 end,
    Weeks = #{Week => N || {Week, N} <- esdb_demo_calendar:weeks(Days), N > 0},
    ?assertEqual(Count(lists:map(Monday, Dates)), Weeks),
    {month, Months} = esdb_demo_calendar:spans(Days, 5),
    Month = fun({Y, M, _}) -> flat(io_lib:format("~4..0b-~2..0b", [Y, M])) end,
    ?assertEqual(Count(lists:map(Month, Dates)), #{L => N || {L, N} <- Months, N > 0}),
    Insertions = [
        {Area, N}
     || #{~"data" := #{~"areas" := Areas}} <- Jsons, Area := #{~"insertions" := N} <- Areas
    ],
    ByArea = maps:groups_from_list(fun({A, _}) -> A end, fun({_, N}) -> N end, Insertions),
    %% An area without inserted lines has no place in the answer.
    Expected = #{Area => lists:sum(Ns) || Area := Ns <- ByArea, lists:sum(Ns) > 0},
    ?assertEqual(Expected, answer(areas, Asked)).

calendar_spans(_) ->
    "2011-01-09" = esdb_demo_calendar:date(1294562768000000),
    [0, 0, 1] = [esdb_demo_calendar:day(Us) || Us <- [0, 86_399_999_999, 86_400_000_000]],
    %% The epoch was a Thursday: its first week ends with day 3.
    Days = #{0 => 3, 3 => 2, 17 => 1, 18 => 7},
    [{-3, 5}, {4, 0}, {11, 1}, {18, 7}] = esdb_demo_calendar:weeks(Days),
    {week, [{"1969-12-29", 5}, {"1970-01-05", 0}, {"1970-01-12", 1}, {"1970-01-19", 7}]} =
        esdb_demo_calendar:spans(Days, 4),
    {month, [{"1970-01", 13}]} = esdb_demo_calendar:spans(Days, 3),
    {quarter, [{"2011 Q1", 3}, {"2011 Q2", 0}, {"2011 Q3", 0}, {"2011 Q4", 0}, {"2012 Q1", 5}]} =
        esdb_demo_calendar:spans(#{14980 => 3, 15344 => 5}, 5),
    {week, []} = esdb_demo_calendar:spans(#{}, 20),
    [] = esdb_demo_calendar:weeks(#{}),
    holds(
        ?FORALL(
            {Counted, Rows},
            {map(range(0, 2_900_000), pos_integer()), range(9, 30)},
            begin
                {_, Spans} = esdb_demo_calendar:spans(Counted, Rows),
                Counts = [N || {_, N} <- Spans],
                length(Spans) =< Rows andalso
                    lists:sum(Counts) =:= lists:sum(maps:values(Counted)) andalso
                    lists:sort([L || {L, _} <- Spans]) =:= [L || {L, _} <- Spans]
            end
        )
    ).

%% Text

chart_numbers_bars_and_names(_) ->
    ["0", "999", "1,000", "36,053", "1,000,001", "-1,234"] =
        [esdb_demo_chart:number(N) || N <- [0, 999, 1000, 36053, 1000001, -1234]],
    ["999 B", "1.0 kB", "15.43 MB", "2.00 GB"] =
        [flat(esdb_demo_chart:bytes(N)) || N <- [999, 1000, 15_430_000, 2_000_000_000]],
    ["7 us", "1.5 ms", "12 ms", "1.25 s"] =
        [flat(esdb_demo_chart:duration(N)) || N <- [7, 1500, 12_000, 1_250_000]],
    "-" = flat(esdb_demo_chart:percent(0, 0)),
    Ascii = style(false, 60),
    Unicode = style(true, 60),
    ["", "#", "#####", "##########"] =
        [esdb_demo_chart:bar(N, 1000, 10, Ascii) || N <- [0, 1, 500, 1000]],
    ["", [16#258F], [16#2588, 16#258C], [16#2588, 16#2588]] =
        [esdb_demo_chart:bar(N, 1000, 2, Unicode) || N <- [0, 1, 750, 1000]],
    " .-#" = esdb_demo_chart:sparkline([0, 1, 5, 9], 10, Ascii),
    "##" = esdb_demo_chart:sparkline([9, 9, 9, 9], 2, Ascii),
    "a?[31m??b" = flat(esdb_demo_chart:label(<<"a\e[31m\n", 16#202E/utf8, "b">>, 20)),
    "abcdefgh.." = flat(esdb_demo_chart:label(~"abcdefghijkl", 10)),
    holds(
        ?FORALL(
            {Names, Width},
            {non_empty(list({utf8(), non_neg_integer()})), range(40, 120)},
            lists:all(
                fun(Line) -> string:length(Line) =< Width end,
                lines(esdb_demo_chart:bars([{N, V, ""} || {N, V} <- Names], style(true, Width)))
            )
        )
    ).

terminal_styles(_) ->
    Style = fun(Options, Env) ->
        esdb_demo_terminal:style(Options, fun(Name) -> maps:get(Name, Env, false) end)
    end,
    Tty = [{encoding, unicode}, {stdout, true}],
    Utf8 = #{"LANG" => "C.UTF-8", "TERM" => "xterm"},
    #{unicode := true, colour := true, live := true, width := 80} = Style(Tty, Utf8),
    #{live := true} = Style([{terminal, true}], Utf8),
    #{live := false, colour := false} = Style([{stdout, false}, {terminal, true}], Utf8),
    #{colour := false, live := true} = Style(Tty, Utf8#{"NO_COLOR" => "1"}),
    #{colour := true} = Style(Tty, Utf8#{"NO_COLOR" => ""}),
    #{colour := false, live := false} = Style(Tty, Utf8#{"TERM" => "dumb"}),
    #{unicode := false} = Style(Tty, #{}),
    #{unicode := false} = Style(Tty, Utf8#{"LC_ALL" => "C"}),
    #{unicode := true} = Style(Tty, #{"LC_CTYPE" => "de_DE.utf8"}),
    [40, 99, 120, 80] = [
        maps:get(width, Style([], #{"COLUMNS" => C}))
     || C <- ["3", "100", "5000", "wide"]
    ].

progress_in_plain_lines(_) ->
    Output = captured(fun() ->
        P0 = esdb_demo_terminal:progress("Importing", style(false, 80)),
        Steps = [{N / 100, N * 1000} || N <- lists:seq(0, 100)],
        P1 = lists:foldl(fun({S, N}, P) -> esdb_demo_terminal:step(S, N, P) end, P0, Steps),
        ok = esdb_demo_terminal:finish(100_000, P1)
    end),
    ?assertEqual(
        [
            "Importing",
            "Importing: 25 %, 25,000 events",
            "Importing: 50 %, 50,000 events",
            "Importing: 75 %, 75,000 events",
            "Importing: 100 %, 100,000 events"
        ],
        lines(Output)
    ),
    Live = captured(fun() ->
        P = esdb_demo_terminal:progress("Importing", (style(false, 80))#{live := true}),
        esdb_demo_terminal:finish(5, esdb_demo_terminal:step(0.5, 5, P))
    end),
    ?assertMatch({match, _}, re:run(Live, "^\rImporting \\[#+ +\\]  50 % 5 events *\r *\r$")).

%% Measuring

%% 8,000 events give 4,000 samples, each second one from the first on: the parcel is made of the
%% first of them.
samples_are_spread_evenly(_) ->
    Ids = [integer_to_binary(N) || N <- lists:seq(1, 8000)],
    with_store(fun(Store) ->
        Batches = [{~"s", [esdb_demo_event:to_new(E) || E <- chained(Ids)]}],
        {ok, _, []} = esdb_demo_steps:append(Store, Batches),
        #{parcel := #{lines := Lines}} = esdb_demo_steps:measure(Store, 1),
        Sampled = [binary_to_integer(maps:get(~"event_id", json:decode(L))) || L <- Lines],
        ?assertEqual(lists:seq(1, 399, 2), Sampled)
    end).

archive_reads_back_and_keeps_to_its_budget(Config) ->
    Items = items(data_file(Config, "commits.ndjson.gz")),
    Lines = [esdb_demo_event:to_json(E) || {event, _, E} <- Items],
    {_, Trained} = esdb_demo_archive:train(Lines),
    Once = esdb_demo_archive:add(Lines, esdb_demo_archive:new(Trained, 1)),
    Results = esdb_demo_archive:results(Once),
    ?assertEqual(
        [
            {single, zlib},
            {single, lz4},
            {single, zstd},
            {single, zstd_dictionary},
            {block, zlib},
            {block, lz4},
            {block, zstd}
        ],
        [{Shape, Codec} || #{shape := Shape, codec := Codec} <- Results]
    ),
    Raw = iolist_size(Lines),
    [
        ?assertMatch(#{events := 300, same := true, packed := Packed} when Packed < Raw, Result)
     || Result <- Results
    ],
    [Raw] = lists:usort([R || #{shape := single, raw := R} <- Results]),
    #{zstd := Zstd, zstd_dictionary := WithDictionary} =
        #{C => P || #{shape := single, codec := C, packed := P} <- Results},
    ?assert(WithDictionary * 2 < Zstd),
    %% The budget of a microsecond is spent: a second block changes nothing.
    ?assertEqual(Once, esdb_demo_archive:add(Lines, Once)),
    [zlib, lz4, zstd, zlib, lz4, zstd] =
        [C || #{codec := C} <- esdb_demo_archive:results(esdb_demo_archive:new({error, none}, 1))].

steps_agree_with_a_node_without_libraries(Config) ->
    {ok, Here} = esdb_demo_lane:open(here),
    {ok, There} = esdb_demo_lane:open(off),
    try
        erlang = esdb_demo_lane:call(There, implementation, []),
        Implementation = esdb_hash_nif:implementation(),
        Implementation = esdb_demo_lane:call(Here, implementation, []),
        Lanes = [Here, There],
        [ok, ok] = [esdb_demo_lane:call(L, open, [demo_test]) || L <- Lanes],
        Source = {ndjson, data_file(Config, "commits.ndjson.gz")},
        {ok, #{events := 300, append_us := [_, _]}} =
            quietly(fun() -> esdb_demo_import:run(Source, demo_test, Lanes, style(false, 80)) end),
        [A, B] = [esdb_demo_lane:call(L, measure_briefly, [demo_test, 1_000_000]) || L <- Lanes],
        ?assertEqual(maps:get(digest, A), maps:get(digest, B)),
        #{partitions := #{streams := Streams, stream_events := Events, ids := Ids}} = A,
        ?assertEqual({5, 300, 300}, {lists:sum(Streams), lists:sum(Events), lists:sum(Ids)}),
        ?assertNot(is_map_key(facts, A)),
        [[], []] = [maps:get(wrong, M) || M <- [A, B]],
        %% Each reads what the other wrote, and notices what is not so.
        #{parcel := #{lines := [_ | Lines], packed := Packed} = Ours} = A,
        #{parcel := Theirs} = B,
        [] = esdb_demo_lane:call(There, unlike, [Ours]),
        [] = esdb_demo_lane:call(Here, unlike, [Theirs]),
        All = lists:sort(maps:keys(Packed)),
        Other = Ours#{lines := Lines},
        [All, All] = [lists:sort(esdb_demo_lane:call(L, unlike, [Other])) || L <- Lanes],
        [lz4, zlib, zstd | _] = All,
        ok = esdb_demo_lane:call(Here, close, [demo_test])
    after
        esdb_demo_lane:close(There)
    end.

%% Report

report_says_what_was_measured(Config) ->
    Result = result(Config),
    Text = flat(esdb_demo_report:render(Result, style(false, 80))),
    [
        ?assertNotEqual(nomatch, string:find(Text, Part), {Part, Text})
     || Part <- [
            "300 events in 5 streams, 2011-01-09 to ",
            "1,500 events a second into the store",
            "3 items left out:",
            "    lines 5-7\n    line 5: not valid JSON (2 times)\n    line 7: this event_id was ",
            "CommitAuthored",
            "299",
            "99.7 %",
            "Areas with the most inserted lines",
            "Streams in 16 partitions by XXH3",
            "Questions to the packed events\n",
            "  pack them, once  ",
            "  commonest of 2 types      CommitAuthored: 299  ",
            "each answer was the same both ways",
            "x   yes ",
            "200 ms  400 ms    2.0x",
            "each reads what the other one packed"
        ]
    ],
    [?assert(string:length(L) =< 80, L) || L <- lines(Text)],
    ?assert(lists:all(fun(C) -> C < 128 end, Text)),
    Alone = Result#{there := {none, ~"One column only: a reason."}, implementation := erlang},
    One = Alone#{imported := (imported())#{append_us := [200_000]}},
    Short = flat(esdb_demo_report:render(One, style(true, 80))),
    ?assertNotEqual(nomatch, string:find(Short, "One column only: a reason.")),
    ?assertEqual(nomatch, string:find(Short, "Rust")),
    ?assertNotEqual(nomatch, string:find(Short, "twin: the library's own Erlang")).

report_of_a_long_history_has_its_busiest_weeks(Config) ->
    #{here := #{facts := Facts} = Here} = Result = result(Config),
    %% The last Sunday of each of 14 weeks, and a day long after them.
    Days = #{7 * N + 3 => N || N <- lists:seq(1, 14)},
    Long = Facts#{days := Days#{20_000 => 1}},
    Text = flat(esdb_demo_report:render(Result#{here := Here#{facts := Long}}, style(false, 80))),
    [_, Chart] = string:split(Text, "Events by week, the busiest, from Monday\n"),
    Rows = [string:lexemes(Line, " ") || Line <- lists:sublist(lines(Chart), 13)],
    ?assertMatch(
        [["1970-04-06", _, "14"], ["1970-03-30", _, "13"] | _],
        Rows
    ),
    ?assertMatch([["1970-01-19", _, "3"], ["and", "3", "weeks", "more"]], lists:nthtail(11, Rows)).

report_alarms(Config) ->
    #{here := #{archive := [First | Rest]} = Here} = Result = result(Config),
    [] = esdb_demo_report:failures(Result),
    Unlike = Result#{here := Here#{archive := [First#{same := false} | Rest]}},
    [~"the archive did not read back identically: zlib"] = esdb_demo_report:failures(Unlike),
    [~"one node cannot read the other's archive: LZ4"] =
        esdb_demo_report:failures(Result#{unread := [lz4]}),
    Text = flat(esdb_demo_report:render(Unlike, style(true, 80))),
    ?assertNotEqual(nomatch, string:find(Text, "   NO ")),
    [~"Rust and Erlang did not agree on what they found"] =
        esdb_demo_report:failures(Result#{here := Here#{digest := ~"another"}}),
    #{asked := [Types | Others]} = Here,
    Wrong = Result#{here := Here#{wrong := [types], asked := [Types#{same := false} | Others]}},
    [~"the library and plain Erlang answer differently: types"] = esdb_demo_report:failures(Wrong),
    Loud = flat(esdb_demo_report:render(Wrong, style(true, 80))),
    ?assertNotEqual(nomatch, string:find(Loud, "CommitAuthored: 299 (NOT THE SAME)")),
    ?assertEqual(nomatch, string:find(Loud, "the same both ways")),
    Circle = [L#{answer := {circle, [~"a", ~"b"]}} || #{question := chain} = L <- Others],
    Round = Result#{here := Here#{asked := [Types | Circle ++ Others]}},
    Circular = flat(esdb_demo_report:render(Round, style(true, 80))),
    Expected = "Causes go in a circle\n  2 events, from a to b",
    ?assertNotEqual(nomatch, string:find(Circular, Expected)).

report_of_a_store_that_came_back(Config) ->
    Result = (result(Config))#{disk => #{start_us => 18_000, events => 300, bytes => 1_200_000}},
    [] = esdb_demo_report:failures(Result),
    Text = flat(esdb_demo_report:render(Result, style(false, 80))),
    Line = "  on disk in 1.20 MB; stopped, and started again in 18 ms with 300 events:\n",
    ?assertNotEqual(nomatch, string:find(Text, Line), Text),
    Less = Result#{disk := #{start_us => 18_000, events => 299, bytes => 1_200_000}},
    [~"the store came back with other events"] = esdb_demo_report:failures(Less).

%% The check of the cluster's demo, where something is wrong.

check_tells_what_is_wrong(_) ->
    [A, B, C, D] = [{~"a", 1}, {~"b", 2}, {~"c", 3}, {~"d", 4}],
    Sent = #{~"s" => [A, B, C], ~"t" => [D]},
    None = #{missing => 0, twice => 0, unknown => 0, changed => 0, disordered => 0},
    [
        begin
            Outcome = esdb_demo_check:compare(Sent, Found),
            ?assertEqual(maps:merge(None, Wrong), Outcome, Found),
            ?assertEqual(maps:remove(events, Wrong) =:= #{}, esdb_demo_check:is_good(Outcome))
        end
     || {Wrong, Found} <- [
            {#{events => 4}, Sent},
            {#{events => 3, missing => 1}, Sent#{~"s" := [A, C]}},
            {#{events => 3, missing => 1}, maps:remove(~"t", Sent)},
            {#{events => 5, twice => 1}, Sent#{~"s" := [A, B, B, C]}},
            {#{events => 5, unknown => 1}, Sent#{~"s" := [A, B, C, {~"x", 9}]}},
            {#{events => 5, unknown => 1}, Sent#{~"u" => [{~"x", 9}]}},
            {#{events => 4, changed => 1}, Sent#{~"s" := [A, {~"b", 7}, C]}},
            {#{events => 4, disordered => 1}, Sent#{~"s" := [A, C, B]}}
        ]
    ].

%% What it finds in a store is what was written there, and a version that is missing is seen.
check_of_a_store(_) ->
    Events = chained([~"1", ~"2", ~"3", ~"4"]),
    One = [E#{stream_id := ~"one"} || E <- Events],
    Sent = #{~"one" => [{Id, esdb_demo_check:sum(E)} || #{event_id := Id} = E <- One]},
    with_store(fun(Store) ->
        [
            {ok, _, []} = esdb_demo_steps:append(Store, [{~"one", [esdb_demo_event:to_new(E)]}])
         || E <- One
        ],
        {ok, Sent, Order} = esdb_demo_check:found(Store),
        {ok, Sent, Order} = esdb_demo_check:found(Store),
        {ok, _} = erl_esdb_store:truncate(Store, ~"one", 2),
        {ok, Less, Other} = esdb_demo_check:found(Store),
        ?assertNotEqual(Order, Other),
        ?assertMatch(#{missing := 3, unknown := 1}, esdb_demo_check:compare(Sent, Less))
    end),
    {error, {store_not_started, demo_test}} = esdb_demo_check:found(demo_test).

result(Config) ->
    in_store(fun(Store) ->
        {ok, _} = import({ndjson, data_file(Config, "commits.ndjson.gz")}, Store),
        Measured = esdb_demo_steps:measure(Store, 10_000_000),
        #{
            title => ~"a test",
            remarks => [],
            imported => imported(),
            implementation => nif,
            here => Measured,
            there => {ok, maps:without([facts, asked], Measured)},
            unread => [],
            drawing => {ok, ["a drawing"]},
            elapsed_us => 1_000_000
        }
    end).

imported() ->
    #{
        events => 300,
        problems => 3,
        reasons => [{5, ~"not valid JSON", 2}, {7, ~"this event_id was there before", 1}],
        problem_places => [{5, 7}],
        append_us => [200_000, 400_000]
    }.

dot_is_valid_whatever_the_names(Config) ->
    ~"digraph causation {\n}\n" = esdb_demo_dot:text(#{chain => [], nodes => [], edges => []}),
    holds(
        ?FORALL(
            Names,
            non_empty(list(?SUCHTHAT(N, utf8(), N =/= <<>>))),
            begin
                Events = chained(lists:uniq(Names)),
                Ids = [Id || #{event_id := Id} <- Events],
                Fold = fun(F, Acc) -> lists:foldl(F, Acc, Events) end,
                Selection = esdb_demo_dot:select(Ids, Fold),
                #{nodes := Nodes, edges := Edges} = Selection,
                is_dot(esdb_demo_dot:text(Selection), length(Nodes), length(Edges))
            end
        )
    ),
    Long = chained([integer_to_binary(N) || N <- lists:seq(1, 500)]),
    Fold = fun(F, Acc) -> lists:foldl(F, Acc, Long) end,
    Selection = esdb_demo_dot:select([Id || #{event_id := Id} <- Long], Fold),
    %% The last 40, and the one before them as the parent of the first.
    #{nodes := Nodes, edges := Edges} = Selection,
    ?assertEqual({41, 40}, {length(Nodes), length(Edges)}),
    %% Long names are not written as a whole, and stay different from each other.
    Names = [binary:copy(<<C, "y">>, 50_000) || C <- "abc"],
    #{nodes := Three} = Drawn = esdb_demo_dot:select(Names, fun(F, Acc) ->
        lists:foldl(F, Acc, chained(Names))
    end),
    Short = esdb_demo_dot:text(Drawn),
    ?assert(byte_size(Short) < 2000),
    ?assert(is_dot(Short, length(Three), 2)),
    ?assertEqual(3, length(lists:usort([H || [H] <- scan(Short, "^  (\"[0-9a-f]{64}\") \\[")]))),
    Out = fresh(Config, "drawing"),
    {ok, [_ | Svg]} = esdb_demo_dot:write(Out, Selection),
    {ok, Written} = file:read_file(filename:join(Out, "causation.dot")),
    ?assertEqual(esdb_demo_dot:text(Selection), Written),
    case os:find_executable("dot") of
        false ->
            ?assertEqual(["no picture: there is no dot (Graphviz) on the PATH"], Svg);
        _ ->
            ?assertEqual([filename:join(Out, "causation.svg")], Svg),
            {ok, Picture} = file:read_file(Svg),
            ?assertNotEqual(nomatch, binary:match(Picture, ~"<svg"))
    end,
    File = write(Config, "in_the_way", ""),
    Expected = text(["cannot write ", File, "/causation.dot: file already exists"]),
    ?assertEqual({error, Expected}, esdb_demo_dot:write(File, Selection)).

scan(Text, Pattern) ->
    {match, Found} = re:run(Text, Pattern, [global, multiline, {capture, all_but_first, binary}]),
    Found.

chained(Names) ->
    lists:zipwith(
        fun(Id, Cause) ->
            #{
                event_id => Id,
                event_type => ~"T",
                stream_id => Id,
                epoch_us => 0,
                data => #{},
                metadata => #{
                    ~"causation_id" => Cause, ~"parents" => [P || P <- [Cause], P =/= null]
                }
            }
        end,
        Names,
        [null | lists:droplast(Names)]
    ).

%% Reads the statements of the drawing by the grammar of DOT, as far as the demo uses it.
is_dot(Text, Nodes, Edges) ->
    <<"digraph causation {\n", Body/binary>> = Text,
    Name = "\"(?:[^\"\\\\]|\\\\.)*\"",
    Value = "[a-z]+=(?:[a-z0-9]+|" ++ Name ++ ")",
    Attributes = "(?: \\[" ++ Value ++ "(?:, " ++ Value ++ ")*\\])?",
    Node = "^  " ++ Name ++ Attributes ++ ";$",
    Edge = "^  " ++ Name ++ " -> " ++ Name ++ Attributes ++ ";$",
    Kind = fun(Line) ->
        Options = [{capture, none}, unicode, dollar_endonly],
        case {re:run(Line, Edge, Options) =:= match, re:run(Line, Node, Options) =:= match} of
            {true, false} -> edge;
            {false, true} -> node;
            {false, false} -> Line
        end
    end,
    [~"  rankdir=LR;", _Nodes, _Edges | Lines] = binary:split(Body, ~"\n", [global, trim]),
    Kinds = [Kind(L) || L <- lists:droplast(Lines)],
    lists:last(Lines) =:= ~"}" andalso
        Kinds =:= lists:duplicate(Nodes, node) ++ lists:duplicate(Edges, edge).

%% The command itself, as `make demo` calls it

demo_of_a_file_in_each_mode(Config) ->
    Events = {"EVENTS", data_file(Config, "commits.ndjson.gz")},
    Out = fresh(Config, "file_out"),
    Given = os:getenv("ESDB_NIF", ""),
    [
        begin
            {0, Text, ""} = demo(Config, [Events, {"OUT", Out}, {"ESDB_NIF", Mode}]),
            ?assertNotEqual(nomatch, string:find(Text, "300 events in 5 streams"), Text),
            ?assertNotEqual(nomatch, string:find(Text, "Importing: 100 %, 300 events"), Text),
            ?assertNotEqual(nomatch, string:find(Text, "Questions to the packed events"), Text),
            ?assertEqual(nomatch, string:find(Text, "\e"), Text),
            ?assert(filelib:is_regular(filename:join(Out, "causation.dot"))),
            ok = file:delete(filename:join(Out, "causation.dot"))
        end
     || Mode <- lists:usort([Given, "off"])
    ],
    {0, Only, ""} = demo(Config, [Events, {"OUT", Out}, {"ESDB_NIF", "off"}]),
    ?assertNotEqual(nomatch, string:find(Only, "One column only: ESDB_NIF=off")),
    Malformed = {"EVENTS", data_file(Config, "malformed.ndjson")},
    {0, Few, ""} = demo(Config, [Malformed, {"OUT", Out}]),
    [
        ?assertNotEqual(nomatch, string:find(Few, Part), {Part, Few})
     || Part <- [
            "3 events in 1 stream,",
            "12 items left out:",
            "lines 2-6, 9-14, 16\n",
            "line 2: not valid JSON"
        ]
    ].

demo_of_a_repository(Config) ->
    Repo = history(Config, "shown"),
    Out = fresh(Config, "repo_out"),
    {0, Text, ""} = demo(Config, [{"REPO", Repo}, {"OUT", Out}]),
    ?assertNotEqual(nomatch, string:find(Text, "5 events in 3 streams"), Text),
    ?assertNotEqual(nomatch, string:find(Text, "4 events, from "), Text),
    ?assertEqual(nomatch, string:find(Text, "shallow"), Text),
    %% Our own programs run in the locale C: nothing but ASCII is printed there.
    ?assert(lists:all(fun(C) -> C < 128 end, Text), Text),
    ?assertNotEqual(nomatch, string:find(Text, "  ? ? "), Text),
    Shallow = fresh(Config, "shallow"),
    git(".", ["clone", "-q", "--depth", "1", "file://" ++ Repo, Shallow]),
    {0, Cut, ""} = demo(Config, [{"REPO", Shallow}, {"OUT", Out}]),
    Remark = "\n  a shallow clone: its older commits are not in it (git fetch --unshallow)\n",
    ?assertNotEqual(nomatch, string:find(Cut, Remark), Cut).

%% The report is printed all the same. Files in the way, because permissions do not stop root.
demo_without_a_place_for_its_drawing(Config) ->
    Events = {"EVENTS", data_file(Config, "commits.ndjson.gz")},
    Env = [Events, {"ESDB_NIF", "off"}],
    Out = write(Config, "in_the_way", ""),
    Why = ["cannot write ", Out, "/causation.dot: file already exists"],
    {1, Asked, Errors} = demo(Config, [{"OUT", Out} | Env]),
    ?assertEqual(flat(["demo: ", Why, "\n"]), Errors),
    ?assertNotEqual(nomatch, string:find(Asked, flat(["  no drawing: ", Why])), Asked),
    ?assertNotEqual(nomatch, string:find(Asked, "  Done in "), Asked),
    %% A checkout of which only the folder of the drawing matters here.
    Checkout = filename:dirname(write(Config, "here", "")),
    Script = filename:join(Checkout, "scripts/demo.sh"),
    ok = filelib:ensure_dir(Script),
    {ok, _} = file:copy(script(Config), Script),
    ok = filelib:ensure_path(filename:join(Checkout, "demo/causation.dot")),
    {0, Unasked, ""} = demo("exec \"$@\" 2>\"$0\"", Script, Config, Env),
    Directory = "  no drawing: cannot write demo/causation.dot: illegal operation on a directory",
    ?assertNotEqual(nomatch, string:find(Unasked, Directory), Unasked),
    ?assertNotEqual(nomatch, string:find(Unasked, "  Done in "), Unasked).

demo_gets_what_make_was_given(Config) ->
    Makefile = above(proplists:get_value(data_dir, Config), "Makefile"),
    Gone = fresh(Config, "gone"),
    ok = filelib:ensure_dir(Gone),
    Values = ["/t/a$b/$(shell touch " ++ Gone ++ ")", "`touch " ++ Gone ++ "` $$ # 'x' \"y\"\nz"],
    Show = "show: ; @printf '%s|' \"$$REPO\" \"$$OUT\" \"$${EVENTS-unset}\"",
    Given = [N ++ "=" ++ V || {N, V} <- lists:zip(["REPO", "OUT"], Values)],
    Clean = ["-u", "MAKEFLAGS", "-u", "EVENTS"],
    Make = ["make", "-s", "-f", Makefile, "--eval", Show, "show" | Given],
    {ok, 0, Shown} = esdb_demo_program:run("env", Clean ++ Make, 60_000),
    ?assertEqual(text(lists:join("|", Values ++ ["unset", ""])), Shown),
    ?assertNot(filelib:is_file(Gone)).

demo_refuses_with_one_sentence(Config) ->
    Empty = repository(Config, "nothing"),
    NoEvents = write(Config, "nothing.ndjson", "\n\n"),
    NotEvents = write(Config, "letter.txt", "Dear all,\nhello\n"),
    Absent = fresh(Config, "missing"),
    [
        ?assertEqual({1, text(["demo: ", Sentence, "\n"])}, refusal(Config, Env))
     || {Env, Sentence} <- [
            {[{"EVENTS", Absent}], ["cannot read ", Absent, ": no such file or directory"]},
            {[{"EVENTS", NoEvents}], ["there are no events in ", NoEvents]},
            {[{"EVENTS", NotEvents}], [
                "there are no events in ", NotEvents, " (line 1: not valid JSON)"
            ]},
            {[{"REPO", Absent}], ["there is no folder ", Absent]},
            {[{"REPO", Empty}], ["the repository ", Empty, " has no commits yet"]},
            {[{"EVENTS", NoEvents}, {"ENGINE", "paper"}],
                "there is no ENGINE paper, only memory and ra"},
            {[{"REPO", Empty}, {"EVENTS", NoEvents}], "give either REPO or EVENTS, not both"}
        ]
    ].

refusal(Config, Env) ->
    {Status, _, Errors} = demo(Config, [{"OUT", fresh(Config, "no_out")} | Env]),
    {Status, text(Errors)}.

demo_whose_reader_is_gone_is_quiet(Config) ->
    %% Long enough for the reader to be gone before the import is half done.
    Path = write(Config, "long.ndjson", binary:copy(~"no event\n", 1_000_000)),
    Env = [{"EVENTS", Path}, {"OUT", fresh(Config, "head")}],
    Shell = "{ \"$@\" 2>\"$0\" || echo $? >>\"$0\"; } | head -n 1",
    {0, Text, ""} = demo(Shell, Config, Env),
    ?assertMatch(["Importing" ++ _], lines(Text)).

%% Both stores are on disk, in a folder that is gone afterwards.
demo_on_disk(Config) ->
    Temporary = temporary(),
    Env = [
        {"EVENTS", data_file(Config, "commits.ndjson.gz")},
        {"OUT", fresh(Config, "disk_out")},
        {"ENGINE", "ra"},
        {"TMPDIR", Temporary}
    ],
    {0, Text, ""} = demo(Config, Env),
    [
        ?assertMatch({match, _}, re:run(Text, Part), {Part, Text})
     || Part <- [
            "300 events in 5 streams",
            "on disk in [0-9.]+ [kM]B; stopped, and started again in [0-9.]+ m?s with 300 events:",
            "Done in "
        ]
    ],
    ok = file:del_dir(Temporary),
    ok = filelib:ensure_path(Temporary),
    %% A folder that is asked for stays.
    Data = fresh(Config, "data"),
    {0, _, ""} = demo(Config, [{"DATA", Data} | Env]),
    ?assertMatch([_ | _], filelib:wildcard("here/*/config", Data)),
    ok = file:del_dir(Temporary),
    Nowhere = {"DATA", "/dev/null"},
    ?assertMatch({1, _, "demo: the event store" ++ _}, demo(Config, [Nowhere | Env])).

demo_without_ra(Config) ->
    Env = [{"EVENTS", data_file(Config, "commits.ndjson.gz")}, {"ENGINE", "ra"}],
    ?assertEqual(
        {1, ~"demo: there is no Ra here, which stores on disk stand on\n"}, refusal(Config, Env)
    ).

demo_of_three_nodes(Config) ->
    Temporary = temporary(),
    Env = [{"EVENTS", data_file(Config, "commits.ndjson.gz")}, {"TMPDIR", Temporary}],
    {0, Text, ""} = cluster_demo(Config, Env),
    [
        ?assertMatch({match, _}, re:run(Text, Part, [multiline]), {Part, Text})
     || Part <- [
            "300 events in 5 streams, written through three nodes",
            "^  demo_[123]@127.0.0.1, which led, was killed \\(kill -9\\) after [1-9][0-9]* events",
            "^  it was started again after 300",
            "^  demo_1@127.0.0.1 +300 +0 +0 +0 +0 +0$",
            "^  demo_2@127.0.0.1 +300 +0 +0 +0 +0 +0$",
            "^  demo_3@127.0.0.1 +300 +0 +0 +0 +0 +0$",
            "Every event that was acknowledged is there once, in order, on all three nodes"
        ]
    ],
    %% What the store does not take, and what is no event, is left out.
    Malformed = [{"EVENTS", data_file(Config, "malformed.ndjson")}, {"TMPDIR", Temporary}],
    {0, Few, ""} = cluster_demo(Config, Malformed),
    ?assertNotEqual(nomatch, string:find(Few, "12 items of the source were left out")),
    Absent = fresh(Config, "missing"),
    Sentence = flat(["demo: cannot read ", Absent, ": no such file or directory\n"]),
    {1, _, Sentence} = cluster_demo(Config, [{"EVENTS", Absent}, {"TMPDIR", Temporary}]),
    %% Nothing is left in it.
    ok = file:del_dir(Temporary).

cluster_demo(Config, Env) ->
    demo("exec \"$@\" esdb_demo_cluster 2>\"$0\"", Config, Env).

%% A new, empty folder with a short path, as folders for temporary files have.
temporary() ->
    {ok, 0, Path} = esdb_demo_program:run("mktemp", ["-d", "-p", "/tmp"], 10_000),
    flat(string:trim(Path)).

%% Its events come from a pipe that stays open, so it runs until the interrupt of Ctrl-C.
demo_ends_at_an_interrupt(Config) ->
    Pipe = fresh(Config, "pipe"),
    ok = filelib:ensure_dir(Pipe),
    {ok, 0, _} = esdb_demo_program:run("mkfifo", [Pipe], 10_000),
    %% More than the demo reads at a time.
    Lines = "yes no event | head -n 20000; exec sleep 120",
    Feed = "{ " ++ Lines ++ "; } >\"$EVENTS\" 2>/dev/null & exec sh \"$0\"",
    Settings = [
        {args, ["-c", Feed, script(Config)]},
        {env, [{"EVENTS", Pipe}, {"REPO", ""}, {"ESDB_NIF", "off"}, {"ESDB_LIB", libraries()}]},
        exit_status
    ],
    Port = open_port({spawn_executable, os:find_executable("sh")}, Settings),
    {os_pid, Pid} = erlang:port_info(Port, os_pid),
    receive
        {Port, {data, "Importing" ++ _}} -> ok
    end,
    send(Pid, "INT"),
    Status =
        receive
            {Port, {exit_status, Ended}} -> Ended
        after 60_000 ->
            send(Pid, "KILL"),
            hangs
        end,
    ?assertEqual(130, Status).

%% The shell's own kill: a small system may have no other.
send(Pid, Signal) ->
    Kill = ["kill -", Signal, " ", integer_to_list(Pid)],
    {ok, 0, _} = esdb_demo_program:run("sh", ["-c", flat(Kill)], 10_000).

%% {Status, Output, Errors} of the demo in a system process of its own.
demo(Config, Env) ->
    demo("exec \"$@\" 2>\"$0\"", Config, Env).

demo(Shell, Config, Env) ->
    demo(Shell, script(Config), Config, Env).

demo(Shell, Script, Config, Env) ->
    Errors = write(Config, "errors", ""),
    Libraries = {"ESDB_LIB", libraries()},
    Settings = [flat([Name, "=", Value]) || {Name, Value} <- [Libraries | Env]],
    Arguments = ["-c", Shell, Errors, "env", "REPO=", "EVENTS=", "NO_COLOR=1"],
    All = Arguments ++ Settings ++ ["sh", Script],
    {ok, Status, Output} = esdb_demo_program:run("sh", All, 240_000),
    {ok, Said} = file:read_file(Errors),
    {Status, flat(Output), flat(Said)}.

%% The folder of our applications as they are tested here.
libraries() ->
    filename:dirname(filename:dirname(filename:dirname(code:which(esdb_demo)))).

script(Config) ->
    above(proplists:get_value(data_dir, Config), "scripts/demo.sh").

above(Folder, Name) ->
    Path = filename:join(Folder, Name),
    case filelib:is_regular(Path) of
        true -> Path;
        false -> above(filename:dirname(Folder), Name)
    end.

%% Helpers: repositories

%% A commit, a rename that changes a line, an empty one, one with odd names on a branch, a merge.
history(Config, Name) ->
    Repo = repository(Config, Name),
    Eight = [[integer_to_list(N), "\n"] || N <- lists:seq(1, 8)],
    commit(Repo, 1_700_000_000, #{"lib/a" => Eight, "binary" => [0, 1, 2, 255]}, "first"),
    git(Repo, ["mv", "lib", "src"]),
    commit(Repo, 1_700_000_001, #{"src/a" => [Eight, "9\n"]}, "rename"),
    commit(Repo, 1_700_000_002, #{}, "empty"),
    git(Repo, ["checkout", "-q", "-b", "side", "HEAD~1"]),
    Latin1 = <<16#F6, "l/file">>,
    Named = #{Latin1 => "1\n", "ä ö/f" => "1\n", "root ü" => "1\n2\n3\n"},
    commit(Repo, 1_700_000_003, Named, "names"),
    git(Repo, ["checkout", "-q", "main"]),
    git(Repo, 1_700_000_004, ["merge", "-q", "--no-ff", "-m", "merge", "side"]),
    Repo.

repository(Config, Name) ->
    Repo = fresh(Config, Name),
    ok = filelib:ensure_path(Repo),
    git(Repo, ["init", "-q"]),
    git(Repo, ["symbolic-ref", "HEAD", "refs/heads/main"]),
    Repo.

commit(Repo, Time, Files, Message) ->
    [
        begin
            Path = filename:join(unicode:characters_to_binary(Repo), bytes(Name)),
            ok = filelib:ensure_dir(Path),
            ok = file:write_file(Path, Content)
        end
     || Name := Content <- Files
    ],
    git(Repo, ["add", "--all"]),
    git(Repo, Time, ["commit", "-q", "--allow-empty", "-m", Message]).

bytes(Name) when is_binary(Name) -> Name;
bytes(Name) -> unicode:characters_to_binary(Name).

git(Repo, Arguments) ->
    git(Repo, 1, Arguments).

git(Repo, Time, Arguments) ->
    Date = integer_to_list(Time) ++ " +0000",
    Env = [
        "GIT_CONFIG_GLOBAL=/dev/null",
        "GIT_CONFIG_NOSYSTEM=1",
        "GIT_AUTHOR_NAME=Ann",
        "GIT_AUTHOR_EMAIL=ann@example.org",
        "GIT_COMMITTER_NAME=Ann",
        "GIT_COMMITTER_EMAIL=ann@example.org",
        "GIT_AUTHOR_DATE=@" ++ Date,
        "GIT_COMMITTER_DATE=@" ++ Date
    ],
    All = Env ++ ["git", "-C", Repo | Arguments],
    ?assertMatch({ok, 0, _}, esdb_demo_program:run("env", All, 60_000)).

fold_git(Repo) ->
    collected(esdb_demo_source:fold({git, Repo}, fun keep/2, [])).

%% Helpers: files

fold(Path) ->
    collected(esdb_demo_source:fold({ndjson, Path}, fun keep/2, [])).

items(Path) ->
    {ok, Items} = fold(Path),
    Items.

keep({progress, Share}, Items) ->
    true = Share =:= unknown orelse (Share >= 0 andalso Share =< 1),
    Items;
keep(Item, Items) ->
    [Item | Items].

collected({ok, Items}) -> {ok, lists:reverse(Items)};
collected(Error) -> Error.

data_file(Config, Name) ->
    filename:join(proplists:get_value(data_dir, Config), Name).

priv(Config) ->
    filename:absname(proplists:get_value(priv_dir, Config)).

%% A path below priv_dir at which there is nothing.
fresh(Config, Name) ->
    Unique = integer_to_list(erlang:unique_integer([positive])),
    filename:join([priv(Config), Unique, Name]).

write(Config, Name, Content) ->
    Path = fresh(Config, Name),
    ok = filelib:ensure_dir(Path),
    ok = file:write_file(Path, Content),
    Path.

%% Helpers: stores

with_store(Fun) ->
    in_store(fun(Store) -> Fun(Store), ok end).

in_store(Fun) ->
    ok = esdb_demo_steps:open(demo_test),
    try
        Fun(demo_test)
    after
        esdb_demo_steps:close(demo_test)
    end.

import(Source, Store) ->
    {ok, Lane} = esdb_demo_lane:open(here),
    quietly(fun() -> esdb_demo_import:run(Source, Store, [Lane], style(false, 80)) end).

%% Helpers: text

style(Unicode, Width) ->
    #{unicode => Unicode, colour => false, live => false, width => Width}.

flat(Text) ->
    unicode:characters_to_list(Text).

text(Text) ->
    unicode:characters_to_binary(Text).

lines(Text) ->
    string:split(string:trim(flat(Text), trailing, "\n"), "\n", all).

quietly(Fun) ->
    Self = self(),
    _ = captured(fun() -> Self ! {quietly, Fun()} end),
    receive
        {quietly, Result} -> Result
    end.

%% What Fun prints to its group leader.
captured(Fun) ->
    Before = group_leader(),
    {Device, Monitor} = spawn_monitor(fun() -> device([]) end),
    group_leader(Device, self()),
    try
        Fun()
    after
        group_leader(Before, self())
    end,
    Device ! {finish, self()},
    receive
        {Device, Output} ->
            erlang:demonitor(Monitor, [flush]),
            flat(Output);
        {'DOWN', Monitor, process, Device, Reason} ->
            error(Reason)
    end.

device(Output) ->
    receive
        {io_request, From, Ref, {put_chars, unicode, Chars}} ->
            From ! {io_reply, Ref, ok},
            device([Output, Chars]);
        {finish, From} ->
            From ! {self(), Output}
    end.

holds(Property) ->
    ?assertEqual(true, proper:quickcheck(Property, [quiet, {numtests, 300}, {to_file, user}])).
