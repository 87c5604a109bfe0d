-module(erl_esdb_archive_dictionary).
-moduledoc """
Dictionaries of the file archives: one for each family of streams, trained on what was archived.

The family of a stream is its name up to the first `-`. In the folder `~dictionaries` of a store
stand `Family.samples`, payloads of archived events one after the other, and, when these are 32
times as large as a dictionary shall be, in their place `Family~Hash.dictionary`. An archive names
the dictionary that it was written with; a dictionary is never changed.

```
   Family.samples   =   (length 4, big-endian | payload)...
```
""".

-export([new/2, for/4, named/3, name/1, options/2, with/2, family/1, component/1]).
-export_type([cache/0, dictionary/0]).

-include("erl_esdb.hrl").

-define(FOLDER, "~dictionaries").
%% Samples are so many times larger than the dictionary that is made of them.
-define(TIMES, 32).
-define(LONGEST, 180).
-define(KEPT, 100).

-type dictionary() :: none | {Name :: binary(), esdb_archive_nif:dictionary()}.
-record(cache, {
    size :: pos_integer() | none,
    level :: 1..22,
    %% by folder and family, and by folder and name
    found = #{} :: #{{binary(), {family | name, binary()}} => dictionary()}
}).
-opaque cache() :: #cache{}.

-doc "Nothing known yet. Dictionaries have this size.".
-spec new(pos_integer() | none, 1..22) -> cache().
new(Size, Level) -> #cache{size = Size, level = Level}.

-doc "The dictionary to write these events with, which may be made of them.".
-spec for(StoreDir :: binary(), Stream :: binary(), [event()], cache()) ->
    {dictionary(), cache()}.
