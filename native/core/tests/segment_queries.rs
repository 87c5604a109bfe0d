//! Questions to segments: examples, and properties against an evaluation of the events themselves.

#![allow(clippy::panic, clippy::indexing_slicing)]

mod packing;

use esdb_core::aggregate::{Kind, Tagged};
use esdb_core::number::Number;
use esdb_core::predicate::Predicate;
use esdb_core::query::{self, Aggregate, Error, Held, Source};
use esdb_core::segment::{self, Path, Section};
use packing::*;
use proptest::prelude::*;
use std::num::NonZeroUsize;

const ONE: NonZeroUsize = NonZeroUsize::MIN;

fn source(bytes: &[u8]) -> Source<'_> {
    Source {
        bytes,
        dictionary: None,
    }
}

fn predicate(term: &T) -> Predicate {
    Predicate::decode(&external(term)).unwrap_or_else(|| panic!("no predicate: {term:?}"))
}

fn path(term: &T) -> Path {
    Path::decode(&external(term)).unwrap_or_else(|| panic!("no path: {term:?}"))
}

fn count(bytes: &[u8], term: &T) -> Result<usize, Error> {
    query::counted(&[source(bytes)], &predicate(term), ONE)
}

fn sum(segments: &[&[u8]], key: T) -> Result<Option<Number>, Error> {
    let sources: Vec<_> = segments.iter().map(|bytes| source(bytes)).collect();
    let threads = NonZeroUsize::new(3).unwrap_or(ONE);
    query::aggregated(&sources, &Aggregate::new(Kind::Sum, path(&key)), threads)
}

fn paid(version: i64, kind: &str, amount: T) -> Event {
    Event {
        version: Some(version),
        kind: Some(kind.into()),
        data: Some(T::Map(vec![
            (T::Atom("amount"), amount),
            (T::Atom("note"), bin("abc")),
        ])),
        ..Event::default()
    }
}

fn three() -> Vec<u8> {
    pack(&[
        paid(0, "paid", T::Int(30)),
        paid(1, "sent", tagged("sum", [T::Int(12)])),
        paid(2, "paid", T::Float(0.5)),
    ])
}

#[test]
fn sums_and_counts() {
    let segment = three();
    assert_eq!(
        sum(&[&segment], data("amount")),
        Ok(Some(Number::Float(42.5)))
    );
    assert_eq!(
        sum(&[&segment, &segment], event("version")),
        Ok(Some(Number::Int(6)))
    );
    assert_eq!(sum(&[&segment], data("note")), Ok(Some(Number::Int(0))));
    for (term, expected) in [
        (tagged("eq", [event("event_type"), bin("paid")]), 2),
        (tagged("gt", [data("amount"), T::Int(0)]), 2),
        (
            tagged("not", [tagged("gt", [data("amount"), T::Int(0)])]),
            1,
        ),
        (
            tagged("between", [event("version"), T::Int(1), T::Float(2.0)]),
            2,
        ),
        (tagged("exists", [data("missing")]), 0),
        (tagged("neq", [data("missing"), T::Int(1)]), 0),
        (tagged("wildcard", [data("note"), bin("a?c")]), 3),
        (tagged("infix", [data("note"), bin("bc")]), 3),
        (tagged("regex", [data("note"), bin("^a[a-c]+$")]), 3),
        (
            tagged(
                "in",
                [event("version"), T::List(vec![T::Int(2), T::Int(7)])],
            ),
            1,
        ),
        (T::Atom("true"), 3),
        (tagged("or", [T::List(vec![])]), 0),
        (tagged("and", [T::List(vec![])]), 3),
    ] {
        assert_eq!(count(&segment, &term), Ok(expected), "{term:?}");
    }
}

#[test]
fn what_matches_makes_the_segment_of_these_events() {
    let events = [
        paid(0, "paid", T::Int(30)),
        paid(1, "sent", T::Int(12)),
        paid(2, "late", T::Int(50)),
    ];
    let [_, sent, late] = events.clone();
    let term = tagged("gte", [event("version"), T::Int(1)]);
    let found = query::filtered(&[source(&pack(&events))], &predicate(&term), ONE);
    assert_eq!(found, Ok(pack(&[sent, late])));
    let none = query::filtered(
        &[source(&pack(&events))],
        &predicate(&T::Atom("false")),
        ONE,
    );
    assert_eq!(none, Ok(pack(&[])));
}

