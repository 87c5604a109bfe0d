//! Graphs against a reference that is too simple to be wrong: the closure of the edges as a matrix.

use esdb_core::graph::bits::{Bits, Queue};
use esdb_core::graph::table::Table;
use esdb_core::graph::{Budget, Graph, Reached, Way};
use proptest::prelude::*;
use std::collections::BTreeSet;

type Edges = Vec<(u32, u32)>;

fn graphs() -> impl Strategy<Value = (u32, Edges, Edges)> {
    (1_u32..20).prop_flat_map(|nodes| {
        let edges = || prop::collection::vec((0..nodes + 2, 0..nodes + 2), 0..30);
        (Just(nodes), edges(), edges())
    })
}

/// What each node leads to over one edge or more.
fn closure(nodes: u32, edges: &Edges) -> BTreeSet<(u32, u32)> {
    let known = |edge: &&(u32, u32)| edge.0 < nodes && edge.1 < nodes;
    let mut closed: BTreeSet<(u32, u32)> = edges.iter().filter(known).copied().collect();
    for via in 0..nodes {
        for from in 0..nodes {
            for to in 0..nodes {
                if closed.contains(&(from, via)) && closed.contains(&(via, to)) {
                    closed.insert((from, to));
                }
            }
        }
    }
    closed
}

fn agrees(graph: &Graph, nodes: u32, edges: &Edges) {
    let closed = closure(nodes, edges);
    let leads = |from, to| closed.contains(&(from, to));
    let cyclic = (0..nodes).any(|node| leads(node, node));
    assert_eq!(graph.has_cycle(), cyclic);
    assert_eq!(graph.cycle().is_some(), cyclic);
    assert_eq!(graph.topological().is_none(), cyclic);
    assert_eq!(graph.longest().is_none(), cyclic);
    if let Some(cycle) = graph.cycle() {
        let steps = cycle.iter().zip(cycle.iter().cycle().skip(1));
        assert!(
            steps
                .map(|(a, b)| (*a, *b))
                .all(|step| edges.contains(&step))
        );
    }
    for from in 0..nodes {
        let reached = graph.reached(from, Way::Along, &Budget::endless());
        let expected: Vec<u32> = (0..nodes)
            .filter(|to| *to != from && leads(from, *to))
            .collect();
        assert_eq!(reached.map(Reached::in_order), Some(expected));
        for to in 0..nodes {
            let has_path = from == to || leads(from, to);
            assert_eq!(graph.has_path(from, to, &Budget::endless()), Some(has_path));
            let path = graph.shortest(from, to, &Budget::endless());
            assert_eq!(path.map(|path| path.is_some()), Some(has_path));
        }
    }
}

proptest! {
    #[test]
    fn a_graph_and_one_that_grew_agree_with_the_closure((nodes, old, new) in graphs()) {
        agrees(&Graph::new(nodes, &old), nodes, &old);
        let half = nodes / 2;
        let known: Edges = old.iter().filter(|(a, b)| *a < half && *b < half).copied().collect();
        let grown = Graph::new(half, &old).prepared().grown(nodes, &new);
        agrees(&grown, nodes, &[known, new].concat());
    }

    #[test]
    fn the_table_is_a_map(hashes in prop::collection::vec(0_u32..50, 0..200)) {
        // Ids are numbers below 50, of which some share their hash.
        let mut table = Table::default();
        let mut ids: Vec<u32> = Vec::new();
        for id in hashes {
            let known = ids.iter().zip(0..).find(|(other, _)| **other == id).map(|(_, at)| at);
            let found = table.find_or_insert(id / 3, ids.len() as u32, |at| ids.get(at as usize) == Some(&id));
            prop_assert_eq!(found, known);
            if known.is_none() {
                ids.push(id);
            }
            prop_assert_eq!(table.len(), ids.len());
        }
    }

    #[test]
    fn the_queue_gives_the_smallest_first(indices in prop::collection::vec(0_u32..5_000, 0..300)) {
        let mut queue = Queue::new(5_000);
        let mut sorted = BTreeSet::new();
        for (at, index) in indices.iter().enumerate() {
            queue.push(*index);
            sorted.insert(*index);
            if at % 3 == 0 {
                prop_assert_eq!(queue.pop(), sorted.pop_first());
            }
        }
        while let Some(smallest) = sorted.pop_first() {
            prop_assert_eq!(queue.pop(), Some(smallest));
        }
        prop_assert_eq!(queue.pop(), None);
    }

    #[test]
    fn bits_are_a_set(indices in prop::collection::vec(0_u32..200, 0..100)) {
        let mut bits = Bits::new(150);
        for index in &indices {
            bits.insert(*index);
        }
        let expected: BTreeSet<u32> = indices.into_iter().filter(|index| *index < 192).collect();
        prop_assert_eq!(bits.iter().collect::<Vec<_>>(), expected.into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn a_graph_that_grows_node_by_node_is_the_one_built_at_once() {
    let edges: Edges = (1..3_000).map(|node| (node / 2, node)).collect();
    let mut grown = Graph::new(1, &[]).prepared();
    for (count, edge) in (2..).zip(&edges) {
        grown = grown.grown(count, &[*edge]);
    }
    let built = Graph::new(3_000, &edges);
    assert_eq!(grown.stats(), built.stats());
    assert_eq!(grown.topological(), built.topological());
    assert_eq!(grown.longest(), built.longest());
    assert_eq!(grown.components(), built.components());
}

#[test]
fn a_budget_that_is_too_small_is_told() {
    let edges: Edges = (1..1_000).map(|node| (node - 1, node)).collect();
    let graph = Graph::new(1_000, &edges);
    assert!(graph.reached(0, Way::Along, &Budget::edges(100)).is_none());
    assert!(graph.has_path(0, 999, &Budget::edges(100)).is_none());
    assert!(graph.shortest(0, 999, &Budget::edges(100)).is_none());
    assert!(
        graph
            .common(999, 998, Way::Against, &Budget::edges(100))
            .is_none()
    );
    assert_eq!(graph.has_path(3, 5, &Budget::edges(100)), Some(true));
}

#[test]
fn a_short_walk_through_a_very_large_graph_is_the_same() {
    // Larger than what is walked with a bit for each node.
    let nodes = (1 << 20) + 100;
    let edges: Edges = (0..2_000)
        .map(|n| (n * 7 % 900, n * 11 % 1_000 + nodes - 1_000))
        .chain((0..900).map(|n| (n + nodes - 1_000, n + 1)))
        .collect();
    let graph = Graph::new(nodes, &edges);
    let short = &Budget::edges(usize::MAX - 1);
    let list = |reached: Option<Reached>| reached.map(Reached::in_order);
    for from in (0..900).step_by(17) {
        for way in [Way::Along, Way::Against] {
            let expected = list(graph.reached(from, way, &Budget::endless()));
            assert_eq!(list(graph.reached(from, way, short)), expected);
        }
        for to in (nodes - 1_000..nodes).step_by(91) {
            let expected = graph.has_path(from, to, &Budget::endless());
            assert_eq!(graph.has_path(from, to, short), expected);
            let expected = graph.shortest(from, to, &Budget::endless());
            assert_eq!(graph.shortest(from, to, short), expected);
            let expected = graph.common(from, to, Way::Against, &Budget::endless());
            assert_eq!(graph.common(from, to, Way::Against, short), expected);
        }
    }
}
