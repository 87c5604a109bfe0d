-module(erl_esdb_subscriptions_store).
-moduledoc """
Subscriptions as they are kept: a document each, and what was acknowledged as a checkpoint.

```erlang
1> erl_esdb_subscriptions_store:key(stream, ~"order-123", ~"sub").
<<"84568820">>
2> #subscription{checkpoint = 7} = erl_esdb_subscriptions_store:get(shop, Key).
```

Nothing is delivered because of what is written here: that is the work of
`m:erl_esdb_subscriptions`, which finds it when the store starts. Where the store cannot be reached,
functions without an error in their answer raise `error({erl_esdb, Reason})`.
""".

-compile({no_auto_import, [get/1, put/2]}).

-export([put/2, get/2, delete/2, exists/2, exists/3, list/1]).
-export([key/1, key/3, keys/1, find_by_name/2, update_checkpoint/3]).
-export([next_key/1, acknowledged_key/1]).

-include("erl_esdb.hrl").

-doc "The key of a subscription: a number in decimal digits, made of type, selector and name.".
-spec key(subscription()) -> binary().
key(#subscription{type = Type, selector = Selector, subscription_name = Name}) ->
    key(Type, Selector, Name).

-doc "The key of a subscription with these.".
-spec key(subscription_type() | term(), erl_esdb_filters:selector() | term(), Name :: term()) ->
    binary().
key(Type, Selector, Name) -> integer_to_binary(erlang:phash2({Type, Selector, Name})).

-doc "Keeps a subscription. Its id is its key, where it has none.".
-spec put(Store :: atom(), subscription()) -> ok | {error, term()}.
put(Store, #subscription{id = Key, subscription_name = Name} = Subscription) when is_binary(Key) ->
    case erl_esdb_store:put_document(Store, {subscription, Key}, Subscription) of
        {ok, _} -> erl_esdb_delivery:remove(Store, name, Name);
        {error, Reason} -> {error, Reason}
    end;
put(Store, #subscription{} = Subscription) ->
    put(Store, Subscription#subscription{id = key(Subscription)}).

-doc "The subscription with this key, with the checkpoint that was acknowledged last.".
-spec get(Store :: atom(), Key :: binary()) -> subscription() | undefined.
get(Store, Key) ->
    case erl_esdb_store:get_document(Store, {subscription, Key}) of
        {ok, Subscription} -> acknowledged(Store, Key, Subscription);
        {error, not_found} -> undefined;
        {error, Reason} -> error({erl_esdb, Reason})
    end.

-spec acknowledged(atom(), binary(), subscription()) -> subscription().
acknowledged(Store, Key, Subscription) ->
    case erl_esdb_store:checkpoint(Store, acknowledged_key(Key)) of
        {ok, {Number, _Position}} -> Subscription#subscription{checkpoint = Number};
        {error, not_found} -> Subscription;
        {error, Reason} -> error({erl_esdb, Reason})
    end.

-doc "Forgets a subscription and its checkpoints; `ok` also where there is none.".
-spec delete(Store :: atom(), Key :: binary()) -> ok | {error, term()}.
delete(Store, Key) ->
    maybe
        {ok, Name} ?= name(Store, Key),
        ok ?= erl_esdb_store:delete_document(Store, {subscription, Key}),
        ok = erl_esdb_delivery:remove(Store, name, Name),
        Values = #{next_key(Key) => delete, acknowledged_key(Key) => delete},
        ok ?= erl_esdb_store:save_checkpoints(Store, Values),
        ok
    else
        {error, not_found} -> ok;
        {error, Reason} -> {error, Reason}
    end.

-spec name(atom(), binary()) -> {ok, binary()} | {error, term()}.
name(Store, Key) ->
    case erl_esdb_store:get_document(Store, {subscription, Key}) of
        {ok, #subscription{subscription_name = Name}} -> {ok, Name};
        {error, Reason} -> {error, Reason}
    end.

-doc "Whether there is a subscription with this key.".
-spec exists(Store :: atom(), Key :: binary()) -> boolean().
exists(Store, Key) -> get(Store, Key) =/= undefined.

-doc "Whether there is a subscription of this type and name.".
-spec exists(Store :: atom(), subscription_type(), Name :: binary()) -> boolean().
exists(Store, Type, Name) ->
    {ok, Subscriptions} = all(Store),
    lists:any(fun(S) -> is_of(Type, Name, S) end, Subscriptions).

-spec is_of(subscription_type(), binary(), subscription()) -> boolean().
is_of(Type, Name, #subscription{type = Type, subscription_name = Name}) -> true;
is_of(_, _, _) -> false.

-spec all(atom()) -> {ok, [subscription()]}.
all(Store) ->
    case list(Store) of
        {ok, Subscriptions} -> {ok, Subscriptions};
        {error, Reason} -> error({erl_esdb, Reason})
    end.

-doc "All subscriptions, in the order of their keys.".
-spec list(Store :: atom()) -> {ok, [subscription()]} | {error, term()}.
list(Store) ->
    case keys(Store) of
        {ok, Keys} -> {ok, existing([get(Store, Key) || Key <- Keys])};
        {error, Reason} -> {error, Reason}
    end.

-doc "The keys of all subscriptions, in order.".
-spec keys(Store :: atom()) -> {ok, [binary()]} | {error, term()}.
keys(Store) ->
    %% No binary is the greatest, but every key of this kind is less than those of the next.
    case erl_esdb_store:list_documents(Store, {subscription, <<>>}, {subscriptions, <<>>}) of
        {ok, Found} -> {ok, [Key || {{subscription, Key}, _} <- Found]};
        {error, Reason} -> {error, Reason}
    end.

%% One may be removed in between.
-spec existing([subscription() | undefined]) -> [subscription()].
existing(Found) -> [Subscription || #subscription{} = Subscription <- Found].

-doc "The first subscription with this name.".
-spec find_by_name(Store :: atom(), Name :: binary()) ->
    {ok, Key :: binary(), subscription()} | {error, not_found}.
find_by_name(Store, Name) ->
    case known(Store, Name) of
        #subscription{id = Key} = Subscription -> {ok, Key, Subscription};
        undefined -> search(Store, Name)
    end.

%% Who acknowledges asks by name each time: the answer is remembered until one of them changes.
-spec known(atom(), binary()) -> subscription() | undefined.
known(Store, Name) ->
    case erl_esdb_delivery:find(Store, name, Name) of
        {ok, Key} -> named(Name, get(Store, Key));
        error -> undefined
    end.

-spec named(binary(), subscription() | undefined) -> subscription() | undefined.
named(Name, #subscription{subscription_name = Name} = Subscription) -> Subscription;
named(_, _) -> undefined.

-spec search(atom(), binary()) -> {ok, binary(), subscription()} | {error, not_found}.
search(Store, Name) ->
    {ok, Subscriptions} = all(Store),
    case lists:keyfind(Name, #subscription.subscription_name, Subscriptions) of
        #subscription{id = Key} = Subscription ->
            ok = erl_esdb_delivery:put(Store, name, Name, Key),
            {ok, Key, Subscription};
        false ->
            {error, not_found}
    end.

-doc "Notes what was acknowledged of a subscription; the number is the user's.".
-spec update_checkpoint(Store :: atom(), Key :: binary(), Number :: non_neg_integer()) ->
    ok | {error, not_found | term()}.
update_checkpoint(Store, Key, Number) when is_integer(Number), Number >= 0 ->
    case erl_esdb_store:get_document(Store, {subscription, Key}) of
        {ok, _} ->
            Values = #{acknowledged_key(Key) => {Number, undefined}},
            erl_esdb_store:save_checkpoints(Store, Values);
        {error, Reason} ->
            {error, Reason}
    end;
update_checkpoint(_, _, _) ->
    error(badarg).

-doc false.
%% Where the position stands that delivery goes on from.
-spec next_key(binary()) -> {subscription, binary()}.
next_key(Key) -> {subscription, Key}.

-doc false.
%% Where `{Number, Position}' stands: what the user acknowledged, and the position of that event
%% where it is known.
-spec acknowledged_key(binary()) -> {acknowledged, binary()}.
acknowledged_key(Key) -> {acknowledged, Key}.
