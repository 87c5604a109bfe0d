//! NIFs of the Erlang module `esdb_graph_nif`: terms in, `esdb_core::graph`, terms out.
//!
//! The Erlang wrappers have checked that lists are proper. Ids are hashed and compared where they are, on the
//! heap of the caller, and given back from there: no term is copied.

mod ids;
mod last;

use std::collections::HashSet;
use std::sync::Arc;

use esdb_core::graph::table::Table;
use esdb_core::graph::{Budget, Graph, MOST, Way};
use ids::{Guess, Hasher, Ids};
use rustler::{
    Atom, Binary, Encoder, Env, Error, ListIterator, NewBinary, NifResult, NifTaggedEnum, Resource,
    ResourceArc, Term, nif,
};

mod atoms {
    rustler::atoms! {
        ok,
        error,
        none,
        long,
        foreign,
        cycle_detected,
        node_count,
        edge_count,
        root_count,
        leaf_count,
        max_depth,
        undefined,
    }
}

/// Steps that a walk may take on a normal scheduler: 0.1 to 0.3 ms in a graph that the processor's cache does not
/// hold.
const SHORT: usize = 10_000;

/// Nodes and edges of a graph that it does hold: all of it takes 0.2 to 0.5 ms.
const SMALL: usize = 100_000;

/// Of walks, of questions about all nodes, and of nodes and edges from lists: what takes 10 us.
const STEPS_A_PERCENT: usize = 1_500;
const WHOLE_A_PERCENT: usize = 500;
const TERMS_A_PERCENT: usize = 150;

/// A handle's graph and the way from ids to indices. It never changes.
struct Kept {
    graph: Graph,
    base: Arc<Table>,
    /// Ids that are not in `base`.
    recent: Table,
}

#[rustler::resource_impl]
impl Resource for Kept {}

impl Kept {
    fn size(&self) -> usize {
        self.graph.nodes() + self.graph.edges()
    }

    fn find<'a>(&self, ids: &Ids<'a>, hasher: &Hasher, id: Term<'a>) -> Option<u32> {
        let hash = hasher.hash(id);
        let is_it = |index| ids.is(index, id);
        let in_base = self.base.find(hash, is_it);
        in_base.or_else(|| self.recent.find(hash, is_it))
    }
}

#[nif]
fn implementation() -> Atom {
    esdb_boundary::implementation()
}

/// A question about a graph.
#[derive(NifTaggedEnum)]
enum Question<'a> {
    Roots,
    Leaves,
    Topological,
    HasCycle,
    Cycle,
    Stats,
    Longest,
    Components,
    Ancestors(Term<'a>),
    Descendants(Term<'a>),
    AncestorsCount(Term<'a>),
    DescendantsCount(Term<'a>),
    HasPath(Term<'a>, Term<'a>),
    Shortest(Term<'a>, Term<'a>),
    Common(Term<'a>, Term<'a>),
}

impl Question<'_> {
    /// Whether it starts from nodes that it names.
    const fn is_walk(&self) -> bool {
        matches!(
            self,
            Self::Ancestors(_)
                | Self::Descendants(_)
                | Self::AncestorsCount(_)
                | Self::DescendantsCount(_)
                | Self::HasPath(..)
                | Self::Shortest(..)
                | Self::Common(..)
        )
    }

    /// A list of ids takes longer to make than the walk along them.
    const fn fewer_if_listed(&self, steps: usize) -> usize {
        match self {
            Self::AncestorsCount(_) | Self::DescendantsCount(_) | Self::HasPath(..) => steps,
            _ => steps / 3,
        }
    }
}

#[nif]
fn once_n<'a>(
    env: Env<'a>,
    question: Question<'a>,
    nodes: Term<'a>,
    edges: Term<'a>,
) -> NifResult<Term<'a>> {
    let (size, answer) = once(env, &Hasher::short(), question, nodes, edges)?;
    esdb_boundary::charge(env, size, TERMS_A_PERCENT);
    Ok(answer)
}

