//! Which of the node's names leads to it from here.
//!
//! The names are tried in the order in which they were told, each once: one that has no address
//! gives way to the next, and so does one of which no address answers. A refused connection is an
//! answer: the node is there, its server is not. The first answer settles the name; connections go
//! there from then on, whatever becomes of them. Only where every name has failed may all of it
//! begin again. Slurm is asked for its own names once, and only where those that the shell has told
//! have failed.

use std::fmt;
use std::net::IpAddr;

use crate::options::{NodeAddress, NodeDomain, short};
use crate::slurm::{Node, Query, node_query};

/// Most addresses of one name that are tried.
const ADDRESSES: usize = 16;

/// The node's names, and how far they were tried.
#[derive(Debug)]
pub struct NodeNames {
    /// Never empty; no two are the same.
    names: Vec<Name>,
    /// The one that is tried, or was settled; `names.len()` where all have failed.
    at: usize,
    is_settled: bool,
}

/// Names that follow from what the node calls itself.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Its short name in this domain.
    pub domain: Option<NodeDomain>,
    /// What this template makes of it.
    pub address: Option<NodeAddress>,
}

/// One of the node's names.
#[derive(Debug)]
pub struct Name {
    text: String,
    origin: Origin,
    /// Empty while they are unknown.
    addresses: Vec<IpAddr>,
    /// Why it leads nowhere, once it has failed.
    fault: Option<String>,
}

/// Where a name comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Shell,
    Slurmd,
    /// No name to connect to, but the one that Slurm is asked for. Its answer takes the place.
    Question,
    SlurmAddress,
    SlurmHostName,
    Domain,
    Template,
}

