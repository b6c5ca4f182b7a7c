//! Runs the server as a process, and sends it requests as bytes.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::command::{Workplace, wait_until};

/// The longest wait for a response or the end of a connection: only something that hangs takes this
/// long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Both protocols, on ports chosen by the system.
pub const SERVE: [&str; 5] = ["serve", "--listen", "127.0.0.1:0", "--binding", "127.0.0.1:0"];
/// The path of namespaces in the REST API, for any account.
pub const NAMESPACES: &str = "/client/v4/accounts/any/storage/kv/namespaces";

/// A token that tests give to a server.
pub const TOKEN: &str = "a-token-for-everything";

/// The value of the header that has a token.
pub fn bearer(token: &str) -> Vec<u8> {
    format!("Bearer {token}").into_bytes()
}

/// A server on the store of this workplace, with more flags.
pub fn started(at: &Workplace, more: &[&str]) -> Server {
    Server::start(at.command(SERVE.iter().chain(more).copied()), 0)
}

/// A server, killed on drop unless it was stopped.
pub struct Server {
    pub child: Child,
    pub rest: String,
    pub binding: String,
    /// The lines that it prints for its other listeners.
    pub others: Vec<String>,
    _stdout: BufReader<ChildStdout>,
}

impl Server {
    /// Starts `serve` on this store, with both protocols on ports chosen by the system, and this
    /// many other listeners.
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

    /// A request through a binding of the namespace N.
    pub fn bound(&self, method: &str, key: &str, headers: &[(&str, &[u8])], body: &[u8]) -> Answer {
        let mut all: Vec<(&str, &[u8])> = vec![("X-KV-Namespace", b"N")];
        all.extend_from_slice(headers);
        request(&self.binding, method, &format!("/{key}?urlencoded=true"), &all, body)
    }

    /// Sends SIGTERM, as a supervisor does; returns the exit status.
    pub fn stop(&mut self) -> Option<i32> {
        self.begin_to_stop();
        self.stopped()
    }

    /// Sends SIGTERM, without waiting.
    pub fn begin_to_stop(&self) {
        let killed = Command::new("kill").arg(self.child.id().to_string()).status();
        assert!(killed.unwrap().success());
    }

    /// The exit status. Fails, instead of hanging, if the server keeps running.
    pub fn stopped(&mut self) -> Option<i32> {
        let mut status = None;
        wait_until("the end of the server", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code()
    }

    /// A metric, by its name with its labels, if any.
    pub fn metric(&self, name: &str) -> u64 {
        let text = String::from_utf8(request(&self.rest, "GET", "/metrics", &[], b"").body).unwrap();
        let of_line = |line: &str| {
            line.strip_prefix("embercask_")?
                .strip_prefix(name)?
                .strip_prefix(' ')?
                .parse()
                .ok()
        };
        let number = text.lines().find_map(of_line);
        number.unwrap_or_else(|| panic!("{name} is not in {text}"))
    }

    /// Sends SIGKILL, and waits.
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

/// A response, as bytes.
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
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // A write of which a part was taken has it once more for the rest.
        stream.set_write_timeout(Some(PATIENCE / 2)).unwrap();
        Connection::on(stream)
    }

    /// Sends as many of these bytes as the system takes at once.
    pub fn send_at_once(&mut self, bytes: &[u8]) {
        let stream = self.stream.get_mut();
        stream.set_nonblocking(true).unwrap();
        let mut sent = 0;
        while let Some(left @ [_, ..]) = bytes.get(sent..) {
            match stream.write(left) {
                Ok(written) => sent += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        stream.set_nonblocking(false).unwrap();
    }

    /// Whether the other side, a process on this machine, has read everything sent to it.
    #[cfg(target_os = "linux")]
    pub fn is_read(&self) -> bool {
        let stream = self.stream.get_ref();
        let shown = |address: std::net::SocketAddr| match address {
            std::net::SocketAddr::V4(address) => {
                format!(
                    "{:08X}:{:04X}",
                    u32::from_le_bytes(address.ip().octets()),
                    address.port()
                )
            }
            std::net::SocketAddr::V6(_) => panic!("{address} is in another table"),
        };
        let (here, there) = (shown(stream.local_addr().unwrap()), shown(stream.peer_addr().unwrap()));
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let lines: Vec<_> = lines.collect();
        // For each end of the connection: bytes in flight from it, and bytes received but not read.
        let queues = |from: &str, to: &str| {
            let line = lines.iter().find(|line| line[1] == from && line[2] == to);
            line.and_then(|line| line[4].split_once(':'))
        };
        let nothing = "00000000";
        let is_sent = queues(&here, &there).is_some_and(|(leaving, _)| leaving == nothing);
        is_sent && queues(&there, &here).is_some_and(|(_, come)| come == nothing)
    }

    /// Whether nothing is left to read, neither bytes nor the end. Does not wait.
    pub fn is_silent(&mut self) -> bool {
        assert!(self.stream.buffer().is_empty());
        let stream = self.stream.get_mut();
        stream.set_nonblocking(true).unwrap();
        let peeked = stream.peek(&mut [0]);
        stream.set_nonblocking(false).unwrap();
        peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }
}

/// An error of a connection counts as its end, except a timeout, which fails the test.
fn must_be_the_end(error: &std::io::Error) {
    let is_late = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
    assert!(!is_late, "neither an answer nor an end has come in time");
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
        self.try_answer_to(method).expect("the connection ended")
    }

    /// The next response; it must have a length.
    pub fn answer(&mut self) -> Answer {
        self.try_answer().expect("the connection ended")
    }

    /// The next response; None if the connection ends first, even in the middle of it.
    pub fn try_answer(&mut self) -> Option<Answer> {
        self.try_answer_to("GET")
    }

    /// As [`Connection::try_answer`], to a request with this method: what answers HEAD has no body.
    fn try_answer_to(&mut self, method: &str) -> Option<Answer> {
        let mut line = || {
            let mut line = Vec::new();
            let read = self.stream.read_until(b'\n', &mut line);
            read.inspect_err(must_be_the_end).ok()?;
            let is_whole = line.ends_with(b"\n");
            line.truncate(line.trim_ascii_end().len());
            is_whole.then_some(line)
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
        if method == "HEAD" || answer.status == 304 {
            return Some(answer);
        }
        let length = answer.header("content-length").expect("a body of known length");
        let length: usize = std::str::from_utf8(length).unwrap().parse().unwrap();
        answer.body.resize(length, 0);
        let read = self.stream.read_exact(&mut answer.body);
        read.inspect_err(must_be_the_end).ok()?;
        Some(answer)
    }

    /// A line, without its end.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Everything up to the end of the connection, which the other side must close.
    pub fn until_the_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let read = self.stream.read_to_end(&mut bytes);
        let _ = read.inspect_err(must_be_the_end);
        bytes
    }

    /// Whether the other side closes the connection without another response.
    pub fn is_closed(&mut self) -> bool {
        self.stream.read(&mut [0]).inspect_err(must_be_the_end).unwrap_or(0) == 0
    }
}

/// One request on a connection of its own.
pub fn request(address: &str, method: &str, target: &str, headers: &[(&str, &[u8])], body: &[u8]) -> Answer {
    Connection::to(address).request(method, target, headers, body)
}