#[nif(schedule = "DirtyCpu", name = "once_d")]
fn once_dirty<'a>(
    env: Env<'a>,
    question: Question<'a>,
    nodes: Term<'a>,
    edges: Term<'a>,
) -> NifResult<Term<'a>> {
    let (_, answer) = once(env, &Hasher::endless(), question, nodes, edges)?;
    Ok(answer)
}

/// The answer, and how many nodes and edges there are.
fn once<'a>(
    env: Env<'a>,
    hasher: &Hasher,
    question: Question<'a>,
    nodes: Term<'a>,
    edges: Term<'a>,
) -> NifResult<(usize, Term<'a>)> {
    let Some(grown) = Grown::new(None, Ids::none(env), hasher, nodes, edges)? else {
        return Ok((0, atoms::long().encode(env)));
    };
    let kept = Kept {
        graph: Graph::new(node_count(&grown.ids)?, &grown.pairs),
        base: Arc::new(grown.recent),
        recent: Table::default(),
    };
    let budget = Budget::endless();
    let answer = answer(env, hasher, question, &kept, &grown.ids, &budget)?;
    Ok((kept.size(), answer))
}

#[nif]
fn ask_n<'a>(
    env: Env<'a>,
    question: Question<'a>,
    chunks: Term<'a>,
    edges: usize,
    compiled: Term<'a>,
) -> NifResult<Term<'a>> {
    let ids = Ids::of_handle(chunks)?;
    let size = ids.count().saturating_add(edges);
    let budget = Budget::edges(match size {
        ..=SMALL => question.fewer_if_listed(SMALL),
        _ => SHORT,
    });
    let is_walk = question.is_walk();
    let hasher = Hasher::short();
    let answer = ask(env, &hasher, question, &ids, edges, compiled, &budget);
    match is_walk {
        true => esdb_boundary::charge(env, budget.spent(), STEPS_A_PERCENT),
        false => esdb_boundary::charge(env, size, WHOLE_A_PERCENT),
    }
    answer
}

#[nif(schedule = "DirtyCpu", name = "ask_d")]
fn ask_dirty<'a>(
    env: Env<'a>,
    question: Question<'a>,
    chunks: Term<'a>,
    edges: usize,
    compiled: Term<'a>,
) -> NifResult<Term<'a>> {
    let ids = Ids::of_handle(chunks)?;
    let (hasher, budget) = (Hasher::endless(), Budget::endless());
    ask(env, &hasher, question, &ids, edges, compiled, &budget)
}

fn ask<'a>(
    env: Env<'a>,
    hasher: &Hasher,
    question: Question<'a>,
    ids: &Ids<'a>,
    edges: usize,
    compiled: Term<'a>,
    budget: &Budget,
) -> NifResult<Term<'a>> {
    match own(ids, edges, compiled) {
        Some(kept) => answer(env, hasher, question, &kept, ids, budget),
        None => Ok(atoms::foreign().encode(env)),
    }
}

/// What a handle keeps, if it was made here and of so many nodes and edges.
fn own(ids: &Ids, edges: usize, compiled: Term) -> Option<ResourceArc<Kept>> {
    let kept: ResourceArc<Kept> = compiled.decode().ok()?;
    (kept.graph.nodes() == ids.count() && kept.graph.edges() == edges).then_some(kept)
}