/// What has to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<'a> {
    /// Look this name up, for [`NodeNames::looked_up`].
    LookUp(&'a str),
    /// Ask Slurm this, for [`NodeNames::slurm_told`].
    AskSlurm(Query),
    /// Connect to these addresses, never none, in this order.
    Connect(&'a [IpAddr]),
    /// Nothing: every name has failed.
    Nothing,
}

impl NodeNames {
    /// Those of the node that calls itself `printed`, and Slurm `slurm_node`, and what `rules` say of
    /// it. With `is_slurm` Slurm can tell more.
    pub fn new(printed: String, slurm_node: Option<String>, is_slurm: bool, rules: &Rules) -> Self {
        let asked = slurm_node.clone();
        let asked = asked.unwrap_or_else(|| short(&printed).to_owned());
        let domain = rules.domain.as_ref().map(|domain| domain.of(&printed));
        let address = rules.address.as_ref().map(|address| address.of(&printed));
        let mut names = Self {
            names: Vec::new(),
            at: 0,
            is_settled: false,
        };
        names.add(Origin::Shell, printed);
        if let Some(name) = slurm_node {
            names.add(Origin::Slurmd, name);
        }
        if is_slurm && node_query(&asked).is_some() {
            names.names.push(Name::new(Origin::Question, asked));
        }
        for (origin, name) in [(Origin::Domain, domain), (Origin::Template, address)] {
            // A name that begins with a dot has no short one.
            if let Some(name) = name.filter(|name| !name.is_empty()) {
                names.add(origin, name);
            }
        }
        names
    }

    /// The name of a node whose address is known, and needs no proof.
    pub fn settled(printed: String, address: IpAddr) -> Self {
        let mut names = Self::new(printed, None, false, &Rules::default());
        names.names[0].addresses = vec![address];
        names.is_settled = true;
        names
    }

    /// What the node calls itself.
    pub fn printed(&self) -> &str {
        &self.names[0].text
    }

    /// What has to be done; the same until that has an answer.
    pub fn next(&self) -> Next<'_> {
        match self.current() {
            None => Next::Nothing,
            Some(name) if !name.addresses.is_empty() => Next::Connect(&name.addresses),
            Some(name) if name.origin != Origin::Question => Next::LookUp(&name.text),
            Some(name) => node_query(&name.text).map_or(Next::Nothing, Next::AskSlurm),
        }
    }

    /// The name that is tried, or was settled.
    pub fn current(&self) -> Option<&Name> {
        self.names.get(self.at)
    }

    /// Whether a name was settled.
    pub fn is_settled(&self) -> bool {
        self.is_settled
    }

    /// The addresses to connect to; empty while there are none.
    pub fn addresses(&self) -> &[IpAddr] {
        self.current().map_or(&[], |name| &name.addresses)
    }

    /// The look-up that was asked for has ended with these addresses, or without an answer for this
    /// reason. `true` where the name has given way for that.
    pub fn looked_up(&mut self, answer: Result<Vec<IpAddr>, String>) -> bool {
        if !matches!(self.next(), Next::LookUp(_)) {
            // A name that was tried before has answered meanwhile.
            return false;
        }
        match answer {
            Ok(mut addresses) if !addresses.is_empty() => {
                addresses.truncate(ADDRESSES);
                self.names[self.at].addresses = addresses;
                false
            }
            Ok(_) => self.give_way("has no address here".to_owned()),
            Err(why) => self.give_way(why),
        }
    }

    /// Slurm was asked, and has told this of the node. `true` where the question has given way to
    /// what follows.
    pub fn slurm_told(&mut self, node: Node) -> bool {
        if !matches!(self.next(), Next::AskSlurm(_)) {
            return false;
        }
        let behind = self.names.split_off(self.at + 1);
        self.names.pop();
        let told = [
            (Origin::SlurmAddress, node.address),
            (Origin::SlurmHostName, node.host_name),
        ];
        let told = told.into_iter().filter_map(|(it, name)| Some((it, name?)));
        let behind = behind.into_iter().map(|name| (name.origin, name.text));
        for (origin, name) in told.chain(behind) {
            self.add(origin, name);
        }
        true
    }

    /// None of the addresses to connect to has answered somebody, the last one for this reason.
    /// `true` where the name has given way for that; one that was settled does not.
    pub fn unanswered(&mut self, why: impl fmt::Display) -> bool {
        if self.is_settled || !matches!(self.next(), Next::Connect(_)) {
            return false;
        }
        self.give_way(format!("does not answer: {why}"))
    }

    /// `address` was connected to: it is the first of its name from now on. `true` where that has
    /// settled the name.
    pub fn connected(&mut self, address: IpAddr) -> bool {
        let was_settled = self.is_settled;
        if let Some(place) = self.settle(address) {
            self.names[self.at].addresses[..=place].rotate_right(1);
        }
        self.is_settled && !was_settled
    }

    /// `address` has refused a connection. `true` where that has settled the name.
    pub fn refused(&mut self, address: IpAddr) -> bool {
        let was_settled = self.is_settled;
        self.settle(address);
        self.is_settled && !was_settled
    }

    /// Where every name has failed, all are tried again.
    pub fn begin_again(&mut self) {
        if self.current().is_none() {
            self.at = 0;
            self.names.iter_mut().for_each(Name::begin);
        }
    }

    /// Every name that has failed, with the reason.
    pub fn faults(&self) -> String {
        let fault = |name: &Name| Some(format!("{name} {}", name.fault.as_ref()?));
        let faults: Vec<String> = self.names.iter().filter_map(fault).collect();
        faults.join("; ")
    }

    /// Settles the name that has `address`, unless another one is settled; its place there.
    fn settle(&mut self, address: IpAddr) -> Option<usize> {
        let place = |name: &Name| name.addresses.iter().position(|known| *known == address);
        // The answer may come after its name has given way.
        let order = std::iter::once(self.at).chain(0..self.names.len());
        let order = order.take(if self.is_settled { 1 } else { usize::MAX });
        let (at, place) = order
            .filter_map(|at| Some((at, place(self.names.get(at)?)?)))
            .next()?;
        self.at = at;
        self.is_settled = true;
        self.names[at].fault = None;
        Some(place)
    }

    fn give_way(&mut self, why: String) -> bool {
        self.names[self.at].fault = Some(why);
        self.at += 1;
        true
    }

    fn add(&mut self, origin: Origin, text: String) {
        let is_same =
            |name: &Name| name.origin != Origin::Question && name.text.eq_ignore_ascii_case(&text);
        if !self.names.iter().any(is_same) {
            self.names.push(Name::new(origin, text));
        }
    }
}

impl Name {
    fn new(origin: Origin, text: String) -> Self {
        let mut name = Self {
            text,
            origin,
            addresses: Vec::new(),
            fault: None,
        };
        name.begin();
        name
    }

