-module(erl_esdb_metrics_http).
-moduledoc "The pages that `m:erl_esdb_metrics` lists.".

-behaviour(cowboy_handler).

-export([dispatch/0, init/2]).

-type page() :: metrics | health | ready.

-doc false.
-spec dispatch() -> cowboy_router:dispatch_rules().
dispatch() ->
    Pages = [{"/metrics", metrics}, {"/health", health}, {"/ready", ready}],
    cowboy_router:compile([{'_', [{Path, ?MODULE, Page} || {Path, Page} <- Pages]}]).

-doc false.
-spec init(cowboy_req:req(), page()) -> {ok, cowboy_req:req(), page()}.
init(Request, Page) ->
    {Status, Headers, Body} =
        case cowboy_req:method(Request) of
            Method when Method =:= ~"GET"; Method =:= ~"HEAD" -> answer(Page, Request);
            _ -> {405, #{~"allow" => ~"GET, HEAD"}, <<>>}
        end,
    {ok, cowboy_req:reply(Status, Headers, Body, Request), Page}.

-spec answer(page(), cowboy_req:req()) -> {cowboy:http_status(), cowboy:http_headers(), iodata()}.
answer(metrics, _Request) ->
    {200, #{~"content-type" => prometheus_text_format:content_type()}, erl_esdb_metrics:text()};
answer(health, _Request) ->
    case erl_esdb_sup:state() of
        open -> json(200, #{status => up});
        _ -> json(503, #{status => down})
    end;
answer(ready, Request) ->
    Names = asked(cowboy_req:parse_qs(Request)),
    Answers = erl_esdb_metrics_stores:ask(Names, {fun readiness/1, crashed}),
    Stores = #{erl_esdb_metrics_label:of_name(Name) => Answer || {Name, Answer} <- Answers},
    case lists:usort(maps:values(Stores)) of
        [ready] -> json(200, #{status => ready, stores => Stores});
        _ -> json(503, #{status => not_ready, stores => Stores})
    end.

-spec asked([{binary(), binary() | true}]) -> [binary()].
asked(Query) ->
    case lists:keyfind(~"store", 1, Query) of
        {_, Name} when is_binary(Name) -> [Name];
        _ -> [atom_to_binary(Store) || Store <- erl_esdb_metrics_stores:names()]
    end.

%% Who asks makes no atoms.
-spec readiness(binary()) -> atom().
readiness(Name) ->
    Timeout = erl_esdb_metrics_config:get(timeout),
    try binary_to_existing_atom(Name) of
        Store -> reason(erl_esdb:readiness(Store, #{timeout => Timeout}))
    catch
        error:_ -> store_not_started
    end.

-spec reason(erl_esdb_status:readiness()) -> atom().
reason(ready) -> ready;
reason({not_ready, Reason}) -> Reason.

-spec json(cowboy:http_status(), map()) ->
    {cowboy:http_status(), cowboy:http_headers(), iodata()}.
json(Status, Term) -> {Status, #{~"content-type" => ~"application/json"}, json:encode(Term)}.
