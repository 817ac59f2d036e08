//! What `scontrol` says of one node.

use super::Query;

/// Most bytes of a name, as DNS has it.
const NAME: usize = 253;

/// Under which names Slurm's own daemons reach a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its `NodeAddr`: an address, or a name that has one.
    pub address: Option<String>,
    /// Its `NodeHostName`.
    pub host_name: Option<String>,
}

/// The question for the node that Slurm calls `name`; `None` where no node is called like that.
pub fn node_query(name: &str) -> Option<Query> {
    // What begins otherwise might be an option.
    let is_name = is_host(name) && name.starts_with(|c: char| c.is_ascii_alphanumeric());
    is_name.then(|| Query {
        program: "scontrol",
        args: ["show", "node", name].map(str::to_owned).into(),
    })
}

impl Node {
    /// Reads the answer to [`node_query`]: words `KEY=VALUE`, of which the first of a key counts. Free
    /// text, such as a comment, stands behind both.
    pub fn parse(answer: &[u8]) -> Self {
        let text = String::from_utf8_lossy(answer);
        let value = |key: &str| {
            let mut words = text.split_ascii_whitespace();
            let value = words.find_map(|word| word.strip_prefix(key)?.strip_prefix('='))?;
            is_host(value).then(|| value.to_owned())
        };
        Self {
            address: value("NodeAddr"),
            host_name: value("NodeHostName"),
        }
    }
}

/// Whether a host's name or address may look like that.
fn is_host(text: &str) -> bool {
    let is_fitting = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
    (1..=NAME).contains(&text.len()) && text.bytes().all(is_fitting)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Slurm 22.05.
    const ANSWER: &str = "\
NodeName=node2 Arch=x86_64 CoresPerSocket=1 \n\
\x20  CPUAlloc=0 CPUEfctv=32 CPUTot=32 CPULoad=0.58\n\
\x20  AvailableFeatures=(null)\n\
\x20  ActiveFeatures=(null)\n\
\x20  Gres=(null)\n\
\x20  NodeAddr=10.90.0.12 NodeHostName=node2.box.test Version=22.05.8\n\
\x20  OS=Linux 6.1.0 #1 SMP \n\
\x20  RealMemory=1 AllocMem=0 FreeMem=8000 Sockets=32 Boards=1\n\
\x20  State=IDLE ThreadsPerCore=1 TmpDisk=0 Weight=1 Owner=N/A MCS_label=N/A\n\
\x20  Comment=moved to NodeAddr=192.0.2.1 NodeHostName=elsewhere\n\n";

    fn node(address: Option<&str>, host_name: Option<&str>) -> Node {
        let own = |name: Option<&str>| name.map(str::to_owned);
        Node {
            address: own(address),
            host_name: own(host_name),
        }
    }

    #[test]
    fn address_and_host_name_are_the_first_of_their_kind() {
        let expected = node(Some("10.90.0.12"), Some("node2.box.test"));
        assert_eq!(Node::parse(ANSWER.as_bytes()), expected);
        // As --oneliner shows it.
        let line = ANSWER.replace('\n', " ");
        assert_eq!(Node::parse(line.as_bytes()), expected);
    }

    #[test]
    fn what_is_no_name_is_none() {
        for (answer, expected) in [
            ("", node(None, None)),
            ("Node node9 not found\n", node(None, None)),
            ("NodeAddr=fd00:90::12 x", node(Some("fd00:90::12"), None)),
            ("NodeAddr= NodeHostName=n1", node(None, Some("n1"))),
            ("NodeAddr=(null) NodeHostName=a/b", node(None, None)),
            ("XNodeAddr=a NodeAddrX=b NodeAddr", node(None, None)),
        ] {
            assert_eq!(Node::parse(answer.as_bytes()), expected, "{answer:?}");
        }
        let long = format!(
            "NodeAddr={} NodeHostName={}",
            "a".repeat(253),
            "b".repeat(254)
        );
        let expected = node(Some(&"a".repeat(253)), None);
        assert_eq!(Node::parse(long.as_bytes()), expected);
    }

    #[test]
    fn only_a_node_is_asked_for() {
        let args = |name| node_query(name).map(|query| query.args);
        assert_eq!(
            args("n-1"),
            Some(["show", "node", "n-1"].map(str::to_owned).into())
        );
        for name in ["", "-d", "--help", "a b", "a,b", "n[1-9]", ".a"] {
            assert_eq!(args(name), None, "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_read_is_a_name(answer in "(NodeAddr=|NodeHostName=|[ \na-c.=:(é-])*") {
            let node = Node::parse(answer.as_bytes());
            for name in [node.address, node.host_name].into_iter().flatten() {
                prop_assert!(is_host(&name));
                let value = format!("={name}");
                prop_assert!(answer.contains(&value));
            }
        }
    }
}
