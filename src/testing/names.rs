//! The names of a node, with any answers of `scontrol`.

use std::net::IpAddr;

use crate::node_names::{Next, NodeNames, Rules};
use crate::slurm::Node;

/// Names there can be: two of the shell's, two of Slurm's, two by rule.
const NAMES: usize = 6;

/// Reads `data` as what the shell and Slurm say, what the site has configured, and what becomes of each
/// try, separated by NUL. Every name is tried once, Slurm is asked once, its answer gives nothing but
/// names, and all of it ends: where something answers, for good.
pub fn check(data: &[u8]) {
    let mut fields = data.splitn(6, |byte| *byte == 0);
    let mut text = || String::from_utf8_lossy(fields.next().unwrap_or_default()).into_owned();
    let (printed, slurm_node, answer, domain, address) = (text(), text(), text(), text(), text());
    if printed.is_empty() {
        return;
    }
    let rules = Rules {
        domain: domain.parse().ok(),
        address: address.parse().ok(),
    };
    let node = Node::parse(answer.as_bytes());
    for name in [&node.address, &node.host_name].into_iter().flatten() {
        assert!(answer.contains(name.as_str()), "{name:?} was not said");
        assert!(!name.contains(char::is_whitespace) && name.len() <= 253);
    }
    let slurm_node = Some(slurm_node).filter(|name| !name.is_empty());
    let mut names = NodeNames::new(printed, slurm_node, true, &rules);
    let mut outcomes = fields.next().unwrap_or_default().iter().copied();
    let (mut looked_up, mut questions, mut connects) = (Vec::new(), 0, 0);
    loop {
        let outcome = outcomes.next().unwrap_or_default();
        match names.next() {
            Next::Nothing => break,
            Next::AskSlurm(query) => {
                questions += 1;
                assert!(questions == 1 && !query.args[2].starts_with('-'));
                assert!(names.slurm_told(node.clone()));
            }
            Next::LookUp(name) => {
                let name = name.to_lowercase();
                assert!(!name.is_empty() && !looked_up.contains(&name));
                looked_up.push(name);
                let addresses = (0..outcome).map(|n| IpAddr::from([10, 0, 0, n]));
                assert_eq!(names.looked_up(Ok(addresses.collect())), outcome == 0);
            }
            Next::Connect(_) if outcome % 2 == 0 => {
                connects += 1;
                assert!(names.unanswered("it was told so"));
            }
            Next::Connect(addresses) => {
                let last = addresses[addresses.len() - 1];
                assert!(addresses.len() <= 16 && names.connected(last));
                assert!(!names.unanswered("it was told so") && names.is_settled());
                assert_eq!(names.addresses()[0], last);
                return;
            }
        }
        assert!(looked_up.len() <= NAMES && connects <= NAMES);
    }
    assert!(!names.faults().is_empty());
    names.begin_again();
    assert!(names.faults().is_empty() && names.next() != Next::Nothing);
}
