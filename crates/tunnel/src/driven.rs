//! What a driver of sockets does with either end of a tunnel: the same for both, whatever their events are.

/// Gives an end of two versions the methods of its driver. `$event` is what it hears.
macro_rules! driven {
    ($end:ident, $event:ident) => {
        impl $end {
            fn socket(&mut self) -> &mut Socket {
                match self {
                    $end::V1(end) => end.socket(),
                    $end::V3(end) => end.socket(),
                }
            }

            /// The version it speaks.
            pub fn version(&self) -> Version {
                match self {
                    $end::V1(_) => Version::V1,
                    $end::V3(_) => Version::V3,
                }
            }

            /// Whether content of this exchange may be sent; if not, `Resumed` will come.
            pub fn may_send(&self, stream: StreamId) -> bool {
                match self {
                    $end::V1(_) => true,
                    $end::V3(end) => end.may_send(stream),
                }
            }

            /// So many bytes of the other end's content were passed on.
            pub fn consumed(&mut self, stream: StreamId, count: usize, now: Duration) {
                if let $end::V3(end) = self {
                    end.consumed(stream, count, now);
                }
            }

            /// What happened next, out of the bytes in `buf`; `None` asks for more.
            pub fn receive(&mut self, buf: &mut BytesMut, now: Duration) -> Option<$event> {
                match self {
                    $end::V1(end) => end.receive(buf, now),
                    $end::V3(end) => end.receive(buf, now),
                }
            }

            /// The connection has ended or broken.
            pub fn eof(&mut self, now: Duration) {
                if let Some(received) = self.socket().eof() {
                    self.take(received, now);
                }
            }

            /// Nothing was read because the driver did not want to (back-pressure in 1.0): to be called before
            /// `tick` then, as that is not the peer's silence.
            pub fn excuse(&mut self, now: Duration) {
                self.socket().excuse(now);
            }

            /// Does what is due.
            pub fn tick(&mut self, now: Duration) {
                if let Some(received) = self.socket().tick(now) {
                    self.take(received, now);
                }
            }

            fn take(&mut self, received: Received, now: Duration) {
                match self {
                    $end::V1(end) => end.take(received, now),
                    $end::V3(end) => end.take(received, now),
                }
            }

            /// When `tick` is due.
            pub fn deadline(&mut self) -> Option<Duration> {
                self.socket().deadline()
            }

            /// What waits to be written.
            pub fn output(&mut self) -> &mut Output {
                self.socket().output()
            }

            /// Whether nothing more will be read.
            pub fn is_over(&mut self) -> bool {
                self.socket().is_over()
            }
        }
    };
}

pub(crate) use driven;
