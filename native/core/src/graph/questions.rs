//! What a graph is asked.

use super::bits::{Bits, Queue};
use super::table::Table;
use super::{Graph, Rows, Stats, Way};
use std::cell::Cell;

/// The nodes that a walk came to, without the one it started from.
#[derive(Debug)]
pub struct Reached {
    /// As the walk came to them.
    found: Vec<u32>,
    /// These and the start.
    seen: Seen,
    start: u32,
}

impl Reached {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.found.len()
    }

    /// The nodes, in node order.
    #[must_use]
    pub fn in_order(mut self) -> Vec<u32> {
        match self.seen {
            // To look through all bits takes less than to sort many, and more than to sort few.
            Seen::Dense(mut bits) if self.found.len() >= bits.words() / 16 => {
                bits.remove(self.start);
                self.found.clear();
                self.found.extend(bits.iter());
            }
            _ => self.found.sort_unstable(),
        }
        self.found
    }

    fn contains(&self, node: u32) -> bool {
        node != self.start && self.seen.contains(node)
    }
}

/// Nodes that a walk came to. A short walk through a very large graph pays for its own length only.
#[derive(Debug)]
enum Seen {
    Dense(Bits),
    Sparse(Table),
}

impl Seen {
    /// 2^20 bits are cleared in some microseconds.
    const DENSE: usize = 1 << 20;

    fn new(nodes: usize, budget: &Budget) -> Self {
        if nodes > Self::DENSE && budget.is_short() {
            Self::Sparse(Table::default())
        } else {
            Self::Dense(Bits::new(nodes))
        }
    }

    #[inline]
    fn insert(&mut self, node: u32) -> bool {
        match self {
            Self::Dense(bits) => bits.insert(node),
            Self::Sparse(table) => table.find_or_insert(node, node, |_| true).is_none(),
        }
    }

    #[inline]
    fn contains(&self, node: u32) -> bool {
        match self {
            Self::Dense(bits) => bits.contains(node),
            Self::Sparse(table) => table.find(node, |_| true).is_some(),
        }
    }
}

/// A number for each node, at first 0; of few nodes or of all, as with `Seen`.
enum Levels {
    Dense(Vec<u32>),
    Sparse(Table),
}

impl Levels {
    const DENSE: usize = 1 << 15;

    fn new(nodes: usize, budget: &Budget) -> Self {
        if nodes > Self::DENSE && budget.is_short() {
            Self::Sparse(Table::default())
        } else {
            Self::Dense(vec![0; nodes])
        }
    }

    #[inline]
    fn get(&self, node: u32) -> u32 {
        match self {
            Self::Dense(levels) => get(levels, node),
            Self::Sparse(table) => table.find(node, |_| true).unwrap_or(0),
        }
    }

    /// Only where it is 0.
    #[inline]
    fn set(&mut self, node: u32, level: u32) {
        match self {
            Self::Dense(levels) => set(levels, node, level),
            Self::Sparse(table) => {
                table.find_or_insert(node, level, |_| true);
            }
        }
    }
}

/// A bound on the steps of a question: `None` from a function that takes one means that it was not enough.
#[derive(Clone, Debug)]
pub struct Budget {
    steps: usize,
    left: Cell<usize>,
}

impl Budget {
    /// So many edges.
    #[must_use]
    pub const fn edges(steps: usize) -> Self {
        let left = Cell::new(steps);
        Self { steps, left }
    }

    /// Never too few.
    #[must_use]
    pub const fn endless() -> Self {
        Self::edges(usize::MAX)
    }

    /// How much of it is gone.
    #[must_use]
    pub fn spent(&self) -> usize {
        self.steps - self.left.get()
    }

    const fn is_short(&self) -> bool {
        self.steps < usize::MAX
    }

    #[inline]
    fn spend(&self, steps: usize) -> Option<()> {
        self.left.set(self.left.get().checked_sub(steps)?);
        Some(())
    }
}

