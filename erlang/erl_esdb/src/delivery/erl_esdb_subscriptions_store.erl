-module(erl_esdb_subscriptions_store).
-moduledoc """
Subscriptions as they are kept: a document each, one by which it is found under its name, and what
was acknowledged as a checkpoint.

```erlang
1> erl_esdb_subscriptions_store:key(stream, ~"order-123", ~"sub").
<<"84568820">>
2> #subscription{checkpoint = 7} = erl_esdb_subscriptions_store:get(shop, Key).
```

Nothing is delivered because of what is written here: that is the work of
`m:erl_esdb_subscriptions`, which finds it when the store starts. Where the store cannot be reached,
functions without an error in their answer raise `error({erl_esdb, Reason})`. Functions that take
options know `timeout`, in milliseconds, of each look into the store.
""".

-compile({no_auto_import, [get/1, put/2]}).

-export([put/2, get/2, get/3, delete/2, exists/2, exists/3, list/1, list/2]).
-export([key/1, key/3, keys/1, keys/2, free_key/2, find/3, find_by_name/2, find_by_name/3]).
-export([update_checkpoint/3, next_key/1, acknowledged_key/1]).
-export_type([options/0]).

-include("erl_esdb.hrl").

%% Keys that are looked at for one that is free: only subscriptions with one hash take each other's.
-define(PLACES, 4).

-type options() :: #{timeout => timeout(), _ => _}.