#[test]
fn groups_and_folds() -> Result<(), Error> {
    let segment = three();
    let asked = T::List(vec![T::Atom("count"), tagged("max", [data("amount")])]);
    let aggregates = Aggregate::decode(&external(&asked)).unwrap_or_default();
    let by = path(&event("event_type"));
    let sources = [source(&segment), source(&segment)];
    let groups = query::grouped(&sources, &by, &aggregates, ONE, usize::MAX)?;
    let mut shown = Vec::new();
    for group in groups {
        for answer in &group.answers {
            shown.push((group.key.clone(), answer.result()?));
        }
    }
    let (first, second) = (encoding(&bin("paid")), encoding(&bin("sent")));
    let int = |value| Some(Number::Int(value));
    assert_eq!(
        shown,
        [
            (first.clone(), int(4)),
            (first, int(30)),
            (second.clone(), int(2)),
            (second, int(12))
        ]
    );

    let initial = (
        encoding(&T::Atom("amount")),
        Tagged::Value(Held::Initial(0, None)),
    );
    let sums = pack(&[
        paid(0, "a", tagged("sum", [T::Int(5)])),
        paid(1, "b", tagged("overwrite", [T::Int(7)])),
        paid(2, "c", tagged("sum", [T::Int(2)])),
    ]);
    let fields = query::folded(&[source(&sums)], [initial], usize::MAX)?;
    let shown: Vec<_> = fields
        .iter()
        .map(|field| (field.key.clone(), format!("{:?}", field.value)))
        .collect();
    let note = format!("{:?}", encoding(&bin("abc")));
    assert_eq!(
        shown,
        [
            (encoding(&T::Atom("amount")), "Sum(Int(9))".to_owned()),
            (
                encoding(&T::Atom("note")),
                format!("Value(Found(Data, {note}))")
            )
        ]
    );
    Ok(())
}

#[test]
fn a_term_that_no_question_comes_to_disturbs_nobody() {
    // A map whose second value is cut off.
    let data = b"\x83t\0\0\0\x02w\x01a\x61\x07w\x01bm\0\0\0\xFF";
    let section = [(data.len() as u32).to_le_bytes().to_vec(), data.to_vec()].concat();
    let segment = packing::segment(1, &[(7, section)]);
    assert_eq!(
        sum(&[&segment], packing::data("a")),
        Ok(Some(Number::Int(7)))
    );
    let corrupt = Error::Segment(segment::Error::Corrupt(Section::Data));
    assert_eq!(sum(&[&segment], packing::data("b")), Err(corrupt));
    assert_eq!(sum(&[&segment], packing::data("c")), Err(corrupt));
}

#[test]
fn depth_takes_no_stack() {
    let mut canonical = vec![131];
    for _ in 0..200_000 {
        canonical.extend(b"h\x02w\x03and\x6c\0\0\0\x01h\x02w\x03not");
    }
    canonical.extend(b"w\x05false");
    canonical.extend(std::iter::repeat_n(106, 200_000));
    let predicate = Predicate::decode(&canonical);
    assert!(predicate.is_some());
    let segment = three();
    let found = predicate.map(|predicate| query::counted(&[source(&segment)], &predicate, ONE));
    assert_eq!(found, Some(Ok(0)));
}

/// The field as the events have it.
fn field<'a>(event: &'a Event, path: &T) -> Option<&'a T> {
    let T::Tuple(parts) = path else { return None };
    let [T::Atom("data"), T::List(keys)] = parts.as_slice() else {
        return None;
    };
    let mut value = event.data.as_ref()?;
    for key in keys {
        let T::Map(pairs) = value else { return None };
        value = &pairs.iter().find(|(known, _)| known == key)?.1;
    }
    Some(value)
}

fn naive(event: &Event, term: &T) -> bool {
    let T::Tuple(parts) = term else {
        return *term == T::Atom("true");
    };
    match parts.as_slice() {
        [T::Atom("and"), T::List(all)] => all.iter().all(|one| naive(event, one)),
        [T::Atom("or"), T::List(all)] => all.iter().any(|one| naive(event, one)),
        [T::Atom("not"), one] => !naive(event, one),
        [T::Atom(name), path, rest @ ..] => {
            let Some(value) = field(event, path) else {
                return false;
            };
            let same = |a: &T, b: &T| match (a, b) {
                (T::Int(a), T::Float(b)) | (T::Float(b), T::Int(a)) => *a as f64 == *b,
                _ => a == b,
            };
            let order = |limit: &T| match (value, limit) {
                (T::Int(a), T::Int(b)) => a.partial_cmp(b),
                (T::Int(a), T::Float(b)) => (*a as f64).partial_cmp(b),
                (T::Float(a), T::Int(b)) => a.partial_cmp(&(*b as f64)),
                (T::Float(a), T::Float(b)) => a.partial_cmp(b),
                (T::Bin(a), T::Bin(b)) => a.partial_cmp(b),
                _ => None,
            };
            match (*name, rest) {
                ("exists", []) => true,
                ("eq", [literal]) => same(value, literal),
                ("neq", [literal]) => !same(value, literal),
                ("gt", [limit]) => order(limit).is_some_and(|o| o.is_gt()),
                ("lte", [limit]) => order(limit).is_some_and(|o| o.is_le()),
                ("in", [T::List(all)]) => all.iter().any(|one| same(value, one)),
                ("any_of", [T::List(all)]) => match value {
                    T::List(members) => members.iter().any(|m| all.iter().any(|one| same(m, one))),
                    _ => all.iter().any(|one| same(value, one)),
                },
                ("prefix", [T::Bin(prefix)]) => {
                    matches!(value, T::Bin(bytes) if bytes.starts_with(prefix))
                }
                _ => panic!("no test: {term:?}"),
            }
        }
        _ => panic!("no predicate: {term:?}"),
    }
}

