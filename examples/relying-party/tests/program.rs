//! The program itself.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

#[test]
fn it_says_where_it_listens() {
    let mut server = start(0);
    let mut line = String::new();
    BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let port = line.strip_prefix("listening on http://localhost:").unwrap().trim_end();
    TcpStream::connect((Ipv4Addr::LOCALHOST, port.parse().unwrap())).unwrap();
}

#[test]
fn a_taken_port_is_refused() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut server = start(port);
    let mut line = String::new();
    BufReader::new(server.0.stderr.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(
        line,
        format!(
            "error: could not listen on 127.0.0.1:{port}: Address already in use (os error 98); try --port 0\n"
        )
    );
    assert_eq!(server.0.wait().unwrap().code(), Some(1));
}

/// Ends the program with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn start(port: u16) -> Running {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relying-party"));
    command.arg("--port").arg(port.to_string()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Running(command.spawn().unwrap())
}
