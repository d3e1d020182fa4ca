//! Handshakes between the two sides in memory, and files of every kind of wrong.

use std::sync::Arc;

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConnection};

use super::fixture::{Authority, Folder, Made, NOW, shown};
use super::*;
use crate::problem::{At, Problems};

/// A document's TLS with files in a folder.
struct Setting {
    folder: Folder,
    ca: Authority,
    certificates: Vec<(String, CertificatePolicy)>,
    listener: Option<ServerPolicy>,
    upstream: Option<ClientPolicy>,
}

impl Setting {
    /// A certificate "shop" for these names, and a listener that shows it.
    fn new(names: &[&str], tls: &str) -> Setting {
        let (folder, ca) = (Folder::new(), Authority::new());
        folder.write("ca.pem", &ca.pem);
        let shop = folder.write_pair("shop", &ca.server(names));
        let text = format!("certificates = [\"shop\"]\n{}", tls.replace("DIR", &folder.shown()));
        let config: ServerTls = toml_edit::de::from_str(&text).unwrap();
        let mut problems = Problems::new();
        let listener = config.check(Spoken::Http, &At::root(), &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        Setting { folder, ca, certificates: vec![("shop".to_owned(), shop)], listener, upstream: None }
    }

    fn upstream(mut self, tls: &str) -> Setting {
        let text = tls.replace("DIR", &self.folder.shown());
        let config: ClientTlsTable = toml_edit::de::from_str(&text).unwrap();
        self.upstream = ClientTls::Detailed(config).check(&At::root(), &mut Problems::new());
        assert!(self.upstream.is_some());
        self
    }

    fn load(&self, before: Option<&Loaded>) -> Result<Loaded, Vec<String>> {
        let wanted = Wanted {
            certificates: self.certificates.iter().map(|(name, policy)| (name.as_str(), policy)).collect(),
            listeners: self.listener.iter().map(|policy| ("web", policy)).collect(),
            upstreams: self.upstream.iter().map(|policy| ("app", policy)).collect(),
        };
        let mut problems = Problems::new();
        let loaded = Loaded::load(&wanted, before, NOW, &mut problems);
        match problems.is_empty() {
            true => Ok(loaded),
            false => Err(problems.iter().map(|one| format!("{}: {}", one.at, one.message)).collect()),
        }
    }

    fn loaded(&self) -> Loaded {
        self.load(None).unwrap_or_else(|told| panic!("{told:?}"))
    }

    /// A client that believes the authority and may show a certificate.
    fn client(&self, shown: Option<&Made>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let certificates = files::certificates(&self.folder.path("ca.pem"), self.ca.pem.as_bytes()).unwrap();
        roots.add_parsable_certificates(certificates);
        let builder =
            ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots);
        Arc::new(match shown {
            None => builder.with_no_client_auth(),
            Some(made) => {
                let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.pair.serialize_der()));
                builder.with_client_auth_cert(vec![made.der.clone()], key).unwrap()
            }
        })
    }
}

/// A handshake, and what each side then has to say; whatever is sent reaches the other side.
fn handshake(
    client: &Arc<ClientConfig>,
    server: &Server,
    name: &str,
) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), name)?;
    let mut server = ServerConnection::new(Arc::clone(server.config()))?;
    for _ in 0..10 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets()?;
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok((client, server))
}

#[test]
fn a_handshake_tells_what_was_agreed_on() {
    let setting = Setting::new(&["shop.example"], "").upstream("ca = \"DIR/ca.pem\"\nsni = \"shop.example\"");
    let loaded = setting.loaded();
    let (server, client) = (loaded.server("web").unwrap(), loaded.client("app").unwrap());
    for (offer, alpn) in [
        (Offer::Both, Some("h2")),
        (Offer::Http1, Some("http/1.1")),
        (Offer::Http2, Some("h2")),
        (Offer::Nothing, None),
    ] {
        let (_, accepted) = handshake(client.config(offer), server, "shop.example").unwrap();
        let secured = Secured::of_server(&accepted);
        assert_eq!(secured.alpn.as_deref(), alpn, "{offer:?}");
        assert_eq!(secured.sni.as_deref(), Some("shop.example"));
        assert_eq!((secured.version, secured.client.clone()), ("TLSv1.3", None));
        assert!(secured.cipher.starts_with("TLS_AES_"), "{}", secured.cipher);
    }
    assert_eq!(client.server_name("127.0.0.1:443").unwrap().to_str(), "shop.example");
}

