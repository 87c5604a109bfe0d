%% What a history consists of; see erl_esdb_history.

%% An event as somebody saw it. `content' is all that who appended it said of it.
-record(seen, {
    stream :: binary(),
    version :: non_neg_integer(),
    position :: non_neg_integer(),
    id :: binary(),
    content :: erl_esdb_history:content()
}).

%% A call, from its begin to its end: `infinity' where it has none, and its outcome is unknown.
-record(call, {
    client = client :: term(),
    %% where it was answered, and which life of it that was
    node = node :: term(),
    op :: erl_esdb_history:op(),
    from :: erl_esdb_history:stamp(),
    to = infinity :: erl_esdb_history:stamp() | infinity,
    outcome = unknown :: erl_esdb_history:outcome()
}).

%% Events that came to a subscriber at once.
-record(delivery, {
    subscription :: term(),
    at :: erl_esdb_history:stamp(),
    events :: [#seen{}]
}).

%% Something that was done to nodes or processes: from here on events may be delivered again.
-record(fault, {
    what :: term(),
    at :: erl_esdb_history:stamp()
}).

%% What is there in the end: all events in the order of positions, and documents.
-record(final, {
    events = [] :: [#seen{}],
    documents = #{} :: #{term() => term()}
}).
