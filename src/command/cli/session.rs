//! The store that commands work on: opened when first needed, closed at the end.

mod bars;
mod replica;

use std::cell::RefCell;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use embercask::{Error, ErrorKind, Namespace, Options, Store};
use indicatif::ProgressDrawTarget;

use super::arguments::{Class, Command, Global, Remote, Target};
use super::destination::Destination;
use super::remote::{self, Client};
use crate::common::failure::{Failure, Outcome};
use crate::common::interrupt;
use crate::common::parse::parse_id;
use crate::common::reserved::is_reserved;
use crate::common::store_options::StoreOptions;
use crate::common::text::one_line;
use crate::planted::{Planted, planted};

/// Opening shows its progress after this time.
const SHOW_OPENING_AFTER: Duration = Duration::from_millis(500);

/// Interval between attempts to open a store that another process has open.
const TRY_EVERY: Duration = Duration::from_millis(50);

/// State shared by the commands of one invocation or one shell.
pub(crate) struct Session {
    path: RefCell<Option<PathBuf>>,
    quiet: bool,
    shell: bool,
    store: RefCell<Option<Store>>,
    /// How long to wait for a store that another process has open.
    wait: Duration,
    /// Name of the namespace for commands that name none; only in a shell.
    used: RefCell<Option<String>>,
    /// Options of the store, each NAME=VALUE.
    options: Vec<String>,
    /// The server of --url, instead of a store.
    remote: Remote,
    client: RefCell<Option<Rc<Client>>>,
}

impl Session {
    pub(crate) fn new(global: &Global) -> Session {
        Session {
            path: RefCell::new(global.store.clone()),
            quiet: global.quiet,
            shell: false,
            store: RefCell::new(None),
            wait: global.wait.unwrap_or_default(),
            used: RefCell::new(None),
            options: global.option.clone(),
            remote: global.remote.clone(),
            client: RefCell::new(None),
        }
    }

    /// A quiet session on a server.
    #[cfg(test)]
    pub(crate) fn of_server(client: Client) -> Session {
        Session {
            path: RefCell::new(None),
            quiet: true,
            shell: false,
            store: RefCell::new(None),
            wait: Duration::ZERO,
            used: RefCell::new(None),
            options: Vec::new(),
            remote: Remote {
                url: Some(client.shown().to_owned()),
                ..Remote::default()
            },
            client: RefCell::new(Some(Rc::new(client))),
        }
    }

    /// The server that a command works on, if it is not a store.
    pub(crate) fn server_for(&self, command: &Command) -> Outcome<Option<Rc<Client>>> {
        let Some(url) = &self.remote.url else { return Ok(None) };
        if !remote::takes(command) {
            return match self.remote.is_given {
                true => Err(remote::refused_command()),
                // In the environment it is for those commands that take it.
                false => Ok(None),
            };
        }
        if self.client.borrow().is_none() {
            let client = Client::new(&self.remote, url, self.quiet, self.wait)?;
            self.client.replace(Some(Rc::new(client)));
        }
        Ok(self.client.borrow().clone())
    }

    /// Whether it is on a server, for the commands that work on one.
    pub(crate) fn is_remote(&self) -> bool {
        self.remote.url.is_some()
    }

    /// Where imports go to: the server, or the store, created if there is none.
    pub(crate) fn destination(&self, class: Class) -> Outcome<Destination> {
        match &*self.client.borrow() {
            Some(client) => Ok(Destination::Server(Rc::clone(client))),
            None => Ok(Destination::store(self.store_or_new()?, class.durability())),
        }
    }

