//! The addresses of this machine's network interfaces.

use std::io;
use std::net::IpAddr;

use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::InterfaceFlags;

/// Every address of every interface, whatever its state.
///
/// # Errors
/// Of getifaddrs(3).
pub fn addresses() -> io::Result<impl Iterator<Item = IpAddr>> {
    Ok(getifaddrs()?.filter_map(|interface| address(&interface)))
}

/// The addresses at which other machines may reach this one, IPv4 ones first, otherwise in the
/// kernel's order: those of interfaces that are up and have a carrier, neither loopback nor
/// link-local ones.
///
/// # Errors
/// Of getifaddrs(3).
pub fn reachable_addresses() -> io::Result<Vec<IpAddr>> {
    let needed = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING;
    let reachable = getifaddrs()?
        .filter(|interface| interface.flags.contains(needed))
        .filter_map(|interface| address(&interface))
        .filter(|address| !is_confined(*address));
    let (mut first, then): (Vec<_>, Vec<_>) = reachable.partition(IpAddr::is_ipv4);
    first.extend(then);
    Ok(first)
}

/// Whether `address` means something on one machine, or on one wire, only.
fn is_confined(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || v4.is_unspecified(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unspecified(),
    }
}

fn address(interface: &InterfaceAddress) -> Option<IpAddr> {
    let storage = interface.address?;
    let v4 = storage.as_sockaddr_in().map(|it| IpAddr::V4(it.ip()));
    let v6 = storage.as_sockaddr_in6().map(|it| IpAddr::V6(it.ip()));
    v4.or(v6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_to_this_machine_or_wire_only_is_not_reachable() {
        for (address, confined) in [
            ("127.0.0.1", true),
            ("127.8.0.1", true),
            ("169.254.3.4", true),
            ("::1", true),
            ("fe80::1", true),
            ("10.0.0.1", false),
            ("192.168.1.1", false),
            ("fd00::1", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(is_confined(address.parse().unwrap()), confined, "{address}");
        }
        let all: Vec<IpAddr> = addresses().unwrap().collect();
        assert!(all.iter().any(IpAddr::is_loopback));
        for address in reachable_addresses().unwrap() {
            assert!(all.contains(&address) && !address.is_loopback());
        }
    }
}
