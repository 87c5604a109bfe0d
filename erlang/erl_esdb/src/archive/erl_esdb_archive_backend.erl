-module(erl_esdb_archive_backend).
-moduledoc """
What keeps archived events, and the keys that it keeps them under.

A backend is a module with these callbacks and the state that its `init/1` gave:

```erlang
1> {ok, State} = erl_esdb_archive_file:init(#{base_dir => "/var/lib/archive"}).
2> Backend = {erl_esdb_archive_file, State}.
3> erl_esdb_scavenge:archive_and_scavenge(shop, ~"order-1", Backend, #{before_version => 100}).
```

## Keys

A key is `Store/Stream/From-To.archive`, or `Store/Stream/From-To.Incarnation.archive`:

```erlang
1> erl_esdb_archive_backend:make_key(my_store, ~"orders-123", 0, 99).
<<"my_store/orders-123/0-99.archive">>
2> erl_esdb_archive_backend:make_key(my_store, ~"a/b", 0, 99, ~"5f0c").
<<"my_store/a%2Fb/0-99.5f0c.archive">>
```

The incarnation tells the archives of a stream from those of its namesake that was deleted before.
Bytes of names other than letters, digits and `- . _ : $ @ + , =`, and a dot at the begin, are
written as `%` and two hexadecimal digits. So a key has exactly two `/`, and no part of it is a
name with a meaning, such as `..`.
""".

-export([make_key/4, make_key/5, parse_key/1, split_key/1, escape/1]).
-export([is_backend/1, check_option/1]).
-export_type([backend/0, key/0, parsed/0]).

-include("erl_esdb.hrl").

-type backend() :: {module(), State :: term()}.
-type key() :: binary().
-type parsed() :: #{
    store_id := atom(),
    stream_id := binary(),
    from_version := non_neg_integer(),
    to_version := non_neg_integer(),
    incarnation => binary()
}.

-doc "Makes the first state of the options.".
-callback init(Options :: map()) -> {ok, State :: term()} | {error, term()}.
-doc "Keeps events under a key. When it answers ok they are safe: they are removed from the store.".
-callback archive(State, key(), [event()]) -> {ok, State} | {error, term()}.
-doc "The events under a key.".
-callback read(State, key()) -> {ok, [event()], State} | {error, term()}.
-doc "The keys of a stream, of all its incarnations.".
-callback list(State, Store :: atom(), Stream :: binary()) ->
    {ok, [key()], State} | {error, term()}.
-doc "Removes what is under a key; also where there is nothing.".
-callback delete(State, key()) -> {ok, State} | {error, term()}.
-doc "Whether something is under a key.".
-callback exists(State, key()) -> {boolean(), State}.

-doc false.
%% A module that has what reads call, and its state.
-spec is_backend(term()) -> boolean().
is_backend({Module, _State}) when is_atom(Module) ->
    code:ensure_loaded(Module) =:= {module, Module} andalso
        erlang:function_exported(Module, list, 3) andalso
        erlang:function_exported(Module, read, 2);
is_backend(_) ->
    false.

