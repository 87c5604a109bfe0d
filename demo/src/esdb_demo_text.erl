-module(esdb_demo_text).
-moduledoc """
Text that is valid whatever it was made of.

```erlang
1> esdb_demo_text:name(<<16#F6, "l">>).
<<"öl"/utf8>>
```
""".

-export([binary/1, name/1]).

-doc "The text as UTF-8; up to the first byte that is no text, where there is one.".
-spec binary(unicode:chardata()) -> binary().
binary(Text) ->
    case unicode:characters_to_binary(Text) of
        Valid when is_binary(Valid) -> Valid;
        {_, Valid, _Rest} -> Valid
    end.

-doc "A name that is bytes: UTF-8 as it is, anything else read as Latin-1, to stand in JSON.".
-spec name(binary()) -> binary().
name(Bytes) ->
    case unicode:characters_to_binary(Bytes) of
        Valid when is_binary(Valid) -> binary:copy(Valid);
        %% Each byte is a character of Latin-1, so nothing is left over here.
        _ -> binary(binary_to_list(Bytes))
    end.
