-module(consumer_tests).

-include_lib("eunit/include/eunit.hrl").

places_an_order_once_test() ->
    {ok, _} = application:ensure_all_started(erl_esdb),
    {ok, _} = erl_esdb:start_store(shop),
    ?assertEqual({ok, 0}, consumer:place(~"order-1", 42)),
    ?assertMatch({error, {wrong_expected_version, -1, 0}}, consumer:place(~"order-1", 43)),
    ?assertEqual(42, consumer:total(~"order-1")),
    ok = application:stop(erl_esdb).

%% Where there is no Ra the environment says so.
keeps_orders_on_disk_test() ->
    {ok, _} = application:ensure_all_started(erl_esdb),
    Options = #{engine => ra, data_dir => "_build/shop"},
    case os:getenv("ESDB_DEPS") of
        "off" ->
            Absent = {error, {engine_not_available, ra}},
            ?assertEqual(Absent, erl_esdb:start_store(shop, Options));
        _ ->
            {ok, _} = erl_esdb:start_store(shop, Options),
            ?assertEqual({ok, 0}, consumer:place(~"order-1", 42)),
            ok = erl_esdb:stop_store(shop),
            {ok, _} = erl_esdb:start_store(shop, Options),
            ?assertEqual(42, consumer:total(~"order-1"))
    end,
    ok = application:stop(erl_esdb).

runs_on_the_expected_implementation_test() ->
    Expected = os:getenv("EXPECTED_IMPLEMENTATION"),
    ?assertEqual(Expected, atom_to_list(esdb_hash_nif:implementation())).
