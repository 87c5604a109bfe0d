-module(erl_esdb_metrics_stores).
-moduledoc "The stores of this node, and questions to all of them at the same time.".

-export([names/0, ask/2]).

-include_lib("kernel/include/logger.hrl").

-doc "The stores that run, or are to, because the environment of `erl_esdb` names them; sorted.".
-spec names() -> [atom()].
names() ->
    Configs = erl_esdb_config:get_all_store_configs(),
    %% The first field of a #store_config{}.
    Configured = [element(2, Config) || Config <- Configs],
    lists:usort(erl_esdb:which_stores() ++ Configured).

-doc "What a fun says of each, in order; `Otherwise` where it crashes.".
-spec ask([Name], {fun((Name) -> Answer), Otherwise :: Answer}) -> [{Name, Answer}].
ask(Names, {Fun, Otherwise}) ->
    Asked = [{Name, erpc:send_request(node(), fun() -> Fun(Name) end)} || Name <- Names],
    [{Name, answer(Name, Request, Otherwise)} || {Name, Request} <- Asked].

-spec answer(term(), erpc:request_id(), Answer) -> Answer.
answer(Name, Request, Otherwise) ->
    try
        erpc:receive_response(Request)
    catch
        Class:Reason ->
            ?LOG_ERROR("store ~tp does not tell of itself: ~tp ~tP", [Name, Class, Reason, 30]),
            Otherwise
    end.
