-module(erl_esdb_metrics_config).
-moduledoc "The environment of the application: see `m:erl_esdb_metrics`.".

-export([check/0, get/1]).

-define(APP, erl_esdb_metrics).

-type key() :: ip | port | registry | timeout.

-doc "Refuses what cannot be, before anything is started with it.".
-spec check() -> ok | {error, {invalid_option, Key :: atom(), Value :: term()}}.
check() ->
    %% The key that OTP puts there is none of ours.
    Given = lists:keydelete(included_applications, 1, application:get_all_env(?APP)),
    case [Pair || {Key, Value} = Pair <- lists:sort(Given), not is_option(Key, Value)] of
        [{Key, Value} | _] -> {error, {invalid_option, Key, Value}};
        [] -> ok
    end.

-spec is_option(atom(), term()) -> boolean().
is_option(ip, Ip) -> inet:is_ip_address(Ip);
is_option(port, none) -> true;
is_option(port, Port) -> is_integer(Port) andalso Port >= 0 andalso Port < 65536;
is_option(registry, Registry) -> is_atom(Registry);
is_option(timeout, Timeout) -> is_integer(Timeout) andalso Timeout > 0;
is_option(_, _) -> false.

-doc "What the environment says.".
-spec get(key()) -> term().
get(Key) ->
    {ok, Value} = application:get_env(?APP, Key),
    Value.
