-module(erl_esdb_metrics_sup).
-moduledoc "Above what registers the metrics, and the pages.".

-behaviour(supervisor).

-export([start_link/0, port/0]).
-export([init/1]).

%% Of the listener.
-define(LISTENER, erl_esdb_metrics_http).
%% Prometheus, a load balancer or two, and somebody with a browser.
-define(MAX_CONNECTIONS, 64).

-doc false.
-spec start_link() -> supervisor:startlink_ret().
start_link() -> supervisor:start_link({local, ?MODULE}, ?MODULE, []).

-doc "The port of the pages.".
-spec port() -> inet:port_number() | none.
port() ->
    case erl_esdb_metrics_config:get(port) of
        none ->
            none;
        _ ->
            Port = ranch:get_port(?LISTENER),
            true = is_integer(Port),
            Port
    end.

-doc false.
-spec init([]) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init([]) ->
    Registry = erl_esdb_metrics_config:get(registry),
    Metrics = #{
        id => registered, start => {erl_esdb_metrics_registered, start_link, [Registry]}
    },
    Pages = pages(erl_esdb_metrics_config:get(port), erl_esdb_metrics_config:get(ip)),
    {ok, {#{strategy => one_for_one, intensity => 5, period => 30}, [Metrics | Pages]}}.

-spec pages(inet:port_number() | none, inet:ip_address()) -> [supervisor:child_spec()].
pages(none, _Ip) ->
    [];
pages(Port, Ip) ->
    Transport = #{
        socket_opts => [{ip, Ip}, {port, Port}],
        num_acceptors => 2,
        max_connections => ?MAX_CONNECTIONS,
        connection_type => supervisor
    },
    Protocol = #{
        env => #{dispatch => erl_esdb_metrics_http:dispatch()},
        stream_handlers => [cowboy_compress_h, cowboy_stream_h]
    },
    [ranch:child_spec(?LISTENER, ranch_tcp, Transport, cowboy_clear, Protocol)].