fn scalar() -> impl Strategy<Value = T> {
    prop_oneof![
        (-3..300_i64).prop_map(T::Int),
        (-2..3_i32).prop_map(|half| T::Float(f64::from(half) / 2.0)),
        "[ab]{0,3}".prop_map(|text| bin(&text)),
        prop_oneof![Just(T::Atom("a")), Just(T::Atom("b"))],
    ]
}

fn value() -> impl Strategy<Value = T> {
    scalar().prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(T::List),
            proptest::collection::vec(inner.clone(), 0..3).prop_map(T::Tuple),
            (inner.clone(), inner)
                .prop_map(|(a, b)| T::Map(vec![(T::Atom("a"), a), (bin("b"), b)])),
        ]
    })
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = proptest::option::of((value(), value())).prop_map(|pair| Event {
        data: pair.map(|(a, b)| T::Map(vec![(T::Atom("a"), a), (T::Atom("b"), b)])),
        ..Event::default()
    });
    proptest::collection::vec(event, 1..9)
}

fn some_path() -> impl Strategy<Value = T> {
    let key = prop_oneof![Just(T::Atom("a")), Just(T::Atom("b")), Just(bin("b"))];
    proptest::collection::vec(key, 1..3).prop_map(|keys| tagged("data", [T::List(keys)]))
}

fn some_predicate() -> impl Strategy<Value = T> {
    let literals = || proptest::collection::vec(scalar(), 0..4).prop_map(T::List);
    let test = prop_oneof![
        Just(T::Atom("true")),
        Just(T::Atom("false")),
        some_path().prop_map(|p| tagged("exists", [p])),
        (some_path(), value()).prop_map(|(p, v)| tagged("eq", [p, v])),
        (some_path(), value()).prop_map(|(p, v)| tagged("neq", [p, v])),
        (some_path(), scalar()).prop_map(|(p, v)| tagged("gt", [p, v])),
        (some_path(), scalar()).prop_map(|(p, v)| tagged("lte", [p, v])),
        (some_path(), literals()).prop_map(|(p, v)| tagged("in", [p, v])),
        (some_path(), literals()).prop_map(|(p, v)| tagged("any_of", [p, v])),
        (some_path(), "[ab]{0,2}").prop_map(|(p, v)| tagged("prefix", [p, bin(&v)])),
    ];
    test.prop_recursive(4, 24, 4, |inner| {
        let members = proptest::collection::vec(inner.clone(), 0..4).prop_map(T::List);
        prop_oneof![
            members.clone().prop_map(|all| tagged("and", [all])),
            members.prop_map(|all| tagged("or", [all])),
            inner.prop_map(|one| tagged("not", [one])),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn predicates_match_what_the_events_do(events in events(), term in some_predicate()) {
        let segment = pack(&events);
        let expected: Vec<_> = events.iter().enumerate()
            .filter(|(_, event)| naive(event, &term))
            .map(|(place, _)| place as u32)
            .collect();
        let predicate = predicate(&term);
        let found = query::matching(&[source(&segment)], &predicate, None, ONE);
        prop_assert_eq!(found, Ok(vec![expected.clone()]));
        let kept: Vec<_> = expected.iter().filter_map(|at| events.get(*at as usize).cloned()).collect();
        prop_assert_eq!(query::filtered(&[source(&segment)], &predicate, ONE), Ok(pack(&kept)));
    }

    #[test]
    fn several_segments_are_filtered_into_one(lists in prop::collection::vec(events(), 0..4), term in some_predicate()) {
        let segments: Vec<_> = lists.iter().map(|events| pack(events)).collect();
        let sources: Vec<_> = segments.iter().map(|segment| source(segment)).collect();
        let kept: Vec<_> = lists.concat().into_iter().filter(|event| naive(event, &term)).collect();
        prop_assert_eq!(query::filtered(&sources, &predicate(&term), ONE), Ok(pack(&kept)));
    }

    #[test]
    fn no_bytes_do_harm(
        events in events(),
        term in some_predicate(),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        // A right checksum over a payload that is not.
        let data = pack(&events);
        let start = 16 + 40 + 8;
        let mut section = data.get(start..).unwrap_or_default().to_vec();
        for (at, byte) in &flips {
            let at = at.index(section.len());
            if let Some(place) = section.get_mut(at) {
                *place = *byte;
            }
        }
        let id = *data.get(16).unwrap_or(&7);
        let segment = packing::segment(events.len(), &[(id, section)]);
        let sources = [source(&segment)];
        let _ = query::counted(&sources, &predicate(&term), ONE);
        let _ = query::filtered(&[source(&segment)], &predicate(&term), ONE);
        let _ = sum(&[&segment], packing::data("a"));
        let _ = query::grouped(&sources, &path(&packing::data("a")), &[], ONE, usize::MAX);
        let _ = query::folded(&sources, [], usize::MAX);
        let paths = [path(&packing::data("a")), path(&packing::event("metadata"))];
        let _ = query::projected(sources[0], &paths, |_, _| Ok::<_, segment::Error>(()));
    }
}
