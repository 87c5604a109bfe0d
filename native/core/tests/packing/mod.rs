//! Terms and segments for tests, written by the book (`doc/format.md`) and as simply as can be.
#![allow(dead_code)]

use esdb_core::archive::{dictionary::Dictionary, zstd};
use esdb_core::hash::xxhash3;

/// A term.
#[derive(Clone, Debug, PartialEq)]
pub enum T {
    Int(i64),
    Float(f64),
    Atom(&'static str),
    Bin(Vec<u8>),
    Tuple(Vec<T>),
    List(Vec<T>),
    Map(Vec<(T, T)>),
    /// These bytes, whatever they are.
    Raw(Vec<u8>),
}

pub fn bin(text: &str) -> T {
    T::Bin(text.into())
}

/// A tuple that begins with an atom.
pub fn tagged<const N: usize>(tag: &'static str, rest: [T; N]) -> T {
    let mut elements = vec![T::Atom(tag)];
    elements.extend(rest);
    T::Tuple(elements)
}

/// `{data, [Key]}`.
pub fn data(key: &'static str) -> T {
    tagged("data", [T::List(vec![T::Atom(key)])])
}

/// `{event, [Key]}`.
pub fn event(key: &'static str) -> T {
    tagged("event", [T::List(vec![T::Atom(key)])])
}

/// The encoding without its version byte.
pub fn encoding(term: &T) -> Vec<u8> {
    let long = |tag: u8, size: usize| {
        let mut output = vec![tag];
        output.extend((size as u32).to_be_bytes());
        output
    };
    let all =
        |output: Vec<u8>, terms: &[T]| [output, terms.iter().flat_map(encoding).collect()].concat();
    match term {
        T::Int(value @ 0..=255) => vec![97, *value as u8],
        T::Int(value) => match i32::try_from(*value) {
            Ok(value) => [vec![98], value.to_be_bytes().to_vec()].concat(),
            Err(_) => {
                let mut magnitude = value.unsigned_abs().to_le_bytes().to_vec();
                while magnitude.last() == Some(&0) {
                    magnitude.pop();
                }
                let head = vec![110, magnitude.len() as u8, u8::from(*value < 0)];
                [head, magnitude].concat()
            }
        },
        T::Float(value) => [vec![70], value.to_be_bytes().to_vec()].concat(),
        T::Atom(name) => [vec![119, name.len() as u8], name.as_bytes().to_vec()].concat(),
        T::Bin(bytes) => [long(109, bytes.len()), bytes.clone()].concat(),
        T::Tuple(elements) => all(vec![104, elements.len() as u8], elements),
        T::List(elements) if elements.is_empty() => vec![106],
        T::List(elements) if elements.iter().all(|e| matches!(e, T::Int(0..=255))) => {
            let mut output = vec![107];
            output.extend((elements.len() as u16).to_be_bytes());
            output.extend(elements.iter().map(|e| match e {
                T::Int(byte) => *byte as u8,
                _ => 0,
            }));
            output
        }
        T::List(elements) => [all(long(108, elements.len()), elements), vec![106]].concat(),
        T::Map(pairs) => {
            let flat: Vec<_> = pairs
                .iter()
                .flat_map(|(k, v)| [k.clone(), v.clone()])
                .collect();
            all(long(116, pairs.len()), &flat)
        }
        T::Raw(bytes) => bytes.clone(),
    }
}

/// The whole external term.
pub fn external(term: &T) -> Vec<u8> {
    [vec![131], encoding(term)].concat()
}

/// An event; what it does not have is none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Event {
    pub version: Option<i64>,
    pub position: Option<i64>,
    pub epoch_us: Option<i64>,
    pub id: Option<Vec<u8>>,
    pub kind: Option<Vec<u8>>,
    pub stream: Option<Vec<u8>>,
    pub data: Option<T>,
    pub metadata: Option<T>,
    pub others: Option<T>,
}

fn ends<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let (mut ends, mut bytes) = (Vec::new(), Vec::new());
    for piece in pieces {
        bytes.extend(piece);
        ends.extend((bytes.len() as u32).to_le_bytes());
    }
    [ends, bytes].concat()
}

fn payloads(terms: Vec<Option<&T>>) -> Option<Vec<u8>> {
    terms.iter().any(Option::is_some).then(|| {
        let bytes: Vec<_> = terms
            .iter()
            .map(|t| t.map_or(Vec::new(), external))
            .collect();
        ends(bytes.iter().map(Vec::as_slice))
    })
}