#[test]
fn versions_and_cipher_suites_are_those_of_the_policy() {
    let tls = "max_version = \"1.2\"\nciphers = [\"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384\"]";
    let setting = Setting::new(&["shop.example"], tls);
    let loaded = setting.loaded();
    let server = loaded.server("web").unwrap();
    let (_, accepted) = handshake(&setting.client(None), server, "shop.example").unwrap();
    let secured = Secured::of_server(&accepted);
    assert_eq!(secured.version, "TLSv1.2");
    assert_eq!(secured.cipher, "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384");

    let new = Setting::new(&["shop.example"], tls).upstream("ca = \"DIR/ca.pem\"\nmin_version = \"1.3\"");
    let client = Arc::clone(new.loaded().client("app").unwrap().config(Offer::Http1));
    assert!(handshake(&client, server, "shop.example").is_err());
}

#[test]
fn an_endpoint_must_prove_who_it_is_unless_the_document_says_otherwise() {
    let setting = Setting::new(&["shop.example"], "").upstream("ca = \"DIR/ca.pem\"");
    let loaded = setting.loaded();
    let server = loaded.server("web").unwrap();
    let client = loaded.client("app").unwrap().config(Offer::Http1);
    assert!(handshake(client, server, "shop.example").is_ok());
    assert!(handshake(client, server, "other.example").is_err());
    let stranger = Setting::new(&["shop.example"], "").loaded();
    assert!(handshake(client, stranger.server("web").unwrap(), "shop.example").is_err());

    let blind = Setting::new(&["shop.example"], "").upstream("verify = false");
    let loaded = blind.loaded();
    assert!(handshake(loaded.client("app").unwrap().config(Offer::Http1), server, "other.example").is_ok());
    assert!(loaded.cautions().iter().any(|caution| caution.contains("verify = false")));
}

#[test]
fn clients_are_let_in_by_their_certificates() {
    let required = Setting::new(&["shop.example"], "client_auth = { ca = \"DIR/ca.pem\" }");
    let loaded = required.loaded();
    let server = loaded.server("web").unwrap();
    let ada = required.ca.client("Ada", &["ada.example"]);
    let (_, accepted) = handshake(&required.client(Some(&ada)), server, "shop.example").unwrap();
    let identity = Secured::of_server(&accepted).client.unwrap();
    assert_eq!((identity.subject.as_str(), identity.serial.as_str()), ("CN=Ada", "07"));
    assert!(handshake(&required.client(None), server, "shop.example").is_err());
    let stranger = Authority::new().client("Ada", &[]);
    assert!(handshake(&required.client(Some(&stranger)), server, "shop.example").is_err());

    let optional =
        Setting::new(&["shop.example"], "client_auth = { ca = \"DIR/ca.pem\", mode = \"optional\" }");
    let loaded = optional.loaded();
    let server = loaded.server("web").unwrap();
    let (_, accepted) = handshake(&optional.client(None), server, "shop.example").unwrap();
    assert_eq!(Secured::of_server(&accepted).client, None);
    assert!(handshake(&optional.client(Some(&stranger)), server, "shop.example").is_err());
}

#[test]
fn a_revoked_client_is_refused_and_an_expired_list_is_a_problem() {
    let setting =
        Setting::new(&["shop.example"], "client_auth = { ca = \"DIR/ca.pem\", crl = [\"DIR/a.crl\"] }");
    let ada = setting.ca.client("Ada", &[]);
    let client = setting.client(Some(&ada));
    setting.folder.write("a.crl", setting.ca.crl(false, 2090));
    let before = setting.loaded();
    assert!(handshake(&client, before.server("web").unwrap(), "shop.example").is_ok());

    setting.folder.write("a.crl", setting.ca.crl(true, 2090));
    let after = setting.load(Some(&before)).unwrap();
    // The client holds a session of before, which a session key kept over the change would revive.
    assert!(handshake(&client, after.server("web").unwrap(), "shop.example").is_err());

    let path = setting.folder.write("a.crl", setting.ca.crl(true, 2026));
    let told = setting.load(Some(&before)).err().unwrap();
    let list = format!(
        "listeners.web.tls.client_auth.crl[0]: {} holds a list that expired on 2026-01-01",
        shown(&path)
    );
    assert_eq!(told, [list]);
}

#[test]
fn sessions_are_resumed_also_after_a_renewal() {
    for tls in ["", "max_version = \"1.2\""] {
        let setting = Setting::new(&["shop.example"], tls);
        let before = setting.loaded();
        let client = setting.client(None);
        let kind = |loaded: &Loaded| {
            let (_, accepted) = handshake(&client, loaded.server("web").unwrap(), "shop.example").unwrap();
            accepted.handshake_kind().unwrap()
        };
        assert_ne!(kind(&before), HandshakeKind::Resumed, "{tls}");
        assert_eq!(kind(&before), HandshakeKind::Resumed, "{tls}");
        setting.folder.write_pair("shop", &setting.ca.server(&["shop.example"]));
        assert_eq!(kind(&setting.load(Some(&before)).unwrap()), HandshakeKind::Resumed, "{tls}");
        assert_ne!(kind(&setting.loaded()), HandshakeKind::Resumed, "{tls}: another process");
    }
}

