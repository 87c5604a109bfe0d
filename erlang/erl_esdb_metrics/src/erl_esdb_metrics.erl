-module(erl_esdb_metrics).
-moduledoc """
Metrics of the stores of a node for Prometheus, and pages that tell whether it is well.

The application counts and measures appends and reads from its start on, and listens on port 9568
of this machine, for Prometheus and load balancers:

```erlang
1> {ok, _} = application:ensure_all_started(erl_esdb_metrics).
2> erl_esdb_metrics:port().
9568
```

| page | |
|---|---|
| `/metrics` | what is in the registry of the library `prometheus`, in its text format |
| `/health` | 200 as long as the application `erl_esdb` runs, else 503 |
| `/ready` | 200 if all stores are `ready` (`erl_esdb:readiness/2`), else 503; `?store=a` for one |

What is ready stands in the answer of `/ready`, as JSON:

```json
{"status":"not_ready","stores":{"audit":"no_quorum","shop":"ready"}}
```

All stores are those that run, and those that the environment of `erl_esdb` names. A node without
any is not ready.

| key of the environment | default | |
|---|---|---|
| `port` | 9568 | 0: any that is free, see `port/0`; `none`: no pages |
| `ip` | `{127,0,0,1}` | the address to listen on; nothing is asked of who comes there |
| `registry` | `default` | where the metrics are registered |
| `timeout` | 1000 | milliseconds that a store may take to tell of itself |

The guide on metrics lists them.
""".

-export([port/0, text/0]).

-doc "The port that the pages are on; `none` where there are none.".
-spec port() -> inet:port_number() | none.
port() -> erl_esdb_metrics_sup:port().

-doc "What `/metrics` answers, for who serves it in another way.".
-spec text() -> binary().
text() -> prometheus_text_format:format(erl_esdb_metrics_config:get(registry)).
