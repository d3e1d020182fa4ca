//! A resolver asks a small DNS server of the test's own, on a worker's kind of runtime.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use tokio::net::UdpSocket;

use super::*;

/// What the server says to questions of one type: addresses, or a response code.
#[derive(Clone)]
enum Says {
    Addresses(Vec<IpAddr>),
    Code(u8),
    Nothing,
}

/// Answers each question with what `say` gives for its name.
async fn serve(socket: UdpSocket, asked: Rc<RefCell<Vec<String>>>, say: impl Fn(&str) -> Says) {
    let mut packet = [0; 1500];
    while let Ok((length, from)) = socket.recv_from(&mut packet).await {
        let (name, kind, end) = question(&packet[..length]);
        asked.borrow_mut().push(name.clone());
        let Some(answer) = answer(&packet[..end], kind, &say(&name)) else { continue };
        socket.send_to(&answer, from).await.unwrap();
    }
}

fn question(packet: &[u8]) -> (String, u16, usize) {
    let (mut at, mut labels) = (12, Vec::new());
    while packet[at] != 0 {
        let length = usize::from(packet[at]);
        labels.push(String::from_utf8(packet[at + 1..at + 1 + length].to_vec()).unwrap());
        at += 1 + length;
    }
    (labels.join("."), u16::from_be_bytes([packet[at + 1], packet[at + 2]]), at + 5)
}

fn answer(asked: &[u8], kind: u16, says: &Says) -> Option<Vec<u8>> {
    let mut out = asked.to_vec();
    out[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0]);
    match says {
        Says::Nothing => return None,
        Says::Code(code) => out[3] |= code,
        Says::Addresses(addresses) => {
            let octets = |address: &IpAddr| match address {
                IpAddr::V4(v4) => (1, v4.octets().to_vec()),
                IpAddr::V6(v6) => (28, v6.octets().to_vec()),
            };
            for (_, data) in addresses.iter().map(octets).filter(|(of, _)| *of == kind) {
                out[7] += 1;
                out.extend([0xc0, 12]);
                out.extend(kind.to_be_bytes());
                out.extend([0, 1, 0, 0, 0x0e, 0x10, 0, data.len() as u8]);
                out.extend(data);
            }
        }
    }
    Some(out)
}

type Asked = Rc<RefCell<Vec<String>>>;

/// Runs `test` with a resolver whose only server says what `say` gives.
#[expect(clippy::needless_pass_by_value, reason = "each test makes one for it")]
fn with<T: Future>(
    say: impl Fn(&str) -> Says + 'static,
    config: Config,
    test: impl FnOnce(Resolver, Asked) -> T,
) -> T::Output {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()).unwrap();
    runtime.block_on(async move {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let servers = vec![socket.local_addr().unwrap().to_string()];
        let asked = Asked::default();
        tokio::task::spawn_local(serve(socket, Rc::clone(&asked), say));
        let policy = Config { servers, ..config }.check(&At::root(), &mut Problems::new());
        test(Resolver::new(policy), asked).await
    })
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn both_families_are_found_on_a_local_runtime_and_kept() {
    let addresses = vec![ip("192.0.2.1"), ip("192.0.2.2"), ip("2001:db8::1")];
    let all = addresses.clone();
    with(
        move |_| Says::Addresses(addresses.clone()),
        Config::default(),
        |resolver, asked| async move {
            let mut found = resolver.resolve("WWW.Example.test.").await.unwrap();
            found.sort();
            assert_eq!(found, all);
            let questions = asked.borrow().len();
            assert!(questions == 2 && asked.borrow().iter().all(|name| name == "www.example.test"));
            resolver.resolve("www.example.test").await.unwrap();
            assert_eq!(asked.borrow().len(), questions, "the answer was not kept");
        },
    );
}

