//! The service over loopback, and how it stops.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use embercask::Store;
use embercask::storage::{Fault, FaultKind, FaultStorage, MemStorage};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

const HEAD: &str = "POST /login HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\
    content-type: application/x-www-form-urlencoded\r\ncontent-length: 8\r\n\r\n";

/// A request whose body ends early: connected, and begun for the service as for the client.
fn begin_request(address: SocketAddr, store: &Store) -> TcpStream {
    let hits = store.namespace("HITS").unwrap();
    let mut connection = TcpStream::connect(address).unwrap();
    connection.write_all(HEAD.as_bytes()).unwrap();
    connection.write_all(b"name").unwrap();
    while !hits.contains("/login").unwrap() {
        std::thread::yield_now();
    }
    connection
}

fn finish_request(mut connection: TcpStream) -> String {
    connection.write_all(b"=ada").unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test]
async fn a_service_that_is_stopped_answers_what_was_asked_and_closes_its_store() {
    let directory = tempfile::tempdir().unwrap();
    let store = embercask_web::options().open(directory.path()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let service = tokio::spawn(embercask_web::serve(listener, store.clone(), async move {
        let _ = stopped.await;
    }));
    let client = tokio::task::spawn_blocking(move || {
        let connection = begin_request(address, &store);
        stop.send(()).unwrap();
        while TcpStream::connect(address).is_ok() {
            std::thread::yield_now();
        }
        finish_request(connection)
    });
    let answer = client.await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("hello ada\n"),
        "{answer}"
    );
    service.await.unwrap().unwrap();
    let store = embercask_web::options().open(directory.path()).unwrap();
    assert_eq!(store.namespace("SESSIONS").unwrap().count().unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_finishes_does_not_keep_the_service_from_stopping() {
    let directory = tempfile::tempdir().unwrap();
    let store = embercask_web::options().open(directory.path()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let service = tokio::spawn(embercask_web::serve(listener, store.clone(), async move {
        let _ = stopped.await;
    }));
    // While a blocking call is under way, time stands still.
    let stuck = tokio::task::spawn_blocking(move || begin_request(address, &store));
    let _stuck = stuck.await.unwrap();
    let begun = tokio::time::Instant::now();
    stop.send(()).unwrap();
    service.await.unwrap().unwrap();
    assert!(
        begun.elapsed() >= std::time::Duration::from_secs(10),
        "it waits for requests under way"
    );
    embercask_web::options().open(directory.path()).unwrap();
}

#[tokio::test]
async fn an_error_of_closing_the_store_is_the_error_of_the_service() {
    for (opened_before, expected) in [
        (true, "cannot close the store: "),
        (false, "; and cannot close the store: "),
    ] {
        let faults = FaultStorage::new(Arc::new(MemStorage::new()));
        let options = embercask_web::options().storage(Arc::new(faults.clone()));
        let store = options.open("data").unwrap();
        if opened_before {
            // Otherwise the service cannot create its namespaces.
            drop(embercask_web::service::router(&store).unwrap());
        }
        let namespace = store.namespace("OTHER").unwrap();
        faults.inject(Fault::new(FaultKind::FailedSync).repeated());
        namespace.put("key", "value").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let served = embercask_web::serve(listener, store, async {}).await;
        let error = served.unwrap_err().to_string();
        assert_eq!(error.starts_with(expected), opened_before, "{error}");
        assert!(error.contains(expected), "{error}");
    }
}
