//! All templates and prefixes of a table, as one tree of segments.
//!
//! Promise: a lookup visits the nodes that match the path and no others: the cost grows with the depth of
//! the path and with how many templates match it, not with how many there are. The one exception are
//! parameters with text around them, which are tried one by one where they stand side by side.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};

use super::hash::ConfigMap;
use super::index::Visit;
use super::order::{Candidate, Leaf};
use super::path::{End, Template, first_segment};
use super::segment::{Segment, Shape};

/// Every host has its own root in it.
#[derive(Debug, Default)]
pub(super) struct Trie {
    nodes: Vec<Node>,
    /// Where a text leads from a node, for those with several such edges. One map for all of them.
    edges: ConfigMap<(NodeId, Box<str>), Edges>,
    /// To find the node of an equal enum again while building.
    by_texts: HashMap<(NodeId, Vec<Box<str>>), NodeId>,
}

/// A number of a node.
pub(super) type NodeId = u32;

/// Where one text leads.
#[derive(Debug, Default)]
struct Edges {
    literal: Option<NodeId>,
    /// An enum has an edge for each of its texts; several enums may share a text.
    enums: Vec<NodeId>,
}

/// A key of `edges`, owned or borrowed: so that looking up does not make a `Box<str>`.
trait EdgeKey {
    fn parts(&self) -> (NodeId, &str);
}

impl EdgeKey for (NodeId, Box<str>) {
    fn parts(&self) -> (NodeId, &str) {
        (self.0, &self.1)
    }
}

impl EdgeKey for (NodeId, &str) {
    fn parts(&self) -> (NodeId, &str) {
        *self
    }
}

impl<'a> Borrow<dyn EdgeKey + 'a> for (NodeId, Box<str>) {
    fn borrow(&self) -> &(dyn EdgeKey + 'a) {
        self
    }
}

impl Hash for dyn EdgeKey + '_ {
    fn hash<H: Hasher>(&self, to: &mut H) {
        // As the tuple does it: std's Borrow asks for the same hash.
        self.parts().hash(to);
    }
}

impl PartialEq for dyn EdgeKey + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for dyn EdgeKey + '_ {}

#[derive(Debug)]
struct Node {
    /// The best rank at or below this node.
    best: u32,
    texts: Texts,
    captures: Vec<(Shape, NodeId)>,
    /// Routes whose template ends here; goes on with a tail; goes on with anything.
    here: Leaf,
    tail: Leaf,
    prefix: Leaf,
}

/// Where texts lead from a node.
#[derive(Debug)]
enum Texts {
    Nowhere,
    /// Nearly all nodes: kept here, because a look into the map is two or three misses of the cache more.
    One(Box<str>, NodeId),
    /// See `edges` of the trie.
    Many,
}

impl Trie {
    /// A new root.
    pub(super) fn root(&mut self) -> NodeId {
        let node = Node {
            best: u32::MAX,
            texts: Texts::Nowhere,
            captures: Vec::new(),
            here: Leaf::new(),
            tail: Leaf::new(),
            prefix: Leaf::new(),
        };
        self.nodes.push(node);
        self.nodes.len() as u32 - 1
    }

    /// Adds a route. Candidates must come in the order of their ranks.
    pub(super) fn add(&mut self, root: NodeId, template: &Template, candidate: Candidate) {
        let mut at = root;
        self.node(at).best = self.node(at).best.min(candidate.rank);
        for segment in &template.segments {
            if matches!(segment, Segment::Tail { .. }) {
                break;
            }
            at = self.child(at, segment);
            self.node(at).best = self.node(at).best.min(candidate.rank);
        }
        self.leaf_mut(at, template.end).push(candidate);
    }