    /// A quiet session on an open store.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn of_store(store: Store) -> Session {
        Session {
            path: RefCell::new(None),
            quiet: true,
            shell: false,
            store: RefCell::new(Some(store)),
            wait: Duration::ZERO,
            used: RefCell::new(None),
            options: Vec::new(),
            remote: Remote::default(),
            client: RefCell::new(None),
        }
    }

    /// A shell's session on the same store, which stays open between commands.
    pub(crate) fn of_shell(&self) -> Outcome<Session> {
        let client = self.client.borrow().clone();
        let is_store = client.is_none();
        let session = Session {
            path: RefCell::new(if is_store { Some(self.path()?) } else { None }),
            quiet: self.quiet,
            shell: true,
            store: RefCell::new(None),
            wait: self.wait,
            used: RefCell::new(None),
            options: self.options.clone(),
            remote: self.remote.clone(),
            client: RefCell::new(client),
        };
        if is_store {
            session.store()?;
        }
        Ok(session)
    }

    pub(crate) fn is_shell(&self) -> bool {
        self.shell
    }

    /// The namespace for commands that name none.
    pub(crate) fn used(&self) -> Option<String> {
        self.used.borrow().clone()
    }

    /// From now on commands that name no namespace work on this one, which must exist.
    pub(crate) fn use_namespace(&self, name: Option<String>) -> Outcome {
        if let Some(name) = &name {
            match &*self.client.borrow() {
                Some(client) => drop(remote::named(client, name)?),
                None => drop(self.reading()?.open_namespace(name)?),
            }
        }
        *self.used.borrow_mut() = name;
        Ok(())
    }

    /// A namespace has another name now.
    pub(crate) fn follow_rename(&self, name: &str, new_name: &str) {
        let mut used = self.used.borrow_mut();
        if used.as_deref() == Some(name) {
            *used = Some(new_name.to_owned());
        }
    }

    /// Sets the directory of the store, unless it is set already.
    pub(crate) fn set_path_if_none(&self, path: Option<&Path>) {
        let mut named = self.path.borrow_mut();
        if named.is_none() {
            *named = path.map(Path::to_owned);
        }
    }

    /// The directory of the store.
    pub(crate) fn path(&self) -> Outcome<PathBuf> {
        self.path.borrow().clone().ok_or_else(|| {
            if self.is_remote() {
                // EMBERCASK_URL is set, for commands that work on a server.
                return Failure::usage("no store is given", remote::NEEDS_STORE);
            }
            Failure::usage(
                "no store is given",
                "give its directory with --store DIR or in the environment variable EMBERCASK_STORE, or a server with --url",
            )
        })
    }

    /// The store, which must exist, and must not be a replica.
    pub(crate) fn store(&self) -> Outcome<Store> {
        self.open_to_write(Options::default().create(false))
    }

    /// The store for a command that only reads: opened for reading only, so that it works beside a
    /// process that has the store open, and changes nothing. In a shell the store is open already.
    pub(crate) fn reading(&self) -> Outcome<Store> {
        self.open(Options::default().read_only(true))
    }

    /// The store, created if there is none.
    pub(crate) fn store_or_new(&self) -> Outcome<Store> {
        self.open_to_write(Options::default().create(true))
    }

    /// The store for a server, with options made from those that flags have chosen.
    pub(crate) fn store_to_serve(
        &self,
        creates: bool,
        options: impl FnOnce(StoreOptions) -> Options,
    ) -> Outcome<Store> {
        let opened = self.try_open(&self.path()?, options(self.chosen_options()?));
        opened.map_err(|error| match error {
            Error::NotAStore { .. } if !creates => Failure::usage(
                error.to_string(),
                "`--create`, or `create = true` in the settings, creates a store in a directory that is absent or empty",
            ),
            error => error.into(),
        })
    }

    /// The store if it is open.
    pub(crate) fn opened(&self) -> Option<Store> {
        self.store.borrow().clone()
    }

    /// Options of the store that flags have chosen.
    pub(crate) fn chosen_options(&self) -> Outcome<StoreOptions> {
        StoreOptions::of_pairs(&self.options)
    }

    fn open(&self, options: Options) -> Outcome<Store> {
        match self.opened() {
            Some(store) => Ok(store),
            None => Ok(self.try_open(&self.path()?, self.chosen_options()?.apply(options))?),
        }
    }

    fn try_open(&self, path: &Path, options: Options) -> Result<Store, Error> {
        let bar = self.bytes_bar("opening");
        // Hidden at first: most stores open before anyone could read a bar.
        bar.set_draw_target(ProgressDrawTarget::hidden());
        let (shown, begun, quiet) = (bar.clone(), Instant::now(), self.quiet);
        let options = options.on_recovery_progress(move |progress| {
            if shown.is_hidden() && !quiet && begun.elapsed() > SHOW_OPENING_AFTER {
                shown.set_draw_target(ProgressDrawTarget::stderr());
            }
            shown.set_length(progress.total_bytes);
            shown.set_position(progress.done_bytes);
        });
        let opened = self.waiting(|| options.clone().open(path));
        bar.finish_and_clear();
        let store = opened?;
        *self.store.borrow_mut() = Some(store.clone());
        Ok(store)
    }

    /// Tries this again while another process has the store open, for as long as `--wait` says.
    pub(crate) fn waiting<T>(&self, mut attempt: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
        let begun = Instant::now();
        let mut is_told = false;
        loop {
            let error = match attempt() {
                Err(error) if error.kind() == ErrorKind::InUse => error,
                outcome => return outcome,
            };
            let left = self.wait.saturating_sub(begun.elapsed());
            if left.is_zero() || interrupt::is_requested() {
                return Err(error);
            }
            if !is_told {
                is_told = true;
                self.note(format_args!("Waiting for at most {:?}: {error}", self.wait));
            }
            std::thread::sleep(left.min(TRY_EVERY));
        }
    }

    /// The namespace that the arguments name; it must exist.
    pub(crate) fn namespace(&self, target: &Target) -> Outcome<Namespace> {
        self.named_in(&self.store()?, target)
    }

    /// As [`Session::namespace`], for a command that only reads.
    pub(crate) fn namespace_to_read(&self, target: &Target) -> Outcome<Namespace> {
        self.named_in(&self.reading()?, target)
    }

    fn named_in(&self, store: &Store, target: &Target) -> Outcome<Namespace> {
        match (&target.namespace, &target.namespace_id) {
            (Some(name), _) => Ok(store.open_namespace(name)?),
            (None, Some(id)) => with_id(store, id),
            (None, None) => match &*self.used.borrow() {
                Some(name) => Ok(store.open_namespace(name)?),
                None => Err(self.no_namespace()),
            },
        }
    }

    pub(crate) fn no_namespace(&self) -> Failure {
        let how = match self.shell {
            true => "name one with -n NAME, or for all commands that follow with `use NAME`",
            false => "name one with -n NAME",
        };
        Failure::usage("no namespace is given", how)
    }

    /// The namespace with this id.
    pub(crate) fn namespace_by_id(&self, id: &str) -> Outcome<Namespace> {
        with_id(&self.store()?, id)
    }

    /// Closes the store. Acknowledged writes do not depend on it.
    pub(crate) fn close(&self) -> Outcome {
        match self.store.borrow_mut().take() {
            Some(store) => Ok(store.close()?),
            None => Ok(()),
        }
    }

    /// Prints a line on standard output, unless `--quiet` is given.
    pub(crate) fn say(&self, line: impl std::fmt::Display) -> Outcome {
        if self.quiet {
            return Ok(());
        }
        Ok(writeln!(std::io::stdout().lock(), "{}", one_line(&line.to_string()))?)
    }

    /// Prints a line on standard error, unless `--quiet` is given.
    pub(crate) fn note(&self, line: impl std::fmt::Display) {
        if !self.quiet {
            // A note that cannot be written is not worth failing for.
            let _ = writeln!(anstream::stderr(), "{}", one_line(&line.to_string()));
        }
    }

    /// Reports a damaged key on standard error, even with `--quiet`. The command continues, and
    /// ends with [`Failure::damaged_keys`].
    pub(crate) fn tell_damage(&self, what: impl std::fmt::Display) {
        let style = anstyle::AnsiColor::Red.on_default().bold();
        let _ = writeln!(
            anstream::stderr(),
            "{style}damaged:{style:#} {}",
            one_line(&what.to_string())
        );
    }

    /// Asks for confirmation. An error if standard input is not a terminal.
    pub(crate) fn confirm(&self, question: &str, flag: &str) -> Outcome<bool> {
        if planted(Planted::DeleteUnasked) {
            return Ok(true);
        }
        if !std::io::stdin().is_terminal() {
            return Err(Failure::usage(
                format!("cannot ask for confirmation without a terminal: {question}"),
                format!("use {flag} to skip the question"),
            ));
        }
        let mut answer = String::new();
        let _ = write!(anstream::stderr(), "{} [y/N] ", one_line(question));
        std::io::stdin()
            .read_line(&mut answer)
            .map_err(|error| Failure::file("read", "the answer", &error))?;
        Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
    }
}

/// The namespace with this id.
fn with_id(store: &Store, id: &str) -> Outcome<Namespace> {
    let found = store.namespace_by_id(parse_id(id)?)?;
    found.filter(|namespace| !is_reserved(namespace.id())).ok_or_else(|| {
        Failure::no(
            format!("there is no namespace with the id {id}"),
            "`embercask namespace list` shows all namespaces",
        )
    })
}
