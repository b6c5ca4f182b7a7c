//! Requests to a server: authorization, retries, and what its errors mean.

use std::cell::{Cell, RefCell};
use std::io::Write as _;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, LOCATION, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;

use super::address::{Address, BASE, Endpoint, encoded};
use super::connection::{self, Answer, Followed, Sender, Trouble, unless_stopped};
use super::error::{Error, Refusal};
use super::tls;
use crate::cli::arguments::Remote;
use crate::common::failure::{Failure, Outcome};
use crate::common::interrupt;
use crate::common::text::one_line;
use crate::planted::{Planted, planted};

/// Most attempts at a request.
const ATTEMPTS: u32 = 5;
/// Wait before the second attempt; it doubles with each.
const BACKOFF: Duration = Duration::from_millis(200);
/// Longest wait between attempts, unless the server asks for more.
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// Longest wait that a server may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// Interval between checks for Ctrl-C.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A connection to a server.
pub(crate) struct Client {
    address: Address,
    account: String,
    authorization: Option<HeaderValue>,
    tls: Option<TlsConnector>,
    runtime: Runtime,
    sender: RefCell<Option<Sender>>,
    quiet: bool,
    attempts: u32,
    /// Goes on for this time, if it is longer than that of the attempts.
    wait: Duration,
    /// A retry has been told of.
    has_told: Cell<bool>,
    /// The server is known to judge the conditions of requests.
    pub(super) judges_conditions: Cell<bool>,
}

/// A request.
pub(super) struct Call {
    method: Method,
    path: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
    /// Whether doing it twice is the same as doing it once.
    is_repeatable: bool,
    /// The path is below the server's own, not below the account.
    is_of_server: bool,
}

impl Call {
    /// A request for a path below the account's namespaces.
    pub(super) fn new(method: Method, path: impl Into<String>) -> Call {
        Call {
            method,
            path: path.into(),
            headers: Vec::new(),
            body: Bytes::new(),
            is_repeatable: true,
            is_of_server: false,
        }
    }

    /// A request for a path of `embercask serve` beside the REST API.
    pub(super) fn of_server(path: impl Into<String>) -> Call {
        Call {
            is_of_server: true,
            ..Call::new(Method::GET, path)
        }
    }

    pub(super) fn header(mut self, name: HeaderName, value: HeaderValue) -> Call {
        self.headers.push((name, value));
        self
    }

    pub(super) fn body(self, content_type: HeaderValue, body: impl Into<Bytes>) -> Call {
        let mut call = self.header(CONTENT_TYPE, content_type);
        call.body = body.into();
        call
    }

    pub(super) fn json(self, json: Vec<u8>) -> Call {
        self.body(HeaderValue::from_static("application/json"), json)
    }

    /// If the connection fails meanwhile, the request is not sent again.
    pub(super) fn once(mut self) -> Call {
        self.is_repeatable = planted(Planted::RepeatConditionalPut);
        self
    }
}

impl Client {
    pub(crate) fn new(remote: &Remote, url: &str, quiet: bool, wait: Duration) -> Outcome<Client> {
        let address = Address::parse(url)?;
        let token = token(remote)?;
        let tls = match (&address.endpoint, &remote.ca_file) {
            (Endpoint::Tcp { tls: true, .. }, ca_file) => Some(tls::connector(ca_file.as_deref())?),
            (_, Some(_)) => return Err(Failure::usage("--ca-file works only with https", "")),
            (_, None) => None,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::system(format!("cannot start the network: {error}"), ""))?;
        let account = match (&remote.account, std::env::var("EMBERCASK_ACCOUNT")) {
            (Some(account), _) => account.clone(),
            (None, Ok(account)) if !account.is_empty() => account,
            (None, _) => "any".to_owned(),
        };
        let client = Client {
            authorization: token,
            account,
            tls,
            runtime,
            sender: RefCell::new(None),
            quiet,
            attempts: ATTEMPTS,
            wait,
            has_told: Cell::new(false),
            judges_conditions: Cell::new(false),
            address,
        };
        if client.authorization.is_some() && client.address.is_open() {
            client.note("The token is sent without encryption; use https on a network.");
        }
        Ok(client)
    }

