//! `embercask-web DIRECTORY ADDRESS`: see the README beside it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use embercask_web::BoxError;
use tokio::net::TcpListener;

const USAGE: &str = "usage: embercask-web DIRECTORY ADDRESS, such as: embercask-web data 127.0.0.1:3000";

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    match Arguments::parse(std::env::args_os().skip(1)).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

struct Arguments {
    directory: PathBuf,
    address: String,
}

impl Arguments {
    fn parse(mut words: impl Iterator<Item = OsString>) -> Result<Arguments, BoxError> {
        let (Some(directory), Some(address), None) = (words.next(), words.next(), words.next()) else {
            return Err(USAGE.into());
        };
        Ok(Arguments {
            directory: directory.into(),
            address: address.into_string().map_err(|_| USAGE)?,
        })
    }
}

fn run(arguments: Arguments) -> Result<(), BoxError> {
    let store = embercask_web::options().open(&arguments.directory)?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let address = &arguments.address;
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|error| format!("cannot listen at {address}: {error}"))?;
        let stop = stop_signal()?;
        println!("http://{}", listener.local_addr()?);
        embercask_web::serve(listener, store, stop).await
    })
}

/// Done when the process is told to stop: by Ctrl-C, or by SIGTERM as service managers do.
#[cfg(unix)]
fn stop_signal() -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

#[cfg(not(unix))]
fn stop_signal() -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    Ok(async {
        if let Err(error) = tokio::signal::ctrl_c().await {
            eprintln!("cannot wait for Ctrl-C: {error}");
        }
    })
}