-doc """
The key that a subscription has as a rule: a number in decimal digits, made of type, selector and
name. Two subscriptions can have one; then the second has the next number that is free.
""".
-spec key(subscription()) -> binary().
key(#subscription{type = Type, selector = Selector, subscription_name = Name}) ->
    key(Type, Selector, Name);
key(_) ->
    error(badarg).

-doc "The same of a type, a selector and a name.".
-spec key(subscription_type() | term(), erl_esdb_filters:selector() | term(), Name :: term()) ->
    binary().
key(Type, Selector, Name) -> integer_to_binary(hash(Type, Selector, Name)).

-spec hash(term(), term(), term()) -> non_neg_integer().
hash(Type, Selector, Name) -> erlang:phash2({Type, Selector, Name}).

-doc """
The key under which a new subscription can be kept. Errors: `{already_exists, Key}` where there is
one of its type, selector and name, and the failures of a store.
""".
-spec free_key(Store :: atom(), subscription()) ->
    {ok, Key :: binary()} | {error, {already_exists, Key :: binary()} | term()}.
free_key(Store, #subscription{type = Type, selector = Selector, subscription_name = Name} = S) ->
    free_key(Store, S, hash(Type, Selector, Name)).

-spec free_key(atom(), subscription(), non_neg_integer()) ->
    {ok, binary()} | {error, {already_exists, binary()} | term()}.
free_key(Store, Subscription, First) ->
    Keys = [integer_to_binary(First + N) || N <- lists:seq(0, ?PLACES - 1)],
    Looks = [{Key, held(kept(Store, Key, #{}), Subscription)} || Key <- Keys],
    case lists:keysort(2, Looks) of
        [{_, {1, Reason}} | _] -> {error, Reason};
        [{Key, {2, own}} | _] -> {error, {already_exists, Key}};
        [{Key, {3, free}} | _] -> {ok, Key};
        _ -> free_key(Store, Subscription, First + ?PLACES)
    end.

%% What is under a key, the more important the less.
-spec held({ok, subscription()} | {error, term()}, subscription()) ->
    {1, term()} | {2, own} | {3, free} | {4, other}.
held({ok, Kept}, Subscription) ->
    case is_same(Kept, Subscription) of
        true -> {2, own};
        false -> {4, other}
    end;
held({error, not_found}, _) ->
    {3, free};
held({error, Reason}, _) ->
    {1, Reason}.

-spec is_same(subscription(), subscription()) -> boolean().
is_same(
    #subscription{type = Type, selector = Selector, subscription_name = Name},
    #subscription{type = Type, selector = Selector, subscription_name = Name}
) ->
    true;
is_same(_, _) ->
    false.

-doc """
Keeps a subscription, in place of what is under its id. One without an id gets its key, or that of
the one with its type, selector and name.
""".
-spec put(Store :: atom(), subscription()) -> ok | {error, term()}.
put(Store, #subscription{id = Key} = Subscription) when is_binary(Key) ->
    replace(Store, Subscription, kept(Store, Key, #{}));
put(Store, #subscription{} = Subscription) ->
    case free_key(Store, Subscription) of
        {ok, Key} -> put(Store, Subscription#subscription{id = Key});
        {error, {already_exists, Key}} -> put(Store, Subscription#subscription{id = Key});
        {error, Reason} -> {error, Reason}
    end;
put(_, _) ->
    error(badarg).

%% The name first: one that leads nowhere is passed over, one that is missing is not found.
-spec replace(atom(), subscription(), {ok, subscription()} | {error, term()}) ->
    ok | {error, term()}.
replace(Store, #subscription{id = Key, subscription_name = Name} = Subscription, Before) ->
    maybe
        ok ?= forget_name(Store, Before, Name),
        {ok, _} ?= erl_esdb_store:put_document(Store, name_key(Name, Key), []),
        {ok, _} ?= erl_esdb_store:put_document(Store, {subscription, Key}, Subscription),
        ok
    end.

-spec forget_name(atom(), {ok, subscription()} | {error, term()}, binary()) ->
    ok | {error, term()}.
forget_name(Store, {ok, #subscription{id = Key, subscription_name = Old}}, Name) when
    Old =/= Name
->
    erl_esdb_store:delete_document(Store, name_key(Old, Key));
forget_name(_Store, {error, Reason}, _Name) when Reason =/= not_found ->
    {error, Reason};
forget_name(_Store, _, _Name) ->
    ok.

-spec name_key(Name, Key) -> {subscription_name, Name, Key} when Name :: binary(), Key :: binary().
name_key(Name, Key) -> {subscription_name, Name, Key}.

-spec kept(atom(), binary(), options()) -> {ok, subscription()} | {error, term()}.
kept(Store, Key, Options) -> erl_esdb_store:get_document(Store, {subscription, Key}, Options).

-doc "The same as `get/3` without options.".
-spec get(Store :: atom(), Key :: binary()) -> subscription() | undefined.
get(Store, Key) -> get(Store, Key, #{}).

-doc "The subscription with this key, with the checkpoint that was acknowledged last.".
-spec get(Store :: atom(), Key :: binary(), options()) -> subscription() | undefined.
get(Store, Key, Options) when is_binary(Key) ->
    case kept(Store, Key, Options) of
        {ok, Subscription} -> acknowledged(Store, Key, Subscription);
        {error, not_found} -> undefined;
        {error, Reason} -> error({erl_esdb, Reason})
    end;
get(_, _, _) ->
    error(badarg).

-spec acknowledged(atom(), binary(), subscription()) -> subscription().
acknowledged(Store, Key, Subscription) ->
    case erl_esdb_store:checkpoint(Store, acknowledged_key(Key)) of
        {ok, {Number, _Position}} -> Subscription#subscription{checkpoint = Number};
        {error, not_found} -> Subscription;
        {error, Reason} -> error({erl_esdb, Reason})
    end.

-doc "Forgets a subscription and its checkpoints; `ok` also where there is none.".
-spec delete(Store :: atom(), Key :: binary()) -> ok | {error, term()}.
delete(Store, Key) when is_binary(Key) ->
    maybe
        {ok, #subscription{subscription_name = Name}} ?= kept(Store, Key, #{}),
        ok ?= erl_esdb_store:delete_document(Store, {subscription, Key}),
        ok ?= erl_esdb_store:delete_document(Store, name_key(Name, Key)),
        Values = #{next_key(Key) => delete, acknowledged_key(Key) => delete},
        ok ?= erl_esdb_store:save_checkpoints(Store, Values),
        ok
    else
        {error, not_found} -> ok;
        {error, Reason} -> {error, Reason}
    end;
delete(_, _) ->
    error(badarg).

-doc "Whether there is a subscription with this key.".
-spec exists(Store :: atom(), Key :: binary()) -> boolean().
exists(Store, Key) -> get(Store, Key) =/= undefined.

-doc "Whether there is a subscription of this type and name.".
-spec exists(Store :: atom(), subscription_type(), Name :: binary()) -> boolean().
exists(Store, Type, Name) when is_binary(Name) ->
    IsOf = fun(#subscription{type = T}) -> T =:= Type end,
    case find(Store, {Name, IsOf}, #{}) of
        {ok, _, _} -> true;
        {error, not_found} -> false
    end;
exists(_, _, _) ->
    error(badarg).

-doc "The same as `list/2` without options.".
-spec list(Store :: atom()) -> {ok, [subscription()]} | {error, term()}.
list(Store) -> list(Store, #{}).

-doc "All subscriptions, in the order of their keys.".
-spec list(Store :: atom(), options()) -> {ok, [subscription()]} | {error, term()}.
list(Store, Options) ->
    case keys(Store, Options) of
        {ok, Keys} -> {ok, existing([get(Store, Key, Options) || Key <- Keys])};
        {error, Reason} -> {error, Reason}
    end.

%% One may be removed in between.
-spec existing([subscription() | undefined]) -> [subscription()].
existing(Found) -> [Subscription || #subscription{} = Subscription <- Found].

-doc "The same as `keys/2` without options.".
-spec keys(Store :: atom()) -> {ok, [binary()]} | {error, term()}.
keys(Store) -> keys(Store, #{}).

-doc "The keys of all subscriptions, in order.".
-spec keys(Store :: atom(), options()) -> {ok, [binary()]} | {error, term()}.
keys(Store, Options) ->
    %% No binary is the greatest, but every key of this kind is less than those of the next.
    {From, To} = {{subscription, <<>>}, {subscriptions, <<>>}},
    case erl_esdb_store:list_documents(Store, From, To, Options) of
        {ok, Found} -> {ok, [Key || {{subscription, Key}, _} <- Found]};
        {error, Reason} -> {error, Reason}
    end.

-doc "The same as `find_by_name/3` without options.".
-spec find_by_name(Store :: atom(), Name :: binary()) ->
    {ok, Key :: binary(), subscription()} | {error, not_found}.
find_by_name(Store, Name) -> find_by_name(Store, Name, #{}).

-doc "The first subscription with this name, in the order of keys.".
-spec find_by_name(Store :: atom(), Name :: binary(), options()) ->
    {ok, Key :: binary(), subscription()} | {error, not_found}.
find_by_name(Store, Name, Options) when is_binary(Name) ->
    find(Store, {Name, fun(#subscription{}) -> true end}, Options);
find_by_name(_, _, _) ->
    error(badarg).

-doc false.
%% The first one of a name for which a fun holds. It costs what there is of that name.
-spec find(atom(), {Name :: binary(), fun((subscription()) -> boolean())}, options()) ->
    {ok, Key :: binary(), subscription()} | {error, not_found}.
find(Store, {Name, Is}, Options) ->
    %% The least name that is greater.
    {From, To} = {name_key(Name, <<>>), name_key(<<Name/binary, 0>>, <<>>)},
    case erl_esdb_store:list_documents(Store, From, To, Options) of
        {ok, Found} ->
            first(Store, [Key || {{_, Of, Key}, _} <- Found, Of =:= Name], {Name, Is}, Options);
        {error, Reason} ->
            error({erl_esdb, Reason})
    end.

-spec first(atom(), [binary()], {binary(), fun((subscription()) -> boolean())}, options()) ->
    {ok, binary(), subscription()} | {error, not_found}.
first(Store, [Key | Keys], {Name, Is} = Wanted, Options) ->
    maybe
        #subscription{subscription_name = Name} = Subscription ?= get(Store, Key, Options),
        true ?= Is(Subscription),
        {ok, Key, Subscription}
    else
        _ -> first(Store, Keys, Wanted, Options)
    end;
first(_Store, [], _Wanted, _Options) ->
    {error, not_found}.

-doc "Notes what was acknowledged of a subscription; the number is the user's.".
-spec update_checkpoint(Store :: atom(), Key :: binary(), Number :: non_neg_integer()) ->
    ok | {error, not_found | term()}.
update_checkpoint(Store, Key, Number) when is_binary(Key), is_integer(Number), Number >= 0 ->
    case kept(Store, Key, #{}) of
        {ok, _} ->
            Values = #{acknowledged_key(Key) => {Number, undefined}},
            erl_esdb_store:save_checkpoints(Store, Values);
        {error, Reason} ->
            {error, Reason}
    end;
update_checkpoint(_, _, _) ->
    error(badarg).

-doc false.
%% Where the place stands that delivery goes on from.
-spec next_key(binary()) -> {subscription, binary()}.
next_key(Key) -> {subscription, Key}.

-doc false.
%% Where `{Number, Position}' stands: what the user acknowledged, and the position of that event
%% where it is known.
-spec acknowledged_key(binary()) -> {acknowledged, binary()}.
acknowledged_key(Key) -> {acknowledged, Key}.