/// The segment of these events, nothing compressed.
pub fn pack(events: &[Event]) -> Vec<u8> {
    segment(events.len(), &sections(events))
}

/// The sections that these events have something in.
pub fn sections(events: &[Event]) -> Vec<(u8, Vec<u8>)> {
    let mut sections = Vec::new();
    sections.extend(integers(1, events.iter().map(|e| e.version)));
    sections.extend(integers(2, events.iter().map(|e| e.position)));
    sections.extend(integers(3, events.iter().map(|e| e.epoch_us)));
    if events.iter().any(|e| e.id.is_some()) {
        let mut present = vec![0_u8; events.len().div_ceil(8)];
        for (place, event) in events.iter().enumerate() {
            if let (Some(byte), true) = (present.get_mut(place / 8), event.id.is_some()) {
                *byte |= 1 << (place % 8);
            }
        }
        let ids = ends(events.iter().map(|e| e.id.as_deref().unwrap_or_default()));
        sections.push((4, [present, ids].concat()));
    }
    sections.extend(names(5, events.iter().map(|e| e.kind.as_deref())));
    sections.extend(names(6, events.iter().map(|e| e.stream.as_deref())));
    for (id, terms) in [
        (7, events.iter().map(|e| e.data.as_ref()).collect()),
        (8, events.iter().map(|e| e.metadata.as_ref()).collect()),
        (9, events.iter().map(|e| e.others.as_ref()).collect()),
    ] {
        sections.extend(payloads(terms).map(|bytes| (id, bytes)));
    }
    if sections.is_empty() && !events.is_empty() {
        sections.push((9, vec![0; 4 * events.len()]));
    }
    sections
}

fn integers(id: u8, values: impl Iterator<Item = Option<i64>> + Clone) -> Option<(u8, Vec<u8>)> {
    let bytes = values.clone().map(|value| value.unwrap_or(i64::MIN));
    let is_there = values.clone().any(|value| value.is_some());
    is_there.then(|| (id, bytes.flat_map(i64::to_le_bytes).collect()))
}

fn names<'a>(id: u8, values: impl Iterator<Item = Option<&'a [u8]>>) -> Option<(u8, Vec<u8>)> {
    let mut names: Vec<&[u8]> = Vec::new();
    let mut codes = Vec::new();
    for value in values {
        let code = value.map_or(0, |value| {
            let known = names.iter().position(|name| *name == value);
            known.unwrap_or_else(|| {
                names.push(value);
                names.len() - 1
            }) + 1
        });
        codes.extend((code as u32).to_le_bytes());
    }
    codes.extend((names.len() as u32).to_le_bytes());
    let is_there = !names.is_empty();
    is_there.then(|| (id, [codes, ends(names.into_iter())].concat()))
}

/// A segment of these sections, stored.
pub fn segment(count: usize, sections: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let as_they_are = |(id, bytes): &(u8, Vec<u8>)| (*id, 0, bytes.len(), bytes.clone());
    written(count, &sections.iter().map(as_they_are).collect::<Vec<_>>())
}

/// A segment of these sections, each in a frame.
pub fn compressed(
    count: usize,
    sections: &[(u8, Vec<u8>)],
    dictionary: Option<&Dictionary>,
) -> Vec<u8> {
    let in_a_frame = |(id, bytes): &(u8, Vec<u8>)| {
        let mut frame = vec![0; zstd::compress_bound(bytes.len())];
        let size = zstd::compress(bytes, &mut frame, 3, true, dictionary).unwrap_or_default();
        frame.truncate(size);
        (*id, 1, bytes.len(), frame)
    };
    written(count, &sections.iter().map(in_a_frame).collect::<Vec<_>>())
}

/// Of sections by their ids, codecs, sizes and bytes as they are stored.
fn written(count: usize, sections: &[(u8, u8, usize, Vec<u8>)]) -> Vec<u8> {
    let mut output = b"ESDS\x01\0".to_vec();
    output.extend((sections.len() as u16).to_le_bytes());
    output.extend((count as u32).to_le_bytes());
    output.extend([0; 4]);
    let mut offset = 16 + 40 * sections.len() + 8;
    for (id, codec, size, bytes) in sections {
        output.extend([*id, *codec, 0, 0, 0, 0, 0, 0]);
        for number in [offset, bytes.len(), *size] {
            output.extend((number as u64).to_le_bytes());
        }
        output.extend(xxhash3(bytes).to_le_bytes());
        offset += bytes.len();
    }
    output.extend(xxhash3(&output).to_le_bytes());
    sections.iter().for_each(|(.., bytes)| output.extend(bytes));
    output
}
