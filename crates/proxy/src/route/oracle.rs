//! The documented order once more, written as plainly as it can be, and compared with the table on random
//! routes and requests.
//!
//! It shares nothing with the table but the texts of the routes: no ranks, no trie, no parser.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::tests::{Written, build, request, with_facts};
use super::{Condition, Lookup, Match, Verdict};

const NOW: u64 = 1000;

/// A segment of a template.
#[derive(Clone, Debug)]
enum Seg {
    Lit(&'static str),
    Enum(&'static [&'static str]),
    Around(&'static str, &'static str),
    Int,
    Plain,
}

/// A path of a match.
#[derive(Clone, Debug)]
enum Paths {
    None,
    Template(Vec<Seg>),
    Tail(Vec<Seg>),
    Prefix(Vec<&'static str>),
    Regex(&'static str),
    Equals(&'static str),
    Location(&'static str),
    Caret(&'static str),
    Tilde(&'static str),
}

#[derive(Clone, Debug)]
struct Rule {
    hosts: Vec<&'static str>,
    path: Paths,
    methods: Vec<&'static str>,
    header: Option<&'static str>,
    priority: i32,
    enabled: bool,
    expires: Option<u64>,
}

#[derive(Clone, Debug)]
struct Asked {
    host: &'static str,
    path: String,
    method: &'static str,
    header: Option<&'static str>,
}

fn seg() -> impl Strategy<Value = Seg> {
    prop_oneof![
        3 => select(vec!["a", "b", "1"]).prop_map(Seg::Lit),
        1 => select(vec![&["a", "b"][..], &["b", "ab"], &["1", "a"]]).prop_map(Seg::Enum),
        1 => select(vec![("a", ""), ("", "b"), ("a", "b")]).prop_map(|(before, after)| Seg::Around(before, after)),
        1 => Just(Seg::Int),
        2 => Just(Seg::Plain),
    ]
}

fn path() -> impl Strategy<Value = Paths> {
    let starts = || select(vec!["/", "/a", "/a/", "/a/b", "/ab", "/1/", "/a/b/1"]);
    let regexes = || select(vec!["^/a", "b$", "^/a/b", "/1", "^/[ab]/?$"]);
    prop_oneof![
        1 => Just(Paths::None),
        4 => prop::collection::vec(seg(), 1..4).prop_map(Paths::Template),
        2 => prop::collection::vec(seg(), 0..3).prop_map(Paths::Tail),
        3 => prop::collection::vec(select(vec!["a", "b", "1"]), 0..3).prop_map(Paths::Prefix),
        2 => regexes().prop_map(Paths::Regex),
        1 => starts().prop_map(Paths::Equals),
        3 => starts().prop_map(Paths::Location),
        2 => starts().prop_map(Paths::Caret),
        2 => regexes().prop_map(Paths::Tilde),
    ]
}

fn rule() -> impl Strategy<Value = Rule> {
    let hosts = subsequence(vec!["a.x", "b.a.x", "*.x", "*.a.x", "*"], 0..3);
    let methods = prop_oneof![3 => Just(vec![]), 2 => subsequence(vec!["GET", "POST"], 1..2)];
    let header = prop::option::weighted(0.3, select(vec!["1", "2"]));
    let priority = prop_oneof![4 => Just(0), 1 => -1..2];
    let expires = prop::option::weighted(0.1, select(vec![NOW, NOW + 1]));
    (hosts, path(), methods, header, priority, prop::bool::weighted(0.9), expires).prop_map(
        |(hosts, path, methods, header, priority, enabled, expires)| Rule {
            hosts,
            path,
            methods,
            header,
            priority,
            enabled,
            expires,
        },
    )
}

fn asked() -> impl Strategy<Value = Asked> {
    let path = prop::collection::vec(select(vec!["a", "b", "1", "ab", "aab", ""]), 1..5);
    (
        select(vec!["a.x", "b.a.x", "c.x", "d.c.a.x", "y"]),
        path.prop_map(|segments| format!("/{}", segments.join("/"))),
        select(vec!["GET", "HEAD", "POST"]),
        prop::option::of(select(vec!["1", "2"])),
    )
        .prop_map(|(host, path, method, header)| Asked { host, path, method, header })
}

impl Seg {
    fn text(&self, position: usize) -> String {
        match self {
            Seg::Lit(text) => (*text).to_owned(),
            Seg::Enum(words) => format!("{{p{position}:{}}}", words.join("|")),
            Seg::Around(before, after) => format!("{before}{{p{position}}}{after}"),
            Seg::Int => format!("{{p{position}:int}}"),
            Seg::Plain => format!("{{p{position}}}"),
        }
    }

    fn matches(&self, text: &str) -> bool {
        match self {
            Seg::Lit(literal) => text == *literal,
            Seg::Enum(words) => words.contains(&text),
            Seg::Around(before, after) => {
                text.len() > before.len() + after.len() && text.starts_with(before) && text.ends_with(after)
            }
            Seg::Int => !text.is_empty() && text.chars().all(|c| c.is_ascii_digit()),
            Seg::Plain => !text.is_empty(),
        }
    }

    /// Literal, enum, text around (more first), typed, plain.
    fn class(&self) -> (u8, i64) {
        match self {
            Seg::Lit(_) => (0, 0),
            Seg::Enum(_) => (1, 0),
            Seg::Around(before, after) => (2, -((before.len() + after.len()) as i64)),
            Seg::Int => (3, 0),
            Seg::Plain => (4, 0),
        }
    }
}

impl Paths {
    fn write(&self, to: &mut Match) {
        let template = |segs: &[Seg]| {
            let segs = segs.iter().enumerate().map(|(position, seg)| format!("/{}", seg.text(position)));
            segs.collect::<String>()
        };
        match self {
            Paths::None => {}
            Paths::Template(segs) => to.path = Some(template(segs)),
            Paths::Tail(segs) => to.path = Some(format!("{}/{{*rest}}", template(segs))),
            Paths::Prefix(segs) => to.path_prefix = Some(format!("/{}", segs.join("/"))),
            Paths::Regex(text) => to.path_regex = Some((*text).to_owned()),
            Paths::Equals(text) => to.location = Some(format!("= {text}")),
            Paths::Location(text) => to.location = Some((*text).to_owned()),
            Paths::Caret(text) => to.location = Some(format!("^~ {text}")),
            Paths::Tilde(text) => to.location = Some(format!("~ {text}")),
        }
    }

    fn matches(&self, path: &str) -> bool {
        let given: Vec<&str> = path[1..].split('/').collect();
        let all = |segs: &[Seg]| segs.iter().zip(&given).all(|(seg, text)| seg.matches(text));
        match self {
            Paths::None => true,
            Paths::Template(segs) => segs.len() == given.len() && all(segs),
            Paths::Tail(segs) => {
                given.len() > segs.len() && all(segs) && !given[segs.len()..].join("/").is_empty()
            }
            Paths::Prefix(segs) => given.starts_with(segs),
            Paths::Regex(text) | Paths::Tilde(text) => regex::Regex::new(text).unwrap().is_match(path),
            Paths::Equals(text) => path == *text,
            Paths::Location(text) | Paths::Caret(text) => path.starts_with(text),
        }
    }

    fn is_literal(&self) -> bool {
        match self {
            Paths::Equals(_) => true,
            Paths::Template(segs) => segs.iter().all(|seg| matches!(seg, Seg::Lit(_))),
            _ => false,
        }
    }

    fn location_prefix(&self) -> Option<&'static str> {
        match self {
            Paths::Location(text) | Paths::Caret(text) => Some(text),
            _ => None,
        }
    }

    /// Segment by segment, with what ends it.
    fn classes(&self) -> Vec<(u8, i64)> {
        let classes = |segs: &[Seg], end: (u8, i64)| segs.iter().map(Seg::class).chain([end]).collect();
        match self {
            Paths::Template(segs) => classes(segs, (0, 0)),
            Paths::Tail(segs) => classes(segs, (5, 0)),
            Paths::Prefix(segs) => segs.iter().map(|_| (0, 0)).chain([(7, 0)]).collect(),
            Paths::Location(text) | Paths::Caret(text) => {
                let parts: Vec<&str> = text[1..].split('/').collect();
                let (last, whole) = parts.split_last().unwrap();
                whole.iter().map(|_| (0, 0)).chain([(6, -(last.len() as i64))]).collect()
            }
            _ => panic!("{self:?} is not compared by segments"),
        }
    }
}

impl Rule {
    fn written(&self, position: usize) -> Written {
        let mut matches = Match {
            hosts: self.hosts.iter().map(|host| (*host).to_owned()).collect(),
            methods: self.methods.iter().map(|method| (*method).to_owned()).collect(),
            ..Match::default()
        };
        let header = self.header.map(|value| ("x-v".to_owned(), Condition::Exact(value.to_owned())));
        matches.headers.extend(header);
        self.path.write(&mut matches);
        Written {
            name: format!("r{position}"),
            matches,
            priority: self.priority,
            enabled: self.enabled,
            expires: self.expires,
        }
    }

    fn host_class(&self, host: &str) -> Option<i64> {
        let any = self.hosts.is_empty().then_some("*");
        let class = |name: &str| match name.strip_prefix("*.") {
            _ if name == "*" => Some(1000),
            Some(below) => {
                host.ends_with(&format!(".{below}")).then(|| 100 - below.split('.').count() as i64)
            }
            None => (name == host).then_some(0),
        };
        self.hosts.iter().copied().chain(any).filter_map(class).min()
    }

    fn matches_but_for_method(&self, asked: &Asked) -> bool {
        self.enabled
            && self.expires.is_none_or(|expires| NOW < expires)
            && self.host_class(asked.host).is_some()
            && self.path.matches(&asked.path)
            && self.header.is_none_or(|value| asked.header == Some(value))
    }

    fn allows(&self, method: &str) -> bool {
        self.methods.is_empty()
            || self.methods.contains(&method)
            || method == "HEAD" && self.methods.contains(&"GET")
    }

    fn conditions(&self) -> usize {
        usize::from(!self.methods.is_empty()) + usize::from(self.header.is_some())
    }
}

/// Keeps the rules for which `key` is least.
fn least<K: Ord>(rules: &[Rule], among: Vec<usize>, key: impl Fn(&Rule) -> K) -> Vec<usize> {
    let best = among.iter().map(|&index| key(&rules[index])).min();
    among.into_iter().filter(|&index| Some(key(&rules[index])) == best).collect()
}

/// The rules that come first, by the order of the module above; more than one is a tie.
fn first(rules: &[Rule], asked: &Asked) -> Vec<usize> {
    let matching = (0..rules.len())
        .filter(|&index| rules[index].matches_but_for_method(asked) && rules[index].allows(asked.method));
    let among = least(rules, matching.collect(), |rule| -rule.priority);
    let among = least(rules, among, |rule| rule.host_class(asked.host));
    let keep = |test: &dyn Fn(&Paths) -> bool| -> Vec<usize> {
        among.iter().copied().filter(|&index| test(&rules[index].path)).collect()
    };
    let by_conditions = |among: Vec<usize>| least(rules, among, |rule| -(rule.conditions() as i64));

    let literal = keep(&Paths::is_literal);
    if !literal.is_empty() {
        return by_conditions(literal);
    }
    let prefixes = keep(&|path| path.location_prefix().is_some());
    let longest = least(rules, prefixes, |rule| -(rule.path.location_prefix().unwrap().len() as i64));
    let longest = by_conditions(longest);
    if let Some(&index) = longest.first()
        && matches!(rules[index].path, Paths::Caret(_))
    {
        return longest;
    }
    let regexes = keep(&|path| matches!(path, Paths::Regex(_)));
    if !regexes.is_empty() {
        let regexes = by_conditions(regexes);
        let same =
            |index: &usize| format!("{:?}", rules[*index].path) == format!("{:?}", rules[regexes[0]].path);
        return regexes.iter().copied().filter(same).collect();
    }
    if let Some(&index) = keep(&|path| matches!(path, Paths::Tilde(_))).first() {
        return vec![index];
    }
    let remembered = longest.first().copied();
    let mut segments: Vec<usize> = among
        .iter()
        .copied()
        .filter(|index| match rules[*index].path {
            Paths::Location(_) | Paths::Caret(_) => Some(*index) == remembered,
            Paths::None => false,
            _ => true,
        })
        .collect();
    if segments.is_empty() {
        return by_conditions(among);
    }
    for position in 0..6 {
        segments = least(rules, segments, |rule| rule.path.classes().get(position).copied());
    }
    if segments.len() == 1 && Some(segments[0]) == remembered {
        return longest;
    }
    by_conditions(segments)
}

fn allowed(rules: &[Rule], asked: &Asked) -> String {
    let matching = rules.iter().filter(|rule| rule.matches_but_for_method(asked));
    let mut methods: Vec<&str> = matching.flat_map(|rule| rule.methods.iter().copied()).collect();
    if methods.contains(&"GET") {
        methods.push("HEAD");
    }
    methods.sort_unstable();
    methods.dedup();
    methods.join(", ")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]
    #[test]
    fn the_table_finds_what_the_documented_order_says(
        rules in prop::collection::vec(rule(), 1..12),
        requests in prop::collection::vec(asked(), 1..12),
    ) {
        let written: Vec<Written> = rules.iter().enumerate().map(|(index, rule)| rule.written(index)).collect();
        let (table, problems) = build(&written);
        for asked in &requests {
            let fields: Vec<(&str, &str)> = asked.header.iter().map(|value| ("X-V", *value)).collect();
            let head = request(asked.method, asked.host, &asked.path, &fields);
            let (lookup, explanation) = with_facts(&head, |facts| (table.find(facts, NOW), table.explain(facts, NOW)));
            let expected = first(&rules, asked);
            match &lookup {
                Lookup::Found { route, .. } => {
                    prop_assert_eq!(Some(route), expected.first(), "{:?}", asked);
                    prop_assert_eq!(explanation.winner.as_ref().map(|winner| winner.position), Some(*route));
                    let mut without = rules.clone();
                    without[*route].enabled = false;
                    let next = first(&without, asked).first().copied();
                    prop_assert_eq!(explanation.runner_up.as_ref().map(|next| next.position), next, "{:?}", asked);
                }
                Lookup::MethodNotAllowed { allow } => {
                    prop_assert!(expected.is_empty(), "{:?} {:?}", asked, expected);
                    prop_assert_eq!(allow, &allowed(&rules, asked));
                    prop_assert_eq!(&explanation.verdict, &Verdict::MethodNotAllowed { allow: allow.clone() });
                }
                Lookup::NotFound => {
                    prop_assert!(expected.is_empty(), "{:?} {:?}", asked, expected);
                    prop_assert_eq!(allowed(&rules, asked), "");
                    prop_assert_eq!(&explanation.verdict, &Verdict::NotFound);
                }
            }
            if expected.len() > 1 {
                let tied = |index: &usize| problems.iter().any(|problem| problem.message.contains(&format!("`r{index}` ties")));
                prop_assert!(expected[1..].iter().all(tied), "{:?} {:?} {:?}", asked, expected, problems);
            }
        }
        for problem in problems.iter() {
            prop_assert!(problem.message.contains("ties"), "{:?}", problem);
        }
    }
}
