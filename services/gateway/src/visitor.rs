//! The addresses that requests come from, for limits: no address may take what all others need as well.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use axum::http::{HeaderMap, HeaderName};
use wire::words::shown;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// A client, for limits: an IPv4 address, or the 64 leading bits of an IPv6 address, since a host chooses the others
/// by itself (RFC 4291, section 2.5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Visitor(IpAddr);

impl From<IpAddr> for Visitor {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
            address @ IpAddr::V4(_) => address,
        })
    }
}

impl fmt::Display for Visitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => write!(f, "{address}"),
            IpAddr::V6(address) => write!(f, "{address}/64"),
        }
    }
}

/// The proxies whose `X-Forwarded-For` is believed. From any other address it is ignored: it can say anything.
///
/// `Forwarded` is not read: most proxies pass on what a client has written there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<Network>);

/// An address, and how many of its leading bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u8,
}

impl TrustedProxies {
    /// Whether a peer with this address is one of them.
    pub(crate) fn include(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.includes(address))
    }

    /// The client of a request on a connection from `peer`: the peer itself, unless it is a proxy. Each proxy adds the
    /// address that it was asked by to the end of the header. So the client is the last address there that is not a
    /// proxy's.
    pub(crate) fn visitor(&self, peer: IpAddr, headers: &HeaderMap) -> Visitor {
        let mut visitor = peer;
        if self.include(peer) {
            let lines = headers.get_all(X_FORWARDED_FOR).iter().rev();
            let texts = lines.map_while(|line| line.to_str().ok()).flat_map(|line| line.rsplit(','));
            for text in texts {
                // A proxy that knew the address would have written one that can be read.
                let Some(address) = address_in(text.trim()) else { break };
                visitor = address;
                if !self.include(address) {
                    break;
                }
            }
        }
        visitor.into()
    }
}

/// Whether a request says that it came through a proxy, which any client can claim.
pub(crate) fn is_forwarded(headers: &HeaderMap) -> bool {
    headers.contains_key(X_FORWARDED_FOR)
}

/// An address as proxies write it: some add the port.
fn address_in(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.split_once(']')).map_or(text, |(bare, _)| bare);
    let with_port = || text.split_once(':').and_then(|(address, _)| address.parse().ok()).map(IpAddr::V4);
    bare.parse().ok().or_else(with_port)
}

impl Network {
    fn includes(self, other: IpAddr) -> bool {
        match (self.address, other) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                same_bits(u128::from(own.to_bits()) << 96, u128::from(other.to_bits()) << 96, self.bits)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => same_bits(own.to_bits(), other.to_bits(), self.bits),
            _ => false,
        }
    }
}

/// Whether the first `bits` bits are the same.
fn same_bits(one: u128, other: u128, bits: u8) -> bool {
    (one ^ other).leading_zeros() >= u32::from(bits)
}

impl FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| ())?;
        let all = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(all), |bits| bits.parse().map_err(|_| ()))?;
        if bits > all { Err(()) } else { Ok(Self { address, bits }) }
    }
}

impl FromStr for TrustedProxies {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        let network = |name: &str| {
            name.parse().map_err(|()| {
                format!(
                    "must be addresses and networks apart by commas, such as 127.0.0.1,::1,10.0.0.0/8, got {}",
                    shown(name)
                )
            })
        };
        names.map(network).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn visitor(proxies: &str, peer: &str, forwarded: &[&'static str]) -> String {
        let proxies: TrustedProxies = proxies.parse().unwrap();
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append(X_FORWARDED_FOR, line.parse().unwrap());
        }
        proxies.visitor(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn what_a_client_says_of_itself_counts_only_behind_a_proxy_that_is_trusted() {
        assert_eq!(visitor("", "10.0.0.1", &["1.2.3.4"]), "10.0.0.1");
        assert_eq!(visitor("10.0.0.2", "10.0.0.1", &["1.2.3.4"]), "10.0.0.1");
        assert_eq!(visitor("10.0.0.1", "10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(visitor("10.0.0.1", "10.0.0.1", &["1.2.3.4"]), "1.2.3.4");
        // The client claims to be 9.9.9.9; each proxy has noted the address that it was asked by.
        assert_eq!(visitor("10.0.0.0/8", "10.0.0.1", &["9.9.9.9, 1.2.3.4, 10.7.7.7"]), "1.2.3.4");
        assert_eq!(visitor("10.0.0.0/8", "10.0.0.1", &["9.9.9.9", "1.2.3.4", "10.7.7.7"]), "1.2.3.4");
        assert_eq!(visitor("10.0.0.0/8", "10.0.0.1", &["9.9.9.9, unknown, 10.7.7.7"]), "10.7.7.7");
        assert_eq!(visitor("10.0.0.0/8", "::ffff:10.0.0.1", &["1.2.3.4:5678"]), "1.2.3.4");
        assert_eq!(visitor("::1", "::1", &["[2001:db8::7:8:9]:5678"]), "2001:db8::/64");
        assert_eq!(visitor("::1", "::1", &["not.an.address"]), "::/64");
    }

    #[test]
    fn a_host_with_ipv6_is_one_visitor_whatever_address_it_takes() {
        assert_eq!(visitor("", "2001:db8:1:2:3:4:5:6", &[]), visitor("", "2001:db8:1:2:f:e:d:c", &[]));
        assert_ne!(visitor("", "2001:db8:1:2:3:4:5:6", &[]), visitor("", "2001:db8:1:3:3:4:5:6", &[]));
        assert_eq!(visitor("", "::ffff:1.2.3.4", &[]), "1.2.3.4");
    }

    #[test]
    fn a_network_that_is_none_is_named() {
        for wrong in ["localhost", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.1:80", "10.0.0.0/-1"] {
            let error = format!("127.0.0.1,{wrong}").parse::<TrustedProxies>().unwrap_err();
            assert!(error.contains(&format!("got \"{wrong}\"")), "{error}");
        }
        let proxies: TrustedProxies = "0.0.0.0/0, fd00::/8 ,".parse().unwrap();
        for inside in ["1.2.3.4", "fd12::1"] {
            assert!(proxies.include(inside.parse().unwrap()), "{inside}");
        }
        assert!(!proxies.include("fe80::1".parse().unwrap()));
    }
}
