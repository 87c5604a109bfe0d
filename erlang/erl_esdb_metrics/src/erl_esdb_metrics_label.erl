-module(erl_esdb_metrics_label).
-moduledoc """
Names of subscriptions and projections, which are any bytes, as text of a bounded length.

```erlang
1> erl_esdb_metrics_label:of_name(~"mail").
~"mail"
2> erl_esdb_metrics_label:of_name(<<"mail", 255>>).
~"mail~423C2CAA2F35396E"
```
""".

-export([of_name/1]).

%% Bytes, without the digest.
-define(MAX, 128).

-doc "The name; where it had to be changed, with a digest that tells it from others.".
-spec of_name(binary()) -> binary().
of_name(Name) ->
    case unicode:characters_to_binary(Name) of
        Name when byte_size(Name) =< ?MAX ->
            Name;
        _ ->
            <<Digest:8/binary, _/binary>> = crypto:hash(sha256, Name),
            <<(start(Name))/binary, "~", (binary:encode_hex(Digest))/binary>>
    end.

%% As much of it as is text.
-spec start(binary()) -> binary().
start(Name) ->
    case unicode:characters_to_binary(binary:part(Name, 0, min(byte_size(Name), ?MAX))) of
        {_, Text, _} -> Text;
        Text -> Text
    end.