for(_Dir, _Stream, _Events, #cache{size = none} = Cache) ->
    {none, Cache};
for(Dir, Stream, Events, #cache{found = Found} = Cache) ->
    Family = family(Stream),
    Key = {Dir, {family, Family}},
    case Found of
        #{Key := Dictionary} ->
            {Dictionary, Cache};
        #{} ->
            Folder = filename:join(Dir, ?FOLDER),
            known(find(Folder, Family, Events, Cache#cache.size), Key, Dir, Cache)
    end.

-spec known(dictionary(), term(), binary(), cache()) -> {dictionary(), cache()}.
known(none, _Key, _Dir, Cache) ->
    {none, Cache};
known({Name, _} = Dictionary, Key, Dir, #cache{found = Found} = Cache) ->
    Found1 = Found#{Key => Dictionary, {Dir, {name, Name}} => Dictionary},
    {Dictionary, Cache#cache{found = Found1}}.

-spec find(binary(), binary(), [event()], pos_integer()) -> dictionary().
find(Folder, Family, Events, Size) ->
    case existing(Folder, Family) of
        [Name | _] ->
            case load(Folder, Name) of
                {ok, Dictionary} -> Dictionary;
                %% A new one is not made: whoever misses this one shall hear of it by its archives.
                {error, _} -> none
            end;
        [] ->
            learn(Folder, Family, Events, Size)
    end.

-spec existing(binary(), binary()) -> [binary()].
existing(Folder, Family) ->
    Prefix = <<(component(escape(Family)))/binary, $~>>,
    Size = byte_size(Prefix),
    case file:list_dir(Folder) of
        {ok, Files} ->
            Paths = [erl_esdb_file:path(File) || File <- Files],
            Of = [P || <<Begin:Size/binary, _/binary>> = P <- Paths, Begin =:= Prefix],
            %% One that is being written, or never was to its end, is none.
            lists:sort([P || P <- Of, filename:extension(P) =:= ~".dictionary"]);
        {error, _} ->
            []
    end.

-doc "The dictionary of this name.".
-spec named(StoreDir :: binary(), Name :: term(), cache()) ->
    {ok, dictionary(), cache()} | {error, {missing_dictionary, binary()} | corrupt}.
named(_Dir, none, Cache) ->
    {ok, none, Cache};
named(Dir, Name, #cache{found = Found} = Cache) when is_binary(Name) ->
    case Found of
        #{{Dir, {name, Name}} := Dictionary} ->
            {ok, Dictionary, Cache};
        #{} ->
            maybe
                {ok, Dictionary} ?= load(filename:join(Dir, ?FOLDER), Name),
                {ok, Dictionary, Cache#cache{found = Found#{{Dir, {name, Name}} => Dictionary}}}
            end
    end;
named(_, _, _) ->
    {error, corrupt}.

%% The name holds the hash, so what is read is what was written, or nothing.
-spec load(binary(), binary()) -> {ok, dictionary()} | {error, term()}.
load(Folder, Name) ->
    Path = filename:join(Folder, Name),
    maybe
        false ?= lists:member($/, binary_to_list(Name)),
        {ok, Bytes} ?= file:read_file(Path, [raw]),
        true ?= binary:longest_common_suffix([Name, tail(Bytes)]) =:= byte_size(tail(Bytes)),
        {ok, {Name, esdb_archive_nif:dictionary(Bytes)}}
    else
        _ -> {error, {missing_dictionary, Path}}
    end.

-spec tail(binary()) -> binary().
tail(Bytes) ->
    Hash = binary:encode_hex(<<(esdb_hash_nif:xxhash3(Bytes)):64>>, lowercase),
    <<$~, Hash/binary, ".dictionary">>.

%% ---- training

%% What goes wrong with samples costs compression, nothing else: the archive is written without.
-spec learn(binary(), binary(), [event()], pos_integer()) -> dictionary().
learn(Folder, Family, Events, Size) ->
    Path = filename:join(Folder, <<(component(escape(Family)))/binary, ".samples">>),
    Target = ?TIMES * Size,
    maybe
        ok ?= erl_esdb_file:ensure_dir(Folder),
        Missing = Target - filelib:file_size(Path),
        ok ?= file:write_file(Path, samples(Events, Missing), [append, raw]),
        {ok, Bytes} ?= file:read_file(Path, [raw]),
        true ?= byte_size(Bytes) >= Target,
        {ok, Dictionary} ?= train(Folder, Family, split(Bytes), Size),
        _ = file:delete(Path, [raw]),
        Dictionary
    else
        _ -> none
    end.

-spec train(binary(), binary(), [binary()], pos_integer()) -> {ok, dictionary()} | {error, term()}.
train(Folder, Family, Samples, Size) ->
    maybe
        {ok, Bytes} ?= esdb_archive_nif:train_dictionary(Samples, Size),
        Name = <<(component(escape(Family)))/binary, (tail(Bytes))/binary>>,
        ok ?= erl_esdb_file:write(filename:join(Folder, Name), Bytes),
        ok = erl_esdb_file:sweep(Folder),
        {ok, {Name, esdb_archive_nif:dictionary(Bytes)}}
    end.

-spec samples([event()], integer()) -> iolist().
samples([#event{data = Data, metadata = Metadata} | Events], Missing) when Missing > 0 ->
    Payloads = [term_to_binary(Term, [{minor_version, 2}]) || Term <- [Data, Metadata]],
    Framed = [[<<(byte_size(Payload)):32>>, Payload] || Payload <- Payloads],
    [Framed | samples(Events, Missing - iolist_size(Framed))];
samples(_, _) ->
    [].

%% Two who wrote at once, or one who was stopped, may leave garbage: also that is a sample.
-spec split(binary()) -> [binary()].
split(<<Length:32, Sample:Length/binary, Rest/binary>>) -> [Sample | split(Rest)];
split(<<>>) -> [];
split(Rest) -> [Rest].

%% ---- use

-doc "What an archive says of the dictionary it was written with.".
-spec name(dictionary()) -> binary() | none.
name(none) -> none;
name({Name, _}) -> Name.

-doc "How to pack with it.".
-spec options(dictionary(), 1..22) -> map().
options(none, Level) -> #{compress => zstd, level => Level};
options({_, Handle}, Level) -> #{compress => zstd, level => Level, dictionary => Handle}.

-doc "A segment that was packed with it.".
-spec with(binary(), dictionary()) -> esdb_segment_nif:segment().
with(Segment, none) -> Segment;
with(Segment, {_, Handle}) -> esdb_segment_nif:with_dictionary(Segment, Handle).

-doc "The family of a stream.".
-spec family(Stream :: binary()) -> binary().
family(Stream) -> hd(binary:split(Stream, ~"-")).

-spec escape(binary()) -> binary().
escape(Name) -> erl_esdb_archive_backend:escape(Name).

-doc """
A part of a path: an escaped name, or its begin and a hash where it is longer than names of files
may be. Escaped names have no `~`, so neither is taken for the other.
""".
-spec component(binary()) -> binary().
component(Name) when byte_size(Name) =< ?LONGEST ->
    Name;
component(Name) ->
    <<Hash:16/binary, _/binary>> = crypto:hash(sha256, Name),
    <<(binary_part(Name, 0, ?KEPT))/binary, $~, (binary:encode_hex(Hash, lowercase))/binary>>.
