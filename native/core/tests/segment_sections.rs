//! Every section of a segment, compressed or not, alone or among many; and what is damaged.

#![allow(clippy::panic, clippy::indexing_slicing)]

mod packing;

use esdb_core::aggregate::{Kind, Tagged};
use esdb_core::archive::{
    self,
    dictionary::{Dictionary, Samples},
};
use esdb_core::etf::{Key, Term, Walk};
use esdb_core::number::Number;
use esdb_core::predicate::Predicate;
use esdb_core::query::{self, Aggregate, Budget, Error, Found, Held, Source};
use esdb_core::segment::{self, Codec, Lazy, Path, Section, Sections, Segment};
use packing::*;
use proptest::prelude::*;
use std::num::NonZeroUsize;
use std::time::Instant;

const ONE: NonZeroUsize = NonZeroUsize::MIN;
const MANY: NonZeroUsize = NonZeroUsize::MIN.saturating_add(3);

fn source(bytes: &[u8]) -> Source<'_> {
    Source {
        bytes,
        dictionary: None,
    }
}

fn with<'a>(bytes: &'a [u8], dictionary: &'a Lazy<'a>) -> Source<'a> {
    Source {
        bytes,
        dictionary: Some(dictionary),
    }
}

fn predicate(term: &T) -> Predicate {
    Predicate::decode(&external(term)).unwrap_or_else(|| panic!("no predicate: {term:?}"))
}

fn path(term: &T) -> Path {
    Path::decode(&external(term)).unwrap_or_else(|| panic!("no path: {term:?}"))
}

fn eq(path: T, value: T) -> T {
    tagged("eq", [path, value])
}

fn count(source: Source, term: &T) -> Result<usize, Error> {
    query::counted(&[source], &predicate(term), ONE)
}

fn aggregated(source: Source, kind: Kind, key: &T) -> Result<Option<Number>, Error> {
    query::aggregated(&[source], &Aggregate::new(kind, path(key)), ONE)
}

fn int(value: i64) -> Result<Option<Number>, Error> {
    Ok(Some(Number::Int(value)))
}

fn corrupt(section: Section) -> Error {
    Error::Segment(segment::Error::Corrupt(section))
}

/// An event that has something in every section.
fn full(number: i64) -> Event {
    Event {
        version: Some(number),
        position: Some(10 * number),
        epoch_us: Some(1_000_000 * number),
        id: Some(format!("id-{number}").into_bytes()),
        kind: Some(format!("kind-{}", number % 2).into_bytes()),
        stream: Some(format!("stream-{}", number % 3).into_bytes()),
        data: Some(T::Map(vec![
            (T::Atom("amount"), T::Int(number)),
            (
                T::Atom("note"),
                bin("a note that is the same in every event"),
            ),
        ])),
        metadata: Some(T::Map(vec![(T::Atom("actor"), bin("somebody"))])),
        others: Some(T::Map(vec![(T::Atom("shard"), T::Int(number % 4))])),
    }
}

fn all_full(count: i64) -> Vec<Event> {
    (0..count).map(full).collect()
}

