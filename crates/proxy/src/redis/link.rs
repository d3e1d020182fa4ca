//! The thread that keeps connections to Redis: makes them, makes them again, gives them up.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, RedisResult, cmd};
use sluice_traffic::Rng;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Notify, mpsc, watch};
use tokio_rustls::TlsConnector;

use super::server::{Place, Secure, Server};
use crate::observe::diagnostic::Diagnostics;

/// How long it may take until a new connection has logged in.
const CONNECT: Duration = Duration::from_secs(2);

/// The first and the longest time between two tries.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// What is known of a server.
#[derive(Clone)]
pub(super) enum State {
    /// The first try runs.
    Unknown,
    /// Calls go over this connection.
    Up { connection: MultiplexedConnection, number: u64 },
    /// Calls fail at once.
    Down,
}

/// What reads and writes for a connection.
type Driver = Pin<Box<dyn Future<Output = ()>>>;

/// One connection's keeper.
pub(super) struct Link {
    pub(super) server: Server,
    pub(super) tls: Secure,
    pub(super) state: watch::Sender<State>,
    /// Said by those who call: too slow, or nobody is there any more.
    pub(super) broken: Arc<Notify>,
    pub(super) diagnostics: Diagnostics,
}

/// Starts the thread. It ends when the sender is gone.
pub(super) fn start() -> mpsc::UnboundedSender<Link> {
    let (sender, mut links) = mpsc::unbounded_channel::<Link>();
    let run = move || {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
        // Without descriptors for a runtime the links are dropped, and calls fail.
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async move {
            while let Some(link) = links.recv().await {
                tokio::task::spawn_local(link.keep());
            }
        });
    };
    // The same when there is no thread.
    let _ = std::thread::Builder::new().name("redis".to_owned()).spawn(run);
    sender
}

impl Link {
    async fn keep(self) {
        let mut rng = Rng::new(fastrand::u64(..));
        let mut pause = BACKOFF.0;
        for number in 0.. {
            let why = match tokio::time::timeout(CONNECT, self.connect()).await {
                Err(_) => "no connection in time".to_owned(),
                // The kind alone: what a server says may repeat what was sent to it.
                Ok(Err(error)) => format!("{:?}", error.kind()),
                Ok(Ok((connection, mut driver))) => match self.answers(&connection, &mut driver).await {
                    false => "no answer in time".to_owned(),
                    true => {
                        pause = BACKOFF.0;
                        self.up(connection, number);
                        tokio::select! {
                            () = driver => "the connection was closed".to_owned(),
                            () = self.broken.notified() => "no answers in time".to_owned(),
                        }
                    }
                },
            };
            self.down(&why);
            if self.state.is_closed() {
                return;
            }
            tokio::time::sleep(sluice_traffic::health::jitter(pause, &mut rng)).await;
            pause = (pause * 2).min(BACKOFF.1);
        }
    }

    fn up(&self, connection: MultiplexedConnection, number: u64) {
        self.state.send_replace(State::Up { connection, number });
        self.diagnostics.info("redis is there", &[("server", &self.server.name())]);
    }

    /// Calls fail from now on. A server that stays away is told of once.
    fn down(&self, why: &str) {
        let before = self.state.send_replace(State::Down);
        if !matches!(before, State::Down) && !self.state.is_closed() {
            self.diagnostics.warn("redis is not there", &[("server", &self.server.name()), ("why", &why)]);
        }
    }

    /// Whether it answers as fast as calls need it.
    async fn answers(&self, connection: &MultiplexedConnection, driver: &mut Driver) -> bool {
        let (ping, mut connection) = (cmd("PING"), connection.clone());
        let asked = tokio::time::timeout(self.server.timeout, ping.query_async::<()>(&mut connection));
        tokio::select! {
            answered = asked => matches!(answered, Ok(Ok(()))),
            () = driver => false,
        }
    }

    async fn connect(&self) -> RedisResult<(MultiplexedConnection, Driver)> {
        match (&self.server.place, &self.tls) {
            (Place::Unix(path), _) => self.log_in(UnixStream::connect(path).await?).await,
            (Place::Tcp(host, port), tls) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                match tls {
                    None => self.log_in(stream).await,
                    Some((config, name)) => {
                        let connector = TlsConnector::from(Arc::clone(config));
                        self.log_in(connector.connect(name.clone(), stream).await?).await
                    }
                }
            }
        }
    }

    async fn log_in<S>(&self, stream: S) -> RedisResult<(MultiplexedConnection, Driver)>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // Calls are timed by those who make them.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let made = MultiplexedConnection::new_with_config(&self.server.settings, stream, config).await?;
        Ok((made.0, Box::pin(made.1)))
    }
}
