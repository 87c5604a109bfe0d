-module(esdb_runs_nif).
-moduledoc """
Sorts and merges runs: records of one width, one after the other in a binary, in the order of their
bytes.

That is what log-structured merge trees (O'Neil et al. 1996) are made of: what is new is sorted, and
runs of like size are merged. In Erlang a record costs some allocations each time; here it is a
number or two in the registers of the processor.

A record is 1 to 16 bytes wide: a key and where it occurs, as a rule. Its numbers are written
big-endian, so that the order of bytes is theirs.

```erlang
1> Old = esdb_runs_nif:sort(~"b2a1c3", 2).
<<"a1b2c3">>
2> New = esdb_runs_nif:sort([~"b5", ~"a4"], 2).
<<"a4b5">>
3> esdb_runs_nif:merge([Old, New], 2).
<<"a1a4b2b5c3">>
```

Equal records are all kept. Long runs are sorted and merged on dirty schedulers.

## Errors

Arguments of a wrong shape, and sizes that are not a multiple of the width, are `error(badarg)`.
""".

-export([sort/2, merge/2]).
-export_type([width/0, run/0]).

-nifs([sort_n/2, sort_d/2, merge_n/2, merge_d/2]).

-doc "Bytes of a record.".
-type width() :: 1..16.
-doc "Records in the order of their bytes.".
-type run() :: binary().

%% Bytes that a normal scheduler takes: 0.1 to 0.2 ms each, measured.
-define(SHORT_SORT, 49_152).
-define(SHORT_MERGE, 262_144).
%% What a run of a list costs, in bytes merged in the same time.
-define(RUN, 64).

-define(IS_WIDTH(W), (is_integer(W) andalso W >= 1 andalso W =< 16)).

-include("esdb_nif.hrl").

-doc "The run of these records.".
-spec sort(Records :: iodata(), width()) -> run().
sort(Records, Width) when
    is_binary(Records), ?IS_WIDTH(Width), byte_size(Records) rem Width =:= 0
->
    case byte_size(Records) of
        Size when Size =< ?SHORT_SORT -> sort_n(Records, Width);
        _ -> sort_d(Records, Width)
    end;
sort(Records, Width) when is_list(Records) ->
    sort(iolist_to_binary(Records), Width);
sort(_, _) ->
    error(badarg).

-doc """
One run of several.

What is not sorted is merged by what stands in front, two neighbours at a time: all its records are
in the result, in an order that is of no use.
""".
-spec merge([run()], width()) -> run().
merge(Runs, Width) when ?IS_WIDTH(Width) ->
    case size(Runs, Width, 0) of
        Size when Size =< ?SHORT_MERGE -> merge_n(Runs, Width);
        _ -> merge_d(Runs, Width)
    end;
merge(_, _) ->
    error(badarg).

%% Arguments

-spec size([run()] | term(), width(), non_neg_integer()) -> non_neg_integer().
size([Run | Runs], Width, Sum) when is_binary(Run), byte_size(Run) rem Width =:= 0 ->
    size(Runs, Width, Sum + ?RUN + byte_size(Run));
size([], _Width, Sum) ->
    Sum;
size(_, _, _) ->
    error(badarg).

%% Replaced when the library is loaded

-spec sort_n(binary(), width()) -> run().
sort_n(Records, Width) -> esdb_runs_erl:sort(Records, Width).

-spec sort_d(binary(), width()) -> run().
sort_d(Records, Width) -> esdb_runs_erl:sort(Records, Width).

-spec merge_n([run()], width()) -> run().
merge_n(Runs, Width) -> esdb_runs_erl:merge(Runs, Width).

-spec merge_d([run()], width()) -> run().
merge_d(Runs, Width) -> esdb_runs_erl:merge(Runs, Width).