#[test]
fn why_there_is_no_address_is_told() {
    let quick = || Config {
        timeout: Some(Period(Duration::from_millis(50))),
        attempts: NonZeroU8::new(1),
        ..Config::default()
    };
    for (says, expected) in [
        (Says::Code(3), Unresolved::NotFound),
        (Says::Addresses(Vec::new()), Unresolved::NotFound),
        (Says::Code(2), Unresolved::Failed),
        (Says::Code(5), Unresolved::Failed),
        (Says::Nothing, Unresolved::TimedOut),
    ] {
        let found = with(
            move |_| says.clone(),
            quick(),
            |resolver, _| async move { resolver.resolve("gone.test").await },
        );
        assert_eq!(found, Err(expected));
    }
}

#[test]
fn an_answer_of_one_family_is_enough_when_the_other_fails() {
    let found = with(
        |_| Says::Addresses(vec![ip("192.0.2.1")]),
        Config::default(),
        |resolver, _| async move { resolver.resolve("four.test").await },
    );
    assert_eq!(found, Ok(vec![ip("192.0.2.1")]));
}

#[test]
fn literals_localhost_and_nonsense_ask_nobody() {
    with(
        |_| Says::Addresses(vec![ip("192.0.2.9")]),
        Config::default(),
        |resolver, asked| async move {
            for (host, expected) in [
                ("192.0.2.7", Ok(vec![ip("192.0.2.7")])),
                ("[2001:db8::7]", Ok(vec![ip("2001:db8::7")])),
                ("::ffff:10.0.0.1", Ok(vec![ip("10.0.0.1")])),
                ("localhost", Ok(vec![ip("127.0.0.1"), ip("::1")])),
                ("A.LocalHost.", Ok(vec![ip("127.0.0.1"), ip("::1")])),
                ("127.1", Err(Unresolved::NotFound)),
                ("2130706433", Err(Unresolved::NotFound)),
                ("0x7f000001", Err(Unresolved::NotFound)),
                ("0x7f.1", Err(Unresolved::NotFound)),
                ("0177.0.0.01", Err(Unresolved::NotFound)),
                ("a b", Err(Unresolved::NotFound)),
                ("127.0.0.1%00", Err(Unresolved::NotFound)),
                ("\u{ff11}", Err(Unresolved::NotFound)),
                ("", Err(Unresolved::NotFound)),
                (".", Err(Unresolved::NotFound)),
                ("a..b", Err(Unresolved::NotFound)),
            ] {
                assert_eq!(resolver.resolve(host).await, expected, "{host:?}");
            }
            assert!(asked.borrow().is_empty(), "{asked:?}");
        },
    );
}

#[test]
fn a_mapped_address_from_a_server_is_the_ipv4_address_and_stands_once() {
    let found = with(
        |_| Says::Addresses(vec![ip("10.0.0.1"), ip("::ffff:10.0.0.1")]),
        Config::default(),
        |resolver, _| async move { resolver.resolve("twice.test").await },
    );
    assert_eq!(found, Ok(vec![ip("10.0.0.1")]));
}

#[test]
fn nothing_is_kept_where_the_cache_is_off() {
    let count = Rc::new(Cell::new(0));
    let counted = Rc::clone(&count);
    let say = move |_: &str| {
        counted.set(counted.get() + 1);
        Says::Addresses(vec![ip("192.0.2.1")])
    };
    with(say, Config { cache: Some(0), ..Config::default() }, |resolver, _| async move {
        resolver.resolve("a.test").await.unwrap();
        resolver.resolve("a.test").await.unwrap();
    });
    assert_eq!(count.get(), 4);
}

#[test]
fn wrong_servers_are_problems_with_a_place() {
    let config = Config {
        servers: ["192.0.2.53", "[::1]:5353", "::1", "dns.example", "1.1.1.1:0"].map(str::to_owned).to_vec(),
        timeout: Some(Period(Duration::ZERO)),
        ..Config::default()
    };
    let mut problems = Problems::new();
    let policy = config.check(&At::root().key("dns"), &mut problems);
    let expected: Vec<SocketAddr> =
        ["192.0.2.53:53", "[::1]:5353", "[::1]:53"].iter().map(|text| text.parse().unwrap()).collect();
    assert_eq!(policy.servers, expected);
    let places: Vec<_> = problems.iter().map(|problem| problem.at.to_string()).collect();
    assert_eq!(places, ["dns.servers[3]", "dns.servers[4]", "dns.timeout"]);
}