fn in_event(keys: &[&'static str]) -> T {
    let keys = keys.iter().map(|key| T::Atom(key)).collect();
    tagged("event", [T::List(keys)])
}

#[test]
fn every_column_is_asked() {
    let segment = pack(&all_full(12));
    let source = source(&segment);
    for (field, value, expected) in [
        ("version", T::Int(3), 1),
        ("epoch_us", T::Float(2_000_000.0), 1),
        ("event_id", bin("id-11"), 1),
        ("event_type", bin("kind-1"), 6),
        ("stream_id", bin("stream-2"), 4),
        ("stream_id", T::Atom("stream-2"), 0),
    ] {
        let term = eq(event(field), value);
        assert_eq!(count(source, &term), Ok(expected), "{term:?}");
        // What is known of a name does not depend on which one came first.
        let not = tagged("not", [term]);
        assert_eq!(count(source, &not), Ok(12 - expected), "{not:?}");
    }
    let actor = in_event(&["metadata", "actor"]);
    assert_eq!(count(source, &eq(actor, bin("somebody"))), Ok(12));
    assert_eq!(
        aggregated(source, Kind::Max, &event("epoch_us")),
        int(11_000_000)
    );
    assert_eq!(aggregated(source, Kind::Sum, &event("stream_id")), int(0));
}

#[test]
fn an_event_without_data_is_its_own() {
    let events: Vec<_> = all_full(6)
        .into_iter()
        .map(|event| Event {
            data: None,
            ..event
        })
        .collect();
    let segment = pack(&events);
    for (field, expected) in [("position", 150), ("version", 15), ("shard", 7)] {
        assert_eq!(
            aggregated(source(&segment), Kind::Sum, &data(field)),
            int(expected),
            "{field}"
        );
    }
    let actor = tagged(
        "data",
        [T::List(vec![T::Atom("metadata"), T::Atom("actor")])],
    );
    assert_eq!(count(source(&segment), &eq(actor, bin("somebody"))), Ok(6));
}

#[test]
fn what_no_column_takes_is_among_the_others() {
    let others = |pairs: Vec<(&'static str, T)>| {
        let pairs = pairs.into_iter().map(|(key, value)| (T::Atom(key), value));
        Event {
            others: Some(T::Map(pairs.collect())),
            ..Event::default()
        }
    };
    let segment = pack(&[
        others(vec![
            ("event_type", T::Atom("paid")),
            ("version", T::Float(1.5)),
        ]),
        others(vec![("event_type", bin("paid"))]),
        Event {
            kind: Some(b"paid".to_vec()),
            ..others(vec![("event_type", bin("hidden"))])
        },
    ]);
    let source = source(&segment);
    let kind = || event("event_type");
    assert_eq!(count(source, &eq(kind(), bin("paid"))), Ok(2));
    assert_eq!(count(source, &eq(kind(), T::Atom("paid"))), Ok(1));
    assert_eq!(count(source, &eq(kind(), bin("hidden"))), Ok(0));
    assert_eq!(
        aggregated(source, Kind::Sum, &event("version")),
        Ok(Some(Number::Float(1.5)))
    );
}

#[test]
fn projected_values() -> Result<(), Error> {
    let mut events = all_full(2);
    events[1].data = Some(T::List(vec![]));
    events[1].id = None;
    let segment = pack(&events);
    let paths = [
        path(&data("amount")),
        path(&event("event_id")),
        path(&event("version")),
        path(&data("amount")),
        path(&in_event(&["metadata", "actor"])),
    ];
    let mut shown = Vec::new();
    let rows = query::projected(source(&segment), &paths, |event, found| {
        shown.push(match found {
            Found::Term(section, bytes) => format!("{event} {section:?} {bytes:?}"),
            Found::Integer(value) => format!("{event} {value}"),
            Found::Binary(bytes) => format!("{event} {}", String::from_utf8_lossy(bytes)),
            Found::Missing => format!("{event} -"),
        });
        Ok::<_, Error>(())
    })?;
    let actor = |event| format!("{event} Metadata {:?}", encoding(&bin("somebody")));
    let zero = || "0 Data [97, 0]".to_owned();
    let missing = || "1 -".to_owned();
    let first = [zero(), "0 id-0".into(), "0 0".into(), zero(), actor(0)];
    let second = [missing(), missing(), "1 1".into(), missing(), actor(1)];
    assert_eq!(rows, 2);
    assert_eq!(shown, [first, second].concat());
    Ok(())
}

/// 2^(8 * bytes).
fn power(bytes: usize) -> T {
    let mut raw = vec![110, bytes as u8 + 1, 0];
    raw.extend(vec![0; bytes]);
    raw.push(1);
    T::Raw(raw)
}

#[test]
fn integers_of_any_size() {
    let with_amount = |amount| Event {
        data: Some(T::Map(vec![(T::Atom("amount"), amount)])),
        ..Event::default()
    };
    let segment = pack(&[
        with_amount(power(20)),
        with_amount(T::Int(7)),
        with_amount(tagged("sum", [power(20)])),
    ]);
    let source = source(&segment);
    let amount = || data("amount");
    let magnitude = [&[7][..], &[0; 19], &[2]].concat();
    let sum = Number::from_le_bytes(false, &magnitude);
    assert_eq!(aggregated(source, Kind::Sum, &amount()), Ok(sum));
    assert_eq!(aggregated(source, Kind::Min, &amount()), int(7));
    assert_eq!(count(source, &tagged("gt", [amount(), T::Int(7)])), Ok(1));
    assert_eq!(count(source, &eq(amount(), power(20))), Ok(1));
    assert_eq!(
        count(source, &eq(amount(), T::Float(2_f64.powi(160)))),
        Ok(1)
    );
    // One more byte than an integer may have.
    let size = 524_001_u32;
    let too_large = [
        &[111][..],
        &size.to_be_bytes(),
        &[0],
        &vec![1; size as usize],
    ]
    .concat();
    let segment = pack(&[with_amount(T::Raw(too_large))]);
    assert_eq!(
        aggregated(self::source(&segment), Kind::Sum, &amount()),
        Err(corrupt(Section::Data))
    );
}

fn trained() -> Dictionary {
    let train = || -> Result<Dictionary, archive::Error> {
        let mut samples = Samples::with_capacity(0, 0)?;
        for number in 0..2_000 {
            for (_, section) in sections(&[full(number)]) {
                samples.push(&section)?;
            }
        }
        Dictionary::new(&samples.train(4_096)?, 3)
    };
    train().unwrap_or_else(|error| panic!("{error:?}"))
}

#[test]
fn compressed_sections_answer_the_same() {
    let events = all_full(50);
    let dictionary = trained();
    let given = Lazy::new(dictionary.bytes());
    let plain = pack(&events);
    let zstd = compressed(50, &sections(&events), None);
    let with_dictionary = compressed(50, &sections(&events), Some(&dictionary));
    let term = tagged("gte", [data("amount"), T::Int(20)]);
    for source in [
        source(&plain),
        source(&zstd),
        with(&zstd, &given),
        with(&with_dictionary, &given),
    ] {
        assert_eq!(count(source, &term), Ok(30));
        assert_eq!(aggregated(source, Kind::Sum, &data("amount")), int(1_225));
        assert_eq!(aggregated(source, Kind::Max, &event("version")), int(49));
        let filtered = query::filtered(&[source], &predicate(&term), ONE).unwrap_or_default();
        let again = Source {
            bytes: &filtered,
            ..source
        };
        assert_eq!(count(again, &T::Atom("true")), Ok(30));
        assert_eq!(aggregated(again, Kind::Min, &data("amount")), int(20));
        let codec = |bytes| {
            let segment = Segment::open(bytes, None);
            segment.map(|segment| segment.codec(Section::Data))
        };
        assert_eq!(codec(&filtered), codec(source.bytes));
        assert!(filtered.len() < source.bytes.len());
    }
    assert_eq!(
        Segment::open(&zstd, None).map(|segment| segment.codec(Section::Data)),
        Ok(Some(Codec::Zstd))
    );
    let mismatch = archive::Error::DictionaryMismatch(dictionary.id());
    assert_eq!(
        count(source(&with_dictionary), &term),
        Err(Error::Segment(segment::Error::Archive(mismatch)))
    );
    // Who needs no section needs no dictionary.
    assert_eq!(count(source(&with_dictionary), &T::Atom("true")), Ok(50));
}

#[test]
fn what_a_frame_says_of_its_size_is_not_believed() {
    let events = all_full(50);
    let zstd = compressed(50, &sections(&events), None);
    let sections = sections(&events);
    // The table claims a byte more or less than there is, with a right checksum.
    let place = sections.iter().position(|(id, _)| *id == 7).unwrap_or(0);
    for delta in [-1_i64, 1, 1 << 20] {
        let mut forged = zstd.clone();
        let at = 16 + 40 * place + 24;
        let size = sections[place].1.len() as i64 + delta;
        forged[at..at + 8].copy_from_slice(&size.to_le_bytes());
        let head = 16 + 40 * sections.len();
        let checksum = esdb_core::hash::xxhash3(&forged[..head]).to_le_bytes();
        forged[head..head + 8].copy_from_slice(&checksum);
        assert_eq!(
            aggregated(source(&forged), Kind::Sum, &data("amount")),
            Err(corrupt(Section::Data)),
            "{delta}"
        );
    }
}

/// So many that threads share them out.
fn many() -> Vec<Vec<u8>> {
    let segments: Vec<_> = (0..16)
        .map(|number| {
            let events: Vec<_> = (0..400)
                .map(|event| full(400 * number + event * 7 % 400))
                .collect();
            pack(&events)
        })
        .collect();
    let size: usize = segments.iter().map(Vec::len).sum();
    assert!(size > query::PARALLEL, "{size}");
    segments
}

#[test]
fn many_threads_answer_as_one_does() -> Result<(), Error> {
    let segments = many();
    let sources: Vec<_> = segments.iter().map(|bytes| source(bytes)).collect();
    let term = predicate(&tagged("prefix", [event("event_id"), bin("id-12")]));
    let amount = Aggregate::new(Kind::Sum, path(&data("amount")));
    let asked = external(&T::List(vec![
        T::Atom("count"),
        tagged("avg", [data("amount")]),
    ]));
    let asked = Aggregate::decode(&asked).unwrap_or_default();
    let groups = |threads| -> Result<Vec<_>, Error> {
        let by = path(&event("stream_id"));
        let groups = query::grouped(&sources, &by, &asked, threads, usize::MAX)?;
        let mut shown = Vec::new();
        for group in groups {
            for answer in &group.answers {
                shown.push((group.key.clone(), answer.result()?));
            }
        }
        Ok(shown)
    };
    assert_eq!(
        query::matching(&sources, &term, None, MANY)?,
        query::matching(&sources, &term, None, ONE)?
    );
    assert_eq!(
        query::counted(&sources, &term, MANY)?,
        query::counted(&sources, &term, ONE)?
    );
    let sum = query::aggregated(&sources, &amount, MANY)?;
    assert_eq!(sum, query::aggregated(&sources, &amount, ONE)?);
    assert_eq!(sum, Some(Number::Int(6_399 * 6_400 / 2)));
    assert_eq!(groups(MANY)?, groups(ONE)?);
    assert_eq!(groups(ONE)?.len(), 6);
    Ok(())
}

#[test]
fn the_first_error_counts() {
    let mut segments = many();
    // Its last byte is in the others.
    let damage = |segment: &mut Vec<u8>| {
        if let Some(byte) = segment.last_mut() {
            *byte ^= 1;
        }
    };
    damage(&mut segments[11]);
    segments[14][5] = 1;
    let shard = Aggregate::new(Kind::Sum, path(&event("shard")));
    let header = Error::Segment(segment::Error::CorruptHeader);
    for threads in [ONE, MANY] {
        let ask = |segments: &[Vec<u8>]| {
            let sources: Vec<_> = segments.iter().map(|bytes| source(bytes)).collect();
            query::aggregated(&sources, &shard, threads)
        };
        assert_eq!(ask(&segments), Err(corrupt(Section::Others)));
        assert_eq!(ask(&segments[12..]), Err(header));
        assert!(ask(&segments[..11]).is_ok());
        // With a limit, nobody comes to what is behind it.
        let sources: Vec<_> = segments.iter().map(|bytes| source(bytes)).collect();
        let all = predicate(&T::Atom("true"));
        let found = query::matching(&sources, &all, Some(401), threads);
        let counts = found.map(|found| found.iter().map(Vec::len).sum::<usize>());
        assert_eq!(counts, Ok(401));
    }
}

#[test]
fn the_deepest_predicate_has_the_deepest_expression() {
    let expression = format!("{}a{}", "(?:".repeat(100), "|b)+".repeat(100));
    let mut term = tagged("regex", [data("note"), bin(&expression)]);
    for _ in 0..100 {
        term = tagged(
            "and",
            [T::List(vec![tagged("not", [tagged("not", [term])])])],
        );
    }
    let segment = pack(&all_full(5));
    assert_eq!(count(source(&segment), &term), Ok(5));
}

/// Everything that can be asked, whatever it says.
fn ask_everything(bytes: &[u8]) -> Result<(), Error> {
    let source = source(bytes);
    let asked = T::List(vec![T::Atom("count"), tagged("sum", [data("amount")])]);
    let asked = Aggregate::decode(&external(&asked)).unwrap_or_default();
    let fields = ["version", "event_type", "stream_id", "event_id", "shard"];
    let mut results = vec![
        count(source, &tagged("exists", [data("note")])).map(|_| ()),
        query::filtered(&[source], &predicate(&T::Atom("true")), ONE).map(|_| ()),
        query::folded(&[source], [], usize::MAX).map(|_| ()),
    ];
    for field in fields {
        let by = path(&event(field));
        results.push(query::grouped(&[source], &by, &asked, ONE, usize::MAX).map(|_| ()));
        results.push(aggregated(source, Kind::Max, &event(field)).map(|_| ()));
        let shown = query::projected(source, &[by], |_, _| Ok::<_, Error>(()));
        results.push(shown.map(|_| ()));
    }
    results.into_iter().collect()
}

/// Pairs of short keys, some of them twice, and of values, some of them no terms.
fn forged_map() -> impl Strategy<Value = Vec<u8>> {
    let key = prop_oneof![
        Just(T::Atom("a")),
        Just(T::Atom("b")),
        Just(bin("a")),
        Just(T::Int(1)),
        Just(T::Atom("a_key_of_nine")),
        Just(T::Atom("a_key_of_eighteen")),
    ];
    let value = prop_oneof![
        4 => (0..1_000_i64).prop_map(T::Int),
        2 => "[ab]{0,9}".prop_map(|text| bin(&text)),
        1 => Just(T::List(vec![T::Atom("a"), T::Map(vec![(T::Atom("a"), T::Int(2))])])),
        1 => Just(T::Raw(vec![0])),
        1 => Just(T::Raw(vec![109, 0, 0, 1])),
    ];
    let pairs = proptest::collection::vec((key, value), 0..7);
    (pairs, 0..4_usize, any::<bool>()).prop_map(|(pairs, cut, claims)| {
        let mut bytes = encoding(&T::Map(pairs));
        if let (true, Some(byte)) = (claims, bytes.get_mut(4)) {
            *byte += 1;
        }
        bytes.truncate(bytes.len() - cut);
        bytes
    })
}

/// A state without a table: each field is looked for from the first one on.
fn naive_fold(events: &[Vec<(&'static str, T)>]) -> Vec<(&'static str, T)> {
    let mut state: Vec<(&'static str, T)> = Vec::new();
    let sum = |value: &T| match value {
        T::Tuple(parts) => match parts.as_slice() {
            [T::Atom("sum"), T::Int(number)] => Some(*number),
            _ => None,
        },
        _ => None,
    };
    for (key, value) in events.iter().flatten() {
        let field = state.iter_mut().find(|(known, _)| known == key);
        match (field, sum(value)) {
            (None, _) => state.push((key, value.clone())),
            (Some((_, known)), None) => *known = value.clone(),
            (Some((_, known)), Some(more)) => {
                let before = match *known {
                    T::Int(number) => number,
                    ref other => sum(other).unwrap_or(0),
                };
                *known = tagged("sum", [T::Int(before + more)]);
            }
        }
    }
    state
}

/// Encodings of keys and of values.
type Encoded = Vec<(Vec<u8>, Vec<u8>)>;

fn folded_fields(segments: &[Vec<u8>]) -> Result<Encoded, Error> {
    let sources: Vec<_> = segments.iter().map(|bytes| source(bytes)).collect();
    let fields = query::folded(&sources, [], usize::MAX)?;
    let shown = fields.iter().map(|field| {
        let value = match &field.value {
            Tagged::Sum(Number::Int(sum)) => encoding(&tagged("sum", [T::Int(*sum)])),
            Tagged::Value(Held::Found(_, bytes)) => bytes.to_vec(),
            Tagged::Value(Held::Integer(value)) => encoding(&T::Int(*value)),
            Tagged::Value(Held::Binary(bytes)) => encoding(&T::Bin(bytes.to_vec())),
            other => panic!("{other:?}"),
        };
        (field.key.clone(), value)
    });
    Ok(shown.collect())
}

/// Segments of twenty fields each that no other one has.
fn of_other_fields(count: i64) -> Vec<Vec<u8>> {
    let segments = (0..count).map(|segment| {
        let fields = (0..20).map(|field| (T::Int(20 * segment + field), T::Int(field)));
        pack(&[Event {
            data: Some(T::Map(fields.collect())),
            ..Event::default()
        }])
    });
    segments.collect()
}

#[test]
fn a_fold_takes_no_longer_the_more_it_has_found() -> Result<(), Error> {
    let time = |segments: &[Vec<u8>]| -> Result<_, Error> {
        let sources: Vec<_> = segments.iter().map(|bytes| source(bytes)).collect();
        let start = Instant::now();
        let fields = query::folded(&sources, [], usize::MAX)?;
        assert_eq!(fields.len(), 20 * segments.len());
        Ok(start.elapsed())
    };
    let (few, many) = (of_other_fields(100), of_other_fields(3_000));
    let few = (0..5).map(|_| time(&few)).collect::<Result<Vec<_>, _>>()?;
    let few = few.into_iter().min().unwrap_or_default();
    // Thirty times as much; if each segment took what there is of fields before it, it were 900 times.
    let many = time(&many)?;
    assert!(many < 200 * few, "{few:?} {many:?}");
    Ok(())
}

#[test]
fn the_bound_of_a_fold_counts_each_field_once() {
    let segment = of_other_fields(1).concat();
    let twice = [source(&segment), source(&segment)];
    let fold = |most| query::folded(&twice, [], most).map(|fields| fields.len());
    assert_eq!(fold(20), Ok(20));
    assert_eq!(fold(19), Err(Error::TooMany));
}

#[test]
fn there_are_no_more_names_than_events() {
    for id in [5, 6] {
        let section = if id == 5 {
            Section::Types
        } else {
            Section::Streams
        };
        // Two events, both of the first name, and so many names of no bytes.
        let with_names = |count: u32| {
            let codes = [1_u32, 1].map(u32::to_le_bytes).concat();
            let ends = vec![0; 4 * count as usize];
            packing::segment(
                2,
                &[(id, [codes, count.to_le_bytes().to_vec(), ends].concat())],
            )
        };
        let key = if id == 5 { "event_type" } else { "stream_id" };
        let count = |names| count(source(&with_names(names)), &eq(event(key), bin("")));
        assert_eq!(count(1), Ok(2));
        assert_eq!(count(2), Ok(2));
        assert_eq!(count(3), Err(corrupt(section)));
    }
}

#[test]
fn what_is_built_is_bounded() {
    let too_large = Err(Error::Segment(segment::Error::TooLarge));
    let mut budget = Budget::new(usize::MAX, 10);
    assert_eq!([4, 6, 0].map(|size| budget.build(size)), [Ok(()); 3]);
    assert_eq!(budget.build(1), too_large);
    assert_eq!(Budget::new(usize::MAX, 10).build(11), too_large);
    let mut short = Budget::new(200, 10);
    assert_eq!(short.build(1), Ok(()));
    assert_eq!(short.build(10), too_large);
    assert_eq!(short.build(9), Err(Error::TooMany));
}

#[test]
fn a_dictionary_is_looked_at_when_a_section_needs_it() {
    let events = all_full(50);
    let (plain, zstd) = (pack(&events), compressed(50, &sections(&events), None));
    // No bytes are no dictionary.
    let given = Lazy::new(&[]);
    let term = tagged("gte", [data("amount"), T::Int(20)]);
    assert_eq!(count(with(&plain, &given), &term), Ok(30));
    assert_eq!(
        count(with(&zstd, &given), &term),
        Err(corrupt(Section::Data))
    );
    assert_eq!(count(with(&zstd, &given), &T::Atom("true")), Ok(50));
    let filtered = query::filtered(&[with(&plain, &given)], &predicate(&term), ONE);
    assert!(filtered.is_ok(), "{filtered:?}");
}

fn field() -> impl Strategy<Value = (&'static str, T)> {
    let key = prop_oneof![Just("a"), Just("b"), Just("c"), Just("d")];
    let value = prop_oneof![
        (0..300_i64).prop_map(|number| tagged("sum", [T::Int(number)])),
        (0..300_i64).prop_map(T::Int),
        "[ab]{0,3}".prop_map(|text| bin(&text)),
    ];
    (key, value)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn one_walk_finds_what_each_key_alone_would(
        map in forged_map(),
        order in proptest::collection::vec(0..6_usize, 1..12),
    ) {
        let keys = [
            T::Atom("a"), T::Atom("b"), bin("a"), T::Int(1), T::Atom("a_key_of_nine"),
            T::Atom("a_key_of_eighteen"),
        ];
        let keys = keys.map(|key| Key::new(&encoding(&key)));
        let map = Term::new(&map);
        let mut walk = Walk::new(keys.len());
        walk.begin(Term::new(&[]));
        walk.begin(map);
        for place in order {
            let together = walk.get(&keys, place).map(|value| value.map(Term::encoded));
            let alone = map.get(&keys[place]).map(|value| value.map(Term::encoded));
            prop_assert_eq!(together, alone);
        }
    }

    #[test]
    fn a_fold_takes_the_fields_one_by_one(
        events in proptest::collection::vec(proptest::collection::vec(field(), 0..5), 1..8),
        together in 1..8_usize,
    ) {
        let all: Vec<_> = events.iter().map(|fields| Event {
            data: Some(T::Map(fields.iter().map(|(k, v)| (T::Atom(k), v.clone())).collect())),
            ..Event::default()
        }).collect();
        let segments: Vec<_> = all.chunks(together).map(pack).collect();
        let expected: Vec<_> = naive_fold(&events).into_iter()
            .map(|(key, value)| (encoding(&T::Atom(key)), encoding(&value)))
            .collect();
        prop_assert_eq!(folded_fields(&segments), Ok(expected));
    }

    #[test]
    fn what_is_kept_is_packed_as_if_it_were_all(
        count in 0..20_i64,
        gaps in proptest::collection::vec(any::<[bool; 9]>(), 20),
        least in 0..20_i64,
    ) {
        let events: Vec<_> = (0..count).zip(gaps).map(|(number, has)| {
            let event = full(number);
            Event {
                version: Some(number),
                position: event.position.filter(|_| has[1]),
                epoch_us: event.epoch_us.filter(|_| has[2]),
                id: event.id.filter(|_| has[3]),
                kind: event.kind.filter(|_| has[4]),
                stream: event.stream.filter(|_| has[5]),
                data: event.data.filter(|_| has[6]),
                metadata: event.metadata.filter(|_| has[7]),
                others: event.others.filter(|_| has[8]),
            }
        }).collect();
        let version = || event("version");
        let term = tagged("or", [T::List(vec![
            tagged("gte", [version(), T::Int(least)]),
            eq(version(), T::Int(1)),
        ])]);
        let kept: Vec<_> = events.iter()
            .filter(|event| event.version.is_some_and(|version| version >= least || version == 1))
            .cloned()
            .collect();
        let found = query::filtered(&[source(&pack(&events))], &predicate(&term), ONE);
        prop_assert_eq!(found, Ok(pack(&kept)));
    }

    #[test]
    fn what_is_cut_off_is_no_segment(at in any::<prop::sample::Index>()) {
        let segment = pack(&all_full(9));
        let cut = &segment[..at.index(segment.len())];
        prop_assert_eq!(ask_everything(cut), Err(Error::Segment(segment::Error::CorruptHeader)));
    }

    #[test]
    fn no_flip_goes_unnoticed(at in any::<prop::sample::Index>(), bit in 0..8_u8, zstd: bool) {
        let events = all_full(9);
        let mut segment = match zstd {
            true => compressed(9, &sections(&events), None),
            false => pack(&events),
        };
        let at = at.index(segment.len());
        segment[at] ^= 1 << bit;
        // `filtered` reads all.
        prop_assert!(ask_everything(&segment).is_err());
    }

    #[test]
    fn what_checksums_vouch_for_does_no_harm_either(
        id in 1..10_u8,
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in 0..3_usize,
    ) {
        let mut sections = sections(&all_full(9));
        for (_, bytes) in sections.iter_mut().filter(|(known, _)| *known == id) {
            for (at, byte) in &flips {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            bytes.truncate(bytes.len() - cut);
        }
        let _ = ask_everything(&packing::segment(9, &sections));
        let _ = ask_everything(&compressed(9, &sections, None));
    }
}

#[test]
fn all_sections_are_there() {
    let segment = pack(&all_full(1));
    let opened = Segment::open(&segment, None);
    let opened = opened.unwrap_or_else(|error| panic!("{error:?}"));
    for section in Section::ALL {
        assert_eq!(opened.codec(section), Some(Codec::Stored), "{section:?}");
    }
    assert!(opened.contents(Sections::ALL).is_ok());
}
