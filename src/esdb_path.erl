-module(esdb_path).
-moduledoc false.
%% Where the users' paths lead: `Key`, `[Key, ...]`, or one of these behind `event` or `data`.

-export([parse/1, root/1]).
-export_type([parsed/0]).

-type parsed() :: {data | event, [term(), ...]}.

%% From where, and by which keys.
-spec parse(esdb_predicate_erl:path()) -> parsed() | invalid.
parse({Root, Path}) when Root =:= data; Root =:= event -> from(Root, keys(Path));
parse(Path) -> from(by_key, keys(Path)).

-spec from(data | event | by_key, [term()] | invalid) -> parsed() | invalid.
from(_, invalid) -> invalid;
from(by_key, [Key | _] = Keys) -> {root(Key), Keys};
from(Root, Keys) -> {Root, Keys}.

%% A path that does not say so leads into the event if its first key is one of these.
-spec root(term()) -> data | event.
root(Key) when
    Key =:= stream_id;
    Key =:= event_type;
    Key =:= version;
    Key =:= metadata;
    Key =:= event_id;
    Key =:= epoch_us
->
    event;
root(_) ->
    data.

-spec keys(term()) -> [term(), ...] | invalid.
keys([_ | _] = Keys) when length(Keys) > 0 -> Keys;
keys(Keys) when is_list(Keys) -> invalid;
keys(Key) -> [Key].
