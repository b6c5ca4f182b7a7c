//! The tokens that count at present, and reading them again while the server runs.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use embercask::Store;
use hyper::HeaderMap;

use super::access::{Access, Tokens};
use super::arguments::Serve;
use super::error::ApiError;
use super::settings::Settings;
use crate::common::failure::{Failure, Outcome};
use crate::planted::{Planted, planted};

/// Reads the tokens from where the settings of the server come from.
pub(super) type Source = Box<dyn Fn() -> Result<Tokens, String> + Send + Sync>;

/// The tokens that count at present. A reload replaces all of them at once.
pub(super) struct CurrentTokens {
    current: RwLock<Arc<Tokens>>,
    /// None if no file has any. Locked while it is read, so that what was read last counts.
    source: Mutex<Option<Source>>,
}

impl CurrentTokens {
    pub(super) fn new(tokens: Tokens) -> CurrentTokens {
        CurrentTokens {
            current: RwLock::new(Arc::new(tokens)),
            source: Mutex::new(None),
        }
    }

    /// From now on [`CurrentTokens::reload`] reads from here.
    pub(super) fn reload_from(&self, source: Source) {
        *self.source.lock().unwrap_or_else(PoisonError::into_inner) = Some(source);
    }

    fn now(&self) -> Arc<Tokens> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn warn_of_unknown_namespaces(&self, store: &Store) {
        self.now().warn_of_unknown_namespaces(store);
    }

    /// As [`Tokens::access`].
    pub(super) fn access(&self, headers: &HeaderMap, is_socket: bool) -> Result<Access, ApiError> {
        self.now().access(headers, is_socket)
    }

    /// Reads the tokens again, and returns their number. After an error those before still count.
    pub(super) fn reload(&self) -> Result<usize, String> {
        let source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        let read = source
            .as_ref()
            .ok_or("the server was started without a file that has tokens (--config or --token-file)")?;
        let tokens = read()?;
        let number = tokens.len();
        if number == 0 && !self.now().is_empty() && !planted(Planted::ReloadToNone) {
            return Err("without tokens everybody would have access; restart the server if that is wanted".to_owned());
        }
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(tokens);
        Ok(number)
    }
}

/// Lets tokens be read again from where the settings come from, on request and on SIGHUP. Returns
/// the flag that the signal sets. Without a file that has tokens, the log says that there is
/// nothing to read.
pub(super) fn on_signal(tokens: &CurrentTokens, arguments: Serve, has_token_file: bool) -> Outcome<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    if arguments.config.is_some() || has_token_file {
        tokens.reload_from(Box::new(move || {
            Settings::of(&arguments)
                .map(|settings| settings.tokens)
                .map_err(|failure| failure.message())
        }));
    }
    #[cfg(unix)]
    signal_hook::flag::register(signal_hook::consts::SIGHUP, Arc::clone(&flag))
        .map_err(|error| Failure::file("handle", "SIGHUP", &error))?;
    Ok(flag)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use hyper::header::AUTHORIZATION;

    use super::*;

    #[test]
    fn tokens_are_replaced_at_once_or_stay() {
        let tokens = |plain| Tokens::new(&[], plain).map_err(|error| error.to_owned());
        let current = CurrentTokens::new(tokens(Some("the first token of all")).unwrap());
        let accepts = |token: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
            current.access(&headers, false).is_ok()
        };
        assert!(current.reload().unwrap_err().contains("--config"));
        let next = Arc::new(Mutex::new(Some("the second token of all")));
        let given = Arc::clone(&next);
        current.reload_from(Box::new(move || tokens(*given.lock().unwrap())));
        assert!(accepts("the first token of all"), "not before it is asked for");
        assert_eq!(current.reload(), Ok(1));
        assert!(accepts("the second token of all") && !accepts("the first token of all"));
        for wrong in [None, Some("too short")] {
            *next.lock().unwrap() = wrong;
            assert!(current.reload().is_err(), "{wrong:?}");
            assert!(accepts("the second token of all") && !accepts("no token"), "{wrong:?}");
        }
    }
}
