import Config

if config_env() == :prod do
  config :logger, level: :info

  config :erl_esdb,
    stores: [shop: [engine: :ra, data_dir: String.to_charlist(System.fetch_env!("SHOP_DATA"))]]

  config :erl_esdb_metrics, port: String.to_integer(System.fetch_env!("SHOP_PORT"))
end
