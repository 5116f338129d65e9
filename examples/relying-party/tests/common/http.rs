use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use relying_party::{RelyingParty, router};
use serde_json::Value;
use tokio::runtime::Runtime;

/// Serves until it is dropped.
pub(crate) struct Server {
    pub(crate) origin: String,
    address: SocketAddr,
    _runtime: Runtime,
}

impl Server {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let origin = format!("http://localhost:{}", address.port());
        let rp = RelyingParty::new(&origin).unwrap();
        let runtime = Runtime::new().unwrap();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, router(rp)).await
        });
        Self { origin, address, _runtime: runtime }
    }

    pub(crate) fn post(&self, path: &str, body: impl AsRef<str>) -> (u16, Value) {
        self.send("POST", path, body.as_ref())
    }

    /// The status and the JSON body of one request.
    pub(crate) fn send(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-www-form-urlencoded\r\n\
             content-length: {length}\r\nconnection: close\r\n\r\n{body}"
        )
        .unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        let (head, body) = reply.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap())
    }
}
