-module(consumer_tests).

-include_lib("eunit/include/eunit.hrl").

%% The run tells what it expects, so that a library that silently was not built fails here.
runs_on_the_expected_implementation_test() ->
    Expected = list_to_existing_atom(os:getenv("EXPECTED_IMPLEMENTATION")),
    #{modules := Modules} = esdb_nif:status(),
    ?assertEqual([Expected], lists:usort(maps:values(Modules))).

%% The same partition with and without the library: computed once with the reference implementation.
partition_test() -> ?assertEqual(8, consumer:partition(~"order-122")).

packs_and_unpacks_test() ->
    Data = binary:copy(~"an event ", 100),
    ?assertEqual(Data, consumer:unpack(consumer:pack(Data))).

only_the_library_was_built_test() ->
    ?assertEqual({error, bad_name}, code:lib_dir(erl_esdb)).