impl Graph {
    /// The nodes that have no edge in this direction, in node order: `Against` gives the roots.
    #[must_use]
    pub fn ends(&self, way: Way) -> Vec<u32> {
        if way == Way::Against {
            return (0..)
                .zip(self.in_degrees())
                .filter(|(_, degree)| *degree == 0)
                .map(|(n, _)| n)
                .collect();
        }
        let rows = self.rows(way);
        let all = 0..self.nodes;
        all.filter(|node| rows.of(*node).len() == 0).collect()
    }

    /// All nodes, each after those that lead to it; of the nodes that are ready the first in node order comes
    /// first. `None` if there is a cycle. (Kahn 1962.)
    #[must_use]
    pub fn topological(&self) -> Option<Vec<u32>> {
        let mut waits = self.in_degrees();
        let mut ready = Queue::new(self.nodes());
        for (node, _) in (0..).zip(&waits).filter(|(_, count)| **count == 0) {
            ready.push(node);
        }
        let mut order = Vec::with_capacity(self.nodes());
        let rows = self.rows(Way::Along);
        while let Some(node) = ready.pop() {
            order.push(node);
            rows.of(node).iter().for_each(|next| {
                if is_last(&mut waits, next) {
                    ready.push(next);
                }
            });
        }
        (order.len() == self.nodes()).then_some(order)
    }

    /// The nodes in some topological order, as far as they are not on or after a cycle, and for each node how
    /// many edges still lead to it.
    fn peeled(&self) -> (Vec<u32>, Vec<u32>) {
        let mut waits = self.in_degrees();
        let roots = (0..).zip(&waits).filter(|(_, count)| **count == 0);
        let mut order: Vec<u32> = roots.map(|(node, _)| node).collect();
        let mut at = 0;
        let rows = self.rows(Way::Along);
        while let Some(node) = order.get(at).copied() {
            at += 1;
            rows.of(node).iter().for_each(|next| {
                if is_last(&mut waits, next) {
                    order.push(next);
                }
            });
        }
        (order, waits)
    }

    /// Whether there is a cycle; an edge from a node to itself is one.
    #[must_use]
    pub fn has_cycle(&self) -> bool {
        self.peeled().0.len() < self.nodes()
    }

    /// A cycle, from that of its nodes on which comes first in node order, along the edges.
    ///
    /// Nodes that nothing leads to are taken away until there are none; each node left has one left that leads
    /// to it. From the first one left the walk goes back, always to the first in node order, until it comes to a
    /// node for the second time.
    #[must_use]
    pub fn cycle(&self) -> Option<Vec<u32>> {
        let (_, waits) = self.peeled();
        let left = |node: &u32| waits.get(*node as usize).is_some_and(|count| *count > 0);
        let mut seen = Bits::new(self.nodes());
        let mut walk = Vec::new();
        let mut node = (0..self.nodes).find(left)?;
        let rows = self.rows(Way::Against);
        while seen.insert(node) {
            walk.push(node);
            node = rows.of(node).iter().filter(left).min()?;
        }
        let mut cycle: Vec<u32> = walk
            .into_iter()
            .skip_while(|known| *known != node)
            .collect();
        cycle.reverse();
        let first = cycle.iter().zip(0..).min().map_or(0, |(_, at)| at);
        cycle.rotate_left(first);
        Some(cycle)
    }

