//! A session cache: log in, look up, stay logged in, list a user's sessions, log out.
//!
//! `cargo run --example sessions`

use embercask::{PutOptions, Store};
use std::time::Duration;

#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Session {
    user: String,
    device: String,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let half_an_hour = Duration::from_secs(30 * 60);
    let directory = tempfile::tempdir()?;
    let store = Store::open(directory.path())?;
    let sessions = store.namespace("SESSIONS")?;
    let brief = PutOptions::new().ttl(half_an_hour);
    for (key, device) in [("ada/6f1c", "laptop"), ("ada/90be", "phone")] {
        let (user, device) = ("ada".to_owned(), device.to_owned());
        sessions.put_json_with(key, &Session { user, device }, &brief)?;
    }
    println!("looked up: {:?}", sessions.get_json::<Session>("ada/6f1c")?);
    println!("another half hour: {}", sessions.set_ttl("ada/6f1c", half_an_hour)?);
    for entry in sessions.list().prefix("ada/") {
        let entry = entry?;
        println!("{} until {:?} ms since the epoch", entry.key_str()?, entry.expiry_ms());
    }
    println!("logged out: {}", sessions.delete("ada/90be")?.existed);
    println!("sessions left: {}", sessions.count()?);
    Ok(store.close()?)
}
