//! The server as a process, and requests to it byte by byte.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

/// A server that is killed at the end, if it was not stopped before.
pub struct Server {
    pub child: Child,
    pub rest: String,
    pub binding: String,
    /// What it says of its other listeners.
    pub others: Vec<String>,
    _stdout: BufReader<ChildStdout>,
}

impl Server {
    /// Starts `serve` on this store, with both faces on ports of the system's choice, and this many other listeners.
    pub fn start(mut command: Command, others: usize) -> Server {
        command.stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = || {
            let mut line = String::new();
            stdout.read_line(&mut line).unwrap();
            line
        };
        let address = |line: &str| {
            let (_, rest) = line
                .split_once("://")
                .unwrap_or_else(|| panic!("no address in {line:?}"));
            rest.split(['/', ',']).next().unwrap().trim().to_owned()
        };
        let (rest, binding) = (line(), line());
        Server {
            rest: address(&rest),
            binding: address(&binding),
            others: (0..others).map(|_| line()).collect(),
            child,
            _stdout: stdout,
        }
    }

    /// SIGTERM, as a supervisor sends it; the status it ends with.
    pub fn stop(&mut self) -> Option<i32> {
        let killed = Command::new("kill").arg(self.child.id().to_string()).status();
        assert!(killed.unwrap().success());
        self.child.wait().unwrap().code()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An answer, as bytes.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub reason: String,
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let found = self.headers.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| &value[..])
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// Status and reason phrase.
    pub fn line(&self) -> String {
        format!("{} {}", self.status, self.reason)
    }

    /// Status, and code and message of the only error.
    pub fn error(&self) -> (u16, u64, String) {
        let json = self.json();
        assert_eq!(json["success"], false, "{self:?}");
        let error = &json["errors"][0];
        let message = error["message"].as_str().unwrap().to_owned();
        (self.status, error["code"].as_u64().unwrap(), message)
    }
}

pub struct Connection<S> {
    stream: BufReader<S>,
}

impl Connection<TcpStream> {
    pub fn to(address: &str) -> Connection<TcpStream> {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Connection::on(stream)
    }
}

impl<S: Read + Write> Connection<S> {
    pub fn on(stream: S) -> Connection<S> {
        Connection {
            stream: BufReader::new(stream),
        }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).unwrap();
    }

    pub fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// A request with a body of known length.
    pub fn request(&mut self, method: &str, target: &str, headers: &[(&str, &[u8])], body: &[u8]) -> Answer {
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: fake-host\r\n").into_bytes();
        for (name, value) in headers {
            head.extend_from_slice(name.as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value);
            head.extend_from_slice(b"\r\n");
        }
        if !body.is_empty() || matches!(method, "PUT" | "POST" | "DELETE") {
            head.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
        }
        head.extend_from_slice(b"\r\n");
        self.send(&head);
        self.send(body);
        self.answer()
    }

    /// The next answer; it has to have a length.
    pub fn answer(&mut self) -> Answer {
        self.try_answer().expect("the connection ended")
    }

    /// None if the connection ends instead.
    pub fn try_answer(&mut self) -> Option<Answer> {
        let mut line = || {
            let mut line = Vec::new();
            let read = self.stream.read_until(b'\n', &mut line).unwrap_or(0);
            line.truncate(line.trim_ascii_end().len());
            (read > 0).then_some(line)
        };
        let status = String::from_utf8(line()?).unwrap();
        let mut headers = Vec::new();
        loop {
            let header = line()?;
            if header.is_empty() {
                break;
            }
            let colon = header.iter().position(|byte| *byte == b':').unwrap();
            let name = String::from_utf8(header[..colon].to_vec())
                .unwrap()
                .to_ascii_lowercase();
            headers.push((name, header[colon + 1..].trim_ascii().to_vec()));
        }
        let (_, rest) = status.split_once(' ').unwrap();
        let (code, reason) = rest.split_once(' ').unwrap_or((rest, ""));
        let mut answer = Answer {
            status: code.parse().unwrap(),
            reason: reason.to_owned(),
            headers,
            body: Vec::new(),
        };
        let length = answer.header("content-length").expect("a body of known length");
        let length: usize = std::str::from_utf8(length).unwrap().parse().unwrap();
        answer.body.resize(length, 0);
        self.stream.read_exact(&mut answer.body).ok()?;
        Some(answer)
    }

    /// A line, without its end.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Whatever comes until the other side ends it.
    pub fn read_to_end(&mut self, bytes: &mut Vec<u8>) -> std::io::Result<usize> {
        self.stream.read_to_end(bytes)
    }

    /// Whether the other side has ended the connection without another answer.
    pub fn is_closed(&mut self) -> bool {
        matches!(self.stream.read(&mut [0]), Ok(0) | Err(_))
    }
}

/// One request on a connection of its own.
pub fn request(address: &str, method: &str, target: &str, headers: &[(&str, &[u8])], body: &[u8]) -> Answer {
    Connection::to(address).request(method, target, headers, body)
}
