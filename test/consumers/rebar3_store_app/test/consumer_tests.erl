-module(consumer_tests).

-include_lib("eunit/include/eunit.hrl").

places_an_order_once_test() ->
    {ok, _} = application:ensure_all_started(erl_esdb),
    {ok, _} = erl_esdb:start_store(shop),
    ?assertEqual({ok, 0}, consumer:place(~"order-1", 42)),
    ?assertMatch({error, {wrong_expected_version, -1, 0}}, consumer:place(~"order-1", 43)),
    ?assertEqual(42, consumer:total(~"order-1")),
    ok = application:stop(erl_esdb).

runs_on_the_expected_implementation_test() ->
    Expected = os:getenv("EXPECTED_IMPLEMENTATION"),
    ?assertEqual(Expected, atom_to_list(esdb_hash_nif:implementation())).