#[test]
fn what_did_not_change_runs_on_and_renewed_files_are_taken() {
    let setting =
        Setting::new(&["shop.example"], "client_auth = { ca = \"DIR/ca.pem\", mode = \"optional\" }")
            .upstream("ca = \"DIR/ca.pem\"\ncertificate = \"shop\"");
    let first = setting.loaded();
    let second = setting.load(Some(&first)).unwrap();
    assert!(Arc::ptr_eq(first.server("web").unwrap(), second.server("web").unwrap()));
    assert!(Arc::ptr_eq(first.client("app").unwrap(), second.client("app").unwrap()));

    setting.folder.write_pair("shop", &setting.ca.server(&["other.example"]));
    let third = setting.load(Some(&second)).unwrap();
    assert!(!Arc::ptr_eq(second.client("app").unwrap(), third.client("app").unwrap()));
    assert!(handshake(&setting.client(None), third.server("web").unwrap(), "other.example").is_ok());
    assert!(handshake(&setting.client(None), second.server("web").unwrap(), "other.example").is_err());
}

#[test]
fn an_endpoint_that_asks_is_shown_our_certificate() {
    let asking = Setting::new(&["shop.example"], "client_auth = { ca = \"DIR/ca.pem\" }")
        .upstream("ca = \"DIR/ca.pem\"\ncertificate = \"shop\"");
    asking.folder.write_pair("shop", &asking.ca.server(&["shop.example"]));
    let loaded = asking.loaded();
    let client = loaded.client("app").unwrap().config(Offer::Http1);
    let (_, accepted) = handshake(client, loaded.server("web").unwrap(), "shop.example").unwrap();
    assert_eq!(Secured::of_server(&accepted).client.unwrap().dns, ["shop.example"]);
}

#[test]
fn a_request_fits_its_connection_when_the_certificate_covers_both() {
    let setting = Setting::new(&["shop.example", "*.api.example", "127.0.0.1"], "");
    let mut settings = setting.loaded();
    let server = settings.server("web").unwrap();
    for (sni, host) in [
        (Some("shop.example"), "shop.example"),
        (Some("shop.example"), "SHOP.example.:443"),
        (Some("shop.example"), "a.api.example:443"),
        (Some("shop.example"), "127.0.0.1:8443"),
        (Some("unknown.example"), "unknown.example"),
        (Some("unknown.example"), "shop.example"),
        (None, "whatever.example"),
    ] {
        assert!(server.permits(sni, host), "{sni:?} {host}");
    }
    for (sni, host) in [
        (Some("shop.example"), "other.example"),
        (Some("shop.example"), "a.b.api.example"),
        (Some("shop.example"), "127.0.0.2"),
        (Some("shop.example"), ""),
    ] {
        assert!(!server.permits(sni, host), "{sni:?} {host}");
    }
    settings = Setting::new(&["shop.example"], "strict_sni = false").loaded();
    assert!(settings.server("web").unwrap().permits(Some("shop.example"), "other.example"));
}

#[test]
fn unknown_names_are_refused_where_the_document_says_so() {
    let setting = Setting::new(&["shop.example"], "unknown_sni = \"refuse\"").upstream("verify = false");
    let loaded = setting.loaded();
    let client = loaded.client("app").unwrap().config(Offer::Http1);
    assert!(handshake(client, loaded.server("web").unwrap(), "shop.example").is_ok());
    assert!(handshake(client, loaded.server("web").unwrap(), "other.example").is_err());
}

