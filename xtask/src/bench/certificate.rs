//! The certificate of `bench tls`: ECDSA P-256, signed by itself, the same for every proxy.

use std::process::Command;

use super::servers::Folder;
use crate::Failed;
use crate::step::output;

const CHAIN: &str = "bench.crt";
const KEY: &str = "bench.key";
const BOTH: &str = "bench.pem";

/// What openssl puts into it: a name for clients that send one, the address for those that do not. No
/// authority, because a client that trusts exactly this certificate would refuse one as a server's.
const REQUEST: &str = "[req]\nprompt = no\ndistinguished_name = who\nx509_extensions = also\n\
                       [who]\nCN = bench.example\n\
                       [also]\nsubjectAltName = DNS:bench.example, IP:127.0.0.1\n\
                       basicConstraints = critical, CA:FALSE\n";

/// Writes the certificate and its key into `folder`.
pub(super) fn make(folder: &Folder) -> Result<(), Failed> {
    let (request, chain, key) = (folder.write("request.cnf", REQUEST)?, chain(folder), key(folder));
    let mut make = Command::new("openssl");
    make.args(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", &key]);
    output(&mut make)?;
    let mut sign = Command::new("openssl");
    sign.args(["req", "-x509", "-days", "2", "-config", &request, "-key", &key, "-out", &chain]);
    output(&mut sign)?;
    let read =
        |path: &str| std::fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"));
    folder.write(BOTH, &format!("{}{}", read(&chain)?, read(&key)?))?;
    Ok(())
}

/// The certificate's file.
pub(super) fn chain(folder: &Folder) -> String {
    folder.file(CHAIN)
}

/// The private key's file.
pub(super) fn key(folder: &Folder) -> String {
    folder.file(KEY)
}

/// The file with both in it, as HAProxy wants them.
pub(super) fn both(folder: &Folder) -> String {
    folder.file(BOTH)
}