    /// A client that tries once.
    #[cfg(test)]
    pub(super) fn impatient(url: &str) -> Client {
        let mut client = Client::new(&Remote::default(), url, true, Duration::ZERO)
            .map_err(|_| "no client")
            .unwrap();
        client.attempts = 1;
        client
    }

    /// The server, as messages name it.
    pub(crate) fn shown(&self) -> &str {
        &self.address.shown
    }

    /// What tells its store from others.
    pub(crate) fn identity(&self) -> String {
        format!("{}{} {}", self.address.shown, self.address.base, self.account)
    }

    /// Prints a line on standard error, unless `--quiet` is given.
    pub(crate) fn note(&self, line: &str) {
        if !self.quiet {
            let _ = writeln!(anstream::stderr(), "{}", one_line(line));
        }
    }

    /// Sends a request until there is an answer, and checks that it is a success.
    pub(super) fn send(&self, call: &Call) -> Result<Answer, Error> {
        let mut attempt = 1;
        let begun = Instant::now();
        loop {
            let is_last = attempt >= self.attempts && begun.elapsed() >= self.wait;
            let wait = match self.attempt(call) {
                Ok(answer) => match self.wait_for(call, &answer) {
                    Some(wait) if !is_last => wait,
                    _ => return self.checked(answer),
                },
                Err(Trouble::Stopped) => return Err(Failure::stopped("the server has not answered").into()),
                Err(Trouble::Lost(what)) if !call.is_repeatable => return Err(self.unknown_outcome(&what).into()),
                Err(Trouble::NotSent(what) | Trouble::Lost(what)) => {
                    if is_last {
                        return Err(self.unreachable(&what).into());
                    }
                    Duration::ZERO
                }
            };
            let backoff = BACKOFF.saturating_mul(2_u32.saturating_pow(attempt - 1));
            self.pause(wait.max(backoff.min(BACKOFF_MAX)))?;
            attempt += 1;
        }
    }