    /// Counts, and the depth: breadth first, from all roots at once.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let roots = self.ends(Way::Against);
        Stats {
            nodes: self.nodes(),
            edges: self.edges(),
            roots: roots.len(),
            leaves: self.ends(Way::Along).len(),
            depth: self.depth(roots),
        }
    }

    fn depth(&self, mut level: Vec<u32>) -> usize {
        let mut seen = Bits::new(self.nodes());
        let mut depth = 0;
        let mut next = Vec::new();
        let rows = self.rows(Way::Along);
        // Roots are not marked: nothing leads to them.
        loop {
            for node in level.drain(..) {
                let fresh = rows.of(node).iter().filter(|node| seen.insert(*node));
                fresh.for_each(|node| next.push(node));
            }
            if next.is_empty() {
                return depth;
            }
            depth += 1;
            std::mem::swap(&mut level, &mut next);
        }
    }

    /// All that can be reached from a node, without itself.
    #[must_use]
    pub fn reached(&self, start: u32, way: Way, budget: &Budget) -> Option<Reached> {
        let mut seen = Seen::new(self.nodes(), budget);
        let mut found = vec![start];
        let mut at = 0;
        seen.insert(start);
        let rows = self.rows(way);
        while let Some(node) = found.get(at).copied() {
            at += 1;
            let row = rows.of(node);
            budget.spend(1 + row.len())?;
            let fresh = row.iter().filter(|next| seen.insert(*next));
            fresh.for_each(|next| found.push(next));
        }
        found.swap_remove(0);
        Some(Reached { found, seen, start })
    }

    /// What both nodes can be reached from, in node order.
    #[must_use]
    pub fn common(&self, one: u32, other: u32, way: Way, budget: &Budget) -> Option<Vec<u32>> {
        let one = self.reached(one, way, budget)?;
        let mut both = self.reached(other, way, budget)?.in_order();
        both.retain(|node| one.contains(*node));
        Some(both)
    }

    /// Whether the edges lead from one node to another; a node leads to itself.
    ///
    /// Searched from both sides, always the one with fewer nodes to go on from.
    #[must_use]
    pub fn has_path(&self, from: u32, to: u32, budget: &Budget) -> Option<bool> {
        if from == to {
            return Some(true);
        }
        let mut sides = [
            Side::new(self, Way::Along, from, budget),
            Side::new(self, Way::Against, to, budget),
        ];
        loop {
            let [one, other] = &mut sides;
            let Some(node) = one.open.pop() else {
                return Some(false);
            };
            let row = one.rows.of(node);
            budget.spend(1 + row.len())?;
            if row.iter().any(|next| other.seen.contains(next)) {
                return Some(true);
            }
            let fresh = row.iter().filter(|next| one.seen.insert(*next));
            fresh.for_each(|next| one.open.push(next));
            if one.open.len() > other.open.len() {
                sides.reverse();
            }
        }
    }

    /// A shortest path, both ends included; of the shortest ones the one whose second node is the first in node
    /// order, then the third, and so on. `Some(None)` if there is no path.
    #[must_use]
    pub fn shortest(&self, from: u32, to: u32, budget: &Budget) -> Option<Option<Vec<u32>>> {
        // Distances to the end, + 1; searched from the end, so that the choice can be made from the start.
        let mut far = Levels::new(self.nodes(), budget);
        let mut level = vec![to];
        let mut distance = 1;
        far.set(to, distance);
        let rows = self.rows(Way::Against);
        while far.get(from) == 0 {
            let mut before = Vec::new();
            distance += 1;
            for node in level {
                let row = rows.of(node);
                budget.spend(1 + row.len())?;
                row.iter().for_each(|next| {
                    if far.get(next) == 0 {
                        far.set(next, distance);
                        before.push(next);
                    }
                });
            }
            if before.is_empty() {
                return Some(None);
            }
            level = before;
        }
        self.descent(from, &far, budget).map(Some)
    }

    /// The longest path, both ends included; of the longest ones the one whose first node is the first in node
    /// order, then the second, and so on. `None` if there is a cycle.
    #[must_use]
    pub fn longest(&self) -> Option<Vec<u32>> {
        let (order, _) = self.peeled();
        if order.len() < self.nodes() {
            return None;
        }
        let mut height = vec![0_u32; self.nodes()];
        let rows = self.rows(Way::Along);
        for node in order.into_iter().rev() {
            let below = rows.of(node).iter();
            let highest = below.map(|next| get(&height, next)).max();
            set(&mut height, node, highest.unwrap_or(0) + 1);
        }
        let highest = height.iter().max();
        let Some((start, _)) = (0..).zip(&height).find(|(_, h)| Some(*h) == highest) else {
            return Some(Vec::new());
        };
        self.descent(start, &Levels::Dense(height), &Budget::endless())
    }

    /// From a node down to level 1, each step one level down, to the first in node order.
    fn descent(&self, start: u32, levels: &Levels, budget: &Budget) -> Option<Vec<u32>> {
        let mut path = vec![start];
        let mut node = start;
        let mut level = levels.get(start);
        let rows = self.rows(Way::Along);
        while level > 1 {
            level -= 1;
            let row = rows.of(node);
            budget.spend(1 + row.len())?;
            let below = row.iter();
            node = below.filter(|next| levels.get(*next) == level).min()?;
            path.push(node);
        }
        Some(path)
    }

    /// The nodes that hang together, whichever way the edges point: each part in node order, the parts in the
    /// order of their first nodes.
    #[must_use]
    pub fn components(&self) -> Vec<Vec<u32>> {
        // parent[N] <= N, and N = parent[N] in the first node of each part.
        let mut parent: Vec<u32> = (0..self.nodes).collect();
        let rows = self.rows(Way::Along);
        for from in 0..self.nodes {
            rows.of(from).iter().for_each(|to| {
                let (a, b) = (first(&mut parent, from), first(&mut parent, to));
                set(&mut parent, a.max(b), a.min(b));
            });
        }
        let mut parts: Vec<Vec<u32>> = Vec::new();
        let mut part_of = vec![0_usize; self.nodes()];
        for node in 0..self.nodes {
            let top = first(&mut parent, node);
            if top == node {
                if let Some(part) = part_of.get_mut(node as usize) {
                    *part = parts.len();
                }
                parts.push(vec![node]);
            } else {
                let part = part_of.get(top as usize).copied().unwrap_or(0);
                if let Some(nodes) = parts.get_mut(part) {
                    nodes.push(node);
                }
            }
        }
        parts
    }

    fn in_degrees(&self) -> Vec<u32> {
        let mut degrees = vec![0_u32; self.nodes()];
        let recent = self.recent_way(Way::Along).iter().map(|(_, to)| to);
        for to in self.base.along.ends.iter().chain(recent) {
            if let Some(degree) = degrees.get_mut(*to as usize) {
                *degree += 1;
            }
        }
        degrees
    }
}

