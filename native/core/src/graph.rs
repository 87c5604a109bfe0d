//! Directed graphs, of indices alone.
//!
//! Nodes are numbered in the order in which they were given, so "in node order" is ascending. Where more than
//! one answer is right (a cycle, a shortest or a longest path), the rule that picks one looks at these numbers
//! only, never at the order of the edges. No function goes deeper into the stack for a longer path.

pub mod bits;
mod questions;
pub use questions::{Budget, Reached};
pub mod table;

use std::sync::{Arc, OnceLock};

/// From a node along its edges, or against them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To what it led to.
    Along,
    /// To what led to it.
    Against,
}

/// What `Graph::stats` counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Nodes.
    pub nodes: usize,
    /// Edges, each as often as it was given.
    pub edges: usize,
    /// Nodes that no edge leads to.
    pub roots: usize,
    /// Nodes that no edge leads away from.
    pub leaves: usize,
    /// The largest distance of a node from the root that is nearest to it.
    pub depth: usize,
}

/// A graph that never changes; `grown` makes a larger one that shares the memory of this one.
#[derive(Clone, Debug)]
pub struct Graph {
    nodes: u32,
    base: Arc<Base>,
    /// Edges that came after the base was built, sorted: (from, to), and the same as (to, from).
    recent: [Vec<(u32, u32)>; 2],
}

/// The bulk of a graph. The other direction is computed when it is asked for.
#[derive(Debug, Default)]
struct Base {
    along: Adjacency,
    against: OnceLock<Adjacency>,
}

/// Compressed sparse rows: the neighbours of node N are `ends[starts[N]..starts[N + 1]]`.
#[derive(Debug, Default)]
struct Adjacency {
    starts: Vec<u32>,
    ends: Vec<u32>,
}

impl Adjacency {
    /// The pairs must not be more than 2^32 - 1, and of nodes below `nodes`.
    fn new(nodes: usize, pairs: impl Iterator<Item = (u32, u32)> + Clone) -> Self {
        let mut starts = vec![0_u32; nodes + 2];
        let mut count = 0;
        for (from, _) in pairs.clone() {
            count += 1;
            if let Some(start) = starts.get_mut(from as usize + 2) {
                *start += 1;
            }
        }
        let mut sum = 0;
        for start in &mut starts {
            sum += *start;
            *start = sum;
        }
        // Now starts[N + 1] is where the row of N begins; it moves to its end while the row is filled.
        let mut ends = vec![0; count];
        for (from, to) in pairs {
            if let Some(next) = starts.get_mut(from as usize + 1) {
                if let Some(end) = ends.get_mut(*next as usize) {
                    *end = to;
                }
                *next += 1;
            }
        }
        starts.pop();
        Self { starts, ends }
    }

    #[inline]
    fn of(&self, node: u32) -> &[u32] {
        match self.starts.get(node as usize..) {
            Some([start, end, ..]) => self.ends.get(*start as usize..*end as usize).unwrap_or(&[]),
            _ => &[],
        }
    }

    fn pairs(&self) -> impl Iterator<Item = (u32, u32)> + Clone + '_ {
        let rows = (0..).zip(self.starts.windows(2));
        rows.flat_map(|(from, _)| self.of(from).iter().map(move |to| (from, *to)))
    }
}

impl Base {
    fn new(nodes: usize, pairs: impl Iterator<Item = (u32, u32)> + Clone) -> Self {
        Self {
            along: Adjacency::new(nodes, pairs),
            against: OnceLock::new(),
        }
    }

    #[inline]
    fn way(&self, way: Way) -> &Adjacency {
        match way {
            Way::Along => &self.along,
            Way::Against => self.against.get_or_init(|| {
                let nodes = self.along.starts.len().saturating_sub(1);
                Adjacency::new(nodes, self.along.pairs().map(|(from, to)| (to, from)))
            }),
        }
    }
}

/// How many nodes or edges a graph takes.
pub const MOST: usize = u32::MAX as usize - 2;

impl Graph {
    /// A graph of `nodes` nodes; edges of other nodes are not in it.
    ///
    /// The direction against the edges is built at the first question that needs it: see `prepare`.
    #[must_use]
    pub fn new(nodes: u32, edges: &[(u32, u32)]) -> Self {
        let known = |edge: &&(u32, u32)| edge.0 < nodes && edge.1 < nodes;
        let pairs = edges.iter().filter(known).copied();
        Self {
            nodes,
            base: Arc::new(Base::new(nodes as usize, pairs)),
            recent: [Vec::new(), Vec::new()],
        }
    }