-doc false.
%% Of reads that go on into archives, where they are asked to.
-spec check_option(map()) -> ok | {error, {invalid_option, archives, term()}}.
check_option(#{archives := Backend}) ->
    case is_backend(Backend) of
        true -> ok;
        false -> {error, {invalid_option, archives, Backend}}
    end;
check_option(#{}) ->
    ok.

-doc "The key of the versions `From` to `To` of a stream, without incarnation.".
-spec make_key(Store :: atom(), Stream :: binary(), From, To) -> key() when
    From :: non_neg_integer(), To :: non_neg_integer().
make_key(Store, Stream, From, To) -> key(Store, Stream, From, To, <<>>).

-doc "The same with the incarnation of the stream: letters and digits.".
-spec make_key(Store :: atom(), Stream :: binary(), From, To, Incarnation :: binary()) ->
    key()
when
    From :: non_neg_integer(), To :: non_neg_integer().
make_key(Store, Stream, From, To, Incarnation) ->
    is_incarnation(Incarnation) orelse error(badarg),
    key(Store, Stream, From, To, <<$., Incarnation/binary>>).

-spec key(atom(), binary(), non_neg_integer(), non_neg_integer(), binary()) -> key().
key(Store, Stream, From, To, Tail) when is_integer(From), From >= 0, is_integer(To), To >= 0 ->
    Versions = [integer_to_binary(From), $-, integer_to_binary(To), Tail],
    Name = escape(atom_to_binary(Store)),
    iolist_to_binary([Name, $/, escape(Stream), $/, Versions, ".archive"]);
key(_, _, _, _, _) ->
    error(badarg).

-doc """
The parts of a key.

`{error, invalid_key}` where it is none, or where its store is an atom that this node does not have:
keys come from outside, and no atom is made of them.
""".
-spec parse_key(key()) -> {ok, parsed()} | {error, invalid_key}.
parse_key(Key) ->
    maybe
        {ok, #{store := Store} = Parts} ?= split_key(Key),
        {ok, Name} ?= existing(Store),
        {ok, (maps:remove(store, Parts))#{store_id => Name}}
    end.

-spec existing(binary()) -> {ok, atom()} | {error, invalid_key}.
existing(Name) ->
    try
        {ok, binary_to_existing_atom(Name)}
    catch
        %% Not an atom of this node, too long for one, or no text.
        error:_ -> {error, invalid_key}
    end.

-doc "The parts of a key, with the name of the store as a binary under `store`.".
-spec split_key(term()) -> {ok, map()} | {error, invalid_key}.
split_key(Key) when is_binary(Key) ->
    maybe
        [Store, Stream, File] ?= binary:split(Key, ~"/", [global]),
        {ok, Name} ?= unescape(Store),
        {ok, Id} ?= unescape(Stream),
        {ok, Versions} ?= split_file(File),
        {ok, Versions#{store => Name, stream_id => Id}}
    else
        _ -> {error, invalid_key}
    end;
split_key(_) ->
    {error, invalid_key}.

%% Only what make_key/4,5 writes: each archive has one key.
-spec split_file(binary()) -> {ok, map()} | error.
split_file(File) ->
    maybe
        [Versions, Incarnation] ?= stem(binary:split(File, ~".", [global])),
        [From, To] ?= binary:split(Versions, ~"-"),
        {ok, Low} ?= natural(From),
        {ok, High} ?= natural(To),
        {ok, Incarnation#{from_version => Low, to_version => High}}
    else
        _ -> error
    end.

-spec stem([binary()]) -> [binary() | map()] | error.
stem([Versions, ~"archive"]) ->
    [Versions, #{}];
stem([Versions, Incarnation, ~"archive"]) ->
    case is_incarnation(Incarnation) of
        true -> [Versions, #{incarnation => Incarnation}];
        false -> error
    end;
stem(_) ->
    error.

-spec natural(binary()) -> {ok, non_neg_integer()} | error.
natural(<<Digit, _/binary>> = Text) when Digit >= $0, Digit =< $9, byte_size(Text) =< 20 ->
    case string:to_integer(Text) of
        {Number, <<>>} -> canonical(Number, Text);
        _ -> error
    end;
natural(_) ->
    error.

-spec canonical(integer(), binary()) -> {ok, integer()} | error.
canonical(Number, Text) ->
    case integer_to_binary(Number) of
        Text -> {ok, Number};
        _ -> error
    end.

-spec is_incarnation(term()) -> boolean().
is_incarnation(<<_, _/binary>> = Text) when byte_size(Text) =< 64 ->
    lists:all(fun is_alphanumeric/1, binary_to_list(Text));
is_incarnation(_) ->
    false.

-spec is_alphanumeric(byte()) -> boolean().
is_alphanumeric(C) when C >= $0, C =< $9; C >= $a, C =< $z; C >= $A, C =< $Z -> true;
is_alphanumeric(_) -> false.

-doc "A name as a part of a key.".
-spec escape(binary()) -> binary().
escape(<<$., Rest/binary>>) -> <<"%2E", (escape_all(Rest))/binary>>;
escape(Name) -> escape_all(Name).

-spec escape_all(binary()) -> binary().
escape_all(Name) -> <<<<(escape_byte(C))/binary>> || <<C>> <= Name>>.

-spec escape_byte(byte()) -> binary().
escape_byte(C) ->
    case is_plain(C) of
        true -> <<C>>;
        false -> <<$%, (binary:encode_hex(<<C>>))/binary>>
    end.

-spec is_plain(byte()) -> boolean().
is_plain(C) -> is_alphanumeric(C) orelse lists:member(C, "-._:$@+,=").

%% Of the many ways to write a name only that of escape/1.
-spec unescape(binary()) -> {ok, binary()} | error.
unescape(Text) ->
    try unescape_all(Text) of
        Name -> same(escape(Name) =:= Text, Name)
    catch
        error:badarg -> error
    end.

-spec same(boolean(), binary()) -> {ok, binary()} | error.
same(true, Name) -> {ok, Name};
same(false, _) -> error.

-spec unescape_all(binary()) -> binary().
unescape_all(Text) ->
    [Plain | Escaped] = binary:split(Text, ~"%", [global]),
    iolist_to_binary([Plain | [unescape_one(Part) || Part <- Escaped]]).

-spec unescape_one(binary()) -> iolist().
unescape_one(<<Hex:2/binary, Rest/binary>>) -> [binary:decode_hex(Hex), Rest];
unescape_one(_) -> error(badarg).