fn answer<'a>(
    env: Env<'a>,
    hasher: &Hasher,
    question: Question<'a>,
    kept: &Kept,
    ids: &Ids<'a>,
    budget: &Budget,
) -> NifResult<Term<'a>> {
    let graph = &kept.graph;
    let ok = |indices: Vec<u32>| Ok((atoms::ok(), ids.list(indices)?).encode(env));
    let or_cycle = |indices| match indices {
        Some(indices) => ok(indices),
        None => Ok((atoms::error(), atoms::cycle_detected()).encode(env)),
    };
    let or_none = |indices| match indices {
        Some(indices) => ok(indices),
        None => Ok(atoms::none().encode(env)),
    };
    let long = || Ok(atoms::long().encode(env));
    let find = |id| kept.find(ids, hasher, id);
    let both = |one, other| find(one).zip(find(other));
    let reached = |id, way| match find(id) {
        Some(node) => graph.reached(node, way, budget).map(Some),
        None => Some(None),
    };
    let list = |id, way| match reached(id, way) {
        Some(Some(found)) => ids.list(found.in_order()),
        Some(None) => Ok(Term::list_new_empty(env)),
        None => long(),
    };
    let count = |id, way| match reached(id, way) {
        Some(found) => Ok(found.map_or(0, |found| found.count()).encode(env)),
        None => long(),
    };
    let answer = match question {
        Question::Roots => ids.list(graph.ends(Way::Against)),
        Question::Leaves => ids.list(graph.ends(Way::Along)),
        Question::Topological => or_cycle(graph.topological()),
        Question::Longest => or_cycle(graph.longest()),
        Question::HasCycle => Ok(graph.has_cycle().encode(env)),
        Question::Cycle => or_none(graph.cycle()),
        Question::Stats => stats(env, graph),
        Question::Components => {
            let parts = graph.components().into_iter();
            let parts: NifResult<Vec<Term>> = parts.map(|part| ids.list(part)).collect();
            Ok(parts?.encode(env))
        }
        Question::Ancestors(id) => list(id, Way::Against),
        Question::Descendants(id) => list(id, Way::Along),
        Question::AncestorsCount(id) => count(id, Way::Against),
        Question::DescendantsCount(id) => count(id, Way::Along),
        Question::HasPath(from, to) => match both(from, to) {
            Some((from, to)) => match graph.has_path(from, to, budget) {
                Some(found) => Ok(found.encode(env)),
                None => long(),
            },
            None => Ok(false.encode(env)),
        },
        Question::Shortest(from, to) => match both(from, to) {
            Some((from, to)) => match graph.shortest(from, to, budget) {
                Some(path) => or_none(path),
                None => long(),
            },
            None => or_none(None),
        },
        Question::Common(one, other) => match both(one, other) {
            Some((one, other)) => match graph.common(one, other, Way::Against, budget) {
                Some(found) => ids.list(found),
                None => long(),
            },
            None => Ok(Term::list_new_empty(env)),
        },
    };
    if hasher.has_stopped() { long() } else { answer }
}

fn stats<'a>(env: Env<'a>, graph: &Graph) -> NifResult<Term<'a>> {
    let stats = graph.stats();
    Term::map_from_pairs(
        env,
        &[
            (atoms::node_count(), stats.nodes),
            (atoms::edge_count(), stats.edges),
            (atoms::root_count(), stats.roots),
            (atoms::leaf_count(), stats.leaves),
            (atoms::max_depth(), stats.depth),
        ],
    )
}

/// Ids and edges of a call, put to those that are there.
struct Grown<'a> {
    ids: Ids<'a>,
    /// The new ids, and those that were added since the base of the old graph was built.
    recent: Table,
    pairs: Vec<(u32, u32)>,
    /// Edges with an unknown end, each behind that end.
    missing: Vec<(Term<'a>, Term<'a>)>,
}

impl<'a> Grown<'a> {
    fn new(
        old: Option<&Kept>,
        mut ids: Ids<'a>,
        hasher: &Hasher,
        nodes: Term<'a>,
        edges: Term<'a>,
    ) -> NifResult<Option<Self>> {
        let nothing = Table::default();
        let base = old.map_or(&nothing, |old| old.base.as_ref());
        let mut recent = match old {
            Some(old) => old.recent.clone(),
            None => Table::with_capacity(nodes.list_length()?),
        };
        for id in nodes.decode::<ListIterator>()? {
            let hash = hasher.hash(id);
            if hasher.has_stopped() {
                return Ok(None);
            }
            let is_it = |index| ids.is(index, id);
            let next = node_count(&ids)?;
            if base.find(hash, is_it).is_none()
                && recent.find_or_insert(hash, next, is_it).is_none()
            {
                ids.push(id);
            }
        }
        let mut pairs = Vec::new();
        let mut missing = Vec::new();
        let find = |id, guess: &mut Guess| {
            let is_it = |index| ids.is(index, id);
            let is_guessed = |index| ids.is_guessed(index, id, hasher);
            guess.or(is_guessed, || {
                let hash = hasher.hash(id);
                base.find(hash, is_it).or_else(|| recent.find(hash, is_it))
            })
        };
        let (mut a, mut b) = (Guess::new(), Guess::new());
        for edge in edges.decode::<ListIterator>()? {
            let (from, to) = ids::ends(edge)?;
            match (find(from, &mut a), find(to, &mut b)) {
                (Some(from), Some(to)) => pairs.push((from, to)),
                (None, _) => missing.push((from, edge)),
                (_, None) => missing.push((to, edge)),
            }
            if hasher.has_stopped() {
                return Ok(None);
            }
        }
        if pairs.len() > MOST {
            return Err(Error::BadArg);
        }
        Ok(Some(Self {
            ids,
            recent,
            pairs,
            missing,
        }))
    }
}

