//! A session cache: log in, look up, stay logged in, list a user's sessions, log out.
//!
//! `cargo run --example sessions`

use embercask::{Namespace, PutOptions, Store};
use serde::{Deserialize, Serialize};
use std::{error::Error, time::Duration};

const IDLE: Duration = Duration::from_secs(30 * 60);

#[derive(Debug, Serialize, Deserialize)]
struct Session {
    user: String,
    device: String,
}

fn log_in(sessions: &Namespace, key: &str, user: &str, device: &str) -> embercask::Result<u64> {
    let session = Session {
        user: user.to_owned(),
        device: device.to_owned(),
    };
    sessions.put_json_with(key, &session, PutOptions::new().ttl(IDLE))
}

fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let store = Store::open(directory.path())?;
    let sessions = store.namespace("SESSIONS")?;
    log_in(&sessions, "ada/6f1c", "ada", "laptop")?;
    log_in(&sessions, "ada/90be", "ada", "phone")?;

    let session: Option<Session> = sessions.get_json("ada/6f1c")?;
    println!("looked up: {session:?}");
    println!("another half hour: {}", sessions.set_ttl("ada/6f1c", IDLE)?);
    for entry in sessions.list().prefix("ada/") {
        let entry = entry?;
        println!(
            "{} until {} ms since the epoch",
            entry.key_str()?,
            entry.expiry_ms().unwrap_or_default()
        );
    }
    println!(
        "logged out: {}; sessions left: {}",
        sessions.delete("ada/90be")?,
        sessions.count()?
    );
    Ok(store.close()?)
}
