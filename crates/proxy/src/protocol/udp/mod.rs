//! UDP listeners: the datagrams of one client address are a flow to one endpoint.
//!
//! Promise: nothing is queued: a datagram that a socket has no room for is dropped and counted, and so are
//! those of new clients while as many flows as allowed are open; a flow that nothing moves in ends; every
//! flow is one exchange in metrics and access log.
//!
//! The kernel gives the datagrams of one client to one worker (SO_REUSEPORT hashes addresses and ports), so
//! flows belong to workers. A reload keeps them. While the process stops, flows that go on are served and
//! none begins; when another process listens on, it reads the socket and what we still have are answers.

mod flow;
mod flows;

use std::cell::RefCell;
use std::future::{Future as _, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::ReadBuf;
use tokio::net::UdpSocket;

use super::Arrival;
use super::tcp::stand_in;
use crate::exchange::{Exchange, Outcome};
use crate::facts::Scheme;
use crate::failure::Failure;
use crate::listener::admit::admit;
use crate::listener::{LocalListener, Open};
use crate::observe::access_log::Captured;
use crate::pipeline::{self, Place, finish};
use crate::upstream::Local;
use crate::upstream::pick::Choice;
use crate::worker::{Running, Worker};
use flow::Flow;
use flows::{Flows, Room, Whose};

/// How long a flow may be idle while the process stops.
const STOPPING_IDLE: Duration = Duration::from_secs(2);

/// A worker's socket of a listener, and what its flows share.
struct Port {
    worker: Rc<Worker>,
    listener: RefCell<Rc<LocalListener>>,
    socket: UdpSocket,
    flows: RefCell<Flows<Rc<Flow>>>,
    /// Where datagrams from endpoints are read into, one at a time.
    scratch: RefCell<Vec<u8>>,
}

/// A flow that is about to begin.
struct Beginning {
    exchange: Exchange,
    running: Rc<Running>,
    local: Rc<Local>,
    choice: Choice,
}

/// Serves the socket until the listener is removed or the worker ends.
pub async fn run(worker: Rc<Worker>, listener: Rc<LocalListener>, socket: UdpSocket) {
    let port = Rc::new(Port {
        worker: Rc::clone(&worker),
        listener: RefCell::new(listener),
        socket,
        flows: RefCell::new(Flows::new()),
        scratch: RefCell::new(vec![0; 64 * 1024]),
    });
    let deadline = worker.world.timers.deadline();
    let mut buffer = vec![0; 64 * 1024];
    while !port.is_over() {
        // Looked at again now and then: a drain or a removed listener wakes nobody here.
        deadline.set(worker.world.clock.now(), Duration::from_secs(1));
        let received = poll_fn(|cx| {
            let mut read = ReadBuf::new(&mut buffer);
            match port.socket.poll_recv_from(cx, &mut read) {
                Poll::Ready(received) => {
                    Poll::Ready(Some(received.map(|client| (client, read.filled().len()))))
                }
                Poll::Pending if deadline.poll_passed(cx) || port.is_over() => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        port.refresh();
        // An error is about a datagram that we sent: its client has gone.
        if let Some(Ok((client, length))) = received {
            port.arrived(client, &buffer[..length]);
        }
    }
}

impl Port {
    /// Whether nothing is read from the socket any more.
    fn is_over(&self) -> bool {
        let listener = self.listener.borrow();
        listener.is_closed() || (self.worker.is_draining() && listener.bound.is_handed_over())
    }

    fn refresh(&self) {
        let listener = self.worker.running().listener(&self.listener.borrow());
        *self.listener.borrow_mut() = listener;
    }

    fn listener(&self) -> Rc<LocalListener> {
        Rc::clone(&self.listener.borrow())
    }

    fn arrived(self: &Rc<Self>, client: SocketAddr, datagram: &[u8]) {
        let listener = self.listener();
        if datagram.len() > listener.shared.datagram {
            return listener.cells.dropped.add(1);
        }
        let full = listener.bound.connections() >= listener.shared.connections;
        let room = if full || self.worker.is_draining() { Room::None } else { Room::Some };
        let now = self.worker.world.clock.now();
        let whose = self.flows.borrow_mut().arrived(client, now, room);
        match whose {
            Whose::Known(flow) => {
                if !flow.send(datagram) {
                    listener.cells.dropped.add(1);
                }
            }
            Whose::New => self.begin(&listener, client, datagram),
            Whose::Shed => {
                listener.cells.dropped.add(1);
                listener.cells.failed(Failure::Overloaded);
            }
        }
    }

    /// Begins the flow of a new client with its first datagram.
    fn begin(self: &Rc<Self>, listener: &Rc<LocalListener>, client: SocketAddr, datagram: &[u8]) {
        let (worker, now) = (&self.worker, self.worker.world.clock.now());
        let arrival = Arrival { worker: Rc::clone(worker), peer: client, scheme: Scheme::Http, tls: None };
        let counted = match admit(listener, client.ip()) {
            Ok(counted) => counted,
            Err(_counted) => return listener.cells.dropped.add(1),
        };
        let mut exchange = arrival.begin(listener, now, None);
        let running = worker.running();
        let begun = self.route(listener, &running, &mut exchange).and_then(|(local, choice)| {
            let flow = Flow::open(&local.shared.endpoints[choice.index])?;
            Ok((local, choice, flow))
        });
        let (local, choice, flow) = match begun {
            Ok(begun) => begun,
            Err(failure) => {
                listener.cells.dropped.add(1);
                exchange.outcome = Outcome::Failed(failure);
                finish::note(worker, &running, listener, &mut exchange, &Captured::default());
                return;
            }
        };
        let header =
            (local.shared.policy.proxy_protocol).map_or(Vec::new(), |version| version.datagram(&exchange));
        if !flow.send_first(header, datagram) {
            listener.cells.dropped.add(1);
        }
        let flow = Rc::new(flow);
        self.flows.borrow_mut().open(client, Rc::clone(&flow), now);
        let open = Open::count(listener, &worker.connections);
        let (port, beginning) = (Rc::clone(self), Beginning { exchange, running, local, choice });
        worker.world.spawn(async move {
            flow::run(port, flow, client, beginning).await;
            drop((open, counted));
        });
    }

    fn route(
        &self,
        listener: &Rc<LocalListener>,
        running: &Rc<Running>,
        exchange: &mut Exchange,
    ) -> Result<(Rc<Local>, Choice), Failure> {
        let place = Place { worker: &self.worker, running, listener, interim: &|_| {} };
        // Nothing may keep the socket's other clients waiting: filters of flows decide at once, see
        // `filter::Carries`.
        let admitted = {
            let admitted = pin!(pipeline::admit(&place, exchange, stand_in("")));
            admitted.poll(&mut Context::from_waker(Waker::noop()))
        };
        let Poll::Ready(admitted) = admitted else { return Err(Failure::Internal) };
        let (forward, head) = admitted?;
        forward.choose(&place.scene(&self.worker.events()), exchange, &head)
    }

    /// Sends to a client: without waiting, as the sockets of flows do.
    fn send_to(&self, client: SocketAddr, datagram: &[u8]) -> io::Result<usize> {
        socket2::SockRef::from(&self.socket).send_to(datagram, &client.into())
    }
}
