//! Graphs against petgraph, an independent implementation.
#![allow(clippy::indexing_slicing, reason = "numbers of nodes that are there")]

use esdb_core::graph::{Budget, Graph, Reached, Way};
use petgraph::algo::{
    connected_components, dijkstra, has_path_connecting, is_cyclic_directed, toposort,
};
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::{Bfs, Reversed, Walker};
use proptest::prelude::*;

type Edges = Vec<(u32, u32)>;

fn graphs() -> impl Strategy<Value = (u32, Edges)> {
    (1_u32..120).prop_flat_map(|nodes| {
        let any = prop::collection::vec((0..nodes, 0..nodes), 0..240);
        // Without a cycle, as causation is.
        let forward = any.clone().prop_map(|edges| {
            let ordered = edges.into_iter().map(|(a, b)| (a.min(b), a.max(b)));
            ordered.filter(|(a, b)| a != b).collect::<Edges>()
        });
        (Just(nodes), prop_oneof![any, forward])
    })
}

fn theirs(nodes: u32, edges: &Edges) -> DiGraph<(), ()> {
    let mut graph = DiGraph::new();
    for _ in 0..nodes {
        graph.add_node(());
    }
    graph.extend_with_edges(edges);
    graph
}

fn numbers(walk: impl Iterator<Item = NodeIndex>, but: u32) -> Vec<u32> {
    let mut found: Vec<u32> = walk.map(|node| node.index() as u32).collect();
    found.retain(|node| *node != but);
    found.sort_unstable();
    found
}

proptest! {
    #[test]
    fn whole_graphs((nodes, edges) in graphs()) {
        let (ours, theirs) = (Graph::new(nodes, &edges), theirs(nodes, &edges));
        prop_assert_eq!(ours.has_cycle(), is_cyclic_directed(&theirs));
        prop_assert_eq!(ours.topological().is_some(), toposort(&theirs, None).is_ok());
        prop_assert_eq!(ours.components().len(), connected_components(&theirs));
        if let Some(order) = ours.topological() {
            let place = |node: u32| order.iter().position(|other| *other == node);
            prop_assert!(edges.iter().all(|(from, to)| place(*from) < place(*to)));
        }
        if let (Some(path), Ok(order)) = (ours.longest(), toposort(&theirs, None)) {
            // The length of the longest path to each node, in their order.
            let mut lengths = vec![1; nodes as usize];
            for node in order {
                for next in theirs.neighbors(node) {
                    lengths[next.index()] = lengths[next.index()].max(lengths[node.index()] + 1);
                }
            }
            prop_assert_eq!(path.len(), lengths.into_iter().max().unwrap_or(0));
            prop_assert!(path.windows(2).all(|step| edges.contains(&(step[0], step[1]))));
        }
    }

    #[test]
    fn walks((nodes, edges) in graphs(), from in 0_u32..120, to in 0_u32..120) {
        let (from, to) = (from % nodes, to % nodes);
        let (ours, theirs) = (Graph::new(nodes, &edges), theirs(nodes, &edges));
        let (start, end) = (NodeIndex::new(from as usize), NodeIndex::new(to as usize));
        let reached = |way| {
            let reached = ours.reached(from, way, &Budget::endless());
            reached.map(Reached::in_order)
        };
        let along = Bfs::new(&theirs, start).iter(&theirs);
        prop_assert_eq!(reached(Way::Along), Some(numbers(along, from)));
        let against = Reversed(&theirs);
        let against = Bfs::new(against, start).iter(against);
        prop_assert_eq!(reached(Way::Against), Some(numbers(against, from)));
        let leads = has_path_connecting(&theirs, start, end, None);
        prop_assert_eq!(ours.has_path(from, to, &Budget::endless()), Some(leads));
        let distance = dijkstra(&theirs, start, Some(end), |_| 1).get(&end).copied();
        let shortest = ours.shortest(from, to, &Budget::endless()).flatten();
        prop_assert_eq!(shortest.map(|path| path.len() - 1), distance);
    }
}
