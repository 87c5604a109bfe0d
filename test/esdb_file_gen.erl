-module(esdb_file_gen).
-moduledoc "Arguments for the functions of `esdb_file_nif`; see `esdb_equivalence_SUITE`.".

-export([args/2, cost/2, observe/3]).
%% Called where the case runs
-export([file/1, closed/1, foreign/0, name/1]).

-include_lib("proper/include/proper.hrl").

args(open, 1) -> [name()];
args(close, 1) -> [handle()];
args(read, 2) -> [handle(), ranges()].

cost(_, _) -> costly.

%% Files are closed at once: there are more cases than a process may have open.
observe(open, _, {ok, File}) ->
    {esdb_file_nif:read(File, [{0, 10}, {3, 2}]), esdb_file_nif:close(File)};
observe(read, [File, _], Result) ->
    _ = closing(File),
    Result;
observe(_, _, Result) ->
    Result.

closing(File) ->
    try
        esdb_file_nif:close(File)
    catch
        error:badarg -> ok
    end.

name() ->
    frequency([
        {4, {'$make', ?MODULE, name, [oneof([file, folder, missing, through_file, link, pipe])]}},
        {2, oneof(["", ~"", "/nowhere/at/all", ~"/nowhere", "/dev/null", "/dev/zero"])},
        {1, oneof([lists:duplicate(5000, $x), "ünicode", [1_000_000], <<"a", 0, "b">>, [0]])},
        {1, hostile()}
    ]).

handle() ->
    frequency([
        {8, {'$make', ?MODULE, file, [integer(0, 20_000)]}},
        {1, {'$make', ?MODULE, closed, [10]}},
        {1, {'$make', ?MODULE, foreign, []}},
        {1, hostile()}
    ]).

ranges() ->
    frequency([
        {12, list(range())},
        {2, ?LET({Ranges, Bad}, {list(range()), hostile_range()}, Ranges ++ [Bad])},
        {1, oneof([[{0, 67_108_865}], lists:duplicate(65_537, {0, 1}), [{0, 67_108_864}, {0, 1}]])},
        {1, [{0, 1} | oneof([a, {0, 1}])]},
        {1, hostile()}
    ]).

range() ->
    oneof([
        {integer(0, 100), integer(0, 50)},
        {integer(0, 25_000), integer(0, 5_000)},
        {integer(1 bsl 40, 1 bsl 61), integer(0, 5_000)},
        {integer(0, 10), 60_000_000}
    ]).

hostile_range() ->
    oneof([
        {-1, 1},
        {1, -1},
        {1.0, 1},
        {1, 2, 3},
        {1 bsl 62, 0},
        {1 bsl 64, 1},
        {1, 1 bsl 64},
        a,
        [0, 1]
    ]).

hostile() -> oneof([a, 1, -1, 1.5, {}, #{}, <<1:3>>, [a], [-1], [<<>> | a]]).

%% ---- on the node that runs the case

file(Size) ->
    {ok, File} = esdb_file_nif:open(written("content", Size)),
    File.

closed(Size) ->
    File = file(Size),
    ok = esdb_file_nif:close(File),
    File.

%% One that another process has opened, which ends; and so, as OTP has it, does its file.
foreign() ->
    Self = self(),
    Name = written("content", 100),
    {Pid, Ref} = spawn_monitor(fun() ->
        {ok, File} = esdb_file_nif:open(Name),
        Self ! {self(), File}
    end),
    receive
        {'DOWN', Ref, process, Pid, normal} -> ok
    end,
    receive
        {Pid, File} -> File
    end.

name(file) -> written("content", 1000);
name(folder) -> folder();
name(missing) -> filename:join(folder(), "missing");
name(through_file) -> filename:join(written("content", 10), "below");
name(link) -> linked("link", written("content", 1000));
name(pipe) -> piped("pipe").

folder() ->
    Dir = filename:join(filename:basedir(user_cache, "esdb_file_gen"), os:getpid()),
    ok = filelib:ensure_path(Dir),
    Dir.

%% Cut or grown to the size: what is there already stays.
written(Name, Size) ->
    Path = filename:join(folder(), Name),
    Bytes = <<<<(N * 7 + N div 256)>> || N <- lists:seq(1, Size)>>,
    ok = file:write_file(Path, Bytes),
    Path.

linked(Name, To) ->
    Path = filename:join(folder(), Name),
    _ = file:make_symlink(To, Path),
    Path.

piped(Name) ->
    Path = filename:join(folder(), Name),
    _ = filelib:is_file(Path) orelse os:cmd("mkfifo '" ++ Path ++ "'"),
    Path.
