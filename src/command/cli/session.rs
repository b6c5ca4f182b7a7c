//! The store that commands work on: opened when the first one needs it, closed at the end.

use std::cell::RefCell;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use embercask::{Error, Namespace, Options, Store};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::arguments::{Global, Target};
use crate::common::failure::{Failure, Outcome};
use crate::common::text::{one_line, parse_id};
use crate::planted::{Planted, planted};

/// How long opening takes before its progress is shown.
const SHOW_OPENING_AFTER: Duration = Duration::from_millis(500);

/// What the commands of one call, or of one shell, share.
pub(crate) struct Session {
    path: RefCell<Option<PathBuf>>,
    quiet: bool,
    shell: bool,
    store: RefCell<Option<Store>>,
}

impl Session {
    pub(crate) fn new(global: &Global) -> Session {
        Session {
            path: RefCell::new(global.store.clone()),
            quiet: global.quiet,
            shell: false,
            store: RefCell::new(None),
        }
    }

    /// A session that says nothing, on a store that is open.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn of_store(store: Store) -> Session {
        Session {
            path: RefCell::new(None),
            quiet: true,
            shell: false,
            store: RefCell::new(Some(store)),
        }
    }

    /// The session of a shell on the same store, which stays open from command to command.
    pub(crate) fn of_shell(&self) -> Outcome<Session> {
        let session = Session {
            path: RefCell::new(Some(self.path()?)),
            quiet: self.quiet,
            shell: true,
            store: RefCell::new(None),
        };
        session.store()?;
        Ok(session)
    }

    pub(crate) fn is_shell(&self) -> bool {
        self.shell
    }

    /// Names the directory of the store, if it is not named yet.
    pub(crate) fn set_path_if_none(&self, path: Option<&Path>) {
        let mut named = self.path.borrow_mut();
        if named.is_none() {
            *named = path.map(Path::to_owned);
        }
    }

    /// The directory of the store.
    pub(crate) fn path(&self) -> Outcome<PathBuf> {
        self.path.borrow().clone().ok_or_else(|| {
            Failure::usage(
                "no store is named",
                "name its directory by --store DIR, or in the environment as EMBERCASK_STORE",
            )
        })
    }

    /// The store, which must exist.
    pub(crate) fn store(&self) -> Outcome<Store> {
        self.open(false)
    }

    /// The store, made if there is none.
    pub(crate) fn store_or_new(&self) -> Outcome<Store> {
        self.open(true)
    }

    /// The store if it is open.
    pub(crate) fn opened(&self) -> Option<Store> {
        self.store.borrow().clone()
    }

    fn open(&self, create: bool) -> Outcome<Store> {
        if let Some(store) = self.opened() {
            return Ok(store);
        }
        let bar = self.bytes_bar("opening");
        // Most stores are open before a bar could be read.
        bar.set_draw_target(ProgressDrawTarget::hidden());
        let (shown, begun, quiet) = (bar.clone(), Instant::now(), self.quiet);
        let options = Options::default().create(create).on_recovery_progress(move |progress| {
            if shown.is_hidden() && !quiet && begun.elapsed() > SHOW_OPENING_AFTER {
                shown.set_draw_target(ProgressDrawTarget::stderr());
            }
            shown.set_length(progress.total_bytes);
            shown.set_position(progress.done_bytes);
        });
        let opened = options.open(self.path()?);
        bar.finish_and_clear();
        let store = opened?;
        *self.store.borrow_mut() = Some(store.clone());
        Ok(store)
    }

    /// The namespace that is meant, which must exist.
    pub(crate) fn namespace(&self, target: &Target) -> Outcome<Namespace> {
        let store = self.store()?;
        match (&target.namespace, &target.namespace_id) {
            (Some(name), _) => Ok(store.open_namespace(name)?),
            (None, Some(id)) => self.namespace_by_id(id),
            (None, None) => Err(Failure::usage("no namespace is named", "name it by -n NAME")),
        }
    }

    /// The namespace of this id.
    pub(crate) fn namespace_by_id(&self, id: &str) -> Outcome<Namespace> {
        self.store()?.namespace_by_id(parse_id(id)?)?.ok_or_else(|| {
            Failure::no(
                format!("there is no namespace with the id {id}"),
                "`embercask namespace list` shows those that are there",
            )
        })
    }

    /// Closes the store. What every command has acknowledged is as safe before as after.
    pub(crate) fn close(&self) -> Outcome {
        match self.store.borrow_mut().take() {
            Some(store) => Ok(store.close()?),
            None => Ok(()),
        }
    }

    /// Says something on standard output, unless the caller wants it quiet.
    pub(crate) fn say(&self, line: impl std::fmt::Display) -> Outcome {
        if self.quiet {
            return Ok(());
        }
        Ok(writeln!(std::io::stdout().lock(), "{}", one_line(&line.to_string()))?)
    }

    /// Says something beside the output.
    pub(crate) fn note(&self, line: impl std::fmt::Display) {
        if !self.quiet {
            // What cannot be told is not worth stopping for.
            let _ = writeln!(anstream::stderr(), "{}", one_line(&line.to_string()));
        }
    }

    /// Tells of a damaged key, whatever else may be said. The command goes on, and ends with
    /// [`Failure::damaged_keys`].
    pub(crate) fn tell_damage(&self, error: &Error) {
        let style = anstyle::AnsiColor::Red.on_default().bold();
        let _ = writeln!(
            anstream::stderr(),
            "{style}damaged:{style:#} {}",
            one_line(&error.to_string())
        );
    }

    /// Asks for a yes. Without a terminal the answer is an error that says so.
    pub(crate) fn confirm(&self, question: &str, flag: &str) -> Outcome<bool> {
        if planted(Planted::DeleteUnasked) {
            return Ok(true);
        }
        if !std::io::stdin().is_terminal() {
            return Err(Failure::usage(
                format!("nobody is there to ask: {question}"),
                format!("say {flag} to do it without being asked"),
            ));
        }
        let mut answer = String::new();
        let _ = write!(anstream::stderr(), "{} [y/N] ", one_line(question));
        std::io::stdin()
            .read_line(&mut answer)
            .map_err(|error| Failure::file("read", "the answer", &error))?;
        Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
    }

    /// A bar over bytes, with rate and time left; shown on a terminal only.
    pub(crate) fn bytes_bar(&self, what: &'static str) -> ProgressBar {
        self.bar(
            what,
            "{msg:10} {bar:30} {binary_bytes:>11} of {binary_total_bytes}  {binary_bytes_per_sec}  {eta} left",
        )
    }

    /// As [`Session::bytes_bar`], over keys.
    pub(crate) fn keys_bar(&self, what: &'static str) -> ProgressBar {
        self.bar(
            what,
            "{msg:10} {bar:30} {human_pos:>11} of {human_len}  {per_sec}  {eta} left",
        )
    }

    fn bar(&self, what: &'static str, template: &str) -> ProgressBar {
        let target = if self.quiet {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        };
        let bar = ProgressBar::with_draw_target(Some(0), target).with_message(what);
        match ProgressStyle::with_template(template) {
            Ok(style) => bar.with_style(style),
            // A template is either good or found wanting by the first test.
            Err(_) => bar,
        }
    }
}