/// One of the two searches that look for each other.
struct Side<'a> {
    rows: Rows<'a>,
    seen: Seen,
    open: Vec<u32>,
}

impl<'a> Side<'a> {
    fn new(graph: &'a Graph, way: Way, start: u32, budget: &Budget) -> Self {
        let mut seen = Seen::new(graph.nodes(), budget);
        seen.insert(start);
        Self {
            rows: graph.rows(way),
            seen,
            open: vec![start],
        }
    }
}

/// Whether this was the last edge that a node waited for.
#[inline]
fn is_last(waits: &mut [u32], node: u32) -> bool {
    match waits.get_mut(node as usize) {
        Some(count) => {
            *count = count.wrapping_sub(1);
            *count == 0
        }
        None => false,
    }
}

/// The first node of the part that a node belongs to, as known so far; shortens the way there by halves
/// (Tarjan and van Leeuwen 1984).
fn first(parent: &mut [u32], mut node: u32) -> u32 {
    loop {
        let above = get(parent, node);
        if above == node {
            return node;
        }
        let top = get(parent, above);
        set(parent, node, top);
        node = top;
    }
}

#[inline]
fn get(values: &[u32], node: u32) -> u32 {
    values.get(node as usize).copied().unwrap_or(0)
}

#[inline]
fn set(values: &mut [u32], node: u32, value: u32) {
    if let Some(place) = values.get_mut(node as usize) {
        *place = value;
    }
}
