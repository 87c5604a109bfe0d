-module(erl_esdb_gossip).
-moduledoc """
The datagrams by which nodes of a cluster find each other. Pure.

```
bytes    4        1      2        S       2        N      8            32
     +--------+-----+---------+-------+---------+------+------+-----------------+
     | "ESDG" |  1  | S (big) | store | N (big) | node | time | HMAC-SHA256     |
     +--------+-----+---------+-------+---------+------+------+-----------------+
```

The time is in milliseconds since 1970; the HMAC is of all that stands before it, with the secret as
the key. So who listens learns names, but not the secret, and can neither speak for another node nor
say later what a node has said: a datagram is taken within a window of time, and of each node only
one that is newer than the last.

Peers of the original send an external term `{gossip, Node, Secret, TimestampMs}`, with the secret
in clear. It is read here where the caller asks for that, byte by byte: no atom is made of what
comes from the network before the secret is known to be right.

```erlang
1> Datagram = erl_esdb_gossip:encode(hmac, shop, 'shop@10.0.0.2', ~"secret", 1000).
2> erl_esdb_gossip:decode(hmac, Datagram, ~"secret").
{ok,#{store => <<"shop">>,node => <<"shop@10.0.0.2">>,time => 1000}}
3> erl_esdb_gossip:decode(hmac, Datagram, ~"another").
{error,forged}
```
""".

-export([encode/5, decode/3, accept/3, is_node/1]).
-export_type([proof/0, told/0, seen/0]).

-define(MAGIC, "ESDG").
-define(VERSION, 1).
-define(MAC, 32).
%% The longest name of a node.
-define(MAX_NAME, 255).

-type proof() :: hmac | clear.
-doc "What a datagram says; `store` is `any` in those of the original.".
-type told() :: #{
    store := binary() | any, node := binary(), time := Milliseconds :: non_neg_integer()
}.
-doc "The time of the last datagram that was taken of each node.".
-type seen() :: #{Node :: binary() => Milliseconds :: non_neg_integer()}.

-doc "What a node says.".
-spec encode(proof(), Store :: atom(), node(), Secret :: binary(), Time :: non_neg_integer()) ->
    binary().
encode(hmac, Store, Node, Secret, Time) ->
    Name = atom_to_binary(Store),
    NodeName = atom_to_binary(Node),
    Said =
        <<?MAGIC, ?VERSION, (byte_size(Name)):16, Name/binary, (byte_size(NodeName)):16,
            NodeName/binary, Time:64>>,
    <<Said/binary, (mac(Secret, Said))/binary>>;
encode(clear, _Store, Node, Secret, Time) ->
    term_to_binary({gossip, Node, Secret, Time}).

-spec mac(binary(), binary()) -> binary().
mac(Secret, Said) -> crypto:mac(hmac, sha256, Secret, Said).

-doc """
What was said by who knows the secret. Errors: `malformed`, `forged`. With `clear` the datagrams of
the original are taken, too.
""".
-spec decode(proof(), Datagram :: binary(), Secret :: binary()) ->
    {ok, told()} | {error, malformed | forged}.
decode(_, <<?MAGIC, ?VERSION, _/binary>> = Datagram, Secret) when byte_size(Datagram) > ?MAC ->
    {Said, Mac} = split_binary(Datagram, byte_size(Datagram) - ?MAC),
    proven(crypto:hash_equals(mac(Secret, Said), Mac), parsed(Said));
decode(clear, <<131, 104, 4, Term/binary>>, Secret) ->
    maybe
        {ok, ~"gossip", Term1} ?= atom_text(Term),
        {ok, Node, Term2} ?= atom_text(Term1),
        <<109, Size:32, Given:Size/binary, Term3/binary>> ?= Term2,
        {ok, Time} ?= time(Term3),
        %% The lengths of secrets are no secret.
        Equal = byte_size(Given) =:= byte_size(Secret) andalso crypto:hash_equals(Given, Secret),
        proven(Equal, {ok, #{store => any, node => Node, time => Time}})
    else
        _ -> {error, malformed}
    end;
decode(_, _, _) ->
    {error, malformed}.

-spec proven(boolean(), Told) -> Told | {error, forged}.
proven(true, Told) -> Told;
proven(false, _Told) -> {error, forged}.

-spec parsed(binary()) -> {ok, told()} | {error, malformed}.
parsed(
    <<?MAGIC, ?VERSION, S:16, Store:S/binary, N:16, Node:N/binary, Time:64>>
) ->
    {ok, #{store => Store, node => Node, time => Time}};
parsed(_) ->
    {error, malformed}.

%% The tags of the external term format.
-spec atom_text(binary()) -> {ok, binary(), binary()} | error.
atom_text(<<119, Size, Text:Size/binary, Rest/binary>>) -> {ok, Text, Rest};
atom_text(<<118, Size:16, Text:Size/binary, Rest/binary>>) -> {ok, Text, Rest};
atom_text(<<115, Size, Text:Size/binary, Rest/binary>>) -> {ok, Text, Rest};
atom_text(<<100, Size:16, Text:Size/binary, Rest/binary>>) -> {ok, Text, Rest};
atom_text(_) -> error.

-spec time(binary()) -> {ok, non_neg_integer()} | error.
time(<<97, Time>>) -> {ok, Time};
time(<<98, 0:1, Time:31>>) -> {ok, Time};
time(<<110, Size, 0, Digits:Size/binary>>) -> {ok, binary:decode_unsigned(Digits, little)};
time(_) -> error.

-doc """
Whether what was said is new: its time is at most `Window` away from now, and after the last one of
its node. Answers what to remember: times that are out of the window are out of it for good.
""".
-spec accept(told(), seen(), {Now :: integer(), Window :: non_neg_integer()}) ->
    {ok, seen()} | {error, stale | replayed}.
accept(#{time := Time}, _Seen, {Now, Window}) when abs(Now - Time) > Window ->
    {error, stale};
accept(#{node := Node, time := Time}, Seen, {Now, Window}) ->
    case Seen of
        #{Node := Last} when Last >= Time -> {error, replayed};
        #{} -> {ok, recent(Seen#{Node => Time}, Now - Window)}
    end.

-spec recent(seen(), integer()) -> seen().
recent(Seen, From) -> maps:filter(fun(_, Time) -> Time >= From end, Seen).

-doc "Whether this can be the name of a node.".
-spec is_node(binary()) -> boolean().
is_node(Name) when byte_size(Name) =< ?MAX_NAME ->
    case binary:split(Name, ~"@", [global]) of
        [<<_, _/binary>>, <<_, _/binary>> = Host] ->
            all(fun is_character/1, Name) andalso binary:first(Host) =/= $-;
        _ ->
            false
    end;
is_node(_) ->
    false.

-spec all(fun((byte()) -> boolean()), binary()) -> boolean().
all(Is, Text) -> lists:all(Is, binary_to_list(Text)).

-spec is_character(byte()) -> boolean().
is_character(C) ->
    (C >= $a andalso C =< $z) orelse (C >= $A andalso C =< $Z) orelse
        (C >= $0 andalso C =< $9) orelse lists:member(C, "_-.:@").
