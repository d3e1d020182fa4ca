//! One flow: the socket towards its endpoint, and the task that carries answers back.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;
use tokio::sync::OwnedSemaphorePermit;

use super::{Beginning, Port, STOPPING_IDLE};
use crate::exchange::{Exchange, Outcome};
use crate::failure::Failure;
use crate::observe::access_log::Captured;
use crate::pipeline::finish;
use crate::upstream::Endpoint;
use crate::upstream::attempt::Attempt;
use crate::upstream::live::InFlight;
use crate::upstream::pick::Came;
use crate::world::Deadline;

/// A flow towards its endpoint.
pub(super) struct Flow {
    socket: UdpSocket,
    /// Its place among the endpoint's `max_connections`.
    _permit: Option<OwnedSemaphorePermit>,
    /// Bytes from the client that were sent on.
    received: Cell<u64>,
    /// The endpoint's machine says that nobody is there.
    refused: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Flow {
    /// A socket that speaks with the endpoint alone.
    pub(super) fn open(endpoint: &Endpoint) -> Result<Flow, Failure> {
        let permit = match &endpoint.limit {
            None => None,
            Some(limit) => Some(limit.clone().try_acquire_owned().map_err(|_| Failure::Overloaded)?),
        };
        let address = endpoint.addresses.iter().find_map(crate::address::Address::inet);
        let address = address.ok_or(Failure::ConnectFailed)?;
        let socket = connected(address).map_err(|_| Failure::ConnectFailed)?;
        let (received, refused, waker) = (Cell::new(0), Cell::new(false), RefCell::new(None));
        Ok(Flow { socket, _permit: permit, received, refused, waker })
    }

    /// Sends a datagram on; false when it was dropped. The system call is made at once: what the runtime
    /// knows of the socket is no use here.
    pub(super) fn send(&self, datagram: &[u8]) -> bool {
        let socket = SockRef::from(&self.socket);
        let mut sent = socket.send(datagram);
        if sent.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            // That was the answer to an earlier datagram.
            self.refused.set(true);
            self.waker.borrow_mut().take().into_iter().for_each(Waker::wake);
            sent = socket.send(datagram);
        }
        self.received.set(self.received.get() + datagram.len() as u64);
        sent.is_ok()
    }

    /// Sends the first datagram with a header before it.
    pub(super) fn send_first(&self, mut header: Vec<u8>, datagram: &[u8]) -> bool {
        if header.is_empty() {
            return self.send(datagram);
        }
        header.extend_from_slice(datagram);
        let sent = self.send(&header);
        self.received.set(datagram.len() as u64);
        sent
    }
}

fn connected(endpoint: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(endpoint), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    let any = match endpoint {
        SocketAddr::V4(_) => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
        SocketAddr::V6(_) => SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0),
    };
    socket.bind(&any.into())?;
    socket.connect(&endpoint.into())?;
    UdpSocket::from_std(socket.into())
}

/// Carries answers to the client until the flow ends.
pub(super) async fn run(port: Rc<Port>, flow: Rc<Flow>, client: SocketAddr, beginning: Beginning) {
    let Beginning { mut exchange, running, local, choice } = beginning;
    let world = &port.worker.world;
    let _in_flight = InFlight::begin(&local.shared.endpoints[choice.index].live);
    local.endpoint_cells[choice.index].opened.add(1);
    let mut attempt = Some(Attempt::begin((world, &port.worker.events()), &local, &choice));
    let deadline = world.timers.deadline();
    loop {
        let answered = exchange.sent;
        let polled = poll_fn(|cx| {
            let ended = poll(&port, &flow, client, (&mut exchange, &deadline), cx);
            // The first answer is noted outside, then the flow goes on.
            match ended {
                Poll::Pending if answered == 0 && exchange.sent > 0 => Poll::Ready(None),
                ended => ended.map(Some),
            }
        })
        .await;
        let now = world.clock.now();
        match polled {
            None => {
                exchange.phases.first_byte = now.saturating_duration_since(exchange.started);
                if let Some(attempt) = attempt.take() {
                    attempt.note(Ok((Came::Answer, exchange.phases.first_byte)), now);
                }
            }
            Some(outcome) => {
                if let (Some(attempt), Outcome::Failed(failure)) = (attempt.take(), outcome) {
                    attempt.note(Err(failure), now);
                }
                exchange.outcome = outcome;
                break;
            }
        }
    }
    port.flows.borrow_mut().close(client);
    exchange.received = flow.received.get();
    finish::note(&port.worker, &running, &port.listener(), &mut exchange, &Captured::default());
}

/// Carries the answers that are there; ready when the flow has ended.
fn poll(
    port: &Port,
    flow: &Flow,
    client: SocketAddr,
    (exchange, deadline): (&mut Exchange, &Deadline),
    cx: &mut Context<'_>,
) -> Poll<Outcome> {
    let listener = port.listener();
    let mut scratch = port.scratch.borrow_mut();
    loop {
        let mut read = ReadBuf::new(&mut scratch);
        match flow.socket.poll_recv(cx, &mut read) {
            Poll::Ready(Ok(())) => {
                let datagram = read.filled();
                exchange.sent += datagram.len() as u64;
                if port.send_to(client, datagram).is_err() {
                    listener.cells.dropped.add(1);
                }
                port.flows.borrow_mut().answered(client, port.worker.world.clock.now());
            }
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                return Poll::Ready(Outcome::Failed(Failure::ConnectFailed));
            }
            Poll::Ready(Err(_)) => return Poll::Ready(Outcome::Failed(Failure::UpstreamReset)),
            Poll::Pending => break,
        }
    }
    if flow.refused.get() {
        return Poll::Ready(Outcome::Failed(Failure::ConnectFailed));
    }
    if listener.is_closed() {
        return Poll::Ready(Outcome::Completed);
    }
    *flow.waker.borrow_mut() = Some(cx.waker().clone());
    let idle = match port.worker.is_draining() {
        true => listener.shared.timeouts.idle.min(STOPPING_IDLE),
        false => listener.shared.timeouts.idle,
    };
    let now = port.worker.world.clock.now();
    let Some(left) = port.flows.borrow().left(client, now, idle) else {
        return Poll::Ready(Outcome::Completed);
    };
    deadline.set(now, left);
    match deadline.poll_passed(cx) {
        // It passed between the two looks at the clock.
        true => Poll::Ready(Outcome::Completed),
        false => Poll::Pending,
    }
}
