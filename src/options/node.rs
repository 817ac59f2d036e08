//! Further names of the node, made from the one that it calls itself.

use std::str::FromStr;

/// The value of `--node-domain`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeDomain(String);

/// The value of `--node-address`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeAddress(String);

impl NodeDomain {
    /// The node that calls itself `printed`, in this domain.
    pub fn of(&self, printed: &str) -> String {
        format!("{}.{}", short(printed), self.0)
    }
}

impl FromStr for NodeDomain {
    type Err = &'static str;

    /// With or without a dot in front of it.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let domain = text.strip_prefix('.').unwrap_or(text);
        match !domain.is_empty() && domain.bytes().all(is_of_name) {
            true => Ok(Self(domain.to_owned())),
            false => Err("a domain is expected, such as cluster.example.org"),
        }
    }
}

impl NodeAddress {
    /// The template with its places filled for the node that calls itself `printed`.
    pub fn of(&self, printed: &str) -> String {
        let mut address = String::new();
        let mut chars = self.0.chars();
        while let Some(c) = chars.next() {
            // It was understood when it was read.
            match (c, if c == '%' { chars.next() } else { None }) {
                (_, Some('n')) => address += short(printed),
                (_, Some('N')) => address += printed,
                (c, _) => address.push(c),
            }
        }
        address
    }
}

impl FromStr for NodeAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut rest = text.bytes();
        let mut is_for_each_node = false;
        while let Some(byte) = rest.next() {
            match byte {
                b'%' => match rest.next() {
                    Some(b'n' | b'N') => is_for_each_node = true,
                    Some(b'%') => {}
                    _ => return Err("behind % one of n, N and % is expected"),
                },
                byte if is_of_name(byte) || byte == b':' => {}
                _ => return Err("a host's name or address is expected, such as %n-ib"),
            }
        }
        match is_for_each_node {
            true => Ok(Self(text.to_owned())),
            false => Err("%n or %N is expected in it, or it is the same for every node"),
        }
    }
}

/// A host's name without its domain.
pub(crate) fn short(name: &str) -> &str {
    name.split('.').next().unwrap_or_default()
}

fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b".-_".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_takes_the_place_of_the_nodes_own() {
        let of = |domain: &str, node| domain.parse::<NodeDomain>().map(|it| it.of(node));
        for (domain, node, name) in [
            ("example.org", "node1", "node1.example.org"),
            (".example.org", "node1.local", "node1.example.org"),
        ] {
            assert_eq!(of(domain, node).as_deref(), Ok(name), "{domain}");
        }
        for domain in ["", ".", "a b", "%n.example.org", "[::1]"] {
            assert!(of(domain, "node1").is_err(), "{domain:?}");
        }
    }

    #[test]
    fn a_templates_places_are_filled() {
        let of = |text: &str| text.parse::<NodeAddress>().map(|it| it.of("node1.local"));
        for (text, address) in [
            ("%n-ib.example.org", "node1-ib.example.org"),
            ("%N", "node1.local"),
            ("fd00::%n%%eth0", "fd00::node1%eth0"),
            ("%%n%n%%%N%%", "%nnode1%node1.local%"),
        ] {
            assert_eq!(of(text).as_deref(), Ok(address), "{text}");
        }
        for (text, why) in [
            ("%h", "behind % one of n, N and % is expected"),
            ("%n%", "behind % one of n, N and % is expected"),
            (
                "%n/24",
                "a host's name or address is expected, such as %n-ib",
            ),
            ("%é", "behind % one of n, N and % is expected"),
            (
                "gateway",
                "%n or %N is expected in it, or it is the same for every node",
            ),
            (
                "%%n",
                "%n or %N is expected in it, or it is the same for every node",
            ),
        ] {
            assert_eq!(of(text), Err(why), "{text}");
        }
    }
}