fn node_count(ids: &Ids) -> NifResult<u32> {
    match u32::try_from(ids.count()) {
        Ok(count) if ids.count() <= MOST => Ok(count),
        _ => Err(Error::BadArg),
    }
}

#[nif]
fn grow_n<'a>(
    env: Env<'a>,
    chunks: Term<'a>,
    known_edges: usize,
    compiled: Term<'a>,
    nodes: Term<'a>,
    edges: Term<'a>,
) -> NifResult<Term<'a>> {
    let ids = Ids::of_handle(chunks)?;
    let more = nodes.list_length()? + edges.list_length()?;
    // Now and then the whole is built anew: not here.
    if own(&ids, known_edges, compiled).is_some_and(|kept| kept.graph.is_full(more)) {
        return Ok(atoms::long().encode(env));
    }
    esdb_boundary::charge(env, more, TERMS_A_PERCENT);
    let hasher = Hasher::short();
    grow(env, ids, &hasher, known_edges, compiled, nodes, edges)
}

#[nif(schedule = "DirtyCpu", name = "grow_d")]
fn grow_dirty<'a>(
    env: Env<'a>,
    chunks: Term<'a>,
    known_edges: usize,
    compiled: Term<'a>,
    nodes: Term<'a>,
    edges: Term<'a>,
) -> NifResult<Term<'a>> {
    let ids = Ids::of_handle(chunks)?;
    grow(
        env,
        ids,
        &Hasher::endless(),
        known_edges,
        compiled,
        nodes,
        edges,
    )
}

fn grow<'a>(
    env: Env<'a>,
    ids: Ids<'a>,
    hasher: &Hasher,
    known_edges: usize,
    compiled: Term<'a>,
    nodes: Term<'a>,
    edges: Term<'a>,
) -> NifResult<Term<'a>> {
    let is_new = ids.has_no_chunks() && known_edges == 0;
    let old = own(&ids, known_edges, compiled);
    if old.is_none() && !is_new {
        return Ok(atoms::foreign().encode(env));
    }
    let Some(grown) = Grown::new(old.as_deref(), ids, hasher, nodes, edges)? else {
        return Ok(atoms::long().encode(env));
    };
    let count = node_count(&grown.ids)?;
    let graph = match &old {
        Some(old) if old.graph.edges() + grown.pairs.len() > MOST => return Err(Error::BadArg),
        Some(old) => old.graph.grown(count, &grown.pairs),
        None => Graph::new(count, &grown.pairs).prepared(),
    };
    let kept = keep(old.as_deref(), graph, grown.recent);
    let fresh = grown.ids.fresh().encode(env);
    let pairs = binary(env, &grown.pairs);
    Ok((fresh, pairs, grown.missing, ResourceArc::new(kept)).encode(env))
}

/// The table of recent ids becomes part of the base when the recent edges do.
fn keep(old: Option<&Kept>, graph: Graph, recent: Table) -> Kept {
    let (base, recent) = match old {
        Some(old) if recent.is_empty() || !graph.is_compact() => (Arc::clone(&old.base), recent),
        Some(old) => {
            let mut base = old.base.as_ref().clone();
            base.extend(&recent);
            (Arc::new(base), Table::default())
        }
        None => (Arc::new(recent), Table::default()),
    };
    Kept {
        graph,
        base,
        recent,
    }
}

fn binary<'a>(env: Env<'a>, pairs: &[(u32, u32)]) -> Term<'a> {
    let mut binary = NewBinary::new(env, pairs.len() * 8);
    for (place, (from, to)) in binary.as_mut_slice().chunks_exact_mut(8).zip(pairs) {
        let both = u64::from(*to) << 32 | u64::from(*from);
        place.copy_from_slice(&both.to_le_bytes());
    }
    binary.into()
}

