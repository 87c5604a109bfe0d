-module(esdb_zstd_erl).
-moduledoc false.
%% Zstandard in Erlang.

-export([codec/0]).

%% OTP has a codec from release 28 on.
-spec codec() -> esdb_zstd_otp_erl.
codec() -> esdb_zstd_otp_erl.