#[test]
fn every_unusable_file_is_a_problem_that_names_it() {
    let setting = Setting::new(&["shop.example"], "");
    let (chain, key) = (setting.folder.path("shop.pem"), setting.folder.path("shop.key"));
    let (good, other) = (setting.ca.server(&["a.example"]), setting.ca.server(&["a.example"]));
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let old =
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nMAA=\n-----END RSA PRIVATE KEY-----\n";
    let odd = "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n";
    let garbage = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    let (expired, early) = (setting.ca.dated(&["a"], 2000, 2001), setting.ca.dated(&["a"], 2040, 2041));
    let first = format!("{}{}", other.chain, good.chain);
    for (chain_text, key_text, at, what) in [
        ("", &*good.key, "chain", "is not a PEM file"),
        ("\u{0}binary", &good.key, "chain", "is not a PEM file"),
        (&good.key, &good.key, "chain", "holds no certificate"),
        (garbage, &good.key, "chain", "holds a malformed certificate"),
        (&expired.chain, &expired.key, "chain", "holds a certificate that expired on 2001-01-01"),
        (&early.chain, &early.key, "chain", "holds a certificate that is not valid before 2040-01-01"),
        (&good.chain, &good.chain, "key", "holds no private key"),
        (&good.chain, encrypted, "key", "is protected by a password"),
        (&good.chain, old, "key", "is protected by a password"),
        (&good.chain, odd, "key", "holds a private key of a kind that cannot be used"),
        (&good.chain, &other.key, "key", "is not the key of the first certificate in"),
        (&first, &good.key, "key", "is not the key of the first certificate in"),
    ] {
        setting.folder.write("shop.pem", chain_text);
        setting.folder.write("shop.key", key_text);
        let told = setting.load(None).err().unwrap_or_else(|| panic!("{what}: no problem"));
        let file = if at == "chain" { &chain } else { &key };
        let expected = format!("certificates.shop.{at}: {} {what}", shown(file));
        assert!(told.iter().any(|told| told.starts_with(&expected)), "{expected}\n{told:?}");
    }
    std::fs::remove_file(&chain).unwrap();
    let told = setting.load(None).err().unwrap();
    assert!(
        told[0].starts_with(&format!("certificates.shop.chain: {} cannot be read", shown(&chain))),
        "{told:?}"
    );
}

#[test]
fn unusable_authorities_are_problems_of_whoever_names_them() {
    let setting = Setting::new(&["shop.example"], "client_auth = { ca = \"DIR/ca.pem\" }")
        .upstream("ca = \"DIR/ca.pem\"");
    let file = shown(&setting.folder.path("ca.pem"));
    for (text, what) in [
        ("", "is not a PEM file"),
        (
            "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n",
            "holds an authority's certificate that is malformed",
        ),
    ] {
        setting.folder.write("ca.pem", text);
        let told = setting.load(None).err().unwrap();
        for place in ["listeners.web.tls.client_auth.ca", "upstreams.app.tls.ca"] {
            assert!(told.iter().any(|one| one.starts_with(&format!("{place}: {file} {what}"))), "{told:?}");
        }
    }
}

#[test]
fn keys_of_every_form_are_read() {
    let setting = Setting::new(&["shop.example"], "");
    setting.folder.write_pair("shop", &setting.ca.rsa_server(&["shop.example"]));
    let loaded = setting.loaded();
    assert!(handshake(&setting.client(None), loaded.server("web").unwrap(), "shop.example").is_ok());
    // SEC1 inside PKCS#8 of P-256: the last OCTET STRING holds it.
    let made = setting.ca.server(&["shop.example"]);
    let pkcs8 = made.pair.serialize_der();
    let start = pkcs8.windows(3).position(|bytes| bytes == [0x02, 0x01, 0x01]).unwrap() - 2;
    let sec1 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &pkcs8[start..]);
    setting.folder.write_pair("shop", &made);
    setting
        .folder
        .write("shop.key", format!("-----BEGIN EC PRIVATE KEY-----\n{sec1}\n-----END EC PRIVATE KEY-----\n"));
    let loaded = setting.loaded();
    assert!(handshake(&setting.client(None), loaded.server("web").unwrap(), "shop.example").is_ok());
}

#[test]
fn a_certificate_that_ends_soon_is_spoken_of() {
    let setting = Setting::new(&["shop.example"], "");
    assert!(setting.loaded().cautions().is_empty());
    setting.folder.write_pair("shop", &setting.ca.dated(&["a.example"], 2020, 2027));
    let wanted = |now| {
        let certificates =
            setting.certificates.iter().map(|(name, policy)| (name.as_str(), policy)).collect();
        Loaded::load(&Wanted { certificates, ..Wanted::default() }, None, now, &mut Problems::new())
    };
    assert!(wanted(NOW).cautions().is_empty());
    let soon = wanted(NOW + 40 * 86_400);
    assert!(soon.cautions()[0].ends_with("expires on 2027-01-01"), "{:?}", soon.cautions());
}

#[test]
fn contents_are_those_of_the_files() {
    let folder = Folder::new();
    let files = [folder.write("a", "1"), folder.path("missing")];
    let before = contents(&files);
    assert_eq!(before, contents(&files));
    folder.write("a", "2");
    assert_ne!(before, contents(&files));
}
