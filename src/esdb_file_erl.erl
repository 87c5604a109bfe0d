-module(esdb_file_erl).
-moduledoc """
The twin of `m:esdb_file_nif` in Erlang: OTP's files, opened raw. The ranges are read one after the
other, each with a call to a scheduler for input and output.
""".

-export([open/1, read/2, close/1]).
-export_type([file/0]).

-include_lib("kernel/include/file.hrl").

-type file() :: file:fd().

-doc "See `esdb_file_nif:open/1`.".
-spec open(binary()) -> {ok, file()} | {error, file:posix()}.
open(Name) ->
    case file:read_file_info(Name, [raw]) of
        {ok, #file_info{type = regular}} -> file:open(Name, [read, raw, binary]);
        {ok, #file_info{type = directory}} -> {error, eisdir};
        {ok, #file_info{}} -> {error, einval};
        {error, Reason} -> {error, Reason}
    end.

-doc "See `esdb_file_nif:read/2`.".
-spec read(file(), [esdb_file_nif:range()]) -> {ok, [binary()]} | {error, esdb_file_nif:reason()}.
read(#file_descriptor{} = File, Ranges) ->
    %% A look at the place in the file: that it is open, and the caller's, is true of no ranges too.
    owned(fun() ->
        maybe
            {ok, _} ?= file:position(File, cur),
            {ok, Found} ?= file:pread(File, Ranges),
            {ok, [there(Bytes) || Bytes <- Found]}
        end
    end);
read(_, _) ->
    error(badarg).

%% OTP raises what here is an answer.
-spec owned(fun(() -> Answer)) -> Answer | {error, not_on_controlling_process}.
owned(Ask) ->
    try
        Ask()
    catch
        error:not_on_controlling_process -> {error, not_on_controlling_process}
    end.

-spec there(binary() | eof) -> binary().
there(eof) -> <<>>;
there(Bytes) when is_binary(Bytes) -> Bytes.

-doc "See `esdb_file_nif:close/1`.".
-spec close(file()) -> ok | {error, esdb_file_nif:reason()}.
close(#file_descriptor{} = File) -> owned(fun() -> file:close(File) end);
close(_) -> error(badarg).