    /// How long to wait before the request is sent again, because the server cannot do it now.
    fn wait_for(&self, call: &Call, answer: &Answer) -> Option<Duration> {
        let is_for_now = match answer.status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => true,
            StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => call.is_repeatable,
            _ => false,
        };
        if !is_for_now {
            return None;
        }
        let after = answer
            .headers
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        let wait = Duration::from_secs(after.unwrap_or(0));
        (wait <= RETRY_AFTER_MAX).then_some(wait)
    }

    fn pause(&self, wait: Duration) -> Outcome {
        if !self.has_told.replace(true) {
            self.note(&format!("{} is away or busy; trying again.", self.shown()));
        }
        let begun = Instant::now();
        while begun.elapsed() < wait {
            interrupt::check("the server has not answered")?;
            std::thread::sleep(LOOK_EVERY.min(wait.saturating_sub(begun.elapsed())));
        }
        Ok(())
    }

    fn attempt(&self, call: &Call) -> Result<Answer, Trouble> {
        // An idle connection may be closed by the server at any time.
        let idle = self.sender.take().filter(|_| call.is_repeatable);
        self.runtime.block_on(unless_stopped(async {
            if let Some(mut idle) = idle
                && idle.ready().await.is_ok()
                && let Ok(answer) = self.exchange(&mut idle, call).await
            {
                self.sender.replace(Some(idle));
                return Ok(answer);
            }
            let mut sender = connection::open(&self.address, self.tls.as_ref()).await?;
            let answer = self.exchange(&mut sender, call).await?;
            self.sender.replace(Some(sender));
            Ok(answer)
        }))
    }

    async fn exchange(&self, sender: &mut Sender, call: &Call) -> Result<Answer, Trouble> {
        connection::exchange(sender, self.request(call)?, call.body.len()).await
    }

    /// Passes on the parts of a response as they come, until `take` breaks or the response ends;
    /// returns whether it has ended. The answer is one that is not a success.
    pub(super) fn follow(
        &self,
        call: &Call,
        mut take: impl FnMut(&[u8]) -> Outcome<ControlFlow<()>>,
    ) -> Result<bool, Error> {
        let followed = self.runtime.block_on(unless_stopped(async {
            let mut sender = connection::open(&self.address, self.tls.as_ref()).await?;
            connection::follow(&mut sender, self.request(call)?, &mut take).await
        }));
        match followed {
            Ok(Followed::Answer(answer)) => self.checked(answer).map(|_| true),
            Ok(Followed::End) => Ok(true),
            Ok(Followed::Broken(outcome)) => Ok(outcome.map(|()| false)?),
            Err(Trouble::Stopped) => Ok(false),
            Err(Trouble::NotSent(what) | Trouble::Lost(what)) => Err(self.unreachable(&what).into()),
        }
    }

    fn request(&self, call: &Call) -> Result<Request<Full<Bytes>>, Trouble> {
        let invalid = |error: hyper::http::Error| Trouble::NotSent(error.to_string());
        let (base, path) = (&self.address.base, &call.path);
        let target = if call.is_of_server {
            format!("{}{path}", base.strip_suffix(BASE).unwrap_or_default())
        } else {
            let account = encoded(self.account.as_bytes());
            format!("{base}/accounts/{account}/storage/kv/namespaces{path}")
        };
        let mut request = Request::new(Full::new(call.body.clone()));
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = target
            .parse()
            .map_err(|_| Trouble::NotSent("the path is not valid".to_owned()))?;
        let headers = request.headers_mut();
        let host = HeaderValue::from_str(&self.address.host).map_err(|error| invalid(error.into()))?;
        headers.insert(HOST, host);
        headers.insert(
            USER_AGENT,
            HeaderValue::from_static(concat!("embercask/", env!("CARGO_PKG_VERSION"))),
        );
        for (name, value) in call.headers.iter().cloned() {
            headers.insert(name, value);
        }
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        Ok(request)
    }

    /// The answer, if it is a success.
    fn checked(&self, answer: Answer) -> Result<Answer, Error> {
        let status = answer.status;
        if status.is_success() {
            return Ok(answer);
        }
        if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
            let to = answer
                .headers
                .get(LOCATION)
                .map(|to| String::from_utf8_lossy(to.as_bytes()));
            let to = to.map_or_else(String::new, |to| format!(" to {to}"));
            let told = format!("{} redirects{to}", self.shown());
            return Err(Failure::usage(told, "give that address with --url").into());
        }
        Err(self.refused(&answer))
    }

    /// The error of an answer that is not one of the API.
    pub(super) fn refused(&self, answer: &Answer) -> Error {
        Error::Refused(Refusal::of(answer, self.shown(), self.authorization.is_some()))
    }

    fn unreachable(&self, what: &str) -> Failure {
        Failure::system(format!("cannot reach {}: {what}", self.shown()), "")
    }

    fn unknown_outcome(&self, what: &str) -> Failure {
        Failure::system(
            format!("{}: {what}; whether the write was done is unknown", self.shown()),
            "look at it before you try again",
        )
    }
}

/// The header with the token, if one is given.
fn token(remote: &Remote) -> Outcome<Option<HeaderValue>> {
    let (token, place) = match &remote.token_file {
        Some(file) => {
            let read = std::fs::read_to_string(file);
            let read = read.map_err(|error| Failure::file("read", file.display(), &error))?;
            (Some(read), file.display().to_string())
        }
        None => (std::env::var("EMBERCASK_TOKEN").ok(), "EMBERCASK_TOKEN".to_owned()),
    };
    let Some(token) = token else { return Ok(None) };
    let token = token.trim();
    if token.is_empty() && remote.token_file.is_none() {
        return Ok(None);
    }
    // The token itself is not shown.
    let wrong = || Failure::usage(format!("{place} does not contain a token"), "a token is one word");
    if token.is_empty() || token.contains(char::is_whitespace) {
        return Err(wrong());
    }
    let mut header = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| wrong())?;
    header.set_sensitive(true);
    Ok(Some(header))
}