    fn node(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id as usize]
    }

    fn leaf_mut(&mut self, id: NodeId, end: End) -> &mut Leaf {
        let node = self.node(id);
        match end {
            End::Here => &mut node.here,
            End::Tail => &mut node.tail,
            End::Prefix => &mut node.prefix,
        }
    }

    fn child(&mut self, at: NodeId, segment: &Segment) -> NodeId {
        match segment {
            Segment::Literal(text) => {
                if let Some(child) = self.literal(at, text) {
                    return child;
                }
                let child = self.root();
                if let Texts::Nowhere = self.node(at).texts {
                    self.node(at).texts = Texts::One(text.clone(), child);
                } else {
                    self.edges_mut(at, text).literal = Some(child);
                }
                child
            }
            Segment::Enum { texts, .. } => self.enum_child(at, texts),
            Segment::Capture { shape, .. } => {
                if let Some((_, child)) = self.node(at).captures.iter().find(|(other, _)| other == shape) {
                    return *child;
                }
                let child = self.root();
                self.node(at).captures.push((shape.clone(), child));
                child
            }
            // A tail is no edge: `add` stops before it.
            Segment::Tail { .. } => at,
        }
    }

    fn enum_child(&mut self, at: NodeId, texts: &[Box<str>]) -> NodeId {
        let key = (at, texts.to_vec());
        if let Some(&child) = self.by_texts.get(&key) {
            return child;
        }
        let child = self.root();
        for text in texts {
            self.edges_mut(at, text).enums.push(child);
        }
        self.by_texts.insert(key, child);
        child
    }

    /// Where a text leads from a node that has, from now on, its edges in the map.
    fn edges_mut(&mut self, at: NodeId, text: &str) -> &mut Edges {
        if let Texts::One(only, child) = std::mem::replace(&mut self.node(at).texts, Texts::Many) {
            self.edges.entry((at, only)).or_default().literal = Some(child);
        }
        self.edges.entry((at, text.into())).or_default()
    }

    fn literal(&self, at: NodeId, text: &str) -> Option<NodeId> {
        match &self.nodes[at as usize].texts {
            Texts::Nowhere => None,
            Texts::One(only, child) => (**only == *text).then_some(*child),
            Texts::Many => self.edges_of(at, text)?.literal,
        }
    }

    fn edges_of(&self, at: NodeId, text: &str) -> Option<&Edges> {
        self.edges.get(&(at, text) as &dyn EdgeKey)
    }

    /// Shows every leaf that matches the path.
    pub(super) fn walk(&self, root: NodeId, path: &str, visit: &mut impl Visit) {
        match path.strip_prefix('/') {
            Some(rest) => self.descend(root, Some(rest), visit),
            // "*" and "": only the prefix of everything.
            None => visit.leaf(self.nodes[root as usize].prefix.all()),
        }
    }

    /// `rest` is what follows the slash after the segments so far; `None` when the path ended with them.
    fn descend(&self, at: NodeId, rest: Option<&str>, visit: &mut impl Visit) {
        let node = &self.nodes[at as usize];
        if node.best >= visit.limit() {
            return;
        }
        visit.leaf(node.prefix.all());
        let Some(rest) = rest else { return visit.leaf(node.here.all()) };
        if !rest.is_empty() {
            visit.leaf(node.tail.all());
        }
        let (first, after) = first_segment(rest);
        match &node.texts {
            Texts::Nowhere => {}
            Texts::One(only, child) => {
                if **only == *first {
                    self.descend(*child, after, visit);
                }
            }
            Texts::Many => {
                let edges = self.edges_of(at, first);
                for &child in edges.into_iter().flat_map(|edges| edges.literal.iter().chain(&edges.enums)) {
                    self.descend(child, after, visit);
                }
            }
        }
        for (shape, child) in &node.captures {
            if shape.value(first).is_some() {
                self.descend(*child, after, visit);
            }
        }
    }

    /// The candidates of every template that is as specific as this one and can match the same path.
    pub(super) fn alike<'a>(&'a self, root: NodeId, template: &Template) -> Vec<&'a [Candidate]> {
        let mut nodes = vec![root];
        for segment in &template.segments {
            let mut next: Vec<NodeId> =
                nodes.iter().flat_map(|&at| self.alike_children(at, segment)).collect();
            next.sort_unstable();
            next.dedup();
            nodes = next;
        }
        let leaves = nodes.iter().map(|&at| &self.nodes[at as usize]).map(|node| match template.end {
            End::Here => node.here.all(),
            End::Tail => node.tail.all(),
            End::Prefix => node.prefix.all(),
        });
        leaves.filter(|leaf| !leaf.is_empty()).collect()
    }

    fn alike_children(&self, at: NodeId, segment: &Segment) -> Vec<NodeId> {
        match segment {
            Segment::Literal(text) => self.literal(at, text).into_iter().collect(),
            Segment::Enum { texts, .. } => texts
                .iter()
                .filter_map(|text| self.edges_of(at, text))
                .flat_map(|edges| &edges.enums)
                .copied()
                .collect(),
            Segment::Capture { shape, .. } => {
                let around = |shape: &Shape| (shape.before.len() + shape.after.len(), shape.kind);
                let same = |other: &Shape| around(other) == around(shape) && other.overlaps(shape);
                let captures = &self.nodes[at as usize].captures;
                captures.iter().filter(|(other, _)| same(other)).map(|(_, child)| *child).collect()
            }
            Segment::Tail { .. } => vec![at],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::{At, Problems};
    use crate::route::Match;
    use crate::route::order::Beyond;
    use crate::route::path::{Form, Path};

    struct All(Vec<u32>);

    impl Visit for All {
        fn limit(&self) -> u32 {
            u32::MAX
        }
        fn leaf(&mut self, leaf: &[Candidate]) {
            self.0.extend(leaf.iter().map(|candidate| candidate.route));
        }
        fn locations<'l>(&mut self, leaves: impl Iterator<Item = &'l [Candidate]>) {
            leaves.for_each(|leaf| self.leaf(leaf));
        }
    }

    fn template(text: &str) -> Template {
        let from = Match { path: Some(text.to_owned()), ..Match::default() };
        match Path::compile(&from, &At::root(), &mut Problems::new()).unwrap().form {
            Form::Template(template) => template,
            form => panic!("{text} is {form:?}"),
        }
    }

    fn trie(texts: &[&str]) -> (Trie, NodeId) {
        let mut trie = Trie::default();
        let root = trie.root();
        for (index, text) in texts.iter().enumerate() {
            let candidate = Candidate { rank: index as u32, route: index as u32, beyond: Beyond::More };
            trie.add(root, &template(text), candidate);
        }
        (trie, root)
    }

    #[test]
    fn different_enums_and_names_live_side_by_side() {
        let (trie, root) =
            trie(&["/x/{k:a|b}", "/x/{kind:c|d}", "/x/{id:int}", "/x/{name}", "/x/{k:b|c}/y", "/{*rest}"]);
        for (path, expected) in [
            ("/x/a", &[0, 3, 5][..]),
            ("/x/d", &[1, 3, 5]),
            ("/x/7", &[2, 3, 5]),
            ("/x/b/y", &[4, 5]),
            ("/x/", &[5]),
            ("/", &[]),
        ] {
            let mut all = All(Vec::new());
            trie.walk(root, path, &mut all);
            all.0.sort_unstable();
            assert_eq!(all.0, expected, "{path}");
        }
    }

    #[test]
    fn only_templates_that_can_match_the_same_path_are_alike() {
        let texts = [
            "/x/{k:a|b}",
            "/x/{k:b|c}",
            "/x/{k:d|e}",
            "/x/{id}",
            "/x/{name}",
            "/x/a{id}",
            "/x/{id}b",
            "/x/{id}c",
        ];
        let (trie, root) = trie(&texts);
        let alike = |text: &str| {
            let leaves = trie.alike(root, &template(text));
            let mut routes: Vec<u32> =
                leaves.iter().copied().flatten().map(|candidate| candidate.route).collect();
            routes.sort_unstable();
            routes
        };
        assert_eq!(alike(texts[0]), [0, 1]);
        assert_eq!(alike(texts[2]), [2]);
        assert_eq!(alike(texts[3]), [3, 4]);
        assert_eq!(alike(texts[5]), [5, 6, 7]);
        assert_eq!(alike(texts[6]), [5, 6]);
    }
}