    /// Builds what would be built at the first question that needs it.
    #[must_use]
    pub fn prepared(self) -> Self {
        self.base.way(Way::Against);
        self
    }

    /// Whether to grow by so many nodes and edges builds the whole anew: now and then that has to be, and
    /// between two times as many are added as the square root of all, so that the cost is shared.
    #[must_use]
    pub fn is_full(&self, more: usize) -> bool {
        let recent = self.recent_nodes() + self.recent_edges() + more;
        let all = self.nodes() + self.edges();
        recent > 256 && recent > 4 * all.isqrt()
    }

    /// This graph with more nodes, `nodes` in all, and more edges, in any order.
    #[must_use]
    pub fn grown(&self, nodes: u32, edges: &[(u32, u32)]) -> Self {
        let nodes = nodes.max(self.nodes);
        let more = (nodes - self.nodes) as usize + edges.len();
        if self.is_full(more) {
            let old = self.base.along.pairs();
            let all: Vec<_> = old
                .chain(self.recent_way(Way::Along).iter().copied())
                .chain(edges.iter().copied())
                .collect();
            return Self::new(nodes, &all).prepared();
        }
        let known = edges.iter().filter(|edge| edge.0 < nodes && edge.1 < nodes);
        let known: Vec<_> = known.copied().collect();
        let [along, against] = &self.recent;
        let reversed = known.iter().map(|(from, to)| (*to, *from));
        Self {
            nodes,
            base: Arc::clone(&self.base),
            recent: [
                merged(along, known.iter().copied()),
                merged(against, reversed),
            ],
        }
    }

    /// Whether all is in one piece, and nothing added since that was built.
    #[must_use]
    pub fn is_compact(&self) -> bool {
        self.recent_nodes() + self.recent_edges() == 0
    }

    /// How many nodes there are.
    #[must_use]
    pub const fn nodes(&self) -> usize {
        self.nodes as usize
    }

    /// How many edges there are.
    #[must_use]
    pub fn edges(&self) -> usize {
        self.base.along.ends.len() + self.recent_edges()
    }

    fn recent_nodes(&self) -> usize {
        (self.nodes() + 1).saturating_sub(self.base.along.starts.len().max(1))
    }

    fn recent_edges(&self) -> usize {
        let [along, _] = &self.recent;
        along.len()
    }

    #[inline]
    fn recent_way(&self, way: Way) -> &Vec<(u32, u32)> {
        let [along, against] = &self.recent;
        match way {
            Way::Along => along,
            Way::Against => against,
        }
    }

    #[inline]
    fn rows(&self, way: Way) -> Rows<'_> {
        Rows {
            bulk: self.base.way(way),
            recent: self.recent_way(way),
        }
    }
}

/// The neighbours of all nodes in one direction.
#[derive(Clone, Copy)]
struct Rows<'a> {
    bulk: &'a Adjacency,
    recent: &'a [(u32, u32)],
}

/// The neighbours of a node, each as often as there is an edge.
#[derive(Clone, Copy)]
struct Row<'a> {
    bulk: &'a [u32],
    recent: &'a [(u32, u32)],
}

impl<'a> Rows<'a> {
    #[inline]
    fn of(self, node: u32) -> Row<'a> {
        Row {
            bulk: self.bulk.of(node),
            recent: match self.recent {
                [] => &[],
                recent => recent_of(recent, node),
            },
        }
    }
}

impl<'a> Row<'a> {
    #[inline]
    const fn len(self) -> usize {
        self.bulk.len() + self.recent.len()
    }

    /// Best consumed from inside (`for_each`, `filter`, `min`): that makes two plain loops.
    #[inline]
    fn iter(self) -> impl Iterator<Item = u32> + 'a {
        let recent = self.recent.iter().map(|(_, to)| *to);
        self.bulk.iter().copied().chain(recent)
    }
}

fn recent_of(recent: &[(u32, u32)], node: u32) -> &[(u32, u32)] {
    let start = recent.partition_point(|pair| pair.0 < node);
    let row = recent.get(start..).unwrap_or(&[]);
    row.get(..row.partition_point(|pair| pair.0 == node))
        .unwrap_or(&[])
}

/// The sort sees that the most of it is sorted already.
fn merged(
    pairs: &[(u32, u32)],
    more: impl ExactSizeIterator<Item = (u32, u32)>,
) -> Vec<(u32, u32)> {
    let mut all = Vec::with_capacity(pairs.len() + more.len());
    all.extend_from_slice(pairs);
    all.extend(more);
    all.sort();
    all
}