/// What a handle keeps, from its ids and edges alone.
#[nif(schedule = "DirtyCpu", name = "rebuilt_d")]
fn rebuilt<'a>(
    chunks: Term<'a>,
    pairs: Binary<'a>,
    version: Term<'a>,
) -> NifResult<ResourceArc<Kept>> {
    let ids = Ids::of_handle(chunks)?;
    let edges = pairs_of(&pairs, node_count(&ids)?)?;
    let key = last::Key::new(version, &pairs);
    if let Some(kept) = key.as_ref().and_then(|key| last::find(key, ids.count())) {
        return Ok(kept);
    }
    let mut base = Table::with_capacity(ids.count());
    let hasher = Hasher::endless();
    for (index, id) in (0..node_count(&ids)?).zip(Ids::of_unknown_handle(chunks)?) {
        let is_it = |known| ids.is(known, id);
        if base.find_or_insert(hasher.hash(id), index, is_it).is_some() {
            return Err(Error::BadArg);
        }
    }
    let kept = ResourceArc::new(Kept {
        graph: Graph::new(node_count(&ids)?, &edges).prepared(),
        base: Arc::new(base),
        recent: Table::default(),
    });
    if let Some(key) = key {
        last::remember(key, &kept);
    }
    Ok(kept)
}

fn pairs_of(bytes: &[u8], nodes: u32) -> NifResult<Vec<(u32, u32)>> {
    let pairs = bytes.chunks(8).map(|bytes| {
        let both = u64::from_le_bytes(bytes.try_into().map_err(|_| Error::BadArg)?);
        match (both as u32, (both >> 32) as u32) {
            (from, to) if from < nodes && to < nodes => Ok((from, to)),
            _ => Err(Error::BadArg),
        }
    });
    pairs.collect()
}

#[nif]
fn build_edges_n<'a>(env: Env<'a>, pairs: Term<'a>) -> NifResult<Term<'a>> {
    esdb_boundary::charge(env, pairs.list_length()?, TERMS_A_PERCENT);
    build_edges(env, &Hasher::short(), pairs)
}

#[nif(schedule = "DirtyCpu", name = "build_edges_d")]
fn build_edges_dirty<'a>(env: Env<'a>, pairs: Term<'a>) -> NifResult<Term<'a>> {
    build_edges(env, &Hasher::endless(), pairs)
}

fn build_edges<'a>(env: Env<'a>, hasher: &Hasher, pairs: Term<'a>) -> NifResult<Term<'a>> {
    let mut ids = Ids::none(env);
    let mut table = Table::with_capacity(pairs.list_length()?);
    let mut nodes = Vec::new();
    for pair in pairs.decode::<ListIterator>()? {
        let (id, _) = ids::ends(pair)?;
        let next = node_count(&ids)?;
        let known = table.find_or_insert(hasher.hash(id), next, |index| ids.is(index, id));
        if known.is_none() {
            ids.push(id);
        }
        nodes.push(known.unwrap_or(next));
        if hasher.has_stopped() {
            return Ok(atoms::long().encode(env));
        }
    }
    let undefined = atoms::undefined().encode(env);
    let mut seen = HashSet::new();
    let mut edges = Vec::new();
    for (pair, node) in pairs.decode::<ListIterator>()?.zip(nodes) {
        let (id, cause) = ids::ends(pair)?;
        if cause != undefined {
            let from = table.find(hasher.hash(cause), |index| ids.is(index, cause));
            if let Some(from) = from.filter(|from| seen.insert((*from, node))) {
                // The cause as it stands among the ids: one term in place of two that are equal.
                edges.push((ids.get(from).unwrap_or(cause), id));
            }
        }
        if hasher.has_stopped() {
            return Ok(atoms::long().encode(env));
        }
    }
    Ok(edges.encode(env))
}

fn load(_env: Env, info: Term) -> bool {
    esdb_boundary::same_version(info)
}

rustler::init!("esdb_graph_nif", load = load);
