%% Where one append stands: private to the machine and the engines.
-record(row, {
    %% what the engine finds the packed events by (in Ra, the index of the log entry)
    index = 0 :: non_neg_integer(),
    %% how many events
    count = 0 :: non_neg_integer(),
    %% number of the stream, unique in the store: a stream that is deleted and made again has
    %% another
    stream = 0 :: non_neg_integer(),
    %% of the first event
    version = 0 :: non_neg_integer(),
    %% of the first event
    position = 0 :: non_neg_integer(),
    %% microseconds since 1970
    epoch_us = 0 :: integer(),
    %% how many rows have this index: more than one where a command appended to several streams
    parts = 1 :: pos_integer()
}).
