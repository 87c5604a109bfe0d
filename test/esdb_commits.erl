-module(esdb_commits).
-moduledoc """
Real events for tests: 500 commits of a history, made from `test/data/commits.json`, or all of a
file of the demo when the environment variable `ESDB_EVENTS` names one.
""".

-export([events/0]).

-doc "Events with the envelope keys as atoms, and the keys of their data as binaries.".
-spec events() -> [map()].
events() ->
    case os:getenv("ESDB_EVENTS") of
        false -> sample();
        File -> all(File)
    end.

sample() ->
    Folder = filename:dirname(proplists:get_value(source, ?MODULE:module_info(compile))),
    {ok, Json} = file:read_file(filename:join([Folder, "data", "commits.json"])),
    [commit(I, Id, Parents) || {I, [Id, Parents]} <- lists:enumerate(0, json:decode(Json))].

%% Numbers that the sample does not have are taken from the hash.
commit(Version, Id, Parents) ->
    <<Files:4, Insertions:12, Area:8, _/binary>> = binary:decode_hex(Id),
    #{
        event_id => Id,
        event_type => type(Parents),
        stream_id => <<"area-", (integer_to_binary(Area rem 12))/binary>>,
        version => Version,
        epoch_us => 1_300_000_000_000_000 + Version * 60_000_000,
        data => #{~"files" => Files + 1, ~"insertions" => Insertions, ~"deletions" => Area},
        metadata => #{~"parents" => Parents, ~"actor_id" => binary:part(Id, 8, 2)}
    }.

type([]) -> ~"CommitAuthored";
type([_]) -> ~"CommitAuthored";
type(_) -> ~"CommitMerged".

all(File) ->
    {ok, Content} = file:read_file(File),
    Lines = binary:split(plain(Content), ~"\n", [global, trim_all]),
    [envelope(I, json:decode(Line)) || {I, Line} <- lists:enumerate(0, Lines)].

plain(<<31, 139, _/binary>> = Gzipped) -> zlib:gunzip(Gzipped);
plain(Content) -> Content.

envelope(Version, Event) ->
    Keys = [event_id, event_type, stream_id, epoch_us, data, metadata],
    Fields = #{Key => maps:get(atom_to_binary(Key), Event) || Key <- Keys},
    Fields#{version => Version}.