    /// Nothing is known of it; but where it is an address itself, it needs no look-up.
    fn begin(&mut self) {
        let is_name = self.origin != Origin::Question;
        let address = is_name.then(|| self.text.parse().ok()).flatten();
        self.addresses = address.into_iter().collect();
        self.fault = None;
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.text, self.origin)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shell => "uname -n",
            Self::Slurmd => "SLURMD_NODENAME",
            Self::Question => "scontrol show node",
            Self::SlurmAddress => "NodeAddr of Slurm",
            Self::SlurmHostName => "NodeHostName of Slurm",
            Self::Domain => "node-domain",
            Self::Template => "node-address",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(printed: &str, slurm_node: Option<&str>) -> NodeNames {
        NodeNames::new(
            printed.to_owned(),
            slurm_node.map(str::to_owned),
            false,
            &Rules::default(),
        )
    }

    /// Those of a node of Slurm's, none of which the shell has told has an address.
    fn asking(printed: &str, slurm_node: Option<&str>) -> NodeNames {
        let own = slurm_node.map(str::to_owned);
        let mut names = NodeNames::new(printed.to_owned(), own, true, &Rules::default());
        while names.looked_up(found(&[])) {}
        names
    }

    fn node(address: Option<&str>, host_name: Option<&str>) -> Node {
        let own = |name: Option<&str>| name.map(str::to_owned);
        Node {
            address: own(address),
            host_name: own(host_name),
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn found(addresses: &[&str]) -> Result<Vec<IpAddr>, String> {
        Ok(addresses.iter().map(|text| ip(text)).collect())
    }

    #[test]
    fn a_name_that_does_not_resolve_gives_way_to_the_next() {
        let mut names = names("node1", Some("n1"));
        assert_eq!(names.next(), Next::LookUp("node1"));
        assert!(names.looked_up(found(&[])));
        assert_eq!(names.next(), Next::LookUp("n1"));
        assert!(!names.looked_up(found(&["10.0.0.1"])));
        assert_eq!(names.next(), Next::Connect(&[ip("10.0.0.1")]));
        assert_eq!(names.current().unwrap().to_string(), "n1 (SLURMD_NODENAME)");
        assert_eq!(names.faults(), "node1 (uname -n) has no address here");
    }

    #[test]
    fn a_name_that_does_not_answer_gives_way_until_none_is_left() {
        let mut names = names("10.0.0.1", Some("n1"));
        assert_eq!(names.next(), Next::Connect(&[ip("10.0.0.1")]));
        assert!(names.unanswered("timed out"));
        assert!(names.looked_up(Err("was not looked up".to_owned())));
        assert_eq!(names.next(), Next::Nothing);
        assert_eq!(
            (names.addresses(), names.current().is_none()),
            (&[][..], true)
        );
        assert_eq!(
            names.faults(),
            "10.0.0.1 (uname -n) does not answer: timed out; n1 (SLURMD_NODENAME) was not looked up"
        );
        // Nothing is left that could fail.
        assert!(!names.unanswered("timed out") && !names.looked_up(found(&[])));
        names.begin_again();
        assert_eq!(names.next(), Next::Connect(&[ip("10.0.0.1")]));
        assert_eq!(names.faults(), "");
    }

    #[test]
    fn an_answer_settles_the_name_and_puts_its_address_first() {
        let mut names = names("node1", Some("n1"));
        names.looked_up(found(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]));
        assert!(names.connected(ip("10.0.0.2")));
        let order = ["10.0.0.2", "10.0.0.1", "10.0.0.3"].map(ip);
        assert_eq!(names.next(), Next::Connect(&order));
        // Whatever becomes of it.
        assert!(!names.unanswered("timed out"));
        names.begin_again();
        assert_eq!(names.next(), Next::Connect(&order));
        // No news; the order is that of the last answer.
        assert!(!names.connected(ip("10.0.0.3")));
        assert_eq!(names.addresses()[0], ip("10.0.0.3"));
    }

    #[test]
    fn a_refusal_settles_the_name_and_leaves_the_order() {
        let mut names = names("node1", Some("n1"));
        names.looked_up(found(&["10.0.0.1", "10.0.0.2"]));
        assert!(!names.is_settled());
        assert!(names.refused(ip("10.0.0.2")) && names.is_settled());
        assert!(!names.refused(ip("10.0.0.1")) && !names.unanswered("timed out"));
        assert_eq!(names.addresses(), ["10.0.0.1", "10.0.0.2"].map(ip));
    }

    #[test]
    fn an_answer_that_comes_late_settles_the_name_that_it_came_from() {
        let mut names = names("node1", Some("n1"));
        names.looked_up(found(&["10.0.0.1"]));
        names.unanswered("timed out");
        assert_eq!(names.next(), Next::LookUp("n1"));
        assert!(names.connected(ip("10.0.0.1")));
        assert_eq!(names.current().unwrap().to_string(), "node1 (uname -n)");
        assert_eq!(names.faults(), "");
        // What is looked up in vain changes nothing, and neither does a further answer from elsewhere.
        assert!(!names.looked_up(found(&[])) && !names.looked_up(found(&["10.0.0.9"])));
        assert!(!names.connected(ip("10.0.0.9")));
        assert_eq!(names.next(), Next::Connect(&[ip("10.0.0.1")]));
    }

    #[test]
    fn slurm_is_asked_once_behind_the_names_that_the_shell_told() {
        let mut names = asking("node1.local", Some("n1"));
        let query = node_query("n1").unwrap();
        assert_eq!(names.next(), Next::AskSlurm(query));
        assert_eq!(names.addresses(), &[] as &[IpAddr]);
        let text = names.current().unwrap().to_string();
        assert_eq!(text, "n1 (scontrol show node)");
        // Nothing else is an answer to that.
        assert!(!names.looked_up(found(&["10.0.0.1"])) && !names.unanswered("timed out"));
        assert!(names.slurm_told(node(Some("10.0.0.1"), Some("n1-ib"))));
        assert_eq!(names.next(), Next::Connect(&[ip("10.0.0.1")]));
        assert!(names.unanswered("timed out"));
        assert_eq!(names.next(), Next::LookUp("n1-ib"));
        assert!(names.looked_up(found(&[])));
        assert_eq!(
            names.faults(),
            "node1.local (uname -n) has no address here; \
             n1 (SLURMD_NODENAME) has no address here; \
             10.0.0.1 (NodeAddr of Slurm) does not answer: timed out; \
             n1-ib (NodeHostName of Slurm) has no address here"
        );
        names.begin_again();
        while names.looked_up(found(&[])) {}
        assert_eq!(names.next(), Next::Connect(&[ip("10.0.0.1")]));
    }

    #[test]
    fn slurm_is_asked_for_the_short_name_where_the_shell_has_told_no_other() {
        let names = asking("node1.local", None);
        assert_eq!(names.next(), Next::AskSlurm(node_query("node1").unwrap()));
        // A name that nothing in Slurm has.
        assert_eq!(asking("-x", None).next(), Next::Nothing);
    }

    #[test]
    fn an_answer_that_comes_while_slurm_is_asked_settles_it() {
        let mut names = NodeNames::new("10.0.0.1".to_owned(), None, true, &Rules::default());
        names.unanswered("timed out");
        assert!(matches!(names.next(), Next::AskSlurm(_)));
        names.connected(ip("10.0.0.1"));
        assert!(!names.slurm_told(node(Some("10.0.0.2"), None)));
        assert_eq!(names.next(), Next::Connect(&[ip("10.0.0.1")]));
    }

    #[test]
    fn names_by_rule_come_last_and_none_comes_twice() {
        let rules = Rules {
            domain: "cluster".parse().ok(),
            address: "%n.ib".parse().ok(),
        };
        for (printed, host_name, tried) in [
            ("n1.local", None, &["n1.local", "n1.cluster", "n1.ib"][..]),
            ("n1.cluster", Some("x"), &["n1.cluster", "x", "n1.ib"]),
            ("n1", Some("N1.IB"), &["n1", "N1.IB", "n1.cluster"]),
        ] {
            let mut names = NodeNames::new(printed.to_owned(), None, true, &rules);
            let mut seen = Vec::new();
            loop {
                match names.next() {
                    Next::Nothing => break,
                    Next::LookUp(name) => {
                        seen.push(name.to_owned());
                        names.looked_up(found(&[]));
                    }
                    Next::AskSlurm(_) => {
                        assert_eq!(seen.len(), 1, "behind what the shell has told");
                        names.slurm_told(node(None, host_name));
                    }
                    Next::Connect(_) => unreachable!("nothing has an address"),
                }
            }
            assert_eq!(seen, tried);
        }
    }

    #[test]
    fn slurm_may_tell_nothing_new() {
        for told in [node(None, None), node(Some("n1"), Some("NODE1"))] {
            let mut names = asking("node1", Some("n1"));
            assert!(names.slurm_told(told));
            assert_eq!(names.next(), Next::Nothing);
            names.begin_again();
            while names.looked_up(found(&[])) {}
            assert_eq!(names.next(), Next::Nothing);
        }
    }

    #[test]
    fn the_same_name_is_tried_once() {
        let mut names = names("Node1", Some("node1"));
        names.looked_up(found(&[]));
        assert_eq!(names.next(), Next::Nothing);
    }

    #[test]
    fn of_many_addresses_some_are_tried() {
        let mut names = names("node1", None);
        let many = (0..100).map(|n| IpAddr::from([10, 0, 0, n])).collect();
        names.looked_up(Ok(many));
        assert_eq!(names.addresses().len(), ADDRESSES);
    }

    #[test]
    fn a_settled_node_needs_nothing() {
        let mut names = NodeNames::settled("here".to_owned(), ip("127.0.0.1"));
        assert_eq!(names.next(), Next::Connect(&[ip("127.0.0.1")]));
        assert!(!names.connected(ip("127.0.0.1")) && !names.unanswered("timed out"));
        assert_eq!(names.printed(), "here");
    }

    #[derive(Clone, Debug)]
    enum Event {
        LookedUp(Option<Vec<u8>>),
        SlurmTold(Option<u8>),
        Unanswered,
        Connected(u8),
        Refused(u8),
        BeginAgain,
    }

    fn event() -> impl Strategy<Value = Event> {
        let addresses = proptest::collection::vec(0..4_u8, 0..3);
        prop_oneof![
            proptest::option::of(addresses).prop_map(Event::LookedUp),
            proptest::option::of(0..4_u8).prop_map(Event::SlurmTold),
            Just(Event::Unanswered),
            (0..4_u8).prop_map(Event::Connected),
            (0..4_u8).prop_map(Event::Refused),
            Just(Event::BeginAgain),
        ]
    }

    proptest! {
        /// Whatever comes, in whatever order: names only give way forwards, and end; what is settled
        /// stays; what is to be connected to came from a look-up, and what has answered comes first.
        #[test]
        fn names_come_to_an_end(events in proptest::collection::vec(event(), 0..30)) {
            let address = |n: &u8| IpAddr::from([10, 0, 0, *n]);
            let mut names = NodeNames::new("node1".to_owned(), Some("n1".to_owned()), true, &Rules::default());
            let mut known: Vec<IpAddr> = Vec::new();
            for event in events {
                let before = (names.at, names.is_settled, names.addresses().to_vec());
                match &event {
                    Event::LookedUp(answer) => {
                        let answer: Option<Vec<IpAddr>> =
                            answer.as_ref().map(|it| it.iter().map(address).collect());
                        known.extend(answer.iter().flatten());
                        let gave_way = names.looked_up(answer.ok_or_else(String::new));
                        prop_assert_eq!(gave_way, names.at == before.0 + 1);
                    }
                    Event::SlurmTold(n) => {
                        let asked = matches!(names.next(), Next::AskSlurm(_));
                        let text = n.as_ref().map(|n| address(n).to_string());
                        known.extend(n.as_ref().filter(|_| asked).map(address));
                        prop_assert_eq!(names.slurm_told(node(text.as_deref(), None)), asked);
                        prop_assert!(!matches!(names.next(), Next::AskSlurm(_)));
                    }
                    Event::Unanswered => {
                        let gave_way = names.unanswered("");
                        prop_assert_eq!(gave_way, !before.1 && !before.2.is_empty());
                        prop_assert_eq!(gave_way, names.at == before.0 + 1);
                    }
                    Event::Connected(n) => {
                        let is_news = names.connected(address(n));
                        prop_assert_eq!(is_news, names.is_settled && !before.1);
                        if is_news {
                            prop_assert_eq!(names.addresses()[0], address(n));
                        }
                    }
                    Event::Refused(n) => {
                        let is_news = names.refused(address(n));
                        prop_assert_eq!(is_news, names.is_settled && !before.1);
                    }
                    Event::BeginAgain => names.begin_again(),
                }
                if before.1 {
                    prop_assert!(names.is_settled && names.at == before.0);
                    let sorted = |mut it: Vec<IpAddr>| { it.sort(); it };
                    prop_assert_eq!(sorted(names.addresses().to_vec()), sorted(before.2));
                }
                prop_assert!(names.at <= names.names.len());
                prop_assert!(names.addresses().iter().all(|it| known.contains(it)));
                prop_assert!(!names.is_settled || !names.addresses().is_empty());
            }
        }
    }
}
