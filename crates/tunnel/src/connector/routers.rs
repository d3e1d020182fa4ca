//! Which gateways to register with: a list, or names that are looked up again and again.

use std::io;

use super::address::Address;
use super::dial::LocalFuture;

/// Says which gateways there are; asked at the start, and again and again.
pub trait Routers {
    /// The gateways now. On an error the ones of before stay.
    fn routers(&self) -> LocalFuture<io::Result<Vec<Address>>>;
}

/// Always the same.
#[derive(Clone, Debug)]
pub struct Fixed(pub Vec<Address>);

impl Routers for Fixed {
    fn routers(&self) -> LocalFuture<io::Result<Vec<Address>>> {
        let list = self.0.clone();
        Box::pin(async move { Ok(list) })
    }
}

/// Every address (A and AAAA) of these names is a gateway.
#[derive(Clone, Debug)]
pub struct LookedUp(pub Vec<Address>);

impl Routers for LookedUp {
    fn routers(&self) -> LocalFuture<io::Result<Vec<Address>>> {
        let names = self.0.clone();
        Box::pin(async move {
            let mut found = Vec::new();
            for name in names {
                for address in tokio::net::lookup_host((&name.host[..], name.port)).await? {
                    found.push(Address { ip: Some(address.ip()), ..name.clone() });
                }
            }
            Ok(found)
        })
    }
}
